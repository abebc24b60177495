"""Show what a host would change now, and change nothing."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from core import clock
from core.redis_store import RedisUnavailable
from servers import heartbeats
from servers.hostnet.state.conditions import conditions_from_json
from servers.models import Host
from wgpeers.fleet import desired, messages

WITHIN = 20.0  # seconds that the host has to answer; it may be in the middle of a large state


class Command(BaseCommand):
    """The host itself compares what is wanted of it with what it has; one line for each thing that it would do, and
    one for each condition that it reported last."""

    help = "Prints how a host differs from what is wanted of it and what it last reported; changes nothing."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("host", help="its name or its public id")
        parser.add_argument(
            "--timeout", type=float, default=WITHIN, help="seconds to wait for it (default %(default)g)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 < options["timeout"] <= 600:
            raise CommandError("--timeout must be more than 0 and at most 600 seconds.")
        host = _find(options["host"])
        try:
            lines = self._ask(host, options["timeout"])
            conditions = heartbeats.conditions(host, heartbeats.read([host]).get(host.pk), clock.now())
        except RedisUnavailable:
            raise CommandError("Redis cannot be reached, and with it no host.") from None
        except messages.NoPlan as error:
            raise CommandError(f"{host.name} gives no plan: {error}.") from None
        if not lines:
            self.stdout.write(f"{host.name}: nothing to do. It has what is wanted of it.")
        for line in lines:
            self.stdout.write(line)
        for condition in conditions_from_json(conditions):
            self.stdout.write(messages.printable(f"reported: {condition}"))

    def _ask(self, host: Host, within: float) -> list[str]:
        alive = heartbeats.read([host]).get(host.pk)
        if alive is None:
            raise messages.NoPlan("it is silent. Is its worker running, and does it reach Redis?")
        state = desired.state_of(host.pk)
        if state is None:
            raise messages.NoPlan("it was deleted just now")
        # The run that answers is the one that is alive, whether or not its hello was taken in.
        return messages.ask_plan(host, dataclasses.replace(state, boot=str(alive.get("boot", ""))[:64]), within)


def _find(text: str) -> Host:
    found = Host.objects.filter(public_id=text).first() or Host.objects.filter(name=text).first()
    if found is None:
        names = ", ".join(Host.objects.order_by("name").values_list("name", flat=True)) or "none"
        raise CommandError(f"There is no host with the name or public id {text!r}. There are: {names}.")
    return found
