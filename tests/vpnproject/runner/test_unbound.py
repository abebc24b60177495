"""Unbound's package hooks into resolvconf: not where we installed it, and as before where it was there already."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .test_install import bash


@pytest.mark.parametrize(("packages", "executable"), [("unbound nftables", False), ("nftables", True)])
def test_the_resolvconf_hook_is_off_only_where_we_installed_unbound(
    packages: str, executable: bool, tmp_path: Path
) -> None:
    hook = tmp_path / "unbound"
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    # No package is touched: none of these tools does anything here.
    tools = "dpkg() { :; }; deb-systemd-helper() { :; }; update-rc.d() { :; }"
    done = bash(f"{tools}; resolvconf_hook={hook}; disable_services_of {packages}; echo done", tmp_path / "policy")
    assert (done.stdout, done.stderr) == ("done\n", "")
    assert os.access(hook, os.X_OK) is executable


def test_a_package_without_the_hook_is_no_error(tmp_path: Path) -> None:
    tools = "dpkg() { :; }"
    done = bash(
        f"{tools}; resolvconf_hook={tmp_path}/none; disable_services_of unbound; echo done", tmp_path / "policy"
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_unbound_is_installed_where_it_runs_and_where_it_is_tested() -> None:
    lists = Path(__file__).resolve().parents[3] / "vpnproject" / "runner"
    for name in ("debian-run.txt", "debian-demo.txt", "debian-test.txt"):
        assert "unbound" in (lists / name).read_text().split()
