"""Port forwards, client networks, split DNS and routes in the admin: made on the pages of those they belong to, listed,
and told to exactly the hosts that they concern."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.test import Client

from core import clock
from core.redis_store import redis_client
from servers.admin.client_services import serving
from servers.models import ClientNetwork, Host, PortForward, Route, Server, ServerHost, SplitDomain
from servers.rules import forward as rule_of_forward
from servers.rules import registry
from tests.admin_site import errors, send, staff
from tests.concurrency import together
from tests.conftest import Clock
from tests.factories import Company, add_host
from tests.lab import HANGING, NEVER
from users.models import Device, VpnUser

FORWARDS, NETWORKS = "/admin/servers/portforward/", "/admin/servers/clientnetwork/"


@pytest.fixture
def alice(company: Company) -> VpnUser:
    return company.hire("alice")[0]


@pytest.fixture
def admin(client: Client, company: Company) -> Client:
    staff(client, superuser=True)
    return client


@pytest.fixture
def elsewhere(company: Company) -> Server:
    """Another server of the same people, on a host of its own."""
    server = Server.objects.create(name="Lab", network="10.20.0.0/24", wg_network="10.21.0.0/24", port=51821)
    server.organizations.add(company.organization)
    add_host(server, "gate-2")
    return server


def converged() -> list[int]:
    """Primary keys of the hosts for which a full state was asked, each once, in order; what was queued is taken."""
    found = set()
    while text := redis_client().rpop("control"):
        message = json.loads(str(text))
        if message["headers"]["task"] == "wgpeers.converge":
            found.add(json.loads(base64.b64decode(message["body"]))[0][0])
    return sorted(found)


def versions() -> dict[int, int]:
    return dict(Host.objects.values_list("pk", "version"))


ROWS: dict[str, Callable[[Server, VpnUser], Any]] = {
    "route": lambda server, user: Route(server=server, network="192.168.1.0/24"),
    "split domain": lambda server, user: SplitDomain(server=server, domain="corp.example", dns_servers="10.0.0.1"),
    "forward": lambda server, user: PortForward(server=server, user=user, port=8080),
    "client network": lambda server, user: ClientNetwork(server=server, user=user, network="192.168.7.0/24"),
}


@pytest.mark.parametrize("kind", [*ROWS])
def test_exactly_the_hosts_of_the_server_are_told(
    company: Company, elsewhere: Server, alice: VpnUser, kind: str
) -> None:
    second = add_host(company.server, "gate-3")
    mine, others = sorted([company.host.pk, second.pk]), [elsewhere.hosts.get().pk]
    row = ROWS[kind](company.server, alice)

    def told_by(change: Callable[[], Any]) -> list[int]:
        converged()
        before = versions()
        change()
        raised = sorted(host for host, version in versions().items() if version == before[host] + 1)
        assert converged() == raised == sorted(host for host in before if versions()[host] != before[host])
        return raised

    assert told_by(row.save) == mine
    assert told_by(row.save) == mine
    row.server = elsewhere
    assert told_by(row.save) == sorted(mine + others)  # both have something to change
    assert told_by(row.delete) == others


@pytest.mark.parametrize("kind", [*ROWS])
def test_deleted_from_a_form_it_is_told_as_well(
    admin: Client, company: Company, elsewhere: Server, alice: VpnUser, kind: str
) -> None:
    row = ROWS[kind](company.server, alice)
    row.save()
    converged()
    before = versions()
    owner, prefix = {
        "route": (company.server, "routes"),
        "split domain": (company.server, "split_domains"),
        "forward": (alice, "forwards"),
        "client network": (alice, "client_networks"),
    }[kind]
    url = f"/admin/{owner._meta.app_label}/{owner._meta.model_name}/{owner.pk}/change/"
    assert errors(send(admin, url, **{f"{prefix}-0-DELETE": "on"})) == {}
    assert not type(row)._default_manager.exists()
    assert converged() == [company.host.pk]
    assert [pk for pk, version in versions().items() if version > before[pk]] == [company.host.pk]


@pytest.mark.parametrize(("page", "kind"), [(FORWARDS, "forward"), (NETWORKS, "client network")])
def test_a_list_has_search_filters_and_deletes_row_by_row(
    admin: Client, company: Company, elsewhere: Server, alice: VpnUser, page: str, kind: str
) -> None:
    bob, _ = company.hire("bob")
    first, second = ROWS[kind](company.server, alice), ROWS[kind](elsewhere, bob)
    if kind == "client network":
        second.network = "192.168.8.0/24"
    for row in (first, second):
        row.save()

    def found(query: str) -> list[Any]:
        return list(admin.get(f"{page}?{query}").context["cl"].result_list)

    assert len(found("")) == 2
    assert found("q=bob") == [second]
    assert found("q=lab") == [second]
    assert found(f"server__id__exact={company.server.pk}") == [first]
    assert found(f"user__id__exact={bob.pk}") == [second]
    converged()
    admin.post(page, {"action": "delete_selected", "_selected_action": [second.pk], "post": "yes"})
    assert found("") == [first]
    assert converged() == [elsewhere.hosts.get().pk]


def test_a_forward_is_made_and_moved_from_its_own_page(
    admin: Client, company: Company, elsewhere: Server, alice: VpnUser
) -> None:
    fields = {"server": company.server.pk, "user": alice.pk, "protocol": "both", "port": 8000}
    assert errors(send(admin, f"{FORWARDS}add/", **fields, last_port=8010, to_port=80)) == {}
    row = PortForward.objects.get()
    assert str(row) == "TCP and UDP 8000-8010"
    converged()
    assert errors(send(admin, f"{FORWARDS}{row.pk}/change/", server=elsewhere.pk)) == {}
    assert converged() == sorted([company.host.pk, elsewhere.hosts.get().pk])
    found = errors(send(admin, f"{FORWARDS}{row.pk}/change/", last_port=7000))
    assert list(found) == ["last_port"]
    assert "80-90" in admin.get(FORWARDS).content.decode()


@pytest.mark.django_db(transaction=True)
def test_of_two_forms_sent_at_once_that_want_one_port_the_second_is_refused(
    admin: Client, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [company.hire(name)[0] for name in ("alice", "bob")]
    check, checked, finished = rule_of_forward.check, threading.Event(), threading.Event()

    def first_waits_for_the_other(forward: PortForward) -> list[registry.Finding]:
        found = list(check(forward))
        if not checked.is_set():
            checked.set()
            finished.wait(NEVER)  # in vain, since the other one waits for us
        return found

    def save(user: VpnUser) -> dict[str, Any]:
        browser = Client()
        browser.cookies = admin.cookies
        if user is people[1]:
            checked.wait(HANGING)
        row = {"server": company.server.pk, "protocol": "tcp", "port": 8080, "last_port": "", "to_port": 80}
        found = errors(send(browser, f"/admin/users/vpnuser/{user.pk}/change/", _inline={"forwards": [row]}))
        finished.set()
        return found

    monkeypatch.setitem(registry._rules, "servers.PortForward", first_waits_for_the_other)
    good, refused = together([partial(save, user) for user in people])
    assert good == {}
    assert isinstance(refused, dict)
    assert [*refused] == ["forwards-0-port"]
    assert PortForward.objects.get().user == people[0]


def test_networks_are_made_on_a_users_page_and_checked_there(admin: Client, company: Company, alice: VpnUser) -> None:
    page = f"/admin/users/vpnuser/{alice.pk}/change/"
    rows = [{"server": company.server.pk, "network": "192.168.7.0/255.255.255.0", "probe_address": "192.168.7.2"}]
    assert errors(send(admin, page, _inline={"client_networks": rows})) == {}
    row = ClientNetwork.objects.get()
    assert (row.network, row.priority, row.active) == ("192.168.7.0/24", 1, False)
    found = errors(send(admin, page, _inline={"client_networks": [rows[0] | {"network": "10.9.0.0/25"}]}))
    assert sorted(found) == ["client_networks-1-network", "client_networks-1-probe_address"]
    # The machine's word on it is not undone by a form.
    ClientNetwork.objects.update(active=True, probe_ok=True)
    assert errors(send(admin, page, **{"client_networks-0-comment": "warehouse"})) == {}
    row.refresh_from_db()
    assert (row.comment, row.active, row.probe_ok) == ("warehouse", True, True)


def test_split_dns_is_made_on_the_servers_page_and_checked(admin: Client, company: Company) -> None:
    page = f"/admin/servers/server/{company.server.pk}/change/"
    good = {"domain": "corp.example", "dns_servers": "192.168.1.53, fd00::53"}
    found = errors(send(admin, page, _inline={"split_domains": [good | {"domain": "a b"}]}))
    assert list(found) == ["split_domains-0-domain"]
    found = errors(send(admin, page, _inline={"split_domains": [good | {"dns_servers": "dns"}]}))
    assert list(found) == ["split_domains-0-dns_servers"]
    assert errors(send(admin, page, _inline={"split_domains": [good]})) == {}
    assert SplitDomain.objects.get().domain == "corp.example"
    assert "turn names for clients on" in admin.get(page).content.decode()
    assert errors(send(admin, page, dns_mapping="on")) == {}
    assert "turn names for clients on" not in admin.get(page).content.decode()


def test_pages_say_who_serves_a_network_and_what_its_probe_says(
    admin: Client, company: Company, alice: VpnUser, fixed_clock: Clock
) -> None:
    bob, _ = company.hire("bob")
    since = clock.moment(clock.now() - 300)
    network = {"server": company.server, "network": "192.168.7.0/24"}
    ClientNetwork.objects.create(**network, user=alice, probe_ok=False, probe_changed=since)
    ClientNetwork.objects.create(**network, user=bob, priority=2, active=True, probe_ok=True, probe_changed=since)
    shown = {
        page: admin.get(page).content.decode()
        for page in (
            f"/admin/servers/server/{company.server.pk}/change/",
            f"/admin/users/vpnuser/{alice.pk}/change/",
            f"/admin/users/vpnuser/{bob.pk}/change/",
            NETWORKS,
        )
    }
    server, of_alice, of_bob, everything = shown.values()
    for text in (server, everything):
        assert "probe silent for 5 min" in text
    assert "probe silent" in of_alice
    for text in (server, of_bob, everything):
        assert "serves it" in text
    assert "serves it" not in of_alice
    assert f'href="/admin/users/vpnuser/{alice.pk}/change/"' in server
    assert f'href="{NETWORKS}?server__id__exact={company.server.pk}"' in server
    assert f'href="{FORWARDS}?server__id__exact={company.server.pk}"' in server
    silent = admin.get(f"{NETWORKS}?serves=silent").context["cl"].result_list
    assert [row.user for row in silent] == [alice]


@pytest.mark.parametrize(
    ("active", "probe_ok", "badge"),
    [
        (True, None, ("success", "serves it")),
        (True, True, ("success", "serves it")),
        (True, False, ("warning", "serves it, probe silent for 5 min")),
        (False, False, ("danger", "probe silent for 5 min")),
        (False, True, ("default", "stands by, well for 5 min")),
        (False, None, ("default", "does not serve it")),
    ],
)
def test_the_words_for_a_network(
    fixed_clock: Clock, active: bool, probe_ok: bool | None, badge: tuple[str, str]
) -> None:
    changed = clock.moment(clock.now()) - timedelta(minutes=5)
    row = ClientNetwork(active=active, probe_ok=probe_ok, probe_changed=None if probe_ok is None else changed)
    assert serving(row) == badge


def test_who_may_not_see_rows_is_not_shown_them(client: Client, company: Company, alice: VpnUser) -> None:
    PortForward.objects.create(server=company.server, user=alice, port=4711)
    ClientNetwork.objects.create(server=company.server, user=alice, network="192.168.47.0/24")
    staff(client, "servers.view_server", "users.view_vpnuser")
    pages = (f"/admin/servers/server/{company.server.pk}/change/", f"/admin/users/vpnuser/{alice.pk}/change/")
    for page in pages:
        shown = client.get(page).content.decode()
        assert "4711" not in shown
        assert "192.168.47.0" not in shown
    for page in (FORWARDS, NETWORKS, f"{FORWARDS}add/", f"{NETWORKS}add/"):
        assert client.get(page).status_code == 403


def test_who_only_views_changes_no_row(client: Client, company: Company, alice: VpnUser) -> None:
    row = PortForward.objects.create(server=company.server, user=alice, port=4711)
    ClientNetwork.objects.create(server=company.server, user=alice, network="192.168.47.0/24")
    Route.objects.create(server=company.server, network="172.16.0.0/16", metric=5)
    models = ("server", "portforward", "clientnetwork", "route", "splitdomain")
    staff(client, "users.view_vpnuser", *(f"servers.view_{model}" for model in models))
    pages = (f"/admin/servers/server/{company.server.pk}/change/", f"/admin/users/vpnuser/{alice.pk}/change/")
    for page in pages:
        assert "4711" in client.get(page).content.decode()
        assert client.post(page, {}).status_code == 403
    assert client.post(f"{FORWARDS}{row.pk}/change/", {"port": 1}).status_code == 403
    assert client.post(f"{FORWARDS}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    assert PortForward.objects.get().port == 4711


def test_a_users_page_says_their_dns_names(admin: Client, company: Company, fixed_clock: Clock) -> None:
    first, _ = company.hire("jose")
    user, _ = company.hire("José")
    now = clock.moment(clock.now())
    for number, name in enumerate(("Laptop", "Phone")):
        seen = now + timedelta(minutes=number)
        Device.objects.create(user=user, device_id=f"d{number}", name=name, first_seen=now, last_seen=seen)
    page = f"/admin/users/vpnuser/{user.pk}/change/"
    assert "DNS names" not in admin.get(page).content.decode()
    company.server.dns_mapping = True
    company.server.save()
    shown = admin.get(page).content.decode()
    for words in ("jose-2.acme.vpn", "phone.jose-2.acme.vpn", "jose.acme.vpn belongs to somebody else"):
        assert words in shown
    assert "laptop.jose-2" not in shown
    company.server.multi_device = True
    company.server.save()
    assert "laptop.jose-2.acme.vpn" in admin.get(page).content.decode()
    shown = admin.get(f"/admin/users/vpnuser/{first.pk}/change/").content.decode()
    assert "jose.acme.vpn" in shown
    assert "belongs to somebody else" not in shown


def test_a_user_who_is_being_added_has_no_rows_yet(admin: Client) -> None:
    shown = admin.get("/admin/users/vpnuser/add/").content.decode()
    assert "forwards-TOTAL_FORMS" not in shown


def test_a_page_costs_the_same_however_many_rows_it_shows(
    admin: Client, company: Company, alice: VpnUser, django_assert_max_num_queries: Any
) -> None:
    def rows(start: int, end: int) -> None:
        for number in range(start, end):
            user, _ = company.hire(f"user-{number}")
            PortForward.objects.create(server=company.server, user=user, port=5000 + number)
            ClientNetwork.objects.create(server=company.server, user=user, network=f"172.16.{number}.0/24")
            Route.objects.create(server=company.server, network=f"172.17.{number}.0/24")

    page = f"/admin/servers/server/{company.server.pk}/change/"
    rows(0, 3)
    with django_assert_max_num_queries(100) as few:
        admin.get(page)
    rows(3, 15)
    with django_assert_max_num_queries(len(few)):
        admin.get(page)


def test_a_users_page_costs_the_same_however_many_rows_it_shows(
    admin: Client, company: Company, alice: VpnUser, django_assert_max_num_queries: Any
) -> None:
    def rows(start: int, end: int) -> None:
        for number in range(start, end):
            PortForward.objects.create(server=company.server, user=alice, port=5000 + number)
            ClientNetwork.objects.create(server=company.server, user=alice, network=f"172.16.{number}.0/24")

    page = f"/admin/users/vpnuser/{alice.pk}/change/"
    rows(0, 3)
    with django_assert_max_num_queries(100) as few:
        admin.get(page)
    rows(3, 15)
    with django_assert_max_num_queries(len(few)):
        admin.get(page)


def test_a_new_server_with_everything_in_one_form(admin: Client, company: Company) -> None:
    host = Host.objects.create(name="gate-9", public_address="192.0.2.9")
    rows = {
        "attachments": [{"host": host.pk}],
        "routes": [{"network": "0.0.0.0/0", "nat": "on"}, {"network": "10.50.0.0/24", "netmap": "192.168.1.0/24"}],
        "split_domains": [{"domain": "corp.example", "dns_servers": "192.168.1.53"}],
    }
    fields = {"name": "New", "network": "10.30.0.0/24", "wg_network": "10.31.0.0/24", "port": 51900, "ipv6": "on"}
    assert errors(send(admin, "/admin/servers/server/add/", **fields, dns_mapping="on", _inline=rows)) == {}
    server = Server.objects.get(name="New")
    assert (server.network6, server.dns_mapping, server.dns_zone) == ("fd56:504e:a1f::/64", True, "vpn")
    assert (server.routes.count(), server.split_domains.count()) == (2, 1)
    assert ServerHost.objects.get(server=server).host == host
