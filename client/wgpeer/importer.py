"""Import profiles from a link, an archive or a single file. Nothing is unpacked to disk by its name in the archive."""

from __future__ import annotations

import hashlib
import io
import ipaddress
import ssl
import tarfile
import time
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import urllib3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from wgpeer.constants import CONNECT_TIMEOUT, MAX_ARCHIVE, MAX_PROFILE, MAX_PROFILES, RESPONSE_TIMEOUT
from wgpeer.envelope import InvalidResponse, json_object, sign_digest
from wgpeer.profile import Profile, ProfileError, parse
from wgpeer.transport import NoResponse, read_bounded

SUFFIX = ".ovpn"


class ImportFailed(Exception):
    """Nothing was imported. The message says why and what to do."""


def load(source: str, *, insecure: bool = False) -> dict[str, Profile]:
    """The profiles behind an import link or in a file, by file name. Raises ``ImportFailed``."""
    if source.startswith(("pritunl://", "https://", "http://")):
        texts = fetch(source, insecure=insecure)
    else:
        texts = read_file(Path(source))
    return parse_all(texts)


def parse_all(texts: dict[str, str]) -> dict[str, Profile]:
    """Parse every text (by file name), or refuse all of them, so that half an import never looks like a whole one.
    Raises ``ImportFailed``."""
    if not texts:
        raise ImportFailed(f"there is no profile ({SUFFIX}) in it")
    profiles = {}
    for name, text in texts.items():
        try:
            profiles[name] = parse(text)
            _check_key_signs(profiles[name].rsa_key())
        except ProfileError as error:
            raise ImportFailed(f"{name} cannot be used: {error}") from error
        except (InvalidSignature, ValueError) as error:
            raise ImportFailed(f"{name} cannot be used: its private key does not work") from error
    return profiles


def _check_key_signs(key: rsa.RSAPrivateKey) -> None:
    """Make a signature and verify it: a damaged key would fail only at the first connect. Raises ``InvalidSignature``
    or ``ValueError``."""
    digest = hashlib.sha512(b"wgpeer").digest()
    scheme = padding.PSS(mgf=padding.MGF1(hashes.SHA512()), salt_length=padding.PSS.AUTO)
    key.public_key().verify(sign_digest(key, digest), digest, scheme, Prehashed(hashes.SHA512()))


def import_url(link: str) -> tuple[str, bool]:
    """The HTTPS URL behind an import link, and whether its certificate must be verified. Raises ``ImportFailed``.

    A link whose host is an IP address is not verified, as docs/PROTOCOL.md says, because such a server has a
    certificate of its own. The link is then as trustworthy as the network it is fetched over.
    """
    try:
        parts = urlsplit(link)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ImportFailed("the import link is malformed") from error
    segments = parts.path.split("/")
    if parts.scheme == "http":
        raise ImportFailed(
            "the import link is not https: a profile holds a private key and must not travel in the clear"
        )
    if parts.scheme not in ("pritunl", "https") or not host or parts.username or parts.query:
        raise ImportFailed("the import link is malformed")
    if len(segments) != 3 or segments[1] not in ("k", "ku") or not segments[2].isalnum() or not segments[2].isascii():
        raise ImportFailed("the import link must look like https://HOST/k/CODE or pritunl://HOST/ku/CODE")
    shown = f"[{host}]" if ":" in host else host
    return f"https://{shown}{f':{port}' if port else ''}/ku/{segments[2]}", not _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def fetch(link: str, *, insecure: bool = False) -> dict[str, str]:
    """The texts of the profiles behind an import link, by file name. Raises ``ImportFailed``. The code in the link is a
    secret and is never repeated in a message."""
    url, verify = import_url(link)
    verify = verify and not insecure
    pool = urllib3.PoolManager(
        cert_reqs="CERT_REQUIRED" if verify else "CERT_NONE",
        timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=RESPONSE_TIMEOUT),
        retries=False,
    )
    deadline = time.monotonic() + CONNECT_TIMEOUT + RESPONSE_TIMEOUT
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
            response = pool.request("GET", url, redirect=False, preload_content=False)
        with response:
            body = read_bounded(response, MAX_ARCHIVE, deadline, "the server")
    except urllib3.exceptions.SSLError as error:
        if not isinstance(error.args[0], ssl.SSLCertVerificationError):
            raise ImportFailed("TLS with the server does not come about; try again, or check the address") from error
        raise ImportFailed(
            "the server's certificate is not trusted by this machine. If the server uses a certificate of its own and "
            "you trust the network in between, add --insecure; otherwise do not go on"
        ) from error
    except NoResponse as error:
        raise ImportFailed(f"{error}; is the address that of a VPN server?") from error
    except urllib3.exceptions.HTTPError as error:
        raise ImportFailed("the server does not answer; check the address, and that it can be reached") from error
    finally:
        pool.clear()
    return _read_fetched(response.status, body)


def _read_fetched(status: int, body: bytes) -> dict[str, str]:
    if status == 404:
        raise ImportFailed("the link is unknown, used up or expired; ask the administrator for a new one")
    if status == 429:
        raise ImportFailed("too many requests; wait a minute and try again")
    if status != 200:
        raise ImportFailed(f"the server answered with status {status}; ask the administrator")
    try:
        texts = json_object(body)
    except InvalidResponse as error:
        raise ImportFailed("the response is not an import; is the address that of a VPN server?") from error
    if len(texts) > MAX_PROFILES or not all(isinstance(text, str) for text in texts.values()):
        raise ImportFailed("the response is not an import; is the address that of a VPN server?")
    return {_base_name(name): text for name, text in texts.items()}


def read_file(path: Path) -> dict[str, str]:
    """The texts of the profiles in a .tar, .zip or .ovpn file, by file name. Raises ``ImportFailed``."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_ARCHIVE + 1)
    except OSError as error:
        raise ImportFailed(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_ARCHIVE:
        raise ImportFailed(f"{path.name} is larger than {MAX_ARCHIVE // 1024 // 1024} MiB")
    if path.suffix == ".tar":
        members = list(_tar(raw))
    elif path.suffix == ".zip":
        members = list(_zip(raw))
    else:
        members = [(path.name, raw[: MAX_PROFILE + 1])]
    return {_base_name(name): _decode(name, data) for name, data in members}


def _tar(raw: bytes) -> Iterator[tuple[str, bytes]]:
    # "r:" takes no compressed archive, so it can not unpack to more than was read.
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as archive:
            for count, member in enumerate(archive):
                if count >= MAX_PROFILES * 2:
                    raise ImportFailed("there are too many files in the archive")
                file = archive.extractfile(member) if member.isreg() and member.name.endswith(SUFFIX) else None
                if file:
                    yield member.name, file.read(MAX_PROFILE + 1)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise ImportFailed("the .tar archive is damaged") from error


def _zip(raw: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            names = [info.filename for info in archive.infolist() if info.filename.endswith(SUFFIX)]
            if len(names) > MAX_PROFILES:
                raise ImportFailed("there are too many files in the archive")
            for name in names:
                with archive.open(name) as file:  # reads as much as asked for, whatever the archive claims
                    yield name, file.read(MAX_PROFILE + 1)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ImportFailed("the .zip archive is damaged, encrypted or of an unknown kind") from error


def _decode(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ImportFailed(f"{_base_name(name)} is not a text file") from error


def _base_name(name: str) -> str:
    """Only the last part of a name counts, and the store cleans it again before it touches the disk."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(c if c.isprintable() else "_" for c in base)[:150] or "profile" + SUFFIX
