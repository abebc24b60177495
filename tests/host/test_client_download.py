"""A user's machine, which has nothing of ours: the commands of the link's page, as they stand there, connect it."""

from __future__ import annotations

import os
import re
import subprocess
import time
import venv
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from django.conf import LazySettings

from core.crypto import Secret
from tests.conftest import send_celery_to
from tests.host.test_end_to_end import CERTIFICATE, World, build
from tests.lab import PYTHON, Echo, Lab, Machine, RedisServer
from tests.processes import environment
from tests.protocol_client import VECTORS
from tests.stack import BACKEND, Stack, WgPeer
from users.models import VpnUser
from wgpeers.profiles import links

pytestmark = [pytest.mark.host, pytest.mark.long, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def world(transactional_db: None, settings: LazySettings) -> Iterator[World]:
    with Lab() as lab, RedisServer() as server:
        settings.REDIS_URL = server.url
        send_celery_to(server.url)
        with Stack(lab.add_host(), server, environment()) as stack:
            yield build(lab, stack)
            if stack.worker is not None:
                stack.worker.kill()


class UsersMachine:
    """Runs commands as a person pastes them, with another /opt and /usr/local/bin than this machine's."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self.machine = machine
        self._home = directory
        for name in ("opt", "bin"):
            (directory / name).mkdir()
        (directory / "bin" / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
        (directory / "bin" / "sudo").chmod(0o755)
        (directory / "bin" / "python3").symlink_to(PYTHON)

    def paste(self, commands: str) -> subprocess.CompletedProcess[str]:
        script = commands.replace("/opt/", f"{self._home}/opt/").replace("/usr/local/bin/", f"{self._home}/bin/")
        variables = {
            "PATH": f"{self._home}/bin:{os.environ['PATH']}",
            "WGPEER_DIR": f"{self._home}/profiles",
            "WGPEER_BACKEND": BACKEND,
            "PIP_NO_INDEX": "1",  # this machine reaches the VPN server alone
        }
        words = [f"{name}={value}" for name, value in variables.items()]
        return self.machine.run("env", "-C", self._home, *words, "bash", "-euc", script, check=False)

    def has_what_the_client_needs(self) -> None:
        """In /opt/wgpeer, as from PyPI: all of our own environment but the client."""
        needed = self._home / "needed"
        needed.mkdir()
        (ours,) = (PYTHON.parents[1] / "lib").glob("python3*/site-packages")
        for path in ours.iterdir():
            if not path.name.startswith(("wgpeer", "__editable__", "pip", "_virtualenv", "distutils")):
                (needed / path.name).symlink_to(path)
        venv.create(self._home / "opt" / "wgpeer", symlinks=True)
        (packages,) = (self._home / "opt").rglob("site-packages")
        (packages / "needed.pth").write_text(f"{needed}\n")


def test_what_the_page_says_connects_a_machine_that_has_nothing(world: World, tmp_path: Path) -> None:
    user = VpnUser.objects.create(
        organization=world.organization,
        name="alice",
        public_key=VECTORS["user_public_key"],
        private_key=Secret.of(VECTORS["user_private_key_pkcs8"]),
        certificate=CERTIFICATE,
    )
    link = links.create(user, time.time(), one_time=True)
    users = UsersMachine(world.lab.add_client(), tmp_path)
    path = f"/k/{link.short_id.reveal()}"
    # As a browser does, which the page knows again.
    browser = ("curl", "-sk", "-c", str(tmp_path / "cookies"), "-b", str(tmp_path / "cookies"))
    preview = users.machine.run("curl", "-skf", f"https://{world.stack.name}{path}").stdout
    assert "curl" not in preview
    assert users.machine.run(*browser, "-X", "POST", f"https://{world.stack.name}{path}").returncode == 0
    text = unescape(users.machine.run(*browser, "-f", f"https://{world.stack.name}{path}").stdout)
    install, connect = re.findall(r"<pre>(curl .*?)</pre>.*<pre>(sudo wgpeer add.*?)</pre>", text, re.DOTALL)[0]

    # A wheel that is not the one that the administrator has named is not installed.
    other = re.sub(r"[0-9a-f]{64}", "0" * 64, install)
    assert users.paste(other).returncode != 0
    assert not (tmp_path / "opt" / "wgpeer").exists()

    users.has_what_the_client_needs()
    done = users.paste(install)
    assert done.returncode == 0, done.stdout + done.stderr
    done = users.paste(connect)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "connected" in done.stdout
    try:
        with Echo(world.lan, world.lan.address, 7000):
            world.reaches_lan(WgPeer(users.machine, tmp_path))
        assert world.live(user) is not None
    finally:
        done = users.paste("sudo wgpeer down")
    assert done.returncode == 0, done.stdout + done.stderr
