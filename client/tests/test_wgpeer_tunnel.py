"""The command and its tunnel in network namespaces: up, down, failover, crash, refusal and signals. Needs root."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Callable

import pytest
from wgpeer.transport import HttpResponse
from wgpeer_fakes import (
    HANGING,
    OpenedRequest,
    hmac64,
    pong,
    profile_text,
    refuse,
    status,
)
from wgpeer_namespaces import (
    API_PORT,
    WG_PORT,
    WGPEER,
    Net,
    in_namespace,
    only,
    until,
)

pytestmark = pytest.mark.host


def test_up_traffic_status_down(net: Net) -> None:
    host = only(net, 0)
    host.changes = {"address6": "fd09::5/64", "routes6": [{"network": "fd09::/64"}], "dns_servers": ["10.9.0.1"]}
    shown = net.up()
    assert "connected" in shown.stdout
    assert "not set" in shown.stderr  # neither resolvectl nor resolvconf works in here
    seen = net.status()
    assert seen["state"] == "connected"
    assert seen["address"] == "10.9.0.5/24, fd09::5/64"
    assert seen["gateway"] == "10.9.0.1"
    assert seen["host"] == f"https://{host.address}:{API_PORT}"
    assert seen["endpoint"] == f"{host.address}:{WG_PORT}"
    assert seen["public_key"] == host.of("wg")[-1].plaintext["wg_public_key"]
    assert seen["last_ping"] >= seen["since"] > 0
    assert seen["backend"] in ("kernel", "userspace")
    net.ping("10.9.0.1")
    net.ping("fd09::1")
    assert "mtu 1400" in net.run("ip", "link", "show", seen["interface"])
    for path in (net.tmp / "peer").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    again = net.up()
    assert "up already" in again.stdout
    net.wgpeer("down")
    assert net.leftovers() == ""
    assert net.status()["state"] == "down"
    assert net.wgpeer("down", check=False).returncode == 5


def test_everything_through_the_tunnel_but_the_server_itself(net: Net) -> None:
    host = only(net, 0)
    # The third network holds the host's own address: a tunnel must never swallow its own packets.
    inside = [{"network": "10.9.0.0/24"}, {"network": "0.0.0.0/0"}, {"network": "198.18.0.0/15"}]
    host.changes = {"routes": [*inside, {"network": "203.0.113.77/32", "net_gateway": True}]}
    # The first ping is refused: it reconnects from inside the tunnel, so the API must be reachable around it.
    answers: list[Callable[[OpenedRequest], HttpResponse]] = [pong, status(404)]
    host.on_ping = lambda opened: answers.pop()(opened) if len(answers) > 1 else pong(opened)
    net.up()
    seen, keys = net.saved(), [request.plaintext["wg_public_key"] for request in host.of("wg")]
    interface = seen["interface"]
    assert len(set(keys)) >= 2
    assert seen["public_key"] == keys[-1]
    assert seen["reconnects"] >= 1
    net.ping("203.0.113.7")
    assert f"dev {interface}" in net.run("ip", "route", "get", "203.0.113.7")
    assert interface not in net.run("ip", "route", "get", "203.0.113.77")
    assert interface not in net.run("ip", "route", "get", host.address)  # the LAN of this machine stays its own
    assert f"dev {interface}" in net.run("ip", "route", "get", "198.19.9.9")
    assert interface not in net.run("ip", "route", "get", "198.19.9.9", "mark", "0x77677077")
    net.wgpeer("down")
    assert net.leftovers() == ""


def test_a_host_dies_and_the_other_takes_over(net: Net) -> None:
    first = only(net, 0)
    net.up()
    net.hosts[1].on_connect = None
    near = f"v{net.client[3:]}1a"
    net.run("ip", "link", "set", near, "down")
    # How soon that is, by a clock that tests move themselves, is in test_wgpeer_reconnect.
    until(lambda: net.hosts[1].of("ping"))
    until(lambda: net.saved()["state"] == "connected")
    net.ping("10.9.0.1")
    seen = net.saved()
    assert seen["endpoint"] == f"{net.hosts[1].address}:{WG_PORT}"
    assert seen["reconnects"] >= 1
    assert seen["public_key"] != first.of("wg")[-1].plaintext["wg_public_key"]


def test_what_a_crash_leaves_is_removed_at_the_next_start(net: Net) -> None:
    only(net, 0)
    net.up()
    before = net.saved()
    net.kill(before["pid"])
    assert net.status()["state"] == "failed"
    assert before["interface"] in net.leftovers()
    net.up()
    after = net.saved()
    assert after["state"] == "connected"
    assert net.leftovers().count("state UNKNOWN") == 1, "one interface, the new one"
    net.kill(after["pid"])
    assert net.wgpeer("down", check=False).returncode == 5
    assert net.leftovers() == ""


def test_a_refusal_ends_it_in_words_and_with_its_own_exit_code(net: Net) -> None:
    net.hosts[0].on_connect = net.hosts[1].on_connect = lambda opened: refuse(opened, "Not permitted here")
    for more in ([], ["--foreground"]):
        done = net.wgpeer("up", "office", *more, check=False)
        assert done.returncode == 3
        assert "Not permitted here" in done.stderr
    assert net.status()["state"] == "refused"
    assert net.leftovers() == ""
    assert "Not permitted here" in net.wgpeer("logs", "office").stdout


def test_factors_that_the_profile_does_not_know_of_yet_are_sent_and_a_refusal_brings_what_is_asked_for(
    net: Net,
) -> None:
    """An administrator has turned TOTP on since the profile was made."""
    urls = [f"https://{host.address}:{API_PORT}" for host in net.hosts]
    (net.tmp / "office.ovpn").write_text(profile_text(sync_hosts=urls, password_mode="pin"))
    net.wgpeer("add", str(net.tmp / "office.ovpn"))
    changed = profile_text(
        sync_hosts=urls, key=None, drop=("sync_token", "sync_secret"), password_mode="otp_pin", revision=4
    )
    sync = json.dumps({"conf": changed, "signature": hmac64(changed)}).encode()

    for host in net.hosts:
        host.sync, host.on_connect = sync, refuse
    asked = net.wgpeer("up", "office", "--pin", "2718", check=False)
    assert asked.returncode == 2
    assert "asks for other secrets now" in asked.stderr
    assert "--otp" in asked.stderr
    (net.tmp / "office.ovpn").write_text(profile_text(sync_hosts=urls, password_mode="pin"))
    net.wgpeer("add", str(net.tmp / "office.ovpn"))
    for host in net.hosts:
        host.seen.clear()
        host.on_connect = None
    net.wgpeer("up", "office", "--pin", "2718", "--otp", "314159")
    sent = [opened.plaintext["password"] for host in net.hosts for opened in host.of("wg")]
    assert sent == ["2718314159"]


def test_foreground_ends_cleanly_on_a_signal_even_while_a_host_is_silent(net: Net) -> None:
    """That the signal ends the waiting request itself is tested in test_wgpeer_http."""
    silent = in_namespace(net.hosts[0].name, lambda: socket.create_server((net.hosts[0].address, 8444)))
    with silent:
        (net.tmp / "slow.ovpn").write_text(
            profile_text(sync_hosts=[f"https://{net.hosts[0].address}:8444"], server_id="0123456789")
        )
        net.wgpeer("add", str(net.tmp / "slow.ovpn"))
        command = ["ip", "netns", "exec", net.client, *WGPEER, "--dir", str(net.tmp / "peer")]
        process = subprocess.Popen(
            [*command, "up", "slow", "--foreground"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            silent.settimeout(HANGING)
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGTERM)
                assert process.wait(HANGING) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(HANGING)
    assert net.leftovers() == ""
