"""Command line of ``bin/host``."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from servers.hostnet.agent import worker
from servers.hostnet.agent.channel import Channel
from servers.hostnet.dns import unbound
from servers.hostnet.mesh import memory
from servers.hostnet.mesh import network as mesh_network
from servers.hostnet.netlink.links import Links
from servers.hostnet.openvpn import tunnels as openvpn
from servers.hostnet.state.mesh import MESH_PORT
from servers.hostnet.state.privileges import CAPABILITIES
from servers.hostnet.state.redis_urls import in_mesh
from servers.hostnet.wireguard import keys
from servers.hostnet.wireguard.base import Backend, WireGuardError
from servers.hostnet.wireguard.choose import choose

from . import machine, status, unit
from .asking import Address, ask, read_token
from .place import DIRECTORY, HostError, Place

PROJECT = Path(__file__).resolve().parents[3]
GREEN_WITHIN = 120.0  # seconds
LOOK_EVERY = 0.5


def say(grade: str, words: str) -> None:
    print(f"  {grade:<4} {words}", flush=True)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bin/host", description="Make this machine a host of an installation.")
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help=f"where its files are (default {DIRECTORY})")
    parser.add_argument(
        "--check", dest="only_check", action="store_true", help="say what this machine lacks, and change nothing"
    )
    commands = parser.add_subparsers(dest="command")
    join = commands.add_parser("join", help="join, or join again with a new token; keeps the machine's keys")
    join.add_argument("address", metavar="ADDRESS", help="where the control side is: vpn.example.com, 203.0.113.5:8443")
    join.add_argument("token", metavar="TOKEN", nargs="?", help="what the host's page in the admin shows")
    join.add_argument("--token-file", type=Path, help="a file with the token, or - for standard input")
    join.add_argument("--check", action="store_true", help="say whether it would work, and change nothing")
    join.add_argument("--run", action="store_true", help="stay, and run the worker here instead of as a service")
    commands.add_parser("run", help="run the worker in the foreground; tunnels stay when it ends")
    said = commands.add_parser("status", help="say how this machine is; ends with 1 unless all is well")
    said.add_argument("--json", action="store_true")
    commands.add_parser("leave", help="take tunnels down, leave the installation, and forget all of it, keys included")
    given = parser.parse_args(arguments)
    if bool(given.command) == given.only_check:
        parser.error("say what to do, or --check alone")
    return given


def main(arguments: list[str]) -> int:
    given = parse(arguments)
    place = Place(given.directory.resolve())
    commands: dict[str, Callable[[], int]] = {
        "join": lambda: join(place, given),
        "run": lambda: run(place),
        "status": lambda: show(place, as_json=getattr(given, "json", False)),
        "leave": lambda: leave(place),
    }
    try:
        if os.geteuid():
            raise HostError("Interfaces, routes and firewall rules need root: start it with sudo.")
        os.umask(0o077)
        return commands[given.command]() if given.command else check(place)
    except (HostError, OSError) as error:
        say("!!", str(error))
        return 1


def check(place: Place) -> int:
    """Whether this machine could join something. What is missing of Debian's, bin/host has said before."""
    say("ok", "All Debian packages and Python packages are installed")
    say("ok", f"WireGuard: {_choose().name}")
    if place.joined():
        say("ok", f"This machine is host {place.about().get('name', '')} already: bin/host status says how it is")
        return 0
    machine.check_carries_nothing()
    machine.check_port(MESH_PORT)
    say("ok", f"No tunnels of ours, and UDP port {MESH_PORT} is free")
    say("ok", "Nothing keeps it from joining: the host's page in the admin shows the command")
    return 0


# Joining


def join(place: Place, given: argparse.Namespace) -> int:
    address, token = Address.parse(given.address), read_token(given.token, given.token_file)
    about = {"networks": machine.networks(), "addresses": machine.addresses()}
    _choose()
    if not place.joined():
        machine.check_carries_nothing()
    said = ask(address, token, "check", **about)
    say("ok", f"{address} is the control side, and knows the token: this machine becomes host {said['host']}")
    machine.check_port(int(said["port"]))
    say("ok", f"The mesh's network {said['network']} and UDP port {said['port']} are free on this machine")
    if given.check:
        return 0
    place.check_idle()
    private, _new = place.private_key()
    said = ask(address, token, "join", **about, public_key=keys.public_of(private))
    if said.get("mesh") is None:
        raise HostError("The control side has no mesh for this machine; look at its own host's page in the admin.")
    # One of before would be left as it is, as tunnels are at the start of a worker.
    mesh_network.cleanup(_choose(), Links())
    place.keep(said, private, str(address))
    say("ok", f"Joined as host {said['name']} ({said['id']}); what it needs is in {place.directory}")
    return _start(place, stay=given.run)


def _start(place: Place, *, stay: bool) -> int:
    """Start the worker, and wait until the control side sees it."""
    if stay:
        lock = place.lock()
        with subprocess.Popen(_command(), env=_environment(place), cwd=PROJECT, pass_fds=[lock]) as process:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda number, _frame: process.send_signal(number))
            _wait_until_green(place)
            return process.wait()
    if not unit.install(place, Path(sys.executable), PROJECT):
        say("..", "systemd does not run this machine: start the worker with bin/host run.")
        return 0
    say("ok", f"Service {unit.NAME} started, now and at every boot")
    return 0 if _wait_until_green(place) else 1


def _wait_until_green(place: Place) -> bool:
    """Say each step on the way."""
    steps: list[tuple[str, Callable[[status.Status], bool]]] = [
        ("The mesh is up", lambda now: now.mesh != "down"),
        ("The control side's machine is heard", lambda now: any(age is not None for age in now.machines.values())),
        ("Redis is reached", lambda now: now.redis == "reached"),
        ("The worker lives", lambda now: now.heartbeat),
        ("The control side has told it what to be: the host is green in the admin", lambda now: now.green),
    ]
    deadline = time.monotonic() + GREEN_WITHIN
    for words, reached in steps:
        while not reached(now := status.look(place)):
            if time.monotonic() > deadline:
                say("!!", f"Not within {GREEN_WITHIN:.0f} s: {words}. Redis: {now.redis}. {_hint(place, now)}")
                return False
            time.sleep(LOOK_EVERY)
        say("ok", words)
    return True


def _hint(place: Place, now: status.Status) -> str:
    mesh = memory.load(memory.path_in(place.directory))
    if mesh is not None and not any(age is not None for age in now.machines.values()):
        ways = ", ".join(endpoint for peer in mesh.peers for endpoint in peer.endpoints)
        return f"Let UDP through from here to {ways}, or from there to port {mesh.port} here."
    return f"What the worker says: journalctl -u {unit.NAME}."


def _choose() -> Backend:
    try:
        return choose(os.environ.get("HOSTNET_BACKEND", "auto"))
    except WireGuardError as error:
        raise HostError(str(error)) from None


# The worker


def run(place: Place) -> int:
    """Become the worker. The lock goes on with it."""
    environment = _environment(place)
    os.set_inheritable(place.lock(), True)
    os.chdir(PROJECT)
    command = _command()
    os.execvpe(command[0], command, environment)  # noqa: S606 (a program that we name)


def _command() -> list[str]:
    unbound.make_directories()  # which the worker itself may not
    capabilities = ",".join(["-all", *(f"+{name}" for name in CAPABILITIES)])
    limits = [option for kind in ("inh", "ambient") for option in (f"--{kind}-caps", capabilities)]
    give_up = ["setpriv", *limits, "--bounding-set", capabilities, "--no-new-privs"]
    return [*give_up, sys.executable, "-m", "servers.hostnet"]


def _environment(place: Place) -> dict[str, str]:
    """Nothing of the shell's that could mean something to Python, Celery or Redis."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", **place.environment()}


# How it is, and its end


def show(place: Place, *, as_json: bool) -> int:
    now = status.look(place, ask_machines=True)
    if as_json:
        print(now.to_json())
        return 0 if now.green else 1
    say("ok", f"Host {now.name} ({now.id}) of {now.control}")
    say("ok" if now.mesh != "down" else "!!", f"Mesh: {now.mesh}")
    for other in now.machines:
        say(*_machine(now, other))
    say("ok" if now.redis == "reached" else "!!", f"Redis: {now.redis}")
    say("ok" if now.heartbeat else "!!", "The worker lives" if now.heartbeat else "No heartbeat of the worker")
    say("ok" if now.version else "!!", f"It has state {now.version} of the control side" if now.version else "No state")
    return 0 if now.green else 1


def _machine(now: status.Status, machine: str) -> tuple[str, str]:
    """How another machine of the mesh is reached, by its host's id."""
    age = now.machines[machine]
    heard = f"shook hands {age:.0f} s ago" if age is not None else "never shook hands"
    if machine not in now.round_trips:
        return "ok" if age is not None and age < 180 else "!!", f"  host {machine} {heard}"
    seconds = now.round_trips[machine]
    if seconds is None:
        return "!!", f"  host {machine} does not answer, and {heard}"
    return "ok", f"  host {machine} answers in {seconds * 1000:.1f} ms, and {heard}"


def leave(place: Place) -> int:
    environment = place.environment()
    place.check_idle()
    unit.remove()
    if _say_goodbye(place, environment):
        say("ok", "The control side was told")
    else:
        say("!!", "Redis is not reached, so the control side does not know: remove the host in the admin.")
    errors = worker.cleanup(environment.get("HOSTNET_BACKEND", "auto"))
    errors += openvpn.cleanup(place.directory)
    for error in errors:
        say("!!", error)
    if errors:
        return 1
    place.forget()
    say("ok", f"Tunnels, firewall rules and {place.directory} are gone")
    return 0


def _say_goodbye(place: Place, environment: dict[str, str]) -> bool:
    url = in_mesh(environment["HOST_REDIS_URL"], memory.load(memory.path_in(place.directory)))
    return Channel(environment["HOST_ID"], url, "").said("left")
