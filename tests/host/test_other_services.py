"""The other services, by systemd itself: the worker of a machine that joined, and the client of a user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from wgpeer.commands import service

from servers.hostnet.command import unit
from tests.host.booted import Booted
from tests.host.test_run_service import GATEWAY, VAR, by_reboot, started_by_hand
from tests.host.test_run_whole import STARTED
from tests.lab import PROJECT, PYTHON, Lab, until

pytestmark = [pytest.mark.host, pytest.mark.long]

HOST = PROJECT / "bin" / "host"
CLIENT = "/usr/local/bin/wgpeer"
# Installed where its unit lets it be: a checkout may be below /tmp, of which a service has its own.
INSTALLED = """#!/opt/wgpeer/bin/python
import sys

sys.path.insert(0, "/opt/client")
from wgpeer.cli import main

main()
"""
# A host, with a server that OpenVPN links with the first one's; prints the token.
ADD_HOST = """
import time
from servers import joining
from servers.models import Carrier, Host, Server, ServerHost, ServerLink

host = Host.objects.create(name="far", public_address="{address}")
far = Server(name="Far", network="10.210.0.0/24", wg_network="10.211.0.0/24", port=51999, started=True)
far.full_clean(exclude=["box_private_key"])
far.save()
ServerHost.objects.create(server=far, host=host)
link = ServerLink(first=Server.objects.exclude(pk=far.pk).get(), second=far, carrier=Carrier.OPENVPN)
link.full_clean()
link.save()
print(joining.make_token(host, time.time()).text)
"""
CONDITIONS = """
from servers.models import Host
print(sum(len(host.conditions) for host in Host.objects.all()), "conditions")
"""


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Callable[[], Booted]]:
    with ExitStack() as closing:
        lab = closing.enter_context(Lab())

        def add() -> Booted:
            made = Booted(lab)
            closing.callback(made.close)
            return made

        yield add


def manage(host: Booted, code: str) -> str:
    """Run a few lines as root runs ``manage.py``."""
    return host.run("env", f"VPN_VAR={VAR}", PYTHON, "manage.py", "shell", "-c", code).stdout


def test_a_joined_machine_and_a_users_come_back_after_a_boot(machines: Callable[[], Booted], tmp_path: Path) -> None:
    control, far, laptop = machines(), machines(), machines()
    for source, at in ((PYTHON.parents[1], "/opt/wgpeer"), (PROJECT / "client", "/opt/client")):
        laptop.show(source, at)
    for each in (control, far, laptop):
        each.boot()
    _, link = started_by_hand(control, tmp_path / "terminal")

    token = manage(control, ADD_HOST.format(address=far.machine.address)).split()[-1]
    far.run(HOST, "join", control.machine.address, token)
    is_well(control, far)

    laptop.run("sh", "-c", 'printf %s "$1" >"$2" && chmod 755 "$2"', "sh", INSTALLED, CLIENT)
    laptop.run(CLIENT, "add", link)
    laptop.run(CLIENT, "service", "install")
    is_connected(laptop)

    far.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", unit.NAME)
    is_well(control, far)
    far.cut_power()
    by_reboot(laptop)
    for each in (far, laptop):
        each.boot()
    is_well(control, far)
    is_connected(laptop)

    laptop.run(CLIENT, "service", "remove")
    assert "wgp" not in laptop.run("ip", "-brief", "link").stdout
    far.run(HOST, "leave")
    assert far.run("systemctl", "is-enabled", unit.NAME, check=False).returncode
    assert "wg" not in far.run("ip", "-brief", "link").stdout


def is_well(control: Booted, far: Booted) -> None:
    """Wait until it says so of itself, nothing is wrong on either host, and the ends of the link have met."""
    until(lambda: far.run(HOST, "status", check=False).returncode == 0, timeout=STARTED, every=1)
    until(lambda: manage(control, CONDITIONS).split()[-2:] == ["0", "conditions"], timeout=STARTED, every=1)
    assert far.run("pgrep", "--exact", "openvpn").stdout


def is_connected(laptop: Booted) -> None:
    answer = ("ping", "-n", "-c1", "-w2", GATEWAY)
    until(lambda: laptop.run(*answer, check=False).returncode == 0, timeout=STARTED, every=1)
    assert laptop.run("systemctl", "is-active", service.instance("*"), check=False).stdout.strip() == "active"
