"""Import: links, archives, files; what is refused and in which words; what lands on disk."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from wgpeer import device_key, importer
from wgpeer.importer import ImportFailed, import_url, load
from wgpeer.store import Store, StoreError, is_locked, locked, write_file
from wgpeer.transport import HttpResponse
from wgpeer_fakes import HANGING, PEM, http_server, make_profile, profile_text


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers here answer at once; on a busy machine that may be late for the limits of real life."""
    for name in ("CONNECT_TIMEOUT", "RESPONSE_TIMEOUT"):
        monkeypatch.setattr(importer, name, HANGING)


@pytest.mark.parametrize(
    ("link", "url", "verify"),
    [
        ("pritunl://vpn.example/ku/Ab1", "https://vpn.example/ku/Ab1", True),
        ("pritunl://vpn.example/k/Ab1", "https://vpn.example/ku/Ab1", True),
        ("https://vpn.example:8443/k/Ab1", "https://vpn.example:8443/ku/Ab1", True),
        ("https://192.0.2.1/ku/Ab1", "https://192.0.2.1/ku/Ab1", False),
        ("pritunl://192.0.2.1:8443/ku/Ab1", "https://192.0.2.1:8443/ku/Ab1", False),
        ("https://[2001:db8::1]/ku/Ab1", "https://[2001:db8::1]/ku/Ab1", False),
    ],
)
def test_import_links(link: str, url: str, verify: bool) -> None:
    assert import_url(link) == (url, verify)


@pytest.mark.parametrize(
    "link",
    [
        "http://vpn.example/k/Ab1",
        "https://vpn.example/x/Ab1",
        "https://vpn.example/k/",
        "https://vpn.example/k/a/b",
        "https://vpn.example/k/..",
        "https://me:secret@vpn.example/k/Ab1",
        "https://vpn.example/k/Ab1?x=1",
        "https://vpn.example:99999/k/Ab1",
        "pritunl:///k/Ab1",
        "https://[::1/k/Ab1",
    ],
)
def test_links_that_are_none(link: str) -> None:
    with pytest.raises(ImportFailed) as caught:
        load(link)
    assert "Ab1" not in str(caught.value)


def served(answer: HttpResponse, seen: list[str]) -> object:
    def handler(_method: str, path: str, _headers: dict[str, str], _raw: bytes) -> HttpResponse:
        seen.append(path)
        return answer

    return handler


def test_a_link_by_address_is_fetched_without_verifying(certificate: tuple[Path, Path]) -> None:
    body = json.dumps({"acme_alice_office.ovpn": profile_text(), "b.ovpn": profile_text(server_id="77")}).encode()
    seen: list[str] = []
    with http_server(served(HttpResponse(200, body), seen), tls=certificate) as port:  # type: ignore[arg-type]
        got = load(f"pritunl://127.0.0.1:{port}/k/Short1")
    assert set(got) == {"acme_alice_office.ovpn", "b.ovpn"}
    assert seen == ["/ku/Short1"]


def test_a_link_by_name_is_verified_unless_told_otherwise(certificate: tuple[Path, Path]) -> None:
    body = json.dumps({"a.ovpn": profile_text()}).encode()
    seen: list[str] = []
    with http_server(served(HttpResponse(200, body), seen), tls=certificate) as port:  # type: ignore[arg-type]
        with pytest.raises(ImportFailed, match="--insecure"):
            load(f"https://localhost:{port}/k/Short1")
        assert seen == []
        assert set(load(f"https://localhost:{port}/k/Short1", insecure=True)) == {"a.ovpn"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_handshake_that_fails_is_not_blamed_on_the_certificate(host: str) -> None:
    with http_server(served(HttpResponse(200, b"{}"), [])) as port:  # it does not speak TLS
        with pytest.raises(ImportFailed, match="TLS with the server does not come about") as caught:
            load(f"https://{host}:{port}/k/Short1")
        assert "--insecure" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (HttpResponse(404, b""), "expired"),
        (HttpResponse(429, b""), "wait"),
        (HttpResponse(500, b""), "status 500"),
        (HttpResponse(302, b""), "status 302"),
        (HttpResponse(200, b"<html>"), "not an import"),
        (HttpResponse(200, b"[]"), "not an import"),
        (HttpResponse(200, b'{"a.ovpn": 7}'), "not an import"),
        (HttpResponse(200, b"{}"), "no profile"),
        (HttpResponse(200, b'{"a.ovpn": "junk"}'), "a.ovpn cannot be used"),
        (HttpResponse(200, b" " * (5 * 1024 * 1024)), "too much"),
        (HttpResponse(200, json.dumps({f"{n}.ovpn": "x" for n in range(100)}).encode()), "not an import"),
    ],
)
def test_answers_that_are_no_import(answer: HttpResponse, message: str, certificate: tuple[Path, Path]) -> None:
    with http_server(served(answer, []), tls=certificate) as port:  # type: ignore[arg-type]
        with pytest.raises(ImportFailed, match=message) as caught:
            load(f"https://127.0.0.1:{port}/k/Short1")
        assert "Short1" not in str(caught.value)


def test_a_key_that_does_not_work_is_refused_at_the_import(tmp_path: Path) -> None:
    lines = PEM.split("\n")
    lines[5] = lines[5][::-1]
    (tmp_path / "x.ovpn").write_text(profile_text(key="\n".join(lines)))
    with pytest.raises(ImportFailed, match="private key"):
        load(str(tmp_path / "x.ovpn"))


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match="does not answer"):
        load("https://127.0.0.1:1/k/Short1")
    with pytest.raises(ImportFailed, match="cannot be read"):
        load(str(tmp_path / "missing.tar"))


def tar_of(files: dict[str, bytes], path: Path, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zip_of(files: dict[str, bytes], path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_several_profiles_in_an_archive(make: object, tmp_path: Path) -> None:
    files = {"a.ovpn": profile_text().encode(), "b.ovpn": profile_text(server_id="77").encode(), "README": b"hello"}
    path = make(files, tmp_path / f"x.{'tar' if make is tar_of else 'zip'}")  # type: ignore[operator]
    assert set(load(str(path))) == {"a.ovpn", "b.ovpn"}


@pytest.mark.parametrize("make", [tar_of, zip_of])
@pytest.mark.parametrize("name", ["../../evil.ovpn", "/etc/evil.ovpn", "..\\evil.ovpn", "a/../../evil.ovpn"])
def test_no_name_in_an_archive_leaves_the_directory(make: object, name: str, tmp_path: Path) -> None:
    path = make({name: profile_text().encode()}, tmp_path / f"x.{'tar' if make is tar_of else 'zip'}")  # type: ignore[operator]
    store = Store.open(tmp_path / "store")
    for file_name, profile in load(str(path)).items():
        assert store.add(file_name, profile) == "evil"
    assert sorted(p.name for p in tmp_path.rglob("*evil*")) == ["evil.ovpn"]
    assert (tmp_path / "store/profiles/evil.ovpn").exists()


def test_links_and_devices_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for kind, name in ((tarfile.SYMTYPE, "s.ovpn"), (tarfile.CHRTYPE, "c.ovpn"), (tarfile.DIRTYPE, "d.ovpn")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    with pytest.raises(ImportFailed, match="no profile"):
        load(str(tmp_path / "x.tar"))


def test_bombs_and_damage(tmp_path: Path) -> None:
    bomb = zip_of({"a.ovpn": b"#{" + b"\n" * 50_000_000}, tmp_path / "bomb.zip")
    assert bomb.stat().st_size < 100_000
    packed = tar_of({"a.ovpn": profile_text().encode()}, tmp_path / "packed.tar", "w:gz")
    many = zip_of({f"{number}.ovpn": b"x" for number in range(200)}, tmp_path / "many.zip")
    (tmp_path / "junk.zip").write_bytes(b"PK\x03\x04junk")
    (tmp_path / "junk.tar").write_bytes(b"junk" * 200)
    (tmp_path / "junk.ovpn").write_bytes(b"\xff\xfe")
    (tmp_path / "huge.ovpn").write_bytes(b"#{" + b"\n" * 5_000_000)
    for name in (bomb.name, packed.name, many.name, "junk.zip", "junk.tar", "junk.ovpn", "huge.ovpn"):
        with pytest.raises(ImportFailed):
            load(str(tmp_path / name))


def test_files_and_directories_are_private(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o755)
    store = Store.open(tmp_path / "store")
    store.add("a.ovpn", make_profile())
    device_key.make(store, in_tpm=False)
    for path in [store.root, *store.root.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_same_profile_again_replaces_and_another_of_that_name_does_not(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    assert store.add("office.ovpn", make_profile()) == "office"
    assert store.add("renamed.ovpn", make_profile(revision=9)) == "office"
    assert store.load("office").number("revision") == 9
    assert store.add("office.ovpn", make_profile(server_id="77")) == "office-2"
    assert store.names() == ["office", "office-2"]
    assert store.find("office") == "office"
    assert store.find("office-") == "office-2"
    for wanted in (None, "off", "nothing"):
        with pytest.raises(StoreError):
            store.find(wanted)
    store.remove("office-2")
    assert store.find(None) == "office"


def test_a_damaged_file_is_reported_in_words(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    write_file(store.profiles / "x.ovpn", "junk")
    with pytest.raises(StoreError, match="cannot be used"):
        store.load("x")
    write_file(store.root / "device.key", "junk")
    with pytest.raises(StoreError, match="register"):
        device_key.held(store)


def test_the_device_key_stays_the_same(tmp_path: Path) -> None:
    first, second = (device_key.held(Store.open(tmp_path / "s")).key.public_der for _ in range(2))
    assert first == second


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    with locked(path) as mine:
        assert mine
        assert is_locked(path)
        with locked(path) as another:
            assert not another
    assert not is_locked(path)
