"""Links to other installations in the admin: a file is made once, shown before it is imported, and refused in words."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from core.clock import moment, now
from servers import link_files, link_keys, outside_links
from servers.link_files import LinkFile
from servers.models import Host, OutsideLink, Route, Server, ServerHost
from tests.admin_site import errors, messages, send, staff
from tests.connection_rows import queued

pytestmark = pytest.mark.django_db(transaction=True)
LINKS = "/admin/servers/outsidelink/"
IMPORT = f"{LINKS}import/"


@pytest.fixture
def admin(client: Client) -> Client:
    staff(client, superuser=True)
    return client


@pytest.fixture
def office(admin: Client) -> Server:
    row = Server.objects.create(name="office", network="10.1.0.0/24", wg_network="10.101.0.0/24", started=True)
    ServerHost.objects.create(server=row, host=Host.objects.create(name="Berlin", public_address="192.0.2.1"))
    Route.objects.create(server=row, network="10.50.0.0/24")
    queued()
    return row


def made(admin: Client, office: Server, **fields: Any) -> OutsideLink:
    given = {"name": "Acme", "server": office.pk, "ours": [office.wg_network], "theirs": "10.60.0.0/16", **fields}
    assert errors(send(admin, f"{LINKS}add/", **given)) == {}
    return OutsideLink.objects.get(name=given["name"])


def from_elsewhere(**fields: Any) -> LinkFile:
    """As another installation writes it for this one."""
    keys = link_keys.make(moment(now()))
    given: dict[str, Any] = {"theirs": ("10.60.0.0/16",), "ours": ("10.101.0.0/24",), "keys": keys.client, **fields}
    return LinkFile("ab12", False, ("203.0.113.9",), 1200, 1400, **given)


def upload(admin: Client, content: bytes) -> Any:
    return admin.post(IMPORT, {"file": SimpleUploadedFile("link.txt", content)})


def shown(response: Any) -> dict[str, Any]:
    """What the form of the second step sends back, unchanged."""
    form = response.context["form"]
    return {bound.name: getattr(bound.value(), "pk", bound.value()) for bound in form if bound.value()}


def test_a_file_is_made_by_its_button_alone_and_is_nowhere_else(admin: Client, office: Server) -> None:
    link = made(admin, office, ours=[office.wg_network, "10.50.0.0/24"])
    page = f"{LINKS}{link.pk}/change/"
    assert (link.ours, link.works) == ("10.101.0.0/24, 10.50.0.0/24", False)
    assert "no link file made yet" in admin.get(page).content.decode()
    address = f"{LINKS}{link.pk}/do/make_file/"
    assert admin.get(address).status_code == 302
    assert not OutsideLink.objects.get().works
    response = admin.post(address)
    assert response["Content-Disposition"] == 'attachment; filename="link-Acme.txt"'
    assert "no-store" in response["Cache-Control"]
    file = link_files.read(response.content, moment(now()))
    assert (file.theirs, file.ours) == (("10.101.0.0/24", "10.50.0.0/24"), ("10.60.0.0/16",))
    kept = OutsideLink.objects.get()
    assert kept.works
    assert file.keys.key not in kept.keys.reveal()
    assert file.keys.key not in admin.get(page).content.decode()
    for entry in LogEntry.objects.all():
        assert "PRIVATE" not in entry.change_message


def test_what_it_offers_is_changed_and_the_change_is_told(admin: Client, office: Server) -> None:
    link = made(admin, office)
    queued()
    page = f"{LINKS}{link.pk}/change/"
    assert errors(send(admin, page, ours=["10.50.0.0/24"])) == {}
    assert OutsideLink.objects.get().ours == "10.50.0.0/24"
    said = LogEntry.objects.latest("pk").get_change_message()
    assert said == "Changed Our networks (“10.101.0.0/24” → “10.50.0.0/24”)."
    assert {arguments[0] for task, arguments in queued() if task.endswith("converge")} == {Host.objects.get().pk}
    refused = errors(send(admin, page, theirs="10.50.0.0/16"))
    assert "overlaps route 10.50.0.0/24 of server office here" in refused["theirs"][0]
    assert OutsideLink.objects.get().theirs == "10.60.0.0/16"
    assert (
        'href="/admin/servers/outsidelink/' in admin.get(f"/admin/servers/server/{office.pk}/change/").content.decode()
    )


def test_what_is_wrong_with_a_field_that_is_only_shown_is_said_above_the_form(admin: Client, office: Server) -> None:
    link = made(admin, office)
    ServerHost.objects.all().delete()
    assert "Server office is on no host" in errors(send(admin, f"{LINKS}{link.pk}/change/", mtu=1300))["__all__"][0]
    assert OutsideLink.objects.get().mtu == 0


def test_a_file_is_shown_before_anything_is_saved_and_then_imported(admin: Client, office: Server) -> None:
    file = from_elsewhere()
    response = upload(admin, file.to_text().encode())
    text = response.content.decode()
    for words in ("10.60.0.0/16", "10.101.0.0/24", "connects to 203.0.113.9, UDP port 1200"):
        assert words in text
    for secret in (file.keys.key, file.keys.tls_crypt, file.keys.key.splitlines()[1]):
        assert secret not in text
    assert "no-store" in response["Cache-Control"]
    assert not OutsideLink.objects.exists()
    given = shown(response)
    assert (given["server"], given["ours"]) == (office.pk, ["10.101.0.0/24"])
    queued()
    answer = admin.post(IMPORT, {**given, "name": "Acme", "masquerade": "on"})
    link = OutsideLink.objects.get()
    assert answer.status_code == 302
    assert answer["Location"] == f"{LINKS}{link.pk}/change/"
    assert (link.imported, link.works, link.listens, link.addresses) == (True, True, False, "203.0.113.9")
    assert (link.ours, link.theirs, link.masquerade, link.mtu) == ("10.101.0.0/24", "10.60.0.0/16", True, 1400)
    assert outside_links.keys_of(link) == file.keys
    assert [task for task, _ in queued() if task.endswith("converge")]
    page = admin.get(f"{LINKS}{link.pk}/change/").content.decode()
    assert "/do/make_file/" not in page
    assert "The other installation made this link" in messages(admin, f"{LINKS}{link.pk}/do/make_file/")
    # And not a second time, by either step.
    assert (
        "has been imported already: it is the link to Acme" in upload(admin, file.to_text().encode()).content.decode()
    )
    again = admin.post(IMPORT, {**given, "name": "Other"}).content.decode()
    assert "has been imported already" in again
    assert OutsideLink.objects.count() == 1


def test_public_addresses_that_are_offered_are_called_that(admin: Client, office: Server) -> None:
    text = upload(admin, from_elsewhere(theirs=("10.60.0.0/16", "8.8.8.0/24")).to_text().encode()).content.decode()
    assert text.count("public addresses: all that clients send there") == 1
    assert text.index("8.8.8.0/24") < text.index("public addresses")


def test_what_cannot_be_imported_is_refused_in_words_and_changes_nothing(admin: Client, office: Server) -> None:
    good = from_elsewhere().to_text().encode()
    newer = json.dumps({**json.loads(good), "version": 2}).encode()
    for content, words in (
        (b"hello", "This is no link file"),
        (b"\xff\xfe", "This is no link file"),
        (good[:-40], "This is no link file, or not all of it"),
        (newer, "of another version"),
        (good + b" " * link_files.LARGEST, "more than 65,536 bytes"),
        (from_elsewhere(keys=link_keys.make(moment(0)).client).to_text().encode(), "its certificate is not valid now"),
    ):
        response = upload(admin, content)
        assert words in response.content.decode()
        assert response.context["file"] is None
    link = made(admin, office)
    own = outside_links.make_file(link, now()).encode()
    assert "was made here, for the link to Acme" in upload(admin, own).content.decode()
    OutsideLink.objects.all().delete()
    given = shown(upload(admin, good))
    for sealed in ("", "forged", given["sealed"][:-8]):
        answer = admin.post(IMPORT, {**given, "sealed": sealed, "name": "Acme"}).content.decode()
        assert "Choose the file again" in answer
    overlapping = shown(upload(admin, from_elsewhere(theirs=("10.50.0.0/24",)).to_text().encode()))
    answer = admin.post(IMPORT, {**overlapping, "name": "Acme"}).content.decode()
    assert "10.50.0.0/24 overlaps route 10.50.0.0/24 of server office here" in answer
    for changes, words in (
        ({"ours": []}, "This field is required"),
        ({"ours": ["10.99.0.0/24"]}, "10.99.0.0/24 is not one of the available choices"),
        ({"name": ""}, "This field is required"),
        ({"name": "<script>"}, "Use letters, digits"),
    ):
        answer = admin.post(IMPORT, {**given, "name": "Acme", **changes}).content.decode()
        assert words in re.sub(r"\s+", " ", answer)
    assert not OutsideLink.objects.exists()


def test_making_and_importing_ask_for_the_second_factor_again(
    admin: Client, office: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = made(admin, office)
    monkeypatch.setattr("servers.admin.outside_links.is_fresh", lambda request: False)
    monkeypatch.setattr("core.admin.page.is_fresh", lambda request: False)
    for response in (admin.get(IMPORT), upload(admin, b"{}"), admin.post(f"{LINKS}{link.pk}/do/make_file/")):
        assert response.status_code == 302
        assert "confirm" in response["Location"]
    assert not OutsideLink.objects.get().works


def test_who_may_only_look_makes_and_imports_nothing(client: Client, office: Server) -> None:
    link = OutsideLink.objects.create(server=office, name="Acme", ours="10.101.0.0/24", theirs="10.60.0.0/16")
    client.logout()
    staff(client, "servers.view_outsidelink", "servers.view_server")
    page = client.get(f"{LINKS}{link.pk}/change/").content.decode()
    assert "10.60.0.0/16" in page
    assert "/do/make_file/" not in page
    assert client.get(IMPORT).status_code == 403
    assert client.post(f"{LINKS}{link.pk}/do/make_file/").status_code == 403
