"""Settings from the environment: typed, from files where asked, and a wrong value stops the start with a hint."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

from servers.hostnet.state.redis_urls import broker_url
from tests.lab import HANGING
from vpnproject import env

ROOT = Path(__file__).resolve().parents[2]
NONE = Path("/nonexistent/file")


@pytest.mark.parametrize(
    ("given", "value"),
    [("true", True), ("1", True), ("YES", True), (" on ", True), ("false", False), ("0", False), ("No", False)],
)
def test_flags(monkeypatch: pytest.MonkeyPatch, given: str, value: bool) -> None:
    monkeypatch.setenv("DEBUG", given)
    assert env.flag("DEBUG", not value) is value


@pytest.mark.parametrize("given", ["maybe", "2", "tru", ""])
def test_a_flag_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("DEBUG", given)
    with pytest.raises(ImproperlyConfigured, match=r"DEBUG=.*true or false"):
        env.flag("DEBUG", False)


@pytest.mark.parametrize("given", ["x", "", "1.5", "29", "3601", "1e3", "-30"])
def test_whole_numbers_have_a_range(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("CLOCK_WINDOW", given)
    with pytest.raises(ImproperlyConfigured, match=r"CLOCK_WINDOW=.*a whole number from 30 to 3600"):
        env.whole("CLOCK_WINDOW", 600, low=30, high=3600)


@pytest.mark.parametrize("given", ["x", "nan", "inf", "0.01", "61"])
def test_seconds_have_a_range(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("CONFIRM_TIMEOUT", given)
    with pytest.raises(ImproperlyConfigured, match=r"CONFIRM_TIMEOUT=.*seconds from 0\.05 to 60"):
        env.seconds("CONFIRM_TIMEOUT", 1.0, low=0.05, high=60)


def test_what_is_not_set_has_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("A", "B", "C", "D", "E"):
        monkeypatch.delenv(name, raising=False)
    assert (env.text("A", "x"), env.flag("B", True), env.whole("C", 5, low=1, high=9)) == ("x", True, 5)
    assert (env.seconds("D", 1.5, low=1, high=2), env.words("E", ["w"])) == (1.5, ["w"])


def test_a_secret_comes_from_the_variable_the_named_file_or_the_default_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    default, named = tmp_path / "default", tmp_path / "named"
    default.write_text("from the default file\n")
    named.write_text("  from the named file\n")
    monkeypatch.delenv("KEY", raising=False)
    assert env.secret("KEY", default) == "from the default file"
    monkeypatch.setenv("KEY_FILE", str(named))
    assert env.secret("KEY", default) == "from the named file"
    monkeypatch.setenv("KEY", "$from the variable")
    assert env.secret("KEY", default) == "$from the variable"


def test_a_secret_that_is_nowhere_stops_the_start_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KEY", raising=False)
    with pytest.raises(ImproperlyConfigured, match="Set KEY, or KEY_FILE"):
        env.secret("KEY", tmp_path / "none")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ImproperlyConfigured, match="is empty"):
        env.secret("KEY", tmp_path / "empty")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ImproperlyConfigured, match="it is not text"):
        env.secret("KEY", tmp_path / "binary")


def test_field_keys_are_lines_or_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Fernet.generate_key(), Fernet.generate_key()
    for text in (f"{first.decode()}\n\n{second.decode()}\n", f"{first.decode()},{second.decode()}"):
        monkeypatch.setenv("FIELD_KEYS", text)
        assert env.field_keys(NONE) == [first, second]


@pytest.mark.parametrize("given", ["short", "{key}\nshort", "{key:.40}"])
def test_a_field_key_that_is_none_is_named_by_number_and_not_shown(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    key = Fernet.generate_key().decode()
    monkeypatch.setenv("FIELD_KEYS", given.format(key=key))
    with pytest.raises(ImproperlyConfigured, match=r"key \d is not a Fernet key") as refused:
        env.field_keys(NONE)
    assert key not in str(refused.value)
    assert "short" not in str(refused.value)


def test_no_field_key_at_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELD_KEYS", ",")
    with pytest.raises(ImproperlyConfigured, match="no key"):
        env.field_keys(NONE)


@pytest.mark.parametrize(
    ("given", "urls"),
    [
        ("", []),
        ("https://vpn.example.com", ["https://vpn.example.com"]),
        ("https://vpn.example.com/ , https://192.0.2.1:8443", ["https://vpn.example.com", "https://192.0.2.1:8443"]),
        ("https://[2001:db8::1]:8443", ["https://[2001:db8::1]:8443"]),
    ],
)
def test_api_urls(monkeypatch: pytest.MonkeyPatch, given: str, urls: list[str]) -> None:
    monkeypatch.setenv("API_URLS", given)
    assert env.api_urls([]) == urls


@pytest.mark.parametrize(
    "given",
    [
        "http://vpn.example.com",
        "vpn.example.com",
        "https://",
        "https://:8443",
        "https://vpn.example.com/path",
        "https://vpn.example.com?x=1",
        "https://vpn.example.com#x",
        "https://user@vpn.example.com",
        "https://vpn.example.com:port",
        "https://vpn.example.com:0",
        "https://vpn.example.com:65536",
        "https://[2001:db8::1",
        "https://good.example.com, ftp://bad.example.com",
    ],
)
def test_api_urls_that_no_client_could_use_are_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("API_URLS", given)
    with pytest.raises(ImproperlyConfigured, match=r"API_URLS: .* must look like"):
        env.api_urls([])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("sqlite:////tmp/x.db", {"ENGINE": "core.sqlite", "NAME": "/tmp/x.db"}),
        (
            "postgres://vpn:pw@db.example.com:5433/vpn",
            {"ENGINE": "core.postgresql", "NAME": "vpn", "HOST": "db.example.com", "PORT": 5433, "OPTIONS": {}},
        ),
        (
            "postgres://vpn@/vpn?host=/run/postgresql",
            {"ENGINE": "core.postgresql", "NAME": "vpn", "OPTIONS": {"host": "/run/postgresql"}},
        ),
        (
            "postgresql://vpn:p%40,w@db-1.example.com,[fd00::2]:5433,192.0.2.3:1/vpn?sslmode=require",
            {
                "ENGINE": "core.postgresql",
                "NAME": "vpn",
                "USER": "vpn",
                "PASSWORD": "p@,w",
                "HOST": "db-1.example.com,fd00::2,192.0.2.3",
                "PORT": "5432,5433,1",
                "OPTIONS": {
                    "target_session_attrs": "read-write",
                    "sslmode": "require",
                    "connect_timeout": 3,
                    "keepalives_idle": 5,
                    "keepalives_interval": 2,
                    "keepalives_count": 3,
                    "tcp_user_timeout": 10_000,
                },
            },
        ),
    ],
)
def test_database_urls(monkeypatch: pytest.MonkeyPatch, given: str, expected: dict[str, Any]) -> None:
    monkeypatch.setenv("DATABASE_URL", given)
    config = env.database(NONE)
    assert {name: config[name] for name in expected} == expected


@pytest.mark.parametrize(
    "given",
    [
        "postgres://u:secret@h1:port,h2/d",
        "postgres://u:secret@h1:99999,h2/d",
        "postgres://u:secret@h1,,h2/d",
        "postgres://u:secret@fd00::1,fd00::2/d",
        "postgres://u:secret@h1,h2/d?target_session_attrs=any",
        "postgres://u:secret@h1,h2/d?target_session_attrs=prefer-standby",
    ],
)
def test_several_servers_of_which_some_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("DATABASE_URL", given)
    with pytest.raises(ImproperlyConfigured, match=r"DATABASE_URL: .*(commas|several servers)") as refused:
        env.database(NONE)
    assert "secret" not in str(refused.value)


def test_what_is_set_about_waiting_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://u@h1,h2/d?connect_timeout=9&target_session_attrs=primary")
    options = env.database(NONE)["OPTIONS"]
    assert (options["connect_timeout"], options["target_session_attrs"]) == (9, "primary")


def test_sqlite_waits_for_its_turn_and_keeps_a_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    config = env.database(tmp_path / "db.sqlite3")
    assert config["NAME"] == str(tmp_path / "db.sqlite3")
    assert config["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert "journal_mode=WAL" in config["OPTIONS"]["init_command"]


@pytest.mark.parametrize("given", ["mysql://u:secret@h/d", "nonsense", "postgres://u:secret@h:port/d"])
def test_a_database_that_cannot_be_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("DATABASE_URL", given)
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL: use") as refused:
        env.database(NONE)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "broker"),
    [
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
        ("unix:///run/redis.sock?db=3", "redis+socket:///run/redis.sock?virtual_host=3"),
        ("unix://user:pw@/run/redis.sock?db=3", "redis+socket://user:pw@/run/redis.sock?virtual_host=3"),
        ("redis://:pw@h:6379/1", "redis://:pw@h:6379/1"),
        ("rediss://h/0", "rediss://h/0"),
    ],
)
def test_redis_urls_and_celerys_spelling(monkeypatch: pytest.MonkeyPatch, given: str, broker: str) -> None:
    monkeypatch.setenv("REDIS_URL", given)
    assert env.redis_url("unix:///default") == given
    assert broker_url(given) == broker


def test_a_redis_url_of_no_known_form_is_refused_unshown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "http://:secret@h")
    with pytest.raises(ImproperlyConfigured, match="REDIS_URL") as refused:
        env.redis_url("unix:///default")
    assert "secret" not in str(refused.value)


def test_the_settings_file_gives_defaults_that_the_environment_wins_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "settings.env").write_text("VPN_TEST_ONE=file\nVPN_TEST_TWO='file'\n")
    monkeypatch.setenv("VPN_TEST_ONE", "environment")
    monkeypatch.setenv("VPN_TEST_TWO", "x")
    monkeypatch.delenv("VPN_TEST_TWO")
    env.load_file(tmp_path / "settings.env")
    assert (env.text("VPN_TEST_ONE", ""), env.text("VPN_TEST_TWO", "")) == ("environment", "file")
    monkeypatch.delenv("VPN_TEST_TWO")
    env.load_file(tmp_path / "none.env")


def start(tmp_path: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "VPN_VAR": str(tmp_path)} | more
    command = [sys.executable, "-c", "import vpnproject.settings; print('started')"]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=HANGING, check=False
    )


def test_a_fresh_start_reads_its_own_directory_and_a_wrong_one_says_why(tmp_path: Path) -> None:
    refused = start(tmp_path)
    assert refused.returncode != 0
    assert "SECRET_KEY is not set" in refused.stderr
    assert "bin/run makes" in refused.stderr
    (tmp_path / "secret_key").write_text("x" * 50)
    (tmp_path / "field_keys").write_text(Fernet.generate_key().decode() + "\n")
    assert start(tmp_path).stdout == "started\n"
    (tmp_path / "settings.env").write_text("GATEWAY_PORT=443\n")
    wrong = start(tmp_path)
    assert wrong.returncode != 0
    assert "GATEWAY_PORT=443: give a whole number from 1024 to 65535." in wrong.stderr
    assert start(tmp_path, GATEWAY_PORT="9000").stdout == "started\n"
