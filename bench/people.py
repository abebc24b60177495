"""Users with open connections or none, and requests signed for them beforehand."""

from __future__ import annotations

import multiprocessing
import secrets
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from django.db import connections

from core.clock import moment
from core.crypto import Secret
from core.redis_store import redis_client
from servers import heartbeats, networks, services
from servers.models import Address, Host, Server, ServerHost
from tests.factories import Company
from tests.protocol_client import VECTORS, ClientRequest, Identity, make_request, new_wg_key, plaintext
from users.models import Organization, VpnUser
from wgpeers.lifecycle import liveness
from wgpeers.models import Connection, State

EMPTY = b"GET /key/empty HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"


def found_company() -> Company:
    """An organization with a server in a /16, and one host."""
    organization = Organization.objects.create(name="Bench")
    server = Server.objects.create(name="Bench", network="10.8.0.0/16", wg_network="10.9.0.0/16", started=True)
    server.organizations.add(organization)
    services.ask_first_factors(server)
    host = Host.objects.create(public_id="bench", name="bench", public_address="192.0.2.1")
    # Until the real host worker, where a benchmark runs one, reports its own.
    ServerHost.objects.create(server=server, host=host, public_key=new_wg_key())
    return Company(organization, server, host)


def seem_alive(host: Host) -> None:
    """As if its worker had just been heard, and for good: for benchmarks without one."""
    redis_client().mset({heartbeats.key(host): "{}", heartbeats.fresh_key(host): "1"})


def hire(company: Company, count: int) -> list[Identity]:
    """Users, each with HMAC secrets of their own. They share one RSA key, of which only the public half is used."""
    pairs = [(secrets.token_hex(16), secrets.token_hex(16)) for _ in range(count)]
    users = VpnUser.objects.bulk_create(
        VpnUser(
            organization=company.organization,
            name=f"user{number}",
            sync_token=Secret.of(token),
            sync_secret=Secret.of(secret),
            public_key=VECTORS["user_public_key"],
            certificate="-",
        )
        for number, (token, secret) in enumerate(pairs)
    )
    return [company.identity(user, *pair) for user, pair in zip(users, pairs, strict=True)]


def allot(company: Company, people: Sequence[Identity]) -> dict[str, VpnUser]:
    """Give each their static address, as everybody has it after their first connect; the users by public id."""
    users = VpnUser.objects.in_bulk([person.user for person in people], field_name="public_id")
    Address.objects.bulk_create(
        Address(server=company.server, host_part=host_part, user=users[person.user])
        for host_part, person in enumerate(people, start=networks.FIRST_HOST_PART)
    )
    Server.objects.filter(pk=company.server.pk).update(next_host_part=networks.FIRST_HOST_PART + len(people))
    return users


def open_connections(company: Company, people: Sequence[Identity], now: float) -> list[str]:
    """An open connection for each, with their static address; the WireGuard keys."""
    by_id = allot(company, people)
    rows = Connection.objects.bulk_create(
        Connection(
            user=by_id[person.user],
            user_name=by_id[person.user].name,
            server=company.server,
            host=company.host,
            state=State.OPEN,
            device_id=f"device{host_part}",
            wg_public_key=new_wg_key(),
            host_part=host_part,
            address=networks.address(company.server.wg_network, host_part),
            created=moment(now),
            opened=moment(now),
        )
        for host_part, person in enumerate(people, start=networks.FIRST_HOST_PART)
    )
    for row in rows:
        liveness.start(row.public_id, now + company.server.ping_timeout)
    return [row.wg_public_key for row in rows]


def sign(method: str, wanted: Sequence[tuple[Identity, dict[str, Any]]], now: int) -> list[bytes]:
    """Each request as bytes, signed at ``now``; ``wanted`` is who sends it and the plaintext's own fields."""
    return [request.wire() for request in prepare(method, wanted, now)]


def prepare(method: str, wanted: Sequence[tuple[Identity, dict[str, Any]]], now: int) -> list[ClientRequest]:
    """The same as requests, whose headers can be made anew.

    An RSA-4096 signature takes 2 ms, so all cores work at it.
    """
    jobs = [(method, _words(person), fields, now) for person, fields in wanted]
    connections.close_all()  # a child must not share the database with us
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:
        return list(pool.map(_prepare, jobs, chunksize=50))


# All of an identity but its RSA key, which cannot go from process to process.
Words = tuple[str, str, str, str, str, str]


def _words(person: Identity) -> Words:
    return (person.organization, person.user, person.server, person.token, person.secret, person.box_public_key)


def _prepare(job: tuple[str, Words, dict[str, Any], int]) -> ClientRequest:
    method, words, fields, now = job
    identity = Identity(*words)
    return make_request(identity, plaintext(**{"timestamp": now, **fields}), method=method, now=now)
