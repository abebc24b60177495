"""Name servers by stand-ins for the managers' programs, which note what they are told. The real ones are tried in
tests/host."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from nacl.public import PrivateKey
from wgpeer.responses import Route, read_configuration
from wgpeer.tunnel import dns
from wgpeer.tunnel.backend import InterfaceConfig
from wgpeer.tunnel.contract import TunnelError
from wgpeer.tunnel.dns import DnsChange, DnsConfig
from wgpeer.tunnel.linux import Desired, LinuxTunnel
from wgpeer.tunnel.names import Names
from wgpeer.tunnel.recovery import clean_up
from wgpeer.tunnel.split_tunnel import split_routes
from wgpeer_fakes import CONFIGURATION, HANGING

Install = Callable[..., None]
CORP = DnsConfig(("10.9.0.1", "fd09::1"), ("corp.example",))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a program in place that notes its arguments and input, says something, and ends as it is told."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(dns, "TIMEOUT", HANGING)
    monkeypatch.setattr(dns, "RESOLV_CONF", tmp_path / "resolv.conf")
    monkeypatch.setattr(dns, "NSSWITCH", tmp_path / "nsswitch.conf")

    def put(name: str, *, works: bool = True, says: str = "", hold: bool = False) -> None:
        held = f"(sleep {3 * HANGING:.0f} & echo $! > {tmp_path}/held)" if hold else ""
        (tmp_path / name).write_text(
            f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/log"\ncat >> "{tmp_path}/log"\n'
            f'echo "{says}"\n{held}\nexit {int(not works)}\n'
        )
        (tmp_path / name).chmod(0o755)

    return put


def log(tmp_path: Path) -> list[str]:
    path = tmp_path / "log"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def apply(config: DnsConfig) -> tuple[str, list[DnsChange]]:
    changes: list[DnsChange] = []
    return dns.apply("wgp0", 7, config, changes.append), changes


@pytest.mark.parametrize(
    ("config", "domains", "default"),
    [
        (CORP, "corp.example ~.", "yes"),
        (DnsConfig(("10.9.0.1",), ("corp.example",), ("lab.example",)), "corp.example ~lab.example", "no"),
        (DnsConfig(("10.9.0.1",), (), ("lab.example",)), "~lab.example", "no"),
        (DnsConfig(("10.9.0.1",), (), ("lab.example",), default_route=True), "~lab.example ~.", "yes"),
    ],
)
def test_resolved_is_told_which_names(
    tmp_path: Path, install: Install, config: DnsConfig, domains: str, default: str
) -> None:
    install("resolvectl")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    text, changes = apply(config)
    assert text.endswith("(by systemd-resolved)")
    assert changes == [DnsChange("systemd-resolved", "wgp0", 7, config.servers)], "remembered before it is changed"
    assert log(tmp_path) == [
        f"resolvectl dns wgp0 {' '.join(config.servers)}",
        f"resolvectl domain wgp0 {domains}",
        f"resolvectl default-route wgp0 {default}",
        "resolvectl flush-caches",
    ]
    dns.revert(changes[0])
    assert log(tmp_path) == ["resolvectl revert wgp0", "resolvectl flush-caches"]


def test_by_the_c_librarys_module_resolved_is_asked_too(tmp_path: Path, install: Install) -> None:
    install("resolvectl")
    (tmp_path / "nsswitch.conf").write_text("hosts: files resolve [!UNAVAIL=return] dns\n")
    assert "by systemd-resolved" in apply(CORP)[0]


def test_resolvectl_by_another_name_is_no_resolvconf(tmp_path: Path, install: Install) -> None:
    install("resolvectl", works=False, says="Failed to connect to bus")
    (tmp_path / "resolvconf").symlink_to(tmp_path / "resolvectl")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    text, changes = apply(CORP)
    assert text.startswith("not set: systemd-resolved does not take it (Failed to connect to bus). To use 10.9.0.1")
    assert changes[-1] == DnsChange()
    assert not [line for line in log(tmp_path) if line.startswith("resolvconf")]


@pytest.mark.parametrize(("says", "manager", "alone"), [("openresolv 3.12", "openresolv", "-m 0 -x "), ("", "", "")])
def test_resolvconf_is_next(tmp_path: Path, install: Install, says: str, manager: str, alone: str) -> None:
    install("resolvectl", works=False)
    install("resolvconf", says=says)
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\nnameserver 10.9.0.1\n")
    text, changes = apply(CORP)
    assert text.endswith(f"(by {manager or 'resolvconf'})")
    called = log(tmp_path)
    assert f"resolvconf {alone}-a tun.wgp0.7" in called
    assert called[-3:] == ["nameserver 10.9.0.1", "nameserver fd09::1", "search corp.example"]
    dns.revert(changes[-1])
    assert log(tmp_path)[0].startswith("resolvconf -d tun.wgp0.7")


def test_a_file_that_could_not_be_given_back_is_not_taken(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("resolvconf", says="openresolv 3.12")
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.53\n")
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK))  # root may write anywhere
    text, _ = apply(CORP)
    assert text.startswith("not set: openresolv could not keep a copy of")
    assert not [line for line in log(tmp_path) if " -a " in line]
    (tmp_path / "resolv.conf").write_text("# Generated by resolvconf\nnameserver 10.9.0.1\n")
    assert "by openresolv" in apply(CORP)[0]


@pytest.mark.host
@pytest.mark.parametrize("everything", [False, True])
def test_a_new_hosts_name_is_looked_up_without_the_dead_tunnels_servers_unless_that_would_leak(
    tmp_path: Path, install: Install, everything: bool
) -> None:
    install("resolvconf")
    change = DnsChange("resolvconf", "tun.wgp0.7", 7, ("10.9.0.1",))

    def resolve(_name: str) -> list[str]:
        return ["127.0.0.1"] if "resolvconf -d tun.wgp0.7" in log(tmp_path) else []

    where = read_configuration(CONFIGURATION | {"hostname": "new.example"})
    routes = [Route("0.0.0.0/0")] if everything else []
    before = Desired(
        where,
        InterfaceConfig(b"", 0, b"", "", 0, ()),
        split_routes(routes, "10.9.0.1", use_default_route=True),
        1400,
        DnsConfig(change.servers),
    )
    tunnel = LinuxTunnel(
        tmp_path / "recovery.json",
        resolve,
        lambda _line: None,
        backend_choice="none",
        _desired=before,
        _names=Names(change=change),
    )
    if everything:
        with pytest.raises(TunnelError, match="known only by name servers within the tunnel"):
            tunnel.up(where, PrivateKey.generate(), use_dns=True, use_default_route=True)
        assert log(tmp_path) == []
    else:
        with pytest.raises(KeyError):  # the address is found, and then there is nothing to build a tunnel with
            tunnel.up(where, PrivateKey.generate(), use_dns=True, use_default_route=True)


def test_a_service_that_keeps_its_output_open_holds_nobody_up(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("resolvconf", hold=True)
    (tmp_path / "resolv.conf").write_text("nameserver 10.9.0.1\n")
    try:
        assert "by resolvconf" in apply(CORP)[0]
    finally:
        os.kill(int((tmp_path / "held").read_text()), signal.SIGKILL)


def test_with_nothing_there_it_says_what_to_install(tmp_path: Path, install: Install) -> None:
    text, changes = apply(CORP)
    assert text.startswith("not set: no manager of name servers is here. To use 10.9.0.1, fd09::1, install")
    assert changes == [DnsChange()]
    assert not (tmp_path / "resolv.conf").exists()


@pytest.mark.parametrize(
    "value", [None, [], "x", {}, {"manager": 1}, {"manager": "openresolv", "name": "a", "index": "b"}]
)
def test_a_damaged_record_is_none(value: object) -> None:
    assert DnsChange.from_dict(value) == DnsChange()


def test_a_record_survives_being_written() -> None:
    change = DnsChange("openresolv", "tun.wgp0.7", 7, ("10.9.0.1",))
    assert DnsChange.from_dict(json.loads(json.dumps(change.as_dict()))) == change


def test_what_a_crash_left_goes_even_when_the_interface_is_anothers(tmp_path: Path, install: Install) -> None:
    """resolvconf's record bears our own name, so it is ours in any case; an interface's settings are not."""
    install("resolvconf")
    install("resolvectl")
    for manager, name in (("resolvconf", "tun.lo.9999"), ("systemd-resolved", "lo")):
        change = DnsChange(manager, name, 9999, ("10.9.0.1",))
        held = {"interface": "wgp98", "index": 9999, "boot": "another", "dns": change.as_dict()}
        (tmp_path / "recovery.json").write_text(json.dumps(held))
        clean_up(tmp_path / "recovery.json")
        assert log(tmp_path) == [], "after a boot there is nothing left of it"
        assert not (tmp_path / "recovery.json").exists()
        dns.revert(change)
        assert log(tmp_path) == (["resolvconf -d tun.lo.9999"] if manager == "resolvconf" else [])
