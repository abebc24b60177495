"""Two ends with the real openvpn: who is let in, and who is not."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.certificates import VALID
from servers import link_keys
from servers.hostnet.openvpn import config
from servers.hostnet.openvpn.process import CONNECTED, Ends
from servers.hostnet.state import OpenVpn
from servers.link_keys import EndKeys
from tests.lab import Lab, Machine, until

pytestmark = pytest.mark.host

NOW = datetime.now(UTC)
KEYS = link_keys.make(NOW)
OTHERS = link_keys.make(NOW)
START = """
import sys
from pathlib import Path
from servers.hostnet.openvpn import device
from servers.hostnet.openvpn.process import Ends
device.ensure(sys.argv[2], 1400)
Ends(Path(sys.argv[1])).start(sys.argv[2], sys.stdin.read())
"""


# As under the unit of a host's worker: nothing can be written but what is its own, /tmp neither.
SHUT_IN = """
mkdir -p -m 700 "$1" && mount --bind "$1" "$1"
for each in / "$(findmnt --noheadings --output TARGET --target /tmp)"; do mount -o remount,bind,ro "$each"; done
shift && exec "$@"
"""


class End:
    def __init__(self, machine: Machine, directory: Path, device: str) -> None:
        self.machine, self.directory, self.device = machine, directory, device
        self.ends = Ends(directory)

    def start(self, keys: EndKeys, *addresses: str) -> None:
        end = OpenVpn(
            self.device, 1194, addresses, keys.peer, keys.authority, keys.certificate, keys.key, keys.tls_crypt
        )
        text = config.text(end, self.ends.socket(self.device), 1400)
        shut_in = ("unshare", "--mount", "--propagation", "private", "sh", "-ec", SHUT_IN, "sh", self.directory)
        self.machine.run(*shut_in, sys.executable, "-c", START, self.directory, self.device, text=text)

    @property
    def connected(self) -> bool:
        return self.ends.state(self.device) == CONNECTED

    def said(self) -> str:
        return (self.directory / f"{self.device}.log").read_text()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[End, End]]:
    with Lab() as lab, contextlib.ExitStack() as closing:
        found = [End(lab.add_host(), tmp_path / name, "wgo2") for name in ("a", "b")]
        for each in found:
            closing.callback(each.ends.end, each.device)
        yield found[0], found[1]


def test_the_two_of_a_link_find_each_other_and_again_when_one_begins_anew(pair: tuple[End, End]) -> None:
    listens, sends = pair
    listens.start(KEYS.server)
    assert not listens.connected
    sends.start(KEYS.client, listens.machine.address6)
    until(lambda: listens.connected and sends.connected)
    sends.start(KEYS.client, listens.machine.address)
    until(lambda: listens.connected and sends.connected)
    assert "PRIVATE" not in listens.said() + sends.said()


def mixed(own: EndKeys, **fields: str) -> EndKeys:
    return EndKeys(**{**link_keys.plain(own), **fields})


WRONG = {
    "another authority": (
        mixed(OTHERS.client, authority=KEYS.client.authority, peer=KEYS.client.peer, tls_crypt=KEYS.client.tls_crypt),
        "VERIFY ERROR",
    ),
    # Signed by the right authority, and a key that is its own: the certificate of the end that listens.
    "the other side's certificate": (
        mixed(KEYS.server, peer=KEYS.client.peer),
        "VERIFY ERROR",
    ),
    "another tls-crypt key": (mixed(KEYS.client, tls_crypt=OTHERS.client.tls_crypt), "tls-crypt unwrap error"),
}


@pytest.mark.parametrize("who", WRONG)
def test_who_is_not_the_other_end_is_refused(pair: tuple[End, End], who: str) -> None:
    listens, sends = pair
    keys, words = WRONG[who]
    listens.start(KEYS.server)
    sends.start(keys, listens.machine.address)
    until(lambda: words in listens.said())
    assert not listens.connected
    assert not sends.connected


def test_a_certificate_of_the_right_authority_with_another_name_is_refused(pair: tuple[End, End]) -> None:
    listens, sends = pair
    listens.start(mixed(KEYS.server, peer="end-of-somebody"))
    sends.start(KEYS.client, listens.machine.address)
    until(lambda: "certificate verify failed" in listens.said())
    assert not listens.connected


def test_one_that_is_over_is_refused(pair: tuple[End, End]) -> None:
    old = link_keys.make(NOW - VALID - timedelta(days=2))
    listens, sends = pair
    listens.start(old.server)
    sends.start(old.client, listens.machine.address)
    until(lambda: "certificate has expired" in listens.said() + sends.said())
    assert not listens.connected
