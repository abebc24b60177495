"""Clients: each a thread that keeps its user connected as long as it is meant to be, and notes every answer.

They are patient: any fault of the server's (5xx, no answer) is asked again a second later, on the same connection. So
whatever ends a connection of theirs is the server's own word.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from django.db import connections

from tests.lab import KeyPair, Machine, Tunnel
from tests.protocol_client import Identity

from .asking import Answer, Way, ask
from .passcodes import Passcodes
from .plan import Step
from .record import Record, Said

PING_EVERY = 2.0  # seconds; a client of the real protocol does so every ``ping_interval``
AGAIN = 1.0
REFUSED = 4.0  # as long as a person takes to press it again
DEVICES = 3  # of each user


@dataclass
class Client:
    """``door`` is where it connects, ``gateway`` where it pings. ``on_connected`` is called with its key pair and the
    configuration before it pings."""

    name: str
    identity: Identity
    door: Way
    gateway: Way
    timeout: float
    record: Record
    passcodes: Passcodes | None = None
    wanted: bool = False
    on_connected: Callable[[KeyPair, Answer], None] | None = None
    device: int = 0
    keys: KeyPair | None = None  # of the connection, or of the attempt under way
    connected: bool = False
    last_good: float = 0.0  # monotonic
    used: list[str] = field(default_factory=list)  # keys of connections that are over
    pinged: bool = False
    _steps: queue.Queue[Step] = field(default_factory=queue.Queue)
    _ending: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send no more than the request under way. May be called again."""
        self.end_soon()
        if self._thread is not None:
            self._thread.join()

    def end_soon(self) -> None:
        self._ending.set()

    def do(self, step: Step) -> None:
        self._steps.put(step)

    @property
    def held(self) -> str | None:
        """The key that it keeps alive."""
        return self.keys.public if self.keys and self.connected else None

    # The thread

    def _run(self) -> None:
        pause = 0.0
        while not self._ending.is_set():
            try:
                self._take(self._steps.get(timeout=max(pause, 0.05)))
                pause = 0.0
                continue
            except queue.Empty:
                pass
            try:
                pause = self._turn()
            except Exception as error:
                self.record.problem(f"{self.name}: {type(error).__name__} {error}")
                pause = AGAIN
        connections.close_all()

    def _turn(self) -> float:
        """Do what is due; for how many seconds nothing is."""
        if not self.wanted:
            return AGAIN
        return self._ping() if self.connected else self._connect()

    def _take(self, step: Step) -> None:
        self.record.note(self.name, step.action, device=self.device)
        if step.action == "silence":
            self.wanted = False
            self._over()
        elif step.action == "connect":
            self.wanted = True
        elif step.action == "new key":
            self.wanted = True
            self._over()
        elif step.action == "other device":
            self.record.concern(self.name, step.action)
            self.wanted, self.device = True, (self.device + 1 + int(step.pick * (DEVICES - 1))) % DEVICES
            self._over()
        elif step.action == "old key" and self.used:
            self.offer(self.used[int(step.pick * len(self.used))])
        elif step.action == "used code":
            self.offer_used_code()

    def _over(self) -> None:
        if self.keys is not None and self.connected:
            self.used.append(self.keys.public)
        self.keys, self.connected, self.pinged = None, False, False

    def _connect(self) -> float:
        self.keys = self.keys or KeyPair.make()
        password = self.passcodes.for_attempt(self.device, self.keys.public) if self.passcodes else ""
        if password is None:
            return AGAIN
        answer = self._ask(self.door, "POST", "connect", self.keys.public, password)
        if self.passcodes and answer.word == "refused":
            self.passcodes.refused(self.device)
        if answer.word == "allowed":
            if self.passcodes:
                self.passcodes.passed(self.device, password)
            self.connected, self.last_good = True, time.monotonic()
            if self.on_connected is not None:
                self.on_connected(self.keys, answer)
            return 0.0
        if answer.status == 409:  # an answer with this key was lost
            self.keys = None
        return REFUSED if answer.word in {"refused", "server_stopped", "unauthorized"} else AGAIN

    def _ping(self) -> float:
        assert self.keys is not None
        answer = self._ask(self.gateway, "PUT", "ping", self.keys.public)
        if answer.word == "true":
            self.last_good, self.pinged = time.monotonic(), True
            return PING_EVERY
        silent = time.monotonic() - self.last_good > self.timeout
        if answer.word == "false" or 400 <= answer.status < 500 or silent:
            self._over()
            return 0.0
        return AGAIN

    def offer(self, key: str) -> Answer:
        """Offer a key that was allowed before, as a thief would."""
        password = self.passcodes.last_passed if self.passcodes else ""
        return self._ask(self.door, "POST", "old key", key, password)

    def offer_used_code(self) -> None:
        """Offer PIN and code that passed before, with a new key from another device, as who looked on would."""
        if self.passcodes and self.passcodes.last_passed:
            key, password = KeyPair.make().public, self.passcodes.last_passed
            self._ask(self.door, "POST", "used code", key, password, device="thief")

    def _ask(self, way: Way, method: str, what: str, key: str, password: str = "", device: str = "") -> Answer:
        sent = time.time()
        device = f"{self.name}-device-{device or self.device}"
        said = {"wg_public_key": key, "device_id": device, "device_name": device, "password": password}
        answer = ask(way, self.identity, method, **said)
        if answer.word == "refused":
            self.record.note(self.name, "was told", reason=answer.content.get("reason"))
        configuration = answer.content.get("configuration") or {}
        address = str(configuration.get("address", "")).partition("/")[0]
        self.record.answer(Said(self.name, what, key, sent, time.time(), answer.status, answer.word, address))
        return answer


@dataclass
class OwnTunnel:
    """The tunnel of a client on a machine of its own: the interface stays, its key and peer follow the connection."""

    machine: Machine
    tunnel: Tunnel

    def follow(self, keys: KeyPair, answer: Answer) -> None:
        """Carry ``keys``' connection."""
        told, name = answer.content["configuration"], self.tunnel.name
        self.machine.run("wg", "set", name, "private-key", "/proc/self/fd/0", text=keys.private)
        self.machine.ip("addr", "replace", told["address"], "dev", name)
        self.tunnel.connect(told["public_key"], f"{told['hostname']}:{told['port']}", [f"{told['gateway']}/32"])
