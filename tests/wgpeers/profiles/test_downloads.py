"""What downloads by a profile link hold, and how their files are named."""

from __future__ import annotations

import io
import re
import stat
import tarfile
import zipfile

import pytest

from servers.models import Server
from tests.attack import second_server
from tests.factories import Company
from tests.protocol_client import NOW
from users.models import Organization, VpnUser
from wgpeers.models import ProfileLink
from wgpeers.profiles import links

from .opened_links import get, paths


@pytest.fixture
def user(company: Company) -> VpnUser:
    return company.hire("alice")[0]


def archives(link: ProfileLink) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """What tar, zip and import give: file name to text. Every file is for its owner alone."""
    given = {kind: get(paths(link)[kind]) for kind in ("tar", "zip", "import")}
    with tarfile.open(fileobj=io.BytesIO(given["tar"].content)) as tar:
        members = tar.getmembers()
        assert all(member.isreg() and member.mode == 0o600 and member.mtime == NOW for member in members)
        from_tar = {member.name: tar.extractfile(member).read().decode() for member in members}  # type: ignore[union-attr]
    with zipfile.ZipFile(io.BytesIO(given["zip"].content)) as packed:
        assert all(stat.S_IMODE(info.external_attr >> 16) == 0o600 for info in packed.infolist())
        from_zip = {info.filename: packed.read(info).decode() for info in packed.infolist()}
    return from_tar, from_zip, given["import"].json()


def test_what_a_download_holds(company: Company, user: VpnUser) -> None:
    second_server(company)
    for files in archives(links.create(user, NOW)):
        assert set(files) == {"Acme_alice_Office.ovpn", "Acme_alice_Lab.ovpn"}
        assert all("BEGIN PRIVATE KEY" in text and "setenv UV_ID" in text for text in files.values())
    link = links.create(user, NOW)
    response = get(paths(link)["one"])
    assert response["Content-Disposition"] == 'attachment; filename="Acme_alice_Office.ovpn"'
    assert get(paths(link)["tar"])["Content-Disposition"] == 'attachment; filename="alice.tar"'


ODD_NAMES = ["../../etc/passwd", "..", "a/b\\c", "a\nb\r\n\tc", 'quo"te; x=1', "Ünïcödé 日本", "-rf", " ", "con:"]


def test_odd_names_make_safe_file_names(company: Company, user: VpnUser) -> None:
    for name in ODD_NAMES:
        for model in (Server, Organization, VpnUser):
            model.objects.update(name=name)
        link = links.create(VpnUser.objects.get(), NOW)
        for files in archives(link):
            (file,) = files
            assert re.fullmatch(r"[A-Za-z0-9.@_-]+\.ovpn", file)
            assert not file.startswith((".", "-"))
        disposition = get(paths(link)["zip"])["Content-Disposition"]
        plain, _, as_it_is = disposition.partition("; filename*=UTF-8''")
        assert re.fullmatch(r'attachment; filename="[A-Za-z0-9@_-][A-Za-z0-9.@_-]*\.zip"', plain)
        assert re.fullmatch(r"[A-Za-z0-9.%_~-]*", as_it_is)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_of_whoever_has_no_ascii_letter_keeps_its_ending_and_their_name(user: VpnUser, kind: str) -> None:
    VpnUser.objects.update(name="李雷")
    disposition = get(paths(links.create(VpnUser.objects.get(), NOW))[kind])["Content-Disposition"]
    assert disposition == f"attachment; filename=\"vpn.{kind}\"; filename*=UTF-8''%E6%9D%8E%E9%9B%B7.{kind}"


def test_two_servers_whose_file_names_would_be_one(company: Company, user: VpnUser) -> None:
    other = second_server(company)
    Server.objects.filter(pk=other.pk).update(name="Off:ice")
    Server.objects.exclude(pk=other.pk).update(name="Off/ice")
    for files in archives(links.create(user, NOW)):
        assert len(files) == 2


def test_each_download_is_for_a_device_of_its_own(user: VpnUser) -> None:
    link = links.create(user, NOW)
    devices = {re.search(r"UV_ID (\w+)", get(paths(link)["one"]).content.decode())[1] for _ in range(3)}  # type: ignore[index]
    assert len(devices) == 3
