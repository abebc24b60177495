"""The control side's half of the conversation with a host worker, as plain as it can be, for tests of the host."""

from __future__ import annotations

import json
from typing import Any

import redis
from celery import Celery

from servers.hostnet.state import AddPeer, HostState, Peer, RemovePeers, to_json
from tests.lab import HANGING, RedisServer, until

TASKS = {HostState: "hostnet.full_state", AddPeer: "hostnet.add_peer", RemovePeers: "hostnet.remove_peers"}


class Control:
    """Sends messages to the queue of host ``host``, and reads what it says."""

    def __init__(self, server: RedisServer, host: str) -> None:
        self.host = host
        self.prefix = f"host.{host}"
        self.redis: redis.Redis = server.client()
        self._app = Celery("control", broker=f"redis+socket://{server.socket}?virtual_host=0", set_as_current=False)

    def send(self, message: HostState | AddPeer | RemovePeers) -> None:
        self.send_raw(TASKS[type(message)], to_json(message))

    def send_raw(self, task: str, *arguments: object) -> None:
        """Send anything as a task's arguments, also what makes no sense."""
        self._app.send_task(task, args=arguments, queue=self.prefix, ignore_result=True)

    def add(self, server: str, peer: Peer, *, replaces: tuple[str, ...] = ()) -> str:
        """Add a peer as a connect does; return the host's answer (empty: none)."""
        confirm = f"{self.prefix}:confirm:{peer.connection}"
        self.send(AddPeer(server, peer, replaces, confirm))
        return self.answer(confirm)

    def answer(self, confirm: str) -> str:
        popped: Any = self.redis.blpop([confirm], HANGING)
        return popped[1].decode() if popped else ""

    def report(self, *kinds: str, **fields: object) -> dict[str, Any]:
        """The next report of one of these kinds, and with these fields where given; what was reported before it is
        dropped."""

        def next_report() -> dict[str, Any] | None:
            while text := self._pop():
                report: dict[str, Any] = json.loads(text)
                if report["kind"] in kinds and all(report[name] == value for name, value in fields.items()):
                    return report
            return None

        found = until(next_report)
        assert found is not None
        return found

    def _pop(self) -> bytes | None:
        try:
            popped: Any = self.redis.lpop(f"{self.prefix}:reports")
        except redis.ConnectionError:
            return None
        return popped if isinstance(popped, bytes) else None

    def alive(self) -> dict[str, Any] | None:
        """The host's heartbeat, if there is one."""
        text: Any = self.redis.get(f"{self.prefix}:alive")
        return json.loads(text) if text else None
