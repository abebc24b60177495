"""What supervisor and Redis are told to run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from supervisor.options import ServerOptions

from tests.lab import HANGING
from vpnproject.runner import front, privileges, programs, redis_login
from vpnproject.runner.console import RunError

PROJECT = Path(__file__).resolve().parents[3]
INTERNET_FACING = ("web", "waiting", "gateway")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> programs.Site:
    for name in ("log", "redis", "host", "fronts"):
        (tmp_path / name).mkdir()
    (tmp_path / "redis.conf").write_text(programs.redis_configuration(tmp_path, 2**30))
    monkeypatch.setattr(front, "HOMES", tmp_path / "fronts")
    front.prepare(front.directory("0" * 32))
    front.configure(front.directory("0" * 32), "daemon off;\n")
    return programs.Site(
        project=PROJECT,
        var=tmp_path,
        instance="0" * 32,
        gateway_port=9790,
        host_id="abc123",
        backend="auto",
        stamp="0123",
    )


def read_by_supervisor(site: programs.Site, servers: list[programs.Program]) -> ServerOptions:
    """The configuration as supervisor itself understands it."""
    path = site.var / "supervisord.conf"
    path.write_text(programs.supervisor_configuration(site.var, PROJECT, programs.redis_program(site.var), servers))
    options = ServerOptions()
    options.realize(["-c", str(path)])
    return options


def by_name(options: ServerOptions) -> dict[str, Any]:
    return {process.name: process for group in options.process_group_configs for process in group.process_configs}


def test_supervisor_reads_every_program_and_stops_redis_last(site: programs.Site) -> None:
    options = read_by_supervisor(site, programs.server_programs(site))
    groups = {group.name: group for group in options.process_group_configs}
    assert set(groups) == {"redis", "vpn"}
    assert groups["redis"].priority < groups["vpn"].priority
    found = by_name(options)
    assert set(found) == {"redis", "front", "web", "waiting", "gateway", "control", "keys", "beat", "host"}
    assert all(process.autorestart for process in found.values())
    assert all(process.stdout_logfile == str(site.var / "log" / f"{name}.log") for name, process in found.items())
    assert all(process.stdout_logfile_maxbytes and process.stdout_logfile_backups for process in found.values())


def test_the_first_configuration_runs_redis_alone(site: programs.Site) -> None:
    assert set(by_name(read_by_supervisor(site, []))) == {"redis"}


def test_the_host_worker_gets_neither_django_nor_a_way_to_the_database(site: programs.Site) -> None:
    host = by_name(read_by_supervisor(site, programs.server_programs(site)))["host"]
    assert host.environment == {
        "HOST_ID": "abc123",
        "HOST_REDIS_URL": f"unix://{site.var}/redis/redis.sock?db=0",
        "HOST_VAR": f"{site.var}/host",
        "HOSTNET_BACKEND": "auto",
        "LOG_FORMAT": "line",
        "VPN_GATEWAY_PORT": "9790",
        "STAMP": "0123",
    }


def test_another_redis_reaches_the_host_worker_as_it_was_written(site: programs.Site) -> None:
    elsewhere = replace(site, redis_url="rediss://host:p%40ss;w#rd@redis.example.com:6380/0")
    host = by_name(read_by_supervisor(elsewhere, programs.server_programs(elsewhere)))["host"]
    assert host.environment["HOST_REDIS_URL"] == elsewhere.redis_url
    broken = replace(site, redis_url='redis://"')
    with pytest.raises(RunError, match="quote"):
        read_by_supervisor(broken, programs.server_programs(broken))


def test_no_secret_is_on_a_command_line_or_in_an_environment(site: programs.Site) -> None:
    for process in by_name(read_by_supervisor(site, programs.server_programs(site))).values():
        text = f"{process.command} {process.environment}".replace(str(site.var), "")
        assert not re.search(r"SECRET|FIELD_KEY|DATABASE|password", text, re.IGNORECASE), process.name


def test_nothing_of_the_shell_reaches_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DJANGO_SETTINGS_MODULE", "DATABASE_URL", "PYTHONPATH", "GRANIAN_PORT", "SECRET_KEY"):
        monkeypatch.setenv(name, "evil")
    assert set(programs.base_environment("id")) == {"PATH", "LANG", "HOME", "VPN_INSTANCE"}


def test_web_and_gateway_web_listen_on_sockets_that_only_the_front_may_enter(site: programs.Site) -> None:
    found = by_name(read_by_supervisor(site, programs.server_programs(site)))
    for name in INTERNET_FACING:
        assert f"--uds {site.front}/web/{name}.sock --uds-permissions 0660" in found[name].command
        assert "--port" not in found[name].command


def test_granian_takes_the_options_of_web_and_gateway_web(site: programs.Site) -> None:
    """Granian checks its options before anything else; with an application that is not there it must get that far."""
    for program in programs.server_programs(site):
        if program.name in INTERNET_FACING:
            command = [sys.executable, "-m", "granian", "--help"]
            known = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            own = program.command[program.command.index("--interface") :]
            options = [word for word in own if word.startswith("--")]
            assert [word for word in options if word not in known] == []


def test_what_is_loaded_for_several_processes_is_loaded_before_they_are_forked(site: programs.Site) -> None:
    commands = {program.name: " ".join(program.command) for program in programs.server_programs(site)}
    for name in INTERNET_FACING:
        several = "--workers 1 " not in commands[name]
        assert ("-m vpnproject.preloaded " in commands[name]) is several, name


def test_names_of_celery_workers_survive_supervisors_percent_signs(site: programs.Site) -> None:
    found = by_name(read_by_supervisor(site, programs.server_programs(site)))
    assert found["keys"].command.endswith("--hostname keys@%h")


def test_what_a_ping_passes_has_its_turn_before_what_computes(site: programs.Site) -> None:
    niceness = {name: row.niceness for name, row in privileges.TABLE.items()}
    ways = ("front", "gateway"), ("redis", "host"), ("web", "waiting", "control", "beat")
    sooner, soon, later = ([niceness[name] for name in names] for names in ways)
    assert max(sooner) < min(soon)
    assert max(soon) < min(later)
    assert niceness["keys"] == max(niceness.values()) == 19
    found = by_name(read_by_supervisor(site, programs.server_programs(site)))
    assert found["keys"].command.startswith("nice -n 19 setpriv ")
    assert found["gateway"].command.startswith("nice -n -10 setpriv ")
    assert found["web"].command.startswith("setpriv ")


def test_every_program_is_run_as_its_row_of_the_table_says(site: programs.Site) -> None:
    found = by_name(read_by_supervisor(site, programs.server_programs(site)))
    assert set(found) | {"setup"} == set(privileges.TABLE)
    for name, process in found.items():
        assert " ".join(privileges.wrapped(name, [])) in process.command, name


def test_programs_are_started_where_their_users_find_the_code(site: programs.Site) -> None:
    found = by_name(read_by_supervisor(site, programs.server_programs(site)))
    assert {process.directory for process in found.values()} == {str(PROJECT)}


def test_var_is_hidden_from_the_host_worker(site: programs.Site) -> None:
    apart = replace(site, host_side=Path("/run/vpn/x/host"), hidden=(Path("/run/vpn/x/var"), Path("/srv/var")))
    host = by_name(read_by_supervisor(apart, programs.server_programs(apart)))["host"]
    assert f"hidden.sh /run/vpn/x/var /srv/var {site.front} -- nice -n -5 setpriv" in host.command
    assert host.environment["HOST_VAR"] == "/run/vpn/x/host/host"
    assert host.environment["HOST_REDIS_URL"] == "unix:///run/vpn/x/host/redis/redis.sock?db=0"


def test_a_changed_front_is_started_anew(site: programs.Site) -> None:
    before = programs.server_programs(site)[0]
    assert (before.name, programs.server_programs(site)[0]) == ("front", before)
    front.configure(site.front, "daemon off;\npid here;\n")
    assert programs.server_programs(site)[0] != before


def test_a_changed_redis_configuration_changes_the_program(site: programs.Site) -> None:
    before = programs.redis_program(site.var)
    assert programs.redis_program(site.var) == before
    (site.var / "redis.conf").write_text(programs.redis_configuration(site.var, 2**34))
    assert programs.redis_program(site.var) != before


def test_redis_takes_its_configuration_and_keeps_data_over_a_kill(site: programs.Site, tmp_path: Path) -> None:
    from tests.lab import until
    from vpnproject.runner.probes import redis_answers

    redis_login.prepare(tmp_path)
    password = redis_login.read(tmp_path / redis_login.PASSWORD)
    socket = tmp_path / "redis" / "redis.sock"
    for command, answer in ((("set", "nonce", "used"), "OK"), (("get", "nonce"), "used")):
        with (tmp_path / "out").open("wb") as out:
            process = subprocess.Popen(["redis-server", str(tmp_path / "redis.conf")], stdout=out)
        try:
            until(lambda: redis_answers(socket, password))
            assert not redis_answers(socket)  # nobody without the password
            assert socket.stat().st_mode & 0o777 == 0o660
            done = subprocess.run(
                ["redis-cli", "-s", str(socket), "-a", password, "--no-auth-warning", *command],
                capture_output=True,
                text=True,
                timeout=HANGING,
                check=True,
            )
            assert done.stdout.strip() == answer
            # "everysec": what is in the log file after the write is what a killed Redis comes back with.
            until(lambda: written(tmp_path / "redis" / "appendonlydir"))
        finally:
            process.kill()
            process.wait(HANGING)


def written(log: Path) -> bool:
    return any(b"nonce" in file.read_bytes() for file in log.glob("*.aof"))


def test_the_stamp_covers_all_that_the_programs_import() -> None:
    """A part that is forgotten there would run on, old, after an upgrade."""
    ours = {path.parent.name for path in PROJECT.glob("*/__init__.py")} - {"tests", "bench"}
    assert set(programs.PACKAGES) == ours


def test_the_stamp_changes_with_code_and_certificate_only(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "models.py").write_text("a = 1\n")
    (tmp_path / "requirements.txt").write_text("django\n")
    first = programs.stamp(tmp_path, "certificate")
    (tmp_path / "users" / "models.pyc").write_text("compiled")
    assert programs.stamp(tmp_path, "certificate") == first
    assert programs.stamp(tmp_path, "another") != first
    (tmp_path / "users" / "models.py").write_text("a = 10\n")
    assert programs.stamp(tmp_path, "certificate") != first


def test_the_projects_interpreter_is_used(site: programs.Site) -> None:
    assert os.path.samefile(site.python, sys.executable)
