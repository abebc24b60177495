"""A further control node joins by a token of its own, which hands over what all of them share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings

from core import shared_stores
from core.shared_stores import of_redis
from servers import joining, mesh
from servers.hostnet.state.version import VERSION
from servers.models import Host, JoinToken, MeshNode
from tests.conftest import Clock
from tests.servers.test_joining import ask, new_key

pytestmark = pytest.mark.django_db(transaction=True)

GIVEN = {
    "DATABASE_URL": "postgres://vpn:geheim@10.0.0.1,10.0.0.2/vpn",
    "API_URLS": "https://one.example.com,https://two.example.com:8443",
    "FIELD_KEYS_FILE": "/somewhere/here",
}


@pytest.fixture
def second(fixed_clock: Clock, settings: LazySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """The host of a machine that is to be a control node, where nothing is in the way of it."""
    control = Host.objects.create(name="control", public_address="one.example.com")
    mesh.control_node(control)
    mesh.note_key(control, new_key())
    monkeypatch.setattr(shared_stores, "of_database", lambda _config: iter(()))
    monkeypatch.setattr(shared_stores, "of_redis", lambda _url: iter(()))
    settings.VAR = tmp_path
    (tmp_path / "settings.env").write_text("# ours\n" + "".join(f"{name}={value}\n" for name, value in GIVEN.items()))
    settings.API_URLS = ["https://one.example.com", "https://two.example.com:8443"]
    return Host.objects.create(name="second", public_address="Two.example.com")


def ask_as_control(host: Host, now: float, action: str = "join", **more: Any) -> tuple[int, dict[str, Any]]:
    token = joining.make_token(host, now, control=True)
    return ask(token, action, **{"as": "control", "release": VERSION, **more})


def test_it_gets_what_all_control_nodes_share_and_its_own_place(
    second: Host, fixed_clock: Clock, settings: LazySettings
) -> None:
    status, said = ask_as_control(second, fixed_clock.now)
    assert status == 200
    assert (said["id"], said["name"]) == (second.public_id, "second")
    assert (said["public_address"], said["port"]) == ("two.example.com", 8443)
    assert said["secrets"] == {
        "secret_key": settings.SECRET_KEY,
        "field_keys": "\n".join(key.decode() for key in settings.FIELD_KEYS),
    }
    # What names a file of the first one's machine stays there.
    assert said["settings"] == {name: GIVEN[name] for name in ("DATABASE_URL", "API_URLS")}
    # The rest is for its own bin/run.
    assert not MeshNode.objects.filter(host=second).exists()


def test_checking_says_no_secret_and_uses_nothing_up(second: Host, fixed_clock: Clock, settings: LazySettings) -> None:
    token = joining.make_token(second, fixed_clock.now, control=True)
    more = {"as": "control", "release": VERSION}
    for _ in range(2):
        status, said = ask(token, "check", **more)
        assert (status, set(said)) == (200, {"host", "network", "port"})
    assert ask(token, **more)[0] == 200
    status, said = ask(token, **more)
    assert (status, said["error"]) == (403, "used_token")
    assert settings.SECRET_KEY not in str(said)


def test_token_of_one_kind_is_no_good_for_the_other(second: Host, fixed_clock: Clock) -> None:
    """The one of a host must never hand over a secret."""
    now = fixed_clock.now
    status, said = ask(joining.make_token(second, now), **{"as": "control", "release": VERSION})
    assert (status, said["error"]) == (403, "other_command")
    assert "bin/host join" in said["detail"]
    status, said = ask(joining.make_token(second, now, control=True))
    assert (status, said["error"]) == (403, "other_command")
    assert "bin/run --join" in said["detail"]
    # A new one of the other kind takes its place.
    old = joining.make_token(second, now, control=True)
    joining.make_token(second, now)
    assert ask(old, **{"as": "control", "release": VERSION})[1]["error"] == "unknown_token"
    assert JoinToken.objects.get(host=second).control is False


def refused(host: Host, now: float, **more: Any) -> dict[str, Any]:
    """The same for who only checks; the token stays good."""
    for action in ("check", "join"):
        status, said = ask_as_control(host, now, action, **more)
        assert status == 403
        assert "secrets" not in said
        assert JoinToken.objects.get(host=host).used is None
    return said


def test_where_database_or_redis_are_of_one_machine_it_is_said_with_what_to_do(
    second: Host, fixed_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_stores, "of_redis", of_redis)
    said = refused(second, fixed_clock.now)
    assert said["error"] == "one_machine"
    assert "Redis is reached by a socket" in said["detail"]
    assert "Set REDIS_URL" in said["detail"]


def test_machine_that_is_in_the_mesh_already_is_refused(second: Host, fixed_clock: Clock) -> None:
    mesh.control_node(second)
    assert refused(second, fixed_clock.now)["error"] == "joined_already"


def test_another_release_is_refused(second: Host, fixed_clock: Clock) -> None:
    said = refused(second, fixed_clock.now, release="0.0.9")
    assert said["error"] == "other_release"
    assert "0.0.9" in said["detail"]
    assert refused(second, fixed_clock.now, release=None)["error"] == "other_release"


def test_node_that_no_client_would_find_is_refused(second: Host, fixed_clock: Clock, settings: LazySettings) -> None:
    settings.API_URLS = ["https://one.example.com"]
    said = refused(second, fixed_clock.now)
    assert said["error"] == "not_in_api_urls"
    assert "https://two.example.com" in said["detail"]


def test_network_of_the_mesh_that_the_machine_has_is_refused(second: Host, fixed_clock: Clock) -> None:
    network = mesh.the_mesh().network
    assert refused(second, fixed_clock.now, networks=[network])["error"] == "network_in_use"
