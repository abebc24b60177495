"""The device key in a TPM 2.0, by Debian's software TPM; and in a file where there is none."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner
from wgpeer import device_key, tpm
from wgpeer.cli import app
from wgpeer.store import Store, StoreError
from wgpeer.tpm import TpmError, TpmKey
from wgpeer_fakes import HANGING

needs_tpm = pytest.mark.skipif(
    shutil.which("swtpm") is None or importlib.util.find_spec("tpm2_pytss") is None,
    reason="needs swtpm, libtss2-tcti-swtpm0 and tpm2-pytss",
)


def start_tpm(directory: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A new TPM, and how libtss2 reaches it."""
    directory.mkdir()
    paths = {name: directory / name for name in ("server", "control")}
    process = subprocess.Popen(
        [
            *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={directory}"),
            *("--server", f"type=unixio,path={paths['server']}", "--ctrl", f"type=unixio,path={paths['server']}.ctrl"),
            *("--flags", "not-need-init,startup-clear"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + HANGING
    while not answers(paths["server"].with_name("server.ctrl")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    return process, f"swtpm:path={paths['server']}"


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


@pytest.fixture
def chip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    process, tcti = start_tpm(tmp_path / "tpm")
    monkeypatch.setenv(tpm.TCTI, tcti)
    yield process
    process.kill()
    process.wait(HANGING)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def verify(public_der: bytes, signature: bytes, message: bytes) -> None:
    public = serialization.load_der_public_key(public_der)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert isinstance(public.curve, ec.SECP256R1)
    public.verify(signature, message, ec.ECDSA(hashes.SHA256()))


@needs_tpm
def test_the_key_of_a_tpm_signs_and_stays_the_same(chip: object, store: Store) -> None:
    held = device_key.held(store)
    assert (held.where, held.why) == (device_key.IN_TPM, "")
    digest = b"d" * 64
    verify(held.key.public_der, held.key.sign(digest), digest)
    again = device_key.held(store)
    assert again.key.public_der == held.key.public_der
    for _ in range(5):  # nothing is left in the TPM, which has room for three
        verify(held.key.public_der, again.key.sign(digest), digest)
    with pytest.raises(InvalidSignature):
        verify(held.key.public_der, again.key.sign(digest), b"another")
    assert not store.file_key_path.exists()


@needs_tpm
def test_the_key_cannot_leave_its_tpm(
    chip: object, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tss = importlib.import_module("tpm2_pytss")
    made = TpmKey.generate()
    attributes = tss.TPM2B_PUBLIC.unmarshal(made.public)[0].publicArea.objectAttributes
    for name in ("FIXEDTPM", "FIXEDPARENT", "SENSITIVEDATAORIGIN"):
        assert attributes & getattr(tss.TPMA_OBJECT, name)
    assert not attributes & tss.TPMA_OBJECT.DECRYPT
    other, tcti = start_tpm(tmp_path / "other")
    try:
        monkeypatch.setenv(tpm.TCTI, tcti)
        with pytest.raises(TpmError, match="does not know"):
            made.sign(b"x")
    finally:
        other.kill()
        other.wait(HANGING)


@needs_tpm
def test_a_tpm_that_is_gone_is_said_and_no_other_key_takes_its_place(
    chip: subprocess.Popen[bytes], store: Store
) -> None:
    held = device_key.held(store)
    chip.kill()
    chip.wait(HANGING)
    assert device_key.held(store).key.public_der == held.key.public_der  # known by what is on disk
    with pytest.raises(TpmError, match="cannot be reached"):
        held.key.sign(b"x")
    with pytest.raises(StoreError, match="cannot be reached"):
        device_key.make(store, in_tpm=True)
    assert device_key.held(store).key.public_der == held.key.public_der
    assert not store.file_key_path.exists()


@needs_tpm
def test_from_a_file_to_the_tpm_is_a_new_key_by_hand_alone(chip: object, store: Store) -> None:
    first = device_key.make(store, in_tpm=False)
    assert device_key.held(store).key.public_der == first.key.public_der  # a TPM that comes changes nothing by itself
    runner = CliRunner()
    done = runner.invoke(app, ["--dir", str(store.root), "device", "new", "--tpm"])
    assert done.exit_code == 0, done.output
    assert "TPM" in done.output
    assert "registration key" in done.output
    assert not store.file_key_path.exists()
    assert device_key.held(store).key.public_der != first.key.public_der
    shown = runner.invoke(app, ["--dir", str(store.root), "device", "show"]).output
    assert "TPM" in shown
    assert runner.invoke(app, ["--dir", str(store.root), "device", "new", "--file"]).exit_code == 0
    assert device_key.held(store).where == device_key.IN_FILE


def test_without_a_tpm_the_key_is_in_a_file_and_says_why(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tpm.TCTI, raising=False)
    monkeypatch.setattr(tpm, "DEVICE", store.root / "no-such-device")
    held = device_key.held(store)
    assert held.where == device_key.IN_FILE
    assert "TPM" in held.why or "tpm2-pytss" in held.why
    verify(held.key.public_der, held.key.sign(b"x"), b"x")


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"private": 1, "public": "", "public_der": ""})])
def test_a_damaged_file_of_a_tpm_key_is_said(store: Store, text: str) -> None:
    store.tpm_key_path.write_text(text)
    with pytest.raises(StoreError, match="wgpeer device new"):
        device_key.held(store)
