"""One connection's whole life on this machine, live: ``bin/demo``. Everything is real but the network, which is made of
namespaces: a VPN host, a LAN behind it and a client. Cleans up after itself, also when it is interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from http.client import HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cryptography.fernet import Fernet
from nacl.public import PrivateKey
from rich.console import Console
from wgpeer.envelope import Ephemeral, Identity, SealedRequest, b64, seal
from wgpeer.profile import Profile
from wgpeer.store import Store

from tests.lab import HANGING, NEVER, Echo, Lab, RedisServer, until
from tests.stack import Stack, WgPeer

if TYPE_CHECKING:
    from users.models import VpnUser

PING_INTERVAL, PING_TIMEOUT = 5, 8
console = Console(highlight=False, soft_wrap=True)


class Timeline:
    """Prints what happens, with the seconds since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def part(self, title: str) -> None:
        console.print(f"\n[bold]{title}[/bold]")

    def say(self, text: str, sign: str = "[green]✓[/green]") -> None:
        console.print(f"  [dim]{time.monotonic() - self._began:5.1f} s[/dim]  {sign} {text}")

    def check(self, truth: object, text: str) -> None:
        """Say ``text`` if it is so; else say that it is not, and end."""
        if not truth:
            self.say(f"[red]not so:[/red] {text}", "[red]✗[/red]")
            raise SystemExit(1)
        self.say(text)

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Show that something is waited for, then give what came."""
        with console.status(what):
            return until(condition, every=0.1)


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("bin/demo makes network namespaces: run it as root.")
    signal.signal(signal.SIGTERM, _interrupted)
    line = Timeline()
    directory = Path(tempfile.mkdtemp(prefix="vpn-demo-"))
    try:
        with Lab() as lab, RedisServer() as redis:
            play(line, lab, redis, directory)
    except KeyboardInterrupt:
        console.print("\nInterrupted; everything it made is gone.")
        sys.exit(130)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    line.part("Done. Namespaces, processes and files of the demo are gone.")


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def play(line: Timeline, lab: Lab, redis: RedisServer, directory: Path) -> None:
    line.part("A company on one machine")
    machine, laptop = lab.add_host(), lab.add_client()
    lan = lab.add_lan(machine)
    environment = settings_for(directory, redis, machine.address)
    user = make_company(line, environment, machine.address)
    with Stack(machine, redis, environment) as stack, Echo(lan, lan.address, 7000):
        line.say("web, gateway web, control worker and beat are up")
        stack.start_host(host_id())
        line.wait(host_key_known, "the host makes its WireGuard key")
        line.say("the host worker has made its WireGuard key and reported the public half")
        peer = WgPeer(laptop, directory)
        try:
            story(line, stack, peer, user, lan.address)
        finally:
            peer.end()
            if stack.worker is not None:
                stack.worker.kill()


def settings_for(directory: Path, redis: RedisServer, address: str) -> dict[str, str]:
    """The demo's own settings, for its processes and for this one."""
    environment = {
        "VPN_VAR": str(directory),
        "SECRET_KEY": secrets.token_urlsafe(50),
        "FIELD_KEYS": Fernet.generate_key().decode(),
        "DATABASE_URL": f"sqlite:///{directory}/demo.sqlite3",
        "REDIS_URL": redis.url,
        "API_URLS": f"https://{address}",
        "DJANGO_SETTINGS_MODULE": "vpnproject.settings",
        "LOG_LEVEL": "ERROR",
    }
    os.environ.update(environment)
    return environment


def make_company(line: Timeline, environment: Mapping[str, str], address: str) -> VpnUser:
    """What an admin does: an organization, a server on this host, a route to the LAN, a user."""
    import django

    django.setup()
    from django.core.management import call_command

    from servers.models import Host, Route, Server, ServerHost
    from users.models import Organization, VpnUser
    from users.tasks import make_user_key

    call_command("migrate", verbosity=0)
    organization = Organization.objects.create(name="Acme")
    server = Server.objects.create(
        name="Office",
        network="10.8.0.0/24",
        wg_network="10.9.0.0/24",
        started=True,
        ping_interval=PING_INTERVAL,
        ping_timeout=PING_TIMEOUT,
    )
    server.organizations.add(organization)
    Route.objects.create(server=server, network="10.50.0.0/24", nat=True)
    ServerHost.objects.create(server=server, host=Host.objects.create(name="gate", public_address=address))
    user = VpnUser.objects.create(organization=organization, name="alice")
    with console.status("RSA-4096 keys of the organization and the user"):
        make_user_key(user.pk)
    line.say("an organization with its own CA, a server, a route to the LAN, and a user with an RSA-4096 key")
    line.say(
        f"for the demo a ping every {PING_INTERVAL} s instead of 10, revoked after {PING_TIMEOUT} s instead of 360",
        "[yellow]![/yellow]",
    )
    user.refresh_from_db()
    return user


def host_id() -> str:
    from servers.models import Host

    return Host.objects.get().public_id


def host_key_known() -> bool:
    from servers.models import ServerHost

    return ServerHost.objects.exclude(public_key="").exists()


def story(line: Timeline, stack: Stack, peer: WgPeer, user: VpnUser, lan: str) -> None:
    from wgpeers.profiles import links

    line.part("A profile, and somebody who recorded a request")
    link = links.create(user, time.time())
    peer.add(f"pritunl://{stack.machine.address}/ku/{link.short_id.reveal()}")
    line.say("the client imported its profile from a temporary link")
    replay_and_reuse(line, stack, peer)

    line.part("Connect")
    peer.up()
    first = line.wait(peer.connected, "connecting")
    line.say(f"connected: {first['address']} with the new key {first['public_key'][:10]}…")

    line.part("Packets through the tunnel")
    traffic(line, peer, lan)

    line.part("Pings, then silence")
    pings(line, peer)
    silence(line, peer, user, lan)

    line.part("Reconnection")
    peer.up()
    second = line.wait(peer.connected, "reconnecting")
    line.check(second["public_key"] != first["public_key"], f"a new key: {second['public_key'][:10]}…")
    line.check(second["address"] == first["address"], f"the same address: {second['address']}")
    line.check(peer.machine.ask_tcp(lan, 7000), "packets flow again")


def traffic(line: Timeline, peer: WgPeer, lan: str) -> None:
    line.check(peer.machine.pings("10.9.0.1"), "ping of the gateway 10.9.0.1 is answered")
    answer = peer.machine.ask_tcp(lan, 7000) or b""
    line.check(answer.startswith(b"10.50.0.1 "), f"TCP to {lan} on the LAN, which sees the host (masqueraded)")
    answer = peer.machine.ask_udp(lan, 7000) or b""
    line.check(answer.startswith(b"10.50.0.1 "), f"UDP to {lan} as well")
    line.check(
        peer.machine.ask_tcp("10.9.0.1", 443, timeout=NEVER) is None, "the host's other ports are closed to the tunnel"
    )


def replay_and_reuse(line: Timeline, stack: Stack, peer: WgPeer) -> None:
    """A connect by hand; then its very bytes again; then a right request with the key that it used."""
    profile = only_profile(peer)
    key = b64(bytes(PrivateKey.generate().public_key))
    request = sealed_connect(profile, key, device="a" * 32)
    status, _ = post(stack, request)
    line.check(status == 200, f"a connect is answered: {status}")
    status, error = post(stack, request)
    line.check((status, error) == (409, "replayed"), f"the very same bytes again are refused: {status} {error}")
    status, error = post(stack, sealed_connect(profile, key, device="b" * 32))
    line.check((status, error) == (409, "key_spent"), f"another right request with that key is too: {status} {error}")


def only_profile(peer: WgPeer) -> Profile:
    store = Store.open(peer.directory)
    return store.load(store.names()[0])


def sealed_connect(profile: Profile, key: str, device: str) -> SealedRequest:
    now = int(time.time())
    plaintext = {
        "device_id": device,
        "device_name": "by hand",
        "platform": "linux",
        "timestamp": now,
        "wg_public_key": key,
    }
    identity = Identity(profile.text("sync_token"), profile.text("sync_secret"), profile.rsa_key(), profile.box_key)
    path = "/key/wg/" + "/".join(profile.ids)
    return seal(identity, Ephemeral.generate(), "POST", path, plaintext, now, device=False)


def post(stack: Stack, request: SealedRequest) -> tuple[int, str]:
    """Status and error code of the answer. From the host itself: a namespace is a network, not a process."""
    context = ssl.create_default_context(cafile=str(stack.directory / "cert.pem"))
    context.check_hostname = False
    connection = HTTPSConnection(stack.machine.address, context=context, timeout=HANGING)
    stack.machine.call(connection.connect)
    with contextlib.closing(connection):
        connection.request("POST", request.path, request.body, request.headers)
        answer = connection.getresponse()
        return answer.status, str(json.loads(answer.read()).get("error", ""))


def pings(line: Timeline, peer: WgPeer) -> None:
    """Stay connected for longer than the timeout, by pings alone."""
    started = time.time()
    since = line.wait(peer.connected, "connected")["since"]
    line.wait(lambda: time.time() > started + PING_TIMEOUT + 2, f"pings for longer than {PING_TIMEOUT} s")
    now = peer.status()
    line.check(now["since"] == since and now["last_ping"] > started, "its pings keep it")


def silence(line: Timeline, peer: WgPeer, user: VpnUser, lan: str) -> None:
    from wgpeers.models import Connection, State

    connection = Connection.objects.get(user=user, state=State.OPEN)
    peer.kill()
    silent = time.monotonic()
    line.say("the client is killed: its WireGuard goes on, its pings do not", "[yellow]![/yellow]")
    line.wait(lambda: not Connection.objects.filter(pk=connection.pk, state=State.OPEN).exists(), "silence")
    line.say(f"the key is revoked for good, {time.monotonic() - silent:.0f} s later (the sweep comes every 10 s)")
    line.wait(lambda: peer.machine.ask_tcp(lan, 7000, timeout=NEVER) is None, "packets stop")
    line.say("and no packet gets through")


if __name__ == "__main__":
    main()
