"""Profile links: how long they live, how often they work, their page, and that a dead one looks like none."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection as database
from django.test import Client

from servers.models import Server
from tests.attack import second_server, unchanged
from tests.conftest import Clock
from tests.factories import Company
from tests.lab import HANGING
from tests.protocol_client import NOW
from users.models import Organization, VpnUser
from wgpeers.models import ProfileLink
from wgpeers.profiles import links

from .opened_links import DOWNLOADS, get, opened, paths, statuses

HOUR = 3600


@pytest.fixture
def user(company: Company) -> VpnUser:
    return company.hire("alice")[0]


def test_a_link_is_unguessable_and_stored_unreadable(user: VpnUser) -> None:
    made = [links.create(user, NOW) for _ in range(50)]
    ids = {secret.reveal() for link in made for secret in (link.key_id, link.short_id)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9]{32}", link.key_id.reveal()) for link in made)
    assert all(re.fullmatch(r"[A-Za-z0-9]{16}", link.short_id.reveal()) for link in made)
    with database.cursor() as cursor:
        cursor.execute("SELECT * FROM wgpeers_profilelink")
        stored = str(cursor.fetchall())
    assert not any(name in stored for name in ids)


def test_a_link_lives_for_a_day(user: VpnUser, fixed_clock: Clock) -> None:
    link = links.create(user, NOW)
    fixed_clock.now = NOW + 24 * HOUR - 1
    assert statuses(link) == {200}
    fixed_clock.now = NOW + 24 * HOUR
    assert statuses(link) == {404}


OPENINGS: dict[str, Callable[[ProfileLink], Any]] = {
    "button": opened,
    "import": lambda link: get(paths(link)["import"]),
}


@pytest.mark.parametrize("opening", OPENINGS.values(), ids=OPENINGS)
def test_a_short_link_lives_for_ten_minutes_once_opened(
    user: VpnUser, fixed_clock: Clock, opening: Callable[[ProfileLink], Any]
) -> None:
    link = links.create(user, NOW)
    fixed_clock.now = start = NOW + 5 * HOUR
    assert opening(link).status_code == 200
    fixed_clock.now = start + 300
    assert statuses(link) == {200}
    assert opening(link).status_code == 200  # opened again: not a new ten minutes
    fixed_clock.now = start + 599
    assert statuses(link) == {200}
    fixed_clock.now = start + 600
    assert statuses(link, ("page", "import")) == {404}
    assert statuses(link, ("tar", "zip", "one")) == {200}


def test_a_short_link_opened_late_does_not_outlive_its_day(user: VpnUser, fixed_clock: Clock) -> None:
    link = links.create(user, NOW)
    fixed_clock.now = NOW + 24 * HOUR - 60
    assert opened(link).status_code == 200
    assert statuses(link) == {200}
    fixed_clock.now = NOW + 24 * HOUR
    assert statuses(link) == {404}


PREVIEWS = [
    {},
    {"Accept": "text/html,*/*", "User-Agent": "Slackbot-LinkExpanding 1.0"},
    {"Sec-Purpose": "prefetch;prerender", "Accept": "text/html"},
]


@pytest.mark.parametrize("headers", PREVIEWS)
@pytest.mark.parametrize("one_time", [False, True])
def test_a_link_that_only_previews_opened_does_not_begin_to_end(
    user: VpnUser, fixed_clock: Clock, headers: dict[str, str], one_time: bool
) -> None:
    link = links.create(user, NOW, one_time=one_time)
    with unchanged():
        text = get(paths(link)["page"], headers=headers).content.decode()
        assert get(paths(link)["page"], headers=headers).status_code == 200
        Client().head(paths(link)["page"], headers=headers)
    assert link.key_id.reveal() not in text  # so whoever follows all that is in it finds no download either
    assert "/ku/" not in text
    fixed_clock.now = NOW + 24 * HOUR - 1
    assert "Import into your client" in opened(link).content.decode()
    assert get(paths(link)["import"]).status_code == 200


def test_an_opened_page_can_be_reloaded(user: VpnUser) -> None:
    link = links.create(user, NOW)
    browser = Client()
    response = browser.post(paths(link)["page"], follow=True)
    assert response.redirect_chain == [(paths(link)["page"], 302)]
    again = browser.get(paths(link)["page"])
    assert [each.context["key_id"] for each in (again, response)] == [link.key_id.reveal()] * 2
    assert link.key_id.reveal() not in get(paths(link)["page"]).content.decode()  # nor to another one by itself


@pytest.mark.parametrize("kind", DOWNLOADS)
def test_a_one_time_link_gives_one_download(user: VpnUser, kind: str) -> None:
    link = links.create(user, NOW, one_time=True)
    assert opened(link).status_code == 200
    assert get(paths(link)["page"]).status_code == 200  # looking uses nothing up
    assert get(paths(link)[kind]).status_code == 200
    assert statuses(link) == {404}


def test_of_two_downloads_at_the_same_moment_a_one_time_link_gives_one(
    user: VpnUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have found the link good before either marks it used."""
    link = links.create(user, NOW, one_time=True)
    both, real, seen = threading.Barrier(2), links.use, []

    def use(link: ProfileLink, now: float) -> bool:
        both.wait(HANGING)
        return real(link, now)

    monkeypatch.setattr(links, "use", use)

    def run(kind: str) -> None:
        try:
            seen.append(get(paths(link)[kind]).status_code)
        finally:
            database.close()

    threads = [threading.Thread(target=run, args=(kind,)) for kind in ("tar", "import")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANGING)
    assert sorted(seen) == [200, 404]


def test_marking_a_link_used_waits_for_no_join(user: VpnUser) -> None:
    """Only conditions on the link's own row are looked at again by PostgreSQL after it has waited for that row."""
    link = links.create(user, NOW, one_time=True)
    with database.execute_wrapper(_refuse_subqueries):
        assert links.use(link, NOW)
    assert not links.use(link, NOW)


def _refuse_subqueries(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
    assert not (sql.startswith("UPDATE") and "SELECT" in sql), sql
    return execute(sql, params, many, context)


DEATHS: dict[str, Callable[[ProfileLink], object]] = {
    "revoked": lambda link: links.revoke(link, NOW),
    "expired": lambda link: ProfileLink.objects.update(expires=link.created, short_expires=link.created),
    "the user is disabled": lambda link: VpnUser.objects.update(enabled=False),
    "the organization is disabled": lambda link: Organization.objects.update(enabled=False),
    "the user is gone": lambda link: VpnUser.objects.all().delete(),
    "used up": lambda link: ProfileLink.objects.update(one_time=True, used=link.created),
    "unknown": lambda link: ProfileLink.objects.all().delete(),
}


def test_every_dead_link_looks_like_one_that_never_was(company: Company) -> None:
    seen = {}
    for number, (name, die) in enumerate(DEATHS.items()):
        user, _ = company.hire(f"user {number}")
        link = links.create(user, NOW)
        assert statuses(link) == {200}
        die(link)
        for kind, path in paths(link).items():
            with unchanged():
                response = get(path)
            headers = {name: value for name, value in response.headers.items() if name != "Expires"}  # now
            seen[name, kind] = (response.status_code, response.content, headers)
        VpnUser.objects.all().delete()
        Organization.objects.update(enabled=True)
    assert len({repr(what) for what in seen.values()}) == 1, seen
    assert seen["unknown", "tar"][0] == 404


def test_a_server_that_is_not_the_users_is_not_there(company: Company, user: VpnUser) -> None:
    other = second_server(company)
    other.organizations.clear()
    link = links.create(user, NOW, one_time=True)
    key = link.key_id.reveal()
    for server in (other.public_id, "0" * 24):
        assert get(f"/key/{key}/{server}.key").status_code == 404
    assert get(paths(link)["one"]).status_code == 200  # which has not used the link up


def test_a_key_that_is_still_being_made(user: VpnUser) -> None:
    VpnUser.objects.update(certificate="")
    link = links.create(user, NOW, one_time=True)
    for kind in DOWNLOADS:
        response = get(paths(link)[kind])
        assert (response.status_code, response.json()["error"]) == (503, "key_not_ready")
        assert int(response["Retry-After"]) > 0
    page = opened(link)
    assert b"being made" in page.content
    VpnUser.objects.update(certificate="ready")
    assert get(paths(link)["tar"]).status_code == 200  # waiting has not used it up


def test_the_page_for_people(user: VpnUser) -> None:
    link = links.create(user, NOW)
    response = opened(link, HTTP_HOST="192.0.2.10:8443")
    text = response.content.decode()
    short, key = link.short_id.reveal(), link.key_id.reveal()
    assert f"pritunl://192.0.2.10:8443/ku/{short}" in text
    assert 'src="data:image/svg+xml' in text
    for path in ("tar", "zip", "one"):
        assert f'href="{paths(link)[path]}"' in text
    assert key in text
    policy = response["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "'unsafe-inline'" not in policy
    assert response["Referrer-Policy"] == "same-origin"  # browsers tell no other site, and ours where a form is from


def test_the_qr_code_is_that_of_the_import_address(user: VpnUser) -> None:
    import segno

    link = links.create(user, NOW)
    response = opened(link, HTTP_HOST="vpn.example.com")
    address = f"pritunl://vpn.example.com/ku/{link.short_id.reveal()}"
    assert response.context["import_address"] == address
    assert response.context["qr"] == segno.make(address, error="m").svg_data_uri(scale=5, border=2)


@pytest.mark.parametrize("name", ['"><script>alert(1)</script>', "a" * 5000, "", "é"])
def test_a_strange_host_name_harms_nobody(user: VpnUser, name: str) -> None:
    response = opened(links.create(user, NOW), HTTP_HOST=name)
    assert response.status_code == 200
    assert b"<script" not in response.content


def test_names_cannot_bring_markup_into_the_page(user: VpnUser) -> None:
    for model in (VpnUser, Organization, Server):
        model.objects.update(name="<img src=x onerror=alert(1)>")
    response = opened(links.create(VpnUser.objects.get(), NOW))
    assert b"<img src=x" not in response.content


def test_nothing_is_cached(user: VpnUser) -> None:
    link = links.create(user, NOW)
    for path in (*paths(link).values(), "/key/unknown.tar", "/k/unknown", "/ku/unknown"):
        control = get(path)["Cache-Control"]
        assert "no-store" in control, path
        assert "private" in control, path


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_only_get_is_served_and_the_button_of_the_page(user: VpnUser, method: str) -> None:
    """HEAD would use a one-time link up for nothing: previews of chat programs ask so."""
    link = links.create(user, NOW, one_time=True)
    with unchanged():
        for kind, path in paths(link).items():
            allowed = "GET, POST" if kind == "page" else "GET"
            if method in allowed:
                continue
            response = Client(enforce_csrf_checks=True).generic(method, path)
            assert (response.status_code, response["Allow"]) == (405, allowed)
            assert response["Content-Type"] == "application/json"
            if method != "HEAD":
                assert response.json()["error"] == "method_not_allowed"
    assert Client(enforce_csrf_checks=True).post(paths(link)["page"], follow=True).status_code == 200
    assert get(paths(link)["tar"]).status_code == 200


def test_views_are_limited_by_address(user: VpnUser, settings: LazySettings) -> None:
    settings.LINK_VIEWS_PER_MINUTE = 3
    link = links.create(user, NOW)
    for path in ("/key/unknown.tar", "/k/unknown", paths(link)["page"]):
        assert get(path).status_code in (200, 404)
    for path in (*paths(link).values(), "/key/unknown.tar"):
        response = get(path)
        assert (response.status_code, response.json()["error"]) == (429, "too_many_requests")
        assert response["Retry-After"] == "60"
    assert get(paths(link)["page"], REMOTE_ADDR="192.0.2.99").status_code == 200


def test_a_neighbour_in_the_same_ipv6_network_is_the_same_address(user: VpnUser, settings: LazySettings) -> None:
    settings.LINK_VIEWS_PER_MINUTE = 1
    assert get("/k/unknown", REMOTE_ADDR="2001:db8::1").status_code == 404
    assert get("/k/unknown", REMOTE_ADDR="2001:db8::ffff:2").status_code == 429
    assert get("/k/unknown", REMOTE_ADDR="2001:db8:0:1::1").status_code == 404


def test_forwarded_addresses_are_believed_from_proxies_only(user: VpnUser, settings: LazySettings) -> None:
    settings.LINK_VIEWS_PER_MINUTE = 1
    assert get("/k/unknown", REMOTE_ADDR="192.0.2.1").status_code == 404
    assert get("/k/unknown", REMOTE_ADDR="192.0.2.1", HTTP_X_FORWARDED_FOR="198.51.100.1").status_code == 429
    settings.TRUSTED_PROXIES = ["192.0.2.1"]
    for forwarded, status in [("198.51.100.7", 404), ("203.0.113.1, 198.51.100.7", 429), ("198.51.100.8", 404)]:
        assert get("/k/unknown", REMOTE_ADDR="192.0.2.1", HTTP_X_FORWARDED_FOR=forwarded).status_code == status


def test_redis_down_is_said_so(user: VpnUser, settings: LazySettings) -> None:
    url, settings.REDIS_URL = settings.REDIS_URL, "unix:///nonexistent/redis.sock"
    response = get(paths(links.create(user, NOW))["tar"])
    settings.REDIS_URL = url
    assert (response.status_code, response.json()["error"]) == (503, "store_down")


def test_a_digest_is_not_a_key(user: VpnUser) -> None:
    """Who reads the database has digests and ciphertext; neither opens anything."""
    link = links.create(user, NOW)
    assert get(f"/key/{link.key_digest}.tar").status_code == 404
    assert get(f"/ku/{link.short_digest}").status_code == 404
