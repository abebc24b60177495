"""Machines join by a token that is good once: for whom, for how long, and what nobody else learns."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from typing import Any

import pytest
import redis
from django.conf import LazySettings, settings
from django.db import connection
from django.test import Client

from core.redis_store import redis_client
from servers import joining, mesh
from servers.hostnet.state import mesh_from_json
from servers.hostnet.state.joining import PATH, JoinError, Request, Token
from servers.models import Host, JoinToken, MeshNode
from tests.conftest import Clock
from tests.lab import HANGING

pytestmark = pytest.mark.django_db(transaction=True)


def new_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


@pytest.fixture
def control(fixed_clock: Clock) -> Host:
    """The control side's own machine, whose worker has said its key."""
    host = Host.objects.create(name="control", public_address="198.51.100.1")
    mesh.control_node(host)
    mesh.note_key(host, new_key())
    return host


@pytest.fixture
def berlin(control: Host) -> Host:
    return Host.objects.create(name="Berlin", public_address="198.51.100.2", public_address6="2001:db8::2")


def ask(token: Token, action: str = "join", **more: Any) -> tuple[int, dict[str, Any]]:
    """What a machine is answered, opened."""
    request = Request(token.control_key)
    message = {"action": action, "token": token.sent, "public_key": new_key(), "networks": [], **more}
    response = Client().post(PATH, request.body(message), content_type="application/json")
    return response.status_code, request.answer(response.content)


def test_joining_gives_a_machine_its_place_in_the_mesh_and_a_user_in_redis(berlin: Host, fixed_clock: Clock) -> None:
    key = new_key()
    status, said = ask(joining.make_token(berlin, fixed_clock.now), public_key=key)
    assert status == 200
    assert (said["id"], said["name"], said["web_port"]) == (berlin.public_id, "Berlin", 9790)
    control = MeshNode.objects.get(host__name="control")
    network = mesh.the_mesh().network.removesuffix("::/64")
    told = mesh_from_json(said["mesh"])
    assert told.addresses == (f"{network}::2/128",)
    assert [(peer.public_key, peer.endpoints, peer.addresses) for peer in told.peers] == [
        (control.public_key, ("198.51.100.1:51800",), (f"{network}::1/128",))
    ]
    assert told.redis == (f"[{network}::1]:9791",)
    assert told.serves == ()
    # The control side's machine learns of it in its turn, and serves it.
    theirs = mesh.mesh_of(control.host)
    assert theirs is not None
    assert [(peer.public_key, peer.endpoints) for peer in theirs.peers] == [
        (key, ("198.51.100.2:51800", "[2001:db8::2]:51800"))
    ]
    assert theirs.serves == (9790, 9791)
    as_berlin(said).ping()


def as_berlin(said: dict[str, Any]) -> redis.Redis:
    path = settings.REDIS_URL.removeprefix("unix://").partition("?")[0]
    return redis.Redis(unix_socket_path=path, username=said["redis_user"], password=said["redis_password"])


def test_token_is_good_once(berlin: Host, fixed_clock: Clock) -> None:
    token = joining.make_token(berlin, fixed_clock.now)
    assert ask(token)[0] == 200
    before = MeshNode.objects.values().get(host=berlin)
    status, said = ask(token)
    assert (status, said["error"]) == (403, "used_token")
    assert MeshNode.objects.values().get(host=berlin) == before


def test_of_two_that_come_at_once_with_one_token_one_joins(berlin: Host, fixed_clock: Clock) -> None:
    token = joining.make_token(berlin, fixed_clock.now)
    answers: list[int] = []

    def join() -> None:
        answers.append(ask(token)[0])
        connection.close()

    threads = [threading.Thread(target=join) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANGING)
    assert sorted(answers) == [200, 403, 403, 403]


def test_token_expires(berlin: Host, fixed_clock: Clock) -> None:
    token = joining.make_token(berlin, fixed_clock.now)
    fixed_clock.advance(15 * 60)
    assert ask(token)[1]["error"] == "expired_token"
    assert not MeshNode.objects.filter(host=berlin).exists()


def test_new_token_takes_the_place_of_the_one_before(berlin: Host, fixed_clock: Clock) -> None:
    old = joining.make_token(berlin, fixed_clock.now)
    new = joining.make_token(berlin, fixed_clock.now)
    assert ask(old)[1]["error"] == "unknown_token"
    assert ask(new)[0] == 200


def test_token_of_a_host_that_was_removed_is_worth_nothing(berlin: Host, fixed_clock: Clock) -> None:
    token = joining.make_token(berlin, fixed_clock.now)
    berlin.delete()
    assert ask(token)[1]["error"] == "unknown_token"


def test_database_holds_no_token(berlin: Host, fixed_clock: Clock) -> None:
    token = joining.make_token(berlin, fixed_clock.now)
    row = JoinToken.objects.values().get()
    held = " ".join(map(str, row.values()))
    assert token.sent not in held
    assert token.text not in held
    assert token.secret.hex() not in repr(token)


def test_checking_uses_nothing_up(berlin: Host, fixed_clock: Clock) -> None:
    token = joining.make_token(berlin, fixed_clock.now)
    for _ in range(2):
        status, said = ask(token, "check")
        assert (status, said["host"], said["network"]) == (200, "Berlin", mesh.the_mesh().network)
    assert not MeshNode.objects.filter(host=berlin).exists()
    assert ask(token)[0] == 200


def test_request_sealed_to_another_installation_is_refused_without_a_word_of_ours(berlin: Host) -> None:
    stranger = Token.make(secrets.token_bytes(32))
    request = Request(stranger.control_key)
    response = Client().post(PATH, request.body({"action": "check"}), content_type="application/json")
    assert (response.status_code, response.json()["error"]) == (400, "malformed")
    assert "box" not in response.json()


def test_answer_of_whoever_is_between_is_not_believed(berlin: Host, fixed_clock: Clock) -> None:
    """Who terminates TLS sees and can change everything, but has no key of either side."""
    token = joining.make_token(berlin, fixed_clock.now)
    mine, another = Request(token.control_key), Request(token.control_key)
    body = mine.body({"action": "check", "token": token.sent})
    assert token.sent.encode() not in body
    response = Client().post(PATH, body, content_type="application/json").content
    with pytest.raises(JoinError):
        another.answer(response)
    box = json.loads(response)["box"]
    changed = base64.b64encode(bytes(byte ^ 1 for byte in base64.b64decode(box))).decode()
    for forged in (json.dumps({"box": changed}), json.dumps({"error": "used_token"}), "[]", "", '{"box": 5}'):
        with pytest.raises(JoinError):
            mine.answer(forged.encode())


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{}", b'{"key": "AAAA", "box": ""}', b'{"key": 1, "box": 2}', b"\xff", b"[" * 9000]
)
def test_what_is_no_request_is_refused_in_words(body: bytes, berlin: Host) -> None:
    response = Client().post(PATH, body, content_type="application/json")
    assert response.status_code == 400
    assert response.json()["detail"]


def test_too_much_is_refused_before_it_is_read(berlin: Host) -> None:
    response = Client().post(PATH, b"x" * 40_000, content_type="application/json")
    assert (response.status_code, response.json()["error"]) == (413, "too_large")
    assert Client().get(PATH).status_code == 405


def test_address_that_asks_too_often_has_to_wait(berlin: Host) -> None:
    answers = [Client().post(PATH, b"", content_type="application/json").status_code for _ in range(21)]
    assert answers == [400] * 20 + [429]


def test_mesh_that_would_collide_on_the_machine_is_refused_and_the_token_stays_good(
    berlin: Host, fixed_clock: Clock
) -> None:
    row = mesh.the_mesh()
    row.network = "10.77.0.0/24"
    row.full_clean()
    row.save()
    token = joining.make_token(berlin, fixed_clock.now)
    for action in ("check", "join"):
        said = ask(token, action, networks=["0.0.0.0/0", "10.0.0.0/8", "fe80::/64"])[1]
        assert said["error"] == "network_in_use"
        assert "10.0.0.0/8" in said["detail"]
    assert not MeshNode.objects.filter(host=berlin).exists()
    status, said = ask(token, networks=["0.0.0.0/0", "192.168.0.0/16", "nonsense"])
    assert (status, said["mesh"]["addresses"]) == (200, ["10.77.0.2/32"])


@pytest.mark.parametrize("action", ["check", "join"])
def test_machine_that_is_another_hosts_is_refused_and_the_token_stays_good(
    action: str, berlin: Host, fixed_clock: Clock
) -> None:
    Host.objects.create(name="Paris", public_address="198.51.100.3", public_address6="2001:db8::3")
    token = joining.make_token(berlin, fixed_clock.now)
    for address in ("198.51.100.3", "2001:DB8:0::3", "198.51.100.1"):
        status, said = ask(token, action, addresses=["192.168.1.5", "nonsense", address])
        assert (status, said["error"]) == (403, "other_host")
        assert ("Paris" in said["detail"]) == (address != "198.51.100.1")
        assert "Berlin" in said["detail"]
    assert not MeshNode.objects.filter(host=berlin).exists()
    assert ask(token, addresses=["198.51.100.2", "2001:db8::2", "10.0.0.1"])[0] == 200


@pytest.mark.parametrize(
    ("own", "there", "refused"),
    [
        ("198.51.100.9", ["192.168.1.3"], False),  # behind NAT, in a network of its own
        ("vpn.example.com", ["192.168.1.3"], False),
        ("198.51.100.9", ["192.168.1.3", "198.51.100.9"], True),
        ("192.168.1.9", ["192.168.1.3"], True),  # in the same network as the others
        ("192.168.1.9", ["192.168.1.9"], False),
        ("vpn.example.com", ["198.51.100.1"], True),
    ],
)
def test_addresses_that_many_places_have_say_little(
    own: str, there: list[str], refused: bool, control: Host, fixed_clock: Clock
) -> None:
    Host.objects.create(name="Paris", public_address="192.168.1.3")
    host = Host.objects.create(name="Rome", public_address=own)
    assert ask(joining.make_token(host, fixed_clock.now), "check", addresses=there)[0] == (403 if refused else 200)


@pytest.mark.parametrize("addresses", [None, "198.51.100.1", {}, [None, 1, []]])
def test_a_machine_that_says_no_addresses_is_believed(addresses: object, berlin: Host, fixed_clock: Clock) -> None:
    assert ask(joining.make_token(berlin, fixed_clock.now), "check", addresses=addresses)[0] == 200


def test_machine_that_joins_again_keeps_its_address_and_its_older_password_ends(
    berlin: Host, fixed_clock: Clock
) -> None:
    key = new_key()
    first = ask(joining.make_token(berlin, fixed_clock.now), public_key=key)[1]
    old = as_berlin(first)
    old.ping()
    second = ask(joining.make_token(berlin, fixed_clock.now), public_key=key)[1]
    assert second["mesh"] == first["mesh"]
    with pytest.raises(redis.RedisError):
        old.ping()
    as_berlin(second).ping()


def test_machine_with_the_key_of_another_one_is_refused(berlin: Host, control: Host, fixed_clock: Clock) -> None:
    """As when a disk is copied."""
    token = joining.make_token(berlin, fixed_clock.now)
    said = ask(token, public_key=MeshNode.objects.get(host=control).public_key)[1]
    assert said["error"] == "key_in_use"
    assert not MeshNode.objects.filter(host=berlin).exists()
    # Nothing of it was done, so the token is still good.
    assert ask(token)[0] == 200


@pytest.mark.parametrize("key", [None, 5, "", "AAAA", base64.b64encode(bytes(31)).decode()])
def test_key_that_is_none_is_refused(key: object, berlin: Host, fixed_clock: Clock) -> None:
    assert ask(joining.make_token(berlin, fixed_clock.now), public_key=key)[1]["error"] == "malformed"


def test_own_machine_of_the_control_side_cannot_be_taken_over(control: Host, fixed_clock: Clock) -> None:
    assert ask(joining.make_token(control, fixed_clock.now))[1]["error"] == "control_node"


def test_nobody_joins_while_redis_is_away_and_the_token_stays_good(
    berlin: Host, fixed_clock: Clock, settings: LazySettings
) -> None:
    token, url = joining.make_token(berlin, fixed_clock.now), settings.REDIS_URL
    settings.REDIS_URL = "unix:///nowhere/redis.sock"
    request = Request(token.control_key)
    response = Client().post(PATH, request.body({"action": "join", "token": token.sent}), content_type="text/plain")
    assert response.status_code == 503
    settings.REDIS_URL = url
    assert ask(token)[0] == 200


def test_full_mesh_is_said(berlin: Host, fixed_clock: Clock) -> None:
    row = mesh.the_mesh()
    row.network = "10.77.0.0/29"
    row.save()
    for number in range(5):
        host = Host.objects.create(name=f"h{number}", public_address=f"198.51.100.{10 + number}")
        assert ask(joining.make_token(host, fixed_clock.now))[0] == 200
    assert ask(joining.make_token(berlin, fixed_clock.now))[1]["error"] == "mesh_full"


def test_redis_is_told_a_hash_and_the_database_keeps_one(berlin: Host, fixed_clock: Clock) -> None:
    said = ask(joining.make_token(berlin, fixed_clock.now))[1]
    digest = hashlib.sha256(said["redis_password"].encode()).hexdigest()
    assert MeshNode.objects.get(host=berlin).redis_hash == digest
    held = str(redis_client().acl_getuser(said["redis_user"]))
    assert digest in held
    assert said["redis_password"] not in held
