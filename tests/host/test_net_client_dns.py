"""The client's name servers, by the real openresolv and resolvconf of Debian, and where there is neither."""

from __future__ import annotations

import json
from pathlib import Path

from tests.host.laptops import LAN_SERVER, TUNNEL, TUNNEL_SERVER, Laptop, debian, laptop, static

__all__ = ["debian", "laptop"]


# --- openresolv -------------------------------------------------------------------------------------------------------


def test_openresolv_has_only_the_tunnels_servers_and_then_the_old_ones(laptop: Laptop, debian: Path) -> None:
    laptop.lay(debian / "openresolv")
    static(laptop)
    laptop.sh(f"echo 'nameserver {LAN_SERVER}' | resolvconf -a eth0.dhclient")
    words, _ = laptop.drive("crash", TUNNEL)
    assert words == "10.9.0.1 for all names, also for short names in corp.example (by openresolv)"
    assert "nameserver 10.9.0.1" in laptop.resolv_conf
    assert "search corp.example" in laptop.resolv_conf
    assert LAN_SERVER not in laptop.resolv_conf
    laptop.sh(f"echo 'nameserver {LAN_SERVER}' | resolvconf -a eth0.dhclient")  # its lease is renewed meanwhile
    assert LAN_SERVER not in laptop.resolv_conf
    assert laptop.lease.stat().st_mode & 0o077 == 0
    laptop.drive("sweep")
    assert "10.9.0.1" not in laptop.resolv_conf
    assert f"nameserver {LAN_SERVER}" in laptop.resolv_conf
    assert not laptop.lease.exists()


def test_openresolv_gives_back_a_file_it_did_not_make(laptop: Laptop, debian: Path) -> None:
    laptop.lay(debian / "openresolv")
    before = static(laptop)
    # Twice, as with a reconnect: one removal must undo both; and then a server without any name servers.
    laptop.drive("up", TUNNEL, TUNNEL)
    assert laptop.resolv_conf == before
    words, _ = laptop.drive("crash", TUNNEL, {"dns_servers": []})
    assert words == ""
    assert laptop.resolv_conf == before
    laptop.drive("sweep")


def test_after_a_crash_and_a_boot_openresolvs_file_is_put_right(laptop: Laptop, debian: Path) -> None:
    laptop.lay(debian / "openresolv")
    before = static(laptop)
    _, interface = laptop.drive("crash", TUNNEL)
    laptop.machine.ip("link", "del", interface)
    laptop.sh("rm -r /run/resolvconf")  # as a boot does; the file in /etc stays as it was
    assert TUNNEL_SERVER in laptop.resolv_conf
    laptop.lease.write_text(json.dumps(json.loads(laptop.lease.read_text()) | {"boot": "another"}))
    laptop.drive("sweep")
    assert laptop.resolv_conf == before
    laptop.drive("crash", TUNNEL)
    laptop.lease.write_text(json.dumps(json.loads(laptop.lease.read_text()) | {"boot": "another"}))
    laptop.sh("rm -r /run/resolvconf && rm /etc/resolv.conf.bak && echo 'nameserver 192.0.2.99' > /etc/resolv.conf")
    laptop.drive("sweep")
    assert laptop.resolv_conf == "nameserver 192.0.2.99\n", "nothing of ours is in it, so it is not ours to change"


def test_what_openresolv_cannot_do_with_routing_domains_is_said(laptop: Laptop, debian: Path) -> None:
    laptop.lay(debian / "openresolv")
    static(laptop)
    words, _ = laptop.drive("up", TUNNEL | {"routing_domains": ["lab.example"]})
    assert "for all names, because openresolv cannot keep to those under lab.example, corp.example" in words


# --- resolvconf -------------------------------------------------------------------------------------------------------


def test_resolvconf_puts_the_tunnels_servers_first(laptop: Laptop, debian: Path) -> None:
    laptop.lay(debian / "resolvconf")
    laptop.sh("mkdir -p /run/resolvconf/interface && ln -sf /run/resolvconf/resolv.conf /etc/resolv.conf")
    laptop.sh(f"resolvconf --enable-updates; echo 'nameserver {LAN_SERVER}' | resolvconf -a eth0.dhclient")
    before = laptop.resolv_conf
    words, _ = laptop.drive("crash", TUNNEL)
    assert words == "10.9.0.1 for all names, also for short names in corp.example (by resolvconf)"
    listed = [line for line in laptop.resolv_conf.splitlines() if line.startswith("nameserver")]
    assert listed == [f"nameserver {TUNNEL_SERVER}", f"nameserver {LAN_SERVER}"]
    laptop.drive("sweep")
    assert laptop.resolv_conf == before


def test_resolvconf_that_nobody_reads_is_said_and_left_as_it_was(laptop: Laptop, debian: Path) -> None:
    laptop.lay(debian / "resolvconf")
    before = static(laptop)  # a file of the administrator's, not resolvconf's
    laptop.sh("mkdir -p /run/resolvconf/interface && resolvconf --enable-updates")
    words, _ = laptop.drive("crash", TUNNEL)
    assert words.startswith("not set: resolvconf has it, but /etc/resolv.conf does not show it")
    assert laptop.resolv_conf == before
    assert laptop.sh("resolvconf -i").strip() == ""
    laptop.drive("sweep")


# --- neither ----------------------------------------------------------------------------------------------------------


def test_without_any_manager_it_is_said_and_the_file_stays(laptop: Laptop) -> None:
    laptop.lay(None)
    before = static(laptop)
    words, _ = laptop.drive("up", TUNNEL)
    assert words.startswith("not set: no manager of name servers is here. To use 10.9.0.1, install")
    assert laptop.resolv_conf == before
