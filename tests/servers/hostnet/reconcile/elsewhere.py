"""Three hosts of two servers; what one of them is told of clients on the others, late, twice, out of order or never."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.state import AddPeer, AddRemotes, HostState, Interface, Peer, Remote, RemovePeers, RemoveRemotes

SERVERS = ("red", "blue")
HOSTS = ("own", "a", "b")
ADDRESSES = tuple(f"10.9.0.{number}/32" for number in (2, 3))
Message = HostState | AddPeer | RemovePeers | AddRemotes | RemoveRemotes


@dataclass
class Row:
    """One connection that has not ended."""

    server: str
    host: str
    address: str
    number: int
    version: int
    tried: set[str]
    open: bool = False


class Elsewhere(RuleBasedStateMachine):
    """``database`` words are what is true; ``host``, which is HOSTS[0], is the thing under test."""

    desired_class: type[Desired] = Desired

    def __init__(self) -> None:
        super().__init__()
        self.versions = dict.fromkeys(HOSTS, 0)
        self.attached = {(server, host) for server in SERVERS for host in HOSTS}
        self.rows: dict[str, Row] = {}
        self.ended_at: dict[str, tuple[str, int]] = {}  # the host and its version
        self.count = 0
        self.known_boot = ""
        self.readings: list[tuple[dict[str, int], str]] = []
        self.sent: list[Message] = []
        self.boots = 0
        self.restart()

    # The database

    @rule(server=st.sampled_from(SERVERS), host=st.sampled_from(HOSTS), address=st.sampled_from(ADDRESSES))
    def connect(self, server: str, host: str, address: str) -> None:
        """Whoever has the address is ended in the same transaction."""
        if (server, host) not in self.attached:
            return
        for connection in [c for c, row in self.rows.items() if (row.server, row.address) == (server, address)]:
            self._end(connection)
        self.versions[host] += 1
        self.count += 1
        self.rows[f"c{self.count}"] = Row(server, host, address, self.count, self.versions[host], {host})
        self._tell_own(f"c{self.count}")

    def _tell_own(self, connection: str) -> None:
        row = self.rows[connection]
        if row.host == HOSTS[0]:
            peer = Peer(connection, row.version, f"key-{connection}-{row.version}", (row.address,))
            self.sent.append(AddPeer(row.server, peer))

    def _pick(self, which: int, *, opened: bool) -> str | None:
        found = [connection for connection, row in self.rows.items() if row.open == opened]
        return found[which % len(found)] if found else None

    @rule(which=st.integers(0, 9))
    def confirm(self, which: int) -> None:
        if connection := self._pick(which, opened=False):
            self.rows[connection].open = True
            self.sent.append(AddRemotes((self._remote(connection),)))

    @rule(which=st.integers(0, 9), host=st.sampled_from(HOSTS))
    def try_the_next_host(self, which: int, host: str) -> None:
        connection = self._pick(which, opened=False)
        if connection is None or (self.rows[connection].server, host) not in self.attached:
            return
        row = self.rows[connection]
        if host in row.tried:  # a request tries none twice
            return
        row.tried.add(host)
        for each in {row.host, host}:
            self.versions[each] += 1
        if row.host == HOSTS[0]:
            self.sent.append(RemovePeers(self.versions[row.host], (connection,)))
        row.host, row.version = host, self.versions[host]
        self._tell_own(connection)

    @rule(which=st.integers(0, 9), opened=st.booleans(), lingers=st.sampled_from((0.0, 13.0)))
    def disconnect(self, which: int, opened: bool, lingers: float) -> None:
        if connection := self._pick(which, opened=opened):
            self._end(connection, lingers)

    def _end(self, connection: str, lingers: float = 0.0) -> None:
        row = self.rows.pop(connection)
        self.versions[row.host] += 1
        self.ended_at[connection] = (row.host, self.versions[row.host])
        self.sent.append(RemoveRemotes((connection,)))
        if row.host == HOSTS[0]:
            self.sent.append(RemovePeers(self.versions[row.host], (connection,), lingers))

    @rule(server=st.sampled_from(SERVERS), host=st.sampled_from(HOSTS[1:]))
    def attach_or_detach(self, server: str, host: str) -> None:
        """Only the host itself learns of it, and those who are told that its clients have ended."""
        self.versions[host] += 1
        self.attached ^= {(server, host)}
        for connection in [c for c, row in self.rows.items() if (row.server, row.host) == (server, host)]:
            self._end(connection)

    def _remote(self, connection: str) -> Remote:
        row = self.rows[connection]
        host = row.host if row.open else ""
        ips = (row.address,) if row.open else ()
        return Remote(connection, row.version, row.number, row.server, host, ips)

    # Full states: versions are read first, the rows at any time after them

    @rule()
    def read_all_at_once(self) -> None:
        self.sent.append(self._state(dict(self.versions), self.known_boot))

    @rule()
    def read_versions(self) -> None:
        self.readings.append((dict(self.versions), self.known_boot))

    @precondition(lambda self: self.readings)
    @rule(back=st.integers(0, 3))
    def read_rows(self, back: int) -> None:
        versions, boot = self.readings[-1 - back % min(4, len(self.readings))]
        self.sent.append(self._state(versions, boot))

    def _state(self, versions: dict[str, int], boot: str) -> HostState:
        own = HOSTS[0]
        interfaces = []
        for number, server in enumerate(SERVERS):
            mine = [(c, row) for c, row in self.rows.items() if (row.server, row.host) == (server, own)]
            peers = tuple(Peer(c, row.version, f"key-{c}-{row.version}", (row.address,)) for c, row in mine)
            interfaces.append(Interface(f"wgs{number}", server, 1000 + number, (), 0, False, 360, (), peers))
        others = tuple((host, versions[host]) for host in HOSTS[1:])
        remotes = tuple(self._remote(c) for c, row in self.rows.items() if row.host != own)
        return HostState(own, versions[own], boot, 9790, tuple(interfaces), remotes=remotes, others=others)

    # The host

    @rule(really=st.sampled_from((True, False, False, False)))
    def restart(self, really: bool = True) -> None:
        if not really:
            return
        self.boots += 1
        self.host = self.desired_class(f"boot{self.boots}", steady=lambda: 0.0)
        self.removed: set[str] = set()
        self.read_as_ended: set[str] = set()
        self.before: dict[str, Remote] = {}

    @rule()
    def hello(self) -> None:
        self.known_boot = self.host.boot
        self.readings.append((dict(self.versions), self.known_boot))

    @initialize(ready=st.booleans())
    def begin(self, ready: bool) -> None:
        if ready:
            self.come_up()

    @precondition(lambda self: not self.host.ready)
    @rule()
    def come_up(self) -> None:
        self.hello()
        self._deliver(self._state(dict(self.versions), self.known_boot))

    @precondition(lambda self: self.sent)
    @rule(back=st.integers(0, 15))
    def deliver(self, back: int) -> None:
        """One of the last messages, taken before or not; the others may come later, or never."""
        self._deliver(self.sent[-1 - back % min(16, len(self.sent))])

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 999))
    def deliver_an_old_one(self, which: int) -> None:
        self._deliver(self.sent[which % len(self.sent)])

    def _deliver(self, message: Message) -> None:
        match message:
            case HostState():
                if self.host.take_full(message, now=0.0):
                    stated = dict(message.others)
                    self.read_as_ended |= {
                        c for c, (host, version) in self.ended_at.items() if version <= stated.get(host, -1)
                    }
            case AddPeer():
                self.host.add(message, now=0.0)
            case RemovePeers():
                self.host.remove(message.connections, lingers=message.lingers)
            case AddRemotes():
                self.host.add_remotes(message.remotes)
            case RemoveRemotes():
                self.host.remotes.remove(message.connections)
                self.removed |= set(message.connections)

    # What must hold

    def _local(self) -> set[tuple[str, str]]:
        return {(held.server, ip) for held in self.host.held() for ip in held.peer.allowed_ips}

    @invariant()
    def an_address_has_one_owner(self) -> None:
        placed = [(remote.server, ip) for remote in self.host.remotes.all() for ip in remote.allowed_ips]
        assert len(set(placed)) == len(placed)
        # Networks of servers differ, so an address says of itself which server's it is; here they do not.
        assert not {ip for _, ip in placed} & {ip for _, ip in self._local()}
        # Nor is one shut in because somebody lingers here who had its address before.
        lingering = [peer for i in self.host.interfaces() for peer in i.peers if peer.lingers]
        assert not {ip for _, ip in placed} & {ip for peer in lingering for ip in peer.allowed_ips}

    @invariant()
    def nothing_that_ended_is_there(self) -> None:
        there = {remote.connection for remote in self.host.remotes.all()}
        assert self.host.ready or not there, "something was taken before the first full state"
        assert not there & self.removed, "one is there that this run was told the end of"
        assert not there & self.read_as_ended, "one is there that had ended when a full state was read"
        assert not any(remote.host == HOSTS[0] for remote in self.host.remotes.all()), "our own one is elsewhere"

    @invariant()
    def nothing_open_is_lost(self) -> None:
        now = {remote.connection: remote for remote in self.host.remotes.all()}
        numbers = {ip: remote.number for remote in now.values() for ip in remote.allowed_ips}
        taken = {ip for _, ip in self._local()}
        for connection, remote in self.before.items():
            newer = any(numbers.get(ip, 0) > remote.number or ip in taken for ip in remote.allowed_ips)
            assert connection in now or connection not in self.rows or newer, "an open connection was lost"
        self.before = now

    @rule()
    def all_is_quiet(self) -> None:
        """After hello and one full state of now, the host knows what the database says."""
        self.hello()
        self._deliver(self._state(dict(self.versions), self.known_boot))
        taken = {ip for _, ip in self._local()}
        assert self._local() == {(row.server, row.address) for row in self.rows.values() if row.host == HOSTS[0]}
        newest: dict[str, str] = {}
        for connection, row in self.rows.items():
            if row.open and row.host != HOSTS[0] and row.address not in taken:
                newest[row.address] = connection  # addresses of the two servers are the same here
        there = {remote.allowed_ips[0]: remote for remote in self.host.remotes.all()}
        assert {ip: remote.connection for ip, remote in there.items()} == newest
        assert {remote.host for remote in there.values()} == {self.rows[c].host for c in newest.values()}
        self.nothing_open_is_lost()

    def teardown(self) -> None:
        self.all_is_quiet()
