"""One run: start, carry out the plan, let all come to rest, judge."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from django.db import DatabaseError, connections

from core import clock
from tests.host.test_run_whole import STARTED
from tests.lab import until
from wgpeers.models import Connection

from . import invariants, reading, working
from .admin import Admin
from .answers import History, all_wrong, longest_without_an_answer
from .faults import Faults
from .plan import CAREFUL, REAL, STEADY, Step, make_plan
from .record import Record
from .world import World

LOOK_EVERY = 1.0
OLD_KEYS = 8  # of each client, offered again in the end
SHOWN = 10  # problems of each kind


class Run:
    def __init__(self, directory: Path, seed: int, seconds: float) -> None:
        self._directory = directory
        self._plan = make_plan(seed, seconds)
        self._seconds = seconds
        self._record = Record(directory / "steps.jsonl")
        self._over = threading.Event()

    def carry_out(self) -> bool:
        """Whether anything was wrong. What the product left is then in the directory, beside the steps."""
        try:
            with World(self._directory, self._record) as world:
                self._say("up")
                self._play(world)
                self._come_to_rest(world)
                self._judge(world)
                self._end(world)
        except Exception as error:
            self._record.problem(f"{type(error).__name__}: {error}")
        self._keep()
        self._summarize()
        return bool(self._record.problems)

    def _say(self, words: str) -> None:
        print(f"{self._record.passed():6.1f} s  {words}", flush=True)

    # The plan

    def _play(self, world: World) -> None:
        admin, faults = Admin(self._record), Faults(self._record, world.installation, world.far)
        doers: dict[str, Callable[[Step], None]] = {
            "client": lambda step: world.clients[step.target].do(step),
            "admin": admin.do,
            "fault": faults.do,
        }
        looking = threading.Thread(target=self._look, args=(world,), name="look", daemon=True)
        for each in (admin, faults, looking):
            each.start()
        began = time.monotonic()
        for step in self._plan:
            time.sleep(max(0.0, began + step.at - time.monotonic()))
            doers[step.actor](step)
        time.sleep(max(0.0, began + self._seconds - time.monotonic()))
        admin.finish()
        faults.finish()
        self._over.set()
        looking.join()
        self._say(f"{len(self._plan)} steps done")

    def _look(self, world: World) -> None:
        """What must hold at every moment, looked at while everything happens."""
        while not self._over.wait(LOOK_EVERY):
            try:
                seen = reading.at_any_moment(world.installation.machine)
            except DatabaseError as error:
                self._record.note("check", "no reading", failed=str(error))
                continue
            for words in invariants.broken(seen, invariants.ALWAYS):
                self._record.problem(words)
        connections.close_all()

    # Afterwards

    def _come_to_rest(self, world: World) -> None:
        """All processes are up, all clients that want to be are connected, and what is left is what should be."""
        self._wait_for("every program runs and answers", lambda: [] if world.is_up() else ["not yet"])
        self._say("every program runs")
        since, steady, newcomer = time.time(), clock.steady(), world.hire("newcomer", with_key=False)
        self._wait_for("steady clients are connected", lambda: self._without_a_ping(world, since))
        self._wait_for("all that is left is as it should be", lambda: self._unsettled(world))
        self._wait_for("every part works", lambda: [*working.idle(steady, newcomer), *working.left_out(world)])
        self._say("all is quiet")

    def _wait_for(self, what: str, left: Callable[[], list[str]]) -> None:
        """Until nothing is left to wait for; what is left after a long while is a problem each."""
        try:
            until(lambda: not left(), timeout=STARTED, every=0.5)
        except TimeoutError:
            for words in left():
                self._record.problem(f"{what}: {words}")

    def _without_a_ping(self, world: World, since: float) -> list[str]:
        good = {said.client for said in self._record.said if said.word == "true" and said.sent > since}
        return [name for name in STEADY if name not in good] + ([] if world.real.peer.connected() else [REAL])

    def _unsettled(self, world: World) -> list[str]:
        real = Connection.objects.filter(user__name=REAL).exclude(state=invariants.ENDED)
        held = world.held() | frozenset(real.values_list("wg_public_key", flat=True))
        seen = reading.whole(world.installation.machine, held)
        return ["Redis does not answer"] if seen is None else invariants.broken(seen, invariants.SETTLED)

    def _judge(self, world: World) -> None:
        lost = world.lost_packets()
        for client in world.clients.values():
            client.end_soon()
        for client in world.clients.values():
            client.stop()
            for key in client.used[-OLD_KEYS:]:
                client.offer(key)
            client.offer_used_code()
        rows = reading.rows()
        for words in all_wrong(
            History(rows, self._record.said, self._record.concerned, self._record.clock_steps), lost
        ):
            self._record.problem(words)
        if not any(said.word == "allowed" and said.client in CAREFUL for said in self._record.said):
            self._record.problem("nobody connected with a PIN and a code")
        sent = {name: pinger.sent for name, pinger in world.pingers.items()}
        counts = ", ".join(f"{name} {len(lost[name])} of {sent[name]}" for name in sorted(lost))
        self._say(f"packets lost: {counts}")
        reasons = Counter(row.reason or row.state for row in rows)
        self._say(f"{len(rows)} connections: {', '.join(f'{count} {name}' for name, count in reasons.most_common())}")

    def _end(self, world: World) -> None:
        connections.close_all()
        world.end()
        self._say("stopped, and nothing is left")

    def _keep(self) -> None:
        """var is gone with this process; its database and logs are worth reading."""
        kept, var = self._directory / "kept", self._directory / "var"
        shutil.copytree(var / "log", kept / "log")
        for path in (var / "database").glob("db.sqlite3*"):
            shutil.copy2(path, kept)

    def _summarize(self) -> None:
        answers = Counter((said.what, said.word) for said in self._record.said)
        self._say("answers: " + ", ".join(f"{count} {what} {word}" for (what, word), count in answers.most_common()))
        for what in ("connect", "ping"):
            seconds = longest_without_an_answer(self._record.said, what)
            self._say(f"the longest time in which no {what} was answered: {seconds:.0f} s")
        shown = Counter[str]()
        for words in self._record.problems:
            kind = words.partition(":")[0]
            shown[kind] += 1
            if shown[kind] <= SHOWN:
                print(f"  !!   {words}")
        if self._record.problems:
            print(f"  {len(self._record.problems)} problems; steps, logs and the database: {self._directory}")
