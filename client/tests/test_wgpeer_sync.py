"""Factor tokens, and profiles that a sync brings."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from wgpeer.transport import HttpResponse
from wgpeer_fakes import (
    OpenedRequest,
    allow,
    hmac64,
    make_profile,
    profile_text,
    refuse,
    status,
)
from wgpeer_session_lab import Lab, gateway, in_turn


def tokens(lab: Lab) -> list[str]:
    return [request.plaintext["token"] for request in lab.network.of("wg")]


def test_a_factor_token_is_kept_until_it_expires(tmp_path: Path) -> None:
    profile = make_profile(token=True, token_ttl=3600)
    first, second, third = (Lab(tmp_path, profile) for _ in range(3))
    third.clock.wall_offset += 3601
    for lab in (first, second, third):
        lab.run(a=allow, b=allow, gateway=gateway())
    assert tokens(first)[0] == tokens(second)[0]
    assert tokens(third)[0] != tokens(first)[0]
    assert (tmp_path / "token.json").stat().st_mode & 0o777 == 0o600


def test_a_refusal_forgets_the_factor_token(tmp_path: Path) -> None:
    profile = make_profile(token=True, token_ttl=3600)
    first, second, third = (Lab(tmp_path, profile) for _ in range(3))
    first.run(a=allow, b=allow, gateway=gateway())
    second.run(a=refuse, b=refuse)
    assert not (tmp_path / "token.json").exists()
    third.run(a=allow, b=allow, gateway=gateway())
    assert tokens(third)[0] != tokens(first)[0]


def test_without_tokens_nothing_is_stored(lab: Lab) -> None:
    lab.run(a=allow, b=allow, gateway=gateway())
    assert not (lab.tmp / "token.json").exists()
    assert 0 < len(tokens(lab)[0]) <= 64


def synced(text: str, secret: str | None = None) -> Callable[[OpenedRequest], HttpResponse]:
    signature = hmac64(text, secret) if secret else hmac64(text)
    return lambda _request: HttpResponse(200, json.dumps({"conf": text, "signature": signature}).encode())


def newer(**changes: Any) -> str:
    fields: dict[str, Any] = {"revision": 4, "sync_hosts": ["https://new.example"], "sync_hash": "aaaa"} | changes
    return profile_text(
        drop=("sync_token", "sync_secret"),
        key=None,
        lines=f"setenv UV_ID {'f' * 32}\nsetenv UV_NAME other\nclient\n",
        **fields,
    )


def test_a_sync_brings_new_hosts_and_keeps_what_is_ours(lab: Lab) -> None:
    sync = in_turn(synced(newer()), lambda _request: HttpResponse(200, b"{}"))
    lab.run(a=allow, b=allow, gateway=gateway(sync=sync))
    (saved,) = lab.saved
    assert [host.url for host in saved.sync_hosts] == ["https://new.example"]
    assert saved.device_id == lab.profile.device_id
    assert saved.device_name == lab.profile.device_name
    assert saved.key == lab.profile.key
    assert saved.text("sync_secret") == lab.profile.text("sync_secret")
    assert lab.network.of("sync")[0].path.endswith("/d41d8cd98f00b204e9800998ecf8427e")
    assert saved.text("sync_hash") == "aaaa"
    assert lab.session.profile == saved


BAD_SYNCS = {
    "signature": synced(newer(), "another-secret"),
    "older": synced(newer(revision=2)),
    "other user": synced(newer(user_id="0123")),
    "other server": synced(newer(server_id="0123")),
    "other organization": synced(newer(organization_id="0123")),
    "other box key": synced(newer(server_box_public_key="A" * 43 + "=")),
    "not a profile": synced("hello"),
    "not json": lambda _request: HttpResponse(200, b"hello"),
    "nothing new": lambda _request: HttpResponse(200, b"{}"),
    "quiet": status(480),
    "fault": status(503),
}


@pytest.mark.parametrize("name", BAD_SYNCS)
def test_a_sync_that_must_not_count_changes_nothing(lab: Lab, name: str) -> None:
    lab.run(a=allow, b=allow, gateway=gateway(sync=BAD_SYNCS[name]))
    assert lab.network.of("sync") != []
    assert lab.saved == []
    assert lab.session.profile == lab.profile
    assert lab.session.status.reconnects == 0


def test_a_sync_comes_after_the_connect_and_about_every_hour_and_never_costs_a_ping(lab: Lab) -> None:
    lab.clock.stop_at = 13000
    lab.run(a=allow, b=allow, gateway=gateway())
    first, *_ = syncs = lab.network.times("sync")
    assert first == 1010.0
    assert len(syncs) == 4
    gaps = [later - earlier for earlier, later in pairwise(syncs)]
    assert all(3240 <= gap <= 3970 for gap in gaps)
    assert len(set(gaps)) > 1
    assert all(later - earlier == 10 for earlier, later in pairwise(lab.network.times("ping")))
