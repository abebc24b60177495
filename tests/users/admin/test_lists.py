"""Users in and out as lists, through the admin: asked before, all that is wrong at once, nothing secret either way."""

from __future__ import annotations

import codecs
import csv
import io
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from core.models import Job, JobState
from core.redis_store import redis_client
from core.tasks import run_job
from tests.admin_site import queued, staff
from users.models import Group, Organization, VpnUser
from users.tasks import BATCH, make_missing

USERS = "/admin/users/vpnuser/"
HUNDREDS = BATCH + 50
IMPORT, EXPORT = reverse("admin:users_vpnuser_import_list"), reverse("admin:users_vpnuser_export_list")


@pytest.fixture
def admin(client: Client, transactional_db: None) -> Client:
    staff(client, superuser=True)
    return client


@pytest.fixture
def user(admin: Client) -> VpnUser:
    return VpnUser.objects.create(organization=Organization.objects.create(name="Org"), name="alice")


def upload(admin: Client, data: str | bytes) -> Any:
    """Choose a file; the page that is shown then."""
    raw = data.encode() if isinstance(data, str) else data
    return admin.post(IMPORT, {"file": SimpleUploadedFile("people.csv", raw, "text/csv")}, follow=True)


def finish() -> None:
    while job := Job.objects.filter(state=JobState.QUEUED).first():
        run_job(job.pk)


def load(admin: Client, data: str | bytes) -> Any:
    """Choose a file, say yes, and let the worker do it; the last page."""
    page = upload(admin, data)
    if not page.redirect_chain:
        return page
    last = admin.post(page.redirect_chain[-1][0], follow=True)
    finish()
    return last


def names() -> list[str]:
    return sorted(VpnUser.objects.values_list("name", flat=True))


def test_nothing_is_imported_before_a_yes_and_then_in_the_background(admin: Client, user: VpnUser) -> None:
    page = upload(admin, "organization,name,email\nOrg,alice,a@example.com\nOrg,bob,b@example.com\n")
    shown = page.content.decode()
    for words in ("1 new", "bob", "1 changed", "alice"):
        assert words in shown
    finish()
    assert names() == ["alice"]
    admin.post(page.redirect_chain[-1][0])
    assert names() == ["alice"]
    finish()
    assert names() == ["alice", "bob"]
    job = Job.objects.get()
    assert (job.state, job.title) == (JobState.DONE, "Import 2 users from people.csv")
    assert LogEntry.objects.filter(change_message="Imported.").count() == 2
    admin.post(page.redirect_chain[-1][0])
    finish()
    assert names() == ["alice", "bob"]


def test_hundreds_of_users_are_imported_and_their_keys_made_later(admin: Client) -> None:
    Organization.objects.create(name="Org")
    Group.objects.create(name="staff")
    rows = [f"Org,user{number},user{number}@example.com,staff,yes" for number in range(HUNDREDS)]
    load(admin, "\n".join(["organization,name,email,groups,enabled", *rows]))
    assert VpnUser.objects.count() == HUNDREDS
    assert VpnUser.objects.filter(groups__name="staff").count() == HUNDREDS
    assert VpnUser.objects.filter(email="user7@example.com", name_key="user7", enabled=True).exists()
    assert not VpnUser.objects.exclude(certificate="").exists()
    assert LogEntry.objects.filter(change_message="Imported.").count() == HUNDREDS
    assert "users.make_missing" in queued("keys")
    redis_client().delete("keys")
    make_missing()
    *keys, again = queued("keys")
    assert ("users.make_user_key" in keys, again) == (True, "users.make_missing")


def test_who_came_between_the_question_and_the_yes_is_not_there_twice(admin: Client) -> None:
    organization = Organization.objects.create(name="Org")
    page = upload(admin, "organization,name,email\nOrg,alice,a@example.com\nOrg,bob,b@example.com\n")
    VpnUser.objects.create(organization=organization, name="BOB")
    admin.post(page.redirect_chain[-1][0])
    finish()
    assert list(VpnUser.objects.order_by("name_key").values_list("name", "email")) == [
        ("alice", "a@example.com"),
        ("BOB", "b@example.com"),
    ]


def test_an_import_changes_what_it_says_and_leaves_the_rest(admin: Client, user: VpnUser) -> None:
    VpnUser.objects.filter(pk=user.pk).update(certificate="made")
    staff_group = Group.objects.create(name="staff")
    user.groups.add(staff_group)
    load(admin, "organization,name,email,enabled\nOrg,ALICE,new@example.com,no\n")
    after = VpnUser.objects.get()
    assert (after.name, after.email, after.enabled, after.certificate) == ("alice", "new@example.com", False, "made")
    assert after.sync_secret.reveal() == user.sync_secret.reveal()
    assert list(after.groups.all()) == [staff_group]
    assert "wgpeers.enforce" in queued()
    load(admin, "organization,name,groups\nOrg,alice,\n")
    assert not VpnUser.objects.get().groups.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("organization,name\nNobody,bob\n", "line 2, organization: There is no organization 'Nobody'"),
        ("organization,name,groups\nOrg,bob,ghosts\n", "line 2, groups: There is no group ghosts"),
        ("organization,name,enabled\nOrg,bob,perhaps\n", "line 2, enabled: 'perhaps' is neither yes nor no"),
        ("organization,name,email\nOrg,bob,not-an-email\n", "line 2, email: Enter a valid email"),
        ("organization,name\nOrg,../x\n", "line 2, name: Use letters"),
        ("organization,name\nOrg,\n", "line 2, name: This field cannot be blank"),
        ("organization,name,pin_hash\nOrg,bob,x\n", "line 1: There is no column 'pin_hash'"),
        ("name\nbob\n", "line 1: The column organization is missing"),
        ("organization,name\nOrg,bob\n\nOrg,Bob\n", "line 4, name: Bob is in line 2 already"),
        ("organization,name\nOrg,bob,extra\n", "line 2: 'extra' is in column 3, which has no title"),
        ('organization,name\nOrg,"bob\n', "line 2: A quotation mark is not closed"),
        ("organization,name,name\nOrg,bob,bob\n", "line 1, name: This column is there twice"),
        ("", "The submitted file is empty"),
        ("\n\n", "The file is empty"),
        ("organization,name\nOrg,alice\n", "It changes nothing: all 1 users"),
        ("organization,name\n", "There is nobody in the file"),
        ("organization,name", "There is nobody in the file"),
        ("organization,name\n,bob\n", "line 2, organization: This cell is empty"),
        ("organization,name\nOrg," + "a" * 20_000 + "\n", "line 2: A cell has more than 10,000 characters"),
        ("organization,name\nOrg," + "a" * 1_000_000 + "\n", "line 2: A cell has more than 10,000 characters"),
        ("organization,name\nOrg,bob\nOrg,al\0ice\n", "line 3: There is a character in it that no text has"),
        (
            "organization,name" + ",c1,c2,c3,c4,c5,c6,c7\nOrg,bob",
            "There are no columns 'c1', 'c2', 'c3', 'c4', 'c5' and 2 more",
        ),
        ("sep=;\norganization;name\nNobody;bob\n", "line 3, organization: There is no organization"),
    ],
)
def test_a_wrong_file_is_refused_whole_with_line_and_column(
    admin: Client, user: VpnUser, text: str, words: str
) -> None:
    shown = load(admin, text).content.decode().replace("&#x27;", "'")
    assert words in shown
    assert "Traceback" not in shown
    assert names() == ["alice"]
    assert not Job.objects.exists()


def test_all_that_is_wrong_is_said_at_once(admin: Client, user: VpnUser) -> None:
    shown = load(admin, "organization,name,email,enabled\nNobody,bob,x,perhaps\nOrg,carol,,yes\nOrg,-,,yes\n")
    text = shown.content.decode()
    for words in ("line 2, organization", "line 2, email", "line 2, enabled", "line 4, name"):
        assert words in text
    assert names() == ["alice"]


LIST = "organization,name,email\nOrg,Zo\u00eb O\u2019Brien,z@example.com\nOrg,bob,\n"


@pytest.mark.parametrize(
    "raw",
    [
        LIST.encode(),
        LIST.encode("utf-8-sig"),
        LIST.encode("utf-16"),
        codecs.BOM_UTF16_BE + LIST.encode("utf-16-be"),
        LIST.encode("cp1252"),
        LIST.replace(",", ";").replace("\n", "\r\n").encode(),
        LIST.replace(",", "\t").encode(),
        LIST.replace("organization,name,email", " Organization , NAME,E-mail".replace("E-mail", "EMAIL")).encode(),
        LIST.replace("\n", ",,\n").encode(),
        LIST.replace("\n", "\n\n,,\n").encode(),
        LIST.replace(",", " , ").encode(),
        LIST.replace("bob", '"bob"').encode(),
        LIST.replace("\n", "\r").encode(),
        LIST.encode("utf-16-le"),
        LIST.encode("utf-16-be"),
        ("sep=;\r\n" + LIST.replace(",", ";")).encode(),
        ("\ufeffsep=\t\r\n" + LIST.replace(",", "\t")).encode("utf-16-le"),
        LIST.replace("organization,name,email", "Organisation,Name,E-Mail").encode(),
        (LIST.split("\n")[0] + "\r\n" + LIST.split("\n")[1] + "\r" + LIST.split("\n")[2] + "\n").encode(),
        LIST.replace("\n", "," * 47 + "\n").encode(),
    ],
    ids=[
        "plain",
        "mark",
        "utf16",
        "utf16be",
        "cp1252",
        "semicolons",
        "tabs",
        "capitals",
        "columns",
        "lines",
        "spaces",
        "quotes",
        "cr",
        "le",
        "be",
        "sep",
        "septab",
        "words",
        "mixed",
        "wide",
    ],
)
def test_a_list_is_understood_as_spreadsheets_write_it(admin: Client, raw: bytes) -> None:
    Organization.objects.create(name="org")
    shown = load(admin, raw)
    assert names() == ["Zo\u00eb O\u2019Brien", "bob"], shown.content.decode()
    assert set(VpnUser.objects.values_list("email", flat=True)) == {"z@example.com", ""}


@pytest.mark.parametrize("raw", [LIST.encode("utf-32"), b"PK\x03\x04\x00\x00binary", b"\xff\xfea\x00b"])
def test_what_is_no_text_is_refused_in_words(admin: Client, raw: bytes) -> None:
    shown = load(admin, raw).content.decode()
    assert "Nothing was imported" in shown
    assert "Traceback" not in shown
    assert names() == []


def test_one_whose_organization_went_meanwhile_is_left_out_and_noted(admin: Client, user: VpnUser) -> None:
    gone = Organization.objects.create(name="Gone")
    page = upload(admin, "organization,name\nGone,bob\nOrg,carol\n")
    gone.delete()
    admin.post(page.redirect_chain[-1][0])
    finish()
    assert names() == ["alice", "carol"]
    (note,) = Job.objects.get().notes
    assert note.startswith("line 2, bob: left out")


def test_who_has_not_chosen_the_file_cannot_have_it_imported(admin: Client, user: VpnUser) -> None:
    page = upload(admin, "organization,name\nOrg,bob\n")
    address = page.redirect_chain[-1][0]
    other = Client()
    staff(other, "users.view_vpnuser", "users.add_vpnuser", "users.change_vpnuser")
    assert other.post(address).status_code == 404
    Client().post(address)
    finish()
    assert names() == ["alice"]


@pytest.mark.parametrize("right", ["view", "change", "add"])
def test_an_import_needs_the_rights_to_add_and_to_change(user: VpnUser, right: str) -> None:
    client = Client()
    staff(client, f"users.{right}_vpnuser", "users.view_vpnuser")
    assert client.get(IMPORT).status_code == 403
    assert upload(client, "organization,name\nOrg,bob\n").status_code == 403


def export(client: Client) -> str:
    return b"".join(client.get(EXPORT)).decode("utf-8-sig")


def test_an_export_has_no_secret_and_no_formula(admin: Client, user: VpnUser) -> None:
    VpnUser.objects.filter(pk=user.pk).update(email="=1+1@example.com")
    user.enrolments.create(kind="pin", hash="argon2$hash")
    text = export(admin)
    assert text.splitlines() == ["organization,name,email,groups,enabled", "Org,alice,'=1+1@example.com,,yes"]


def test_what_was_exported_is_imported_as_it_was(admin: Client, user: VpnUser) -> None:
    VpnUser.objects.filter(pk=user.pk).update(email="a@example.com")
    user.groups.set([Group.objects.create(name="staff"), Group.objects.create(name="on call")])
    text = export(admin)
    assert next(csv.DictReader(io.StringIO(text)))["groups"] == "on call,staff"
    assert "It changes nothing" in load(admin, text).content.decode()
    load(admin, text.replace("yes", "no"))
    after = VpnUser.objects.get()
    assert (after.email, after.enabled, after.groups.count()) == ("a@example.com", False, 2)


@pytest.mark.parametrize(("right", "status"), [("view", 403), ("change", 200)])
def test_who_may_only_look_exports_nothing(user: VpnUser, right: str, status: int) -> None:
    client = Client()
    staff(client, f"users.{right}_vpnuser", "users.view_vpnuser")
    assert client.get(EXPORT).status_code == status
    assert (EXPORT in client.get(USERS).content.decode()) is (status == 200)
