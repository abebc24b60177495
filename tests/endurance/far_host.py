"""A second machine that joined the installation, with a server that OpenVPN links with the first one's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from core import clock
from servers import joining
from servers.hostnet.openvpn.process import PROGRAM
from servers.models import Carrier, Host, Server, ServerHost, ServerLink
from tests.host.joined import Joined
from tests.host.test_run_whole import STARTED
from tests.lab import HANGING, Lab, Machine, until

NAME, SERVER = "far", "Far"


class FarHost:
    """Entered by ``join``. Its worker is in the foreground; who ends it starts it again."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.machine = lab.add_host()
        self._directory = directory
        self._joined: Joined | None = None

    def join(self, control: Machine) -> None:
        host = Host.objects.create(name=NAME, public_address=self.machine.address)
        self._joined = Joined(self.machine, host, self._directory / NAME)
        self._joined.launch("join", control.address, joining.make_token(host, clock.now()).text, "--run")
        until(self._is_green, timeout=STARTED, every=0.2)
        assert "green in the admin" in self._joined.log.read_text(), self._joined.log.read_text()

    def _is_green(self) -> bool:
        assert self._joined is not None
        return "green in the admin" in self._joined.log.read_text() or self.worker.poll() is not None

    def link(self, office: Server) -> None:
        assert self._joined is not None
        far = Server(
            name=SERVER, network="10.210.0.0/24", wg_network="10.211.0.0/24", port=office.port + 2, started=True
        )
        far.full_clean(exclude=["box_private_key"])
        far.save()
        ServerHost.objects.create(server=far, host=self._joined.host)
        link = ServerLink(first=office, second=far, carrier=Carrier.OPENVPN)
        link.full_clean()
        link.save()

    @property
    def worker(self) -> subprocess.Popen[bytes]:
        assert self._joined is not None
        assert self._joined.worker is not None
        return self._joined.worker

    def start_again(self) -> None:
        """As the service does whose worker has died."""
        assert self._joined is not None
        self.worker.wait(HANGING)
        self._joined.launch("run")

    def end(self) -> None:
        if self._joined is not None:
            self._joined.end()


def ends_of_links(*machines: Machine) -> list[int]:
    """The processes of OpenVPN there."""
    return [pid for machine in machines for pid in machine.processes() if _program(pid) == str(PROGRAM)]


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode()
    except OSError:  # it has ended
        return ""
