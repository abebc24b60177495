"""``python -m bench.fleet_host``: the worker of a host, but for the edges that it stands on.

Its settings are the worker's own, and so are queue, dispatcher, reports, heartbeat and all that is worked out between
them. The WireGuard interface and its links are in memory, behind the protocols of the real ones. There is no firewall,
no resolver and no mesh.
"""

from __future__ import annotations

import dataclasses
import os
import uuid

from servers.hostnet.agent import worker
from servers.hostnet.agent.channel import Channel
from servers.hostnet.agent.dispatcher import Dispatcher, Inbox
from servers.hostnet.agent.endings import Endings
from servers.hostnet.agent.heartbeat import Heartbeat
from servers.hostnet.reconcile.apply import Applier
from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.wireguard.base import ObservedPeer, PeerChange
from tests.servers.hostnet.fakes import FakeLinks, FakeWireGuard


class ManyPeers(FakeWireGuard):
    """As the other one, but a change costs the same however many peers there are, as in WireGuard."""

    def __init__(self, links: FakeLinks) -> None:
        super().__init__(links)
        self._owners: dict[str, str] = {}  # the key of whoever has this address

    def _change(self, peers: dict[str, ObservedPeer], change: PeerChange) -> None:
        old = peers.pop(change.public_key, None) or ObservedPeer(change.public_key, frozenset(), "", 0, 0, 0)
        for ip in old.allowed_ips:
            if self._owners.get(ip) == change.public_key:
                del self._owners[ip]
        if change.remove:
            return
        allowed = {*change.allowed_ips} | (old.allowed_ips if change.add else frozenset())
        for ip in allowed:
            before = peers.get(self._owners.get(ip, ""))
            if before is not None:
                peers[before.public_key] = dataclasses.replace(before, allowed_ips=before.allowed_ips - {ip})
            self._owners[ip] = change.public_key
        peers[change.public_key] = dataclasses.replace(old, allowed_ips=frozenset(allowed))


def main() -> None:
    settings = worker.Settings.from_env(os.environ)
    boot, links = uuid.uuid4().hex, FakeLinks()
    backend = ManyPeers(links)
    settings.var.mkdir(mode=0o700, parents=True, exist_ok=True)
    channel, desired = Channel(settings.host, settings.redis_url, boot), Desired(boot)
    applier = Applier(desired, backend, links, settings.var / "keys", lambda addresses: 0, [])
    app = worker.make_app(settings)
    inbox = Inbox(app, app.conf.task_queues[0], settings.host)
    worker.register(app, Dispatcher(settings.host, applier, channel, inbox.waiting))
    Endings(channel, applier).start()
    Heartbeat(channel, applier, desired, backend.name).start()
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING"]
    app.worker_main(["worker", "--pool=solo", "--concurrency=1", f"--queues={settings.queue}", *quiet])


if __name__ == "__main__":
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)  # Celery loads Django by itself where it finds this
    main()
