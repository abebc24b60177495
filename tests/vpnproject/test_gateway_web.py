"""Where requests may come in: gateway web, any host name below /key/, and no redirect that would end a tunnel."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client

from tests.attack import connect, ping
from tests.factories import Company, HostStandIn
from tests.protocol_client import Identity, make_request, make_sync, new_wg_key, plaintext
from wgpeers import views
from wgpeers.lifecycle import ping as pings

TUNNEL: dict[str, Any] = {"REMOTE_ADDR": "10.9.0.9", "SERVER_ADDR": "10.9.0.1"}
HOSTS = ["10.9.0.1:9790", "[fd09::1]:9790", "gate_1.example", "-", "bad host", "a" * 300, "", "[fe80::1%eth0]", "x:y"]


@pytest.fixture
def alice(company: Company) -> Identity:
    return company.hire("alice")[1]


@pytest.fixture
def key(alice: Identity, host: HostStandIn) -> str:
    key = new_wg_key()
    connect(alice, wg_public_key=key)
    return key


@pytest.fixture
def gateway(key: str, settings: LazySettings) -> None:
    """This process becomes gateway web, after the connect."""
    from vpnproject import settings_gateway

    settings.ROOT_URLCONF = settings_gateway.ROOT_URLCONF
    settings.MIDDLEWARE = settings_gateway.MIDDLEWARE


@pytest.mark.usefixtures("gateway")
def test_gateway_web_answers_pings_and_syncs(alice: Identity, key: str) -> None:
    for name in HOSTS:
        assert ping(alice, key, HTTP_HOST=name, **TUNNEL).status_code == 200, name
        assert make_sync(alice, "a").send(HTTP_HOST=name, **TUNNEL).status_code == 200, name


@pytest.mark.usefixtures("gateway")
def test_gateway_web_hangs_up_on_whom_no_tunnel_brought(alice: Identity, key: str) -> None:
    for elsewhere in ({"REMOTE_ADDR": "192.0.2.9"}, {"SERVER_ADDR": "198.51.100.7"}, {"SERVER_ADDR": ""}):
        for response in (ping(alice, key, **TUNNEL | elsewhere), Client().get("/", **TUNNEL | elsewhere)):
            assert response.content == b""
            assert response["X-Accel-Redirect"] == "/.hang_up"  # the front then says nothing at all


@pytest.mark.usefixtures("gateway")
def test_what_a_host_forwards_counts_as_its_clients_and_what_others_claim_does_not(
    company: Company, alice: Identity, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servers.mesh.carried", lambda: [("fd00::7", company.server.pk)])
    claims: dict[str, Any] = {
        "HTTP_X_HOST_CLIENT": "10.9.0.2",
        "HTTP_X_HOST_GATEWAY": "10.9.0.1",
        "SERVER_ADDR": "fd00::1",
    }
    seen: list[str | None] = []
    ask = pings.ping

    def note(signed: Any, ids: Any, source: str | None, now: float) -> Any:
        seen.append(source)
        return ask(signed, ids, source, now)

    monkeypatch.setattr(views, "ping", note)
    assert ping(alice, key, REMOTE_ADDR="fd00::7", **claims).status_code == 200
    assert ping(alice, key, REMOTE_ADDR="fd00::8", **claims)["X-Accel-Redirect"] == "/.hang_up"
    # A client's own claim changes nothing of who it is.
    assert ping(alice, key, **{**claims, **TUNNEL}).status_code == 200
    assert seen == ["10.9.0.2", "10.9.0.9"]


@pytest.mark.usefixtures("gateway")
def test_gateway_web_does_nothing_else(alice: Identity) -> None:
    refused = make_request(alice).send(**TUNNEL)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "PUT")
    for method, path in [
        ("POST", make_request(alice, kind="wg_wait").path),
        ("GET", "/"),
        ("GET", "/admin/"),
        ("GET", "/admin/login/"),
        ("GET", "/key/abc.tar"),
        ("GET", "/key/abc/def.key"),
        ("GET", "/k/abc"),
        ("GET", "/ku/abc"),
        ("GET", "/static/admin/css/base.css"),
    ]:
        response = Client().generic(method, path, **TUNNEL)
        assert (response.status_code, response.json()) == (404, {"error": "not_found"}), path


def test_any_host_name_reaches_the_clients_paths_and_only_them(
    alice: Identity, key: str, settings: LazySettings
) -> None:
    settings.ADMIN_HOSTS = ["vpn.example.com"]
    for name in HOSTS:
        assert ping(alice, key, HTTP_HOST=name).status_code == 200, name
        assert Client().get("/key/unknown.tar", HTTP_HOST=name).status_code == 404, name
        assert Client().get("/k/unknown", HTTP_HOST=name).status_code == 404, name
        assert Client().get("/admin/login/", HTTP_HOST=name).status_code == 400, name
        assert Client().get("/", HTTP_HOST=name).status_code == 400, name
    assert Client().get("/", HTTP_HOST="vpn.example.com").status_code == 302


def test_a_path_that_only_looks_like_a_clients_is_the_admins(settings: LazySettings) -> None:
    settings.ADMIN_HOSTS = ["vpn.example.com"]
    for path in ("/keys", "/key", "/admin/key/", "//key/", "/KEY/wg/a/b/c"):
        assert Client().get(path, HTTP_HOST="other.example").status_code == 400, path


def test_nothing_below_key_is_ever_redirected(alice: Identity, key: str, settings: LazySettings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.APPEND_SLASH = True
    settings.PREPEND_WWW = True
    assert Client().get("/admin/").status_code == 301  # the settings are in force
    assert ping(alice, key).status_code == 200
    assert make_request(alice, plaintext()).send().status_code == 200
    assert make_sync(alice, "a").send().status_code == 200
    ids = f"{alice.organization}/{alice.user}/{alice.server}"
    for path in ("/key/", "/key/wg", f"/key/wg/{ids}/", f"/key/sync/{ids}", "/key/unknown.zip", "/ku/unknown"):
        for method in ("GET", "POST", "PUT"):
            assert Client().generic(method, path).status_code in (404, 405), (method, path)


def test_a_client_needs_no_cookie_and_gets_none(alice: Identity, key: str) -> None:
    """With CSRF checks as in earnest (the test client leaves them out by default)."""
    strict = Client(enforce_csrf_checks=True)
    for request in (make_request(alice, method="PUT"), make_request(alice), make_sync(alice, "a")):
        response = request.send(strict)
        assert response.status_code == 200
        assert not response.cookies
        assert "Vary" not in response.headers or "Cookie" not in response["Vary"]
