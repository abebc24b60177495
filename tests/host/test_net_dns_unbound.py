"""An unbound of ours alone: under what Debian's AppArmor profile allows, and with ten thousand names."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.dnsclient import lookup, reverse
from tests.host.named import known
from tests.lab import PYTHON, Namespace, until

pytestmark = pytest.mark.host


LOAD = """
import sys
from servers.hostnet.dns import config, control, unbound
from servers.hostnet.dns.records import Records
from servers.hostnet.state import Dns, Interface, Peer
dns = Dns("vpn", ("192.0.2.1",), "", ())
def peer(n):
    names = (f"laptop.user{n}.acme.vpn", f"user{n}.acme.vpn")
    return Peer(f"c{n}", 1, "", (f"10.9.{n // 250}.{n % 250 + 1}/32", f"fd01::{n + 2:x}/128"), names=names)
interface = Interface("wgs1", "one", 1, ("10.9.255.1/16", "fd01::1/64"), 0, False, 360, (), (), dns=dns)
path = unbound.socket_path("wgs1")
running = unbound.start("wgs1", config.text(interface, dns, path, []))
records = Records()
control.add(path, records.replace(map(peer, range(int(sys.argv[1])))).lines())
one_more = list(records.change([], [peer(20020)]).lines())
control.add(path, one_more)
print(len(one_more))
"""


# What Debian's AppArmor profile lets unbound do (it is not active where tests run). Above all not dac_override: as
# root it writes nowhere but in root's own directories.
CONFINED = "-all,+chown,+fowner,+fsetid,+net_bind_service,+setgid,+setuid,+sys_chroot,+sys_resource"
WRITE = """
from servers.hostnet.dns import config, unbound
from servers.hostnet.state import Dns, Interface
dns = Dns("vpn", ("192.0.2.1",), "dns.example", ())
interface = Interface("wgs1", "one", 1, ("10.9.0.1/16", "fd01::1/64"), 0, False, 360, (), (), dns=dns)
unbound._write("wgs1", config.text(interface, dns, unbound.socket_path("wgs1"), []))
"""
ADD = """
from servers.hostnet.dns import control, unbound
control.add(unbound.socket_path("wgs1"), ["alice.vpn. 1 IN A 10.9.0.5"])
"""


def test_it_runs_with_what_debians_profile_allows(tmp_path: Path) -> None:
    with contextlib.closing(Namespace("confined")) as where:
        # As the package leaves it.
        where.run("chown", "unbound:unbound", "/var/lib/unbound")
        where.run(PYTHON, "-c", WRITE)
        unbound = ("/usr/sbin/unbound", "-d", "-c", "/etc/unbound/vpn/wgs1.conf")
        # Before the tunnel is there.
        where.start("setpriv", f"--bounding-set={CONFINED}", *unbound, log=tmp_path / "log")
        try:
            until(lambda: where.run(PYTHON, "-c", ADD, check=False).returncode == 0, every=0.2)
        except TimeoutError:
            pytest.fail((tmp_path / "log").read_text())
        where.ip("addr", "add", "10.9.0.1/16", "dev", "lo")
        assert lookup(where, "10.9.0.1", "alice.vpn") == known("10.9.0.5")
        users = where.run("ps", "-C", "unbound", "-o", "pid=,user=").stdout.split()
        assert "unbound" in users


def test_ten_thousand_names(tmp_path: Path) -> None:
    """All of them are there, and of one more as much is told as among ten."""
    told = set()
    for count in (10, 10_000):
        with contextlib.closing(Namespace(f"dns-{count}")) as where:
            where.ip("addr", "add", "10.9.255.1/16", "dev", "lo")
            told.add(where.run(PYTHON, "-c", LOAD, str(count)).stdout)
            last = count - 1
            address = f"10.9.{last // 250}.{last % 250 + 1}"
            assert lookup(where, "10.9.255.1", f"laptop.user{last}.acme.vpn") == known(address)
            assert lookup(where, "10.9.255.1", f"user{last}.acme.vpn", "AAAA") == known(f"fd01::{last + 2:x}")
            assert reverse(where, "10.9.255.1", address) == known(f"laptop.user{last}.acme.vpn")
            assert lookup(where, "10.9.255.1", "laptop.user20020.acme.vpn") == known("10.9.80.21")
    assert len(told) == 1
