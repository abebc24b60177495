"""The programs that make up a running server, and the configuration files that supervisor and Redis read."""

from __future__ import annotations

import hashlib
import os
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from servers.hostnet.state.redis_urls import own_redis, own_socket

from . import front, privileges
from .console import RunError
from .processes import MARK

# Threads of one process take turns: a connect that holds the database's write lock then waits for the others' Python.
# So web has few of them in several processes (20 MB each), two for each core; measured against 2 processes with 8
# threads that is a third more connects a second. A connect that waits for its host, a second at most, holds one of
# these threads. In gateway web nothing waits for long.
WEB_PROCESSES, WEB_THREADS = max(2, min(8, 2 * (os.cpu_count() or 1))), 2
GATEWAY_PROCESSES, GATEWAY_THREADS = 2, 2
# A connect that waits for somebody else's server (a push: up to a minute) holds a thread and does nothing: web hands it
# over to a process in which there are many.
WAITING_THREADS = 256
# As many connects may wait for web as the front takes in at all: what waits too long is told so by web itself.
QUEUE = front.PUBLIC
GROUP = "vpn"
# What the programs below are made of: a change in one of these starts them anew.
PACKAGES = ("vpnproject", "core", "users", "servers", "wgpeers")
REDIS_LEAST = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Site:
    """Everything that the programs' command lines and environments depend on. The paths are those by which the
    programs' users reach them: see ``mounts``."""

    project: Path
    var: Path
    instance: str
    gateway_port: int
    host_id: str
    backend: str
    # Changes with the code and the settings, so that programs are started anew exactly when these changed.
    stamp: str
    # redis-py's form; our own Redis unless another one is named.
    redis_url: str = ""
    # The control side's, for our own Redis; empty where that asks for none.
    redis_password: str = field(default="", repr=False)
    log_format: str = "line"
    # What the host worker has in the place of ``var``, and what is hidden from it.
    host_side: Path | None = None
    hidden: tuple[Path, ...] = ()

    @property
    def front(self) -> Path:
        """The front's directory."""
        return front.directory(self.instance)

    @property
    def nginx_configuration(self) -> Path:
        return front.configuration_file(self.front)

    @property
    def python(self) -> Path:
        return self.project / ".venv" / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_seconds: int = 10


def base_environment(instance: str) -> dict[str, str]:
    """What every process gets, whatever the shell had: settings come from var/settings.env, where a second start finds
    them again, and a variable of the shell that means something to Django, Celery or Redis must not leak in."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOME": "/nonexistent", MARK: instance}


def django_environment(var: Path) -> dict[str, str]:
    return {"DJANGO_SETTINGS_MODULE": "vpnproject.settings", "VPN_VAR": str(var)}


def host_environment(site: Site) -> dict[str, str]:
    """The host worker's whole configuration. Nothing of Django, of the database or of the secrets is in it."""
    var = site.host_side or site.var
    # Its own user, whose password the worker finds in a file.
    user = f"host.{site.host_id}@" if site.redis_password else ""
    return {
        "HOST_ID": site.host_id,
        "HOST_REDIS_URL": site.redis_url or own_redis(var).replace("unix://", f"unix://{user}", 1),
        "HOST_VAR": str(var / "host"),
        "HOSTNET_BACKEND": site.backend,
        "VPN_GATEWAY_PORT": str(site.gateway_port),
        "LOG_FORMAT": site.log_format,
    }


def redis_program(var: Path) -> Program:
    configuration = var / "redis.conf"
    command = privileges.wrapped("redis", ["redis-server", str(configuration)])
    return Program("redis", command, {"CONFIGURATION": _digest(configuration)})


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def server_programs(site: Site) -> list[Program]:
    """All programs but Redis, in one group: supervisor stops a group's programs at the same time."""
    celery = (str(site.python), "-m", "celery", "--app", "vpnproject")
    worker = (*celery, "worker", "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")
    django = {**django_environment(site.var), "STAMP": site.stamp}
    host = privileges.wrapped("host", [str(site.python), "-m", "servers.hostnet"])

    def on_control_side(name: str, *command: str) -> Program:
        return Program(name, privileges.wrapped(name, command), django)

    # Keys are half a second of pure computing each, in which OpenSSL lets other threads go on. The machine's other
    # cores stay free for connects.
    key_makers = max(1, min(4, (os.cpu_count() or 1) // 2))
    return [
        Program("front", front_command(site), {"CONFIGURATION": _digest(site.nginx_configuration)}),
        on_control_side("web", *_web(site)),
        on_control_side("waiting", *_waiting(site)),
        on_control_side("gateway", *_gateway(site)),
        on_control_side("control", *worker, *_queue("control", "threads", 2)),
        on_control_side("keys", *worker, *_queue("keys", "threads", key_makers)),
        on_control_side("beat", *beat(site.python)),
        Program("host", (*_without(site), *host), {**host_environment(site), "STAMP": site.stamp}),
    ]


def beat(python: Path) -> tuple[str, ...]:
    return str(python), "-m", "vpnproject.beat_alone"


def _without(site: Site) -> tuple[str, ...]:
    """What comes after it sees nothing of ``var`` nor of the front's directory."""
    script = site.project / "vpnproject" / "runner" / "hidden.sh"
    apart = ("unshare", "--mount", "--propagation", "slave")
    return *apart, str(script), *map(str, (*site.hidden, site.front)), "--"


def _queue(name: str, pool: str, concurrency: int) -> tuple[str, ...]:
    # %%h is the machine's name to Celery; supervisor reads the doubled sign as one.
    return ("--queues", name, "--pool", pool, "--concurrency", str(concurrency), "--hostname", f"{name}@%%h")


def _afresh(site: Site, *sockets: Path) -> tuple[str, ...]:
    return (str(site.project / "vpnproject" / "runner" / "afresh.sh"), *map(str, sockets), "--")


def front_command(site: Site) -> tuple[str, ...]:
    # Being in its directory is how its processes are known: nginx writes over the environment that has our mark.
    become = ("env", "--chdir", str(site.front), "nginx", "-e", "stderr", "-c", str(site.nginx_configuration))
    return privileges.wrapped("front", [*_afresh(site, *front.own_sockets(site.front)), *become])


def granian(site: Site, socket: Path, processes: int, threads: int) -> tuple[str, ...]:
    """All but the application."""
    # Where there is one process, its parent has no use for what it loads.
    module = "granian" if processes == 1 else "vpnproject.preloaded"
    return (
        *_afresh(site, socket),
        # As a module: the script names the interpreter by a path that its user may not pass.
        *(str(site.python), "-m", module),
        # Only its user and the front reach the socket: it takes the group of the directory.
        *("--interface", "wsgi", "--http", "1", "--no-ws", "--uds", str(socket), "--uds-permissions", "0660"),
        *("--workers", str(processes), "--blocking-threads", str(threads), "--log-level", "warning"),
        # What a process has no thread for is left to the others: each connection is one request, and whole.
        *("--backpressure", str(threads), "--backlog", str(QUEUE)),
        # One process takes about two seconds to load Django: if it dies, it is not to be replaced faster than that.
        *("--respawn-failed-workers", "--respawn-interval", "5", "--workers-kill-timeout", "5"),
    )


def _web(site: Site) -> tuple[str, ...]:
    return *granian(site, front.web_socket(site.front), WEB_PROCESSES, WEB_THREADS), "vpnproject.wsgi:application"


def _waiting(site: Site) -> tuple[str, ...]:
    socket = front.waiting_socket(site.front)
    return *granian(site, socket, 1, WAITING_THREADS), "vpnproject.wsgi_waiting:application"


def _gateway(site: Site) -> tuple[str, ...]:
    socket = front.gateway_socket(site.front)
    return *granian(site, socket, GATEWAY_PROCESSES, GATEWAY_THREADS), "vpnproject.wsgi_gateway:application"


def supervisor_configuration(var: Path, project: Path, redis: Program, servers: list[Program]) -> str:
    """Supervisor's file. Without ``servers`` it runs Redis alone, which setting up the database needs."""
    parts = [
        f"""; Written by bin/run at every start.
[supervisord]
nodaemon=true
silent=true
umask=077
minfds={open_files()}
logfile={var}/log/supervisord.log
logfile_maxbytes=5MB
logfile_backups=2
pidfile={var}/supervisord.pid
childlogdir={var}/log

[unix_http_server]
file={var}/supervisor.sock
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
""",
        _section(redis, var, project, priority=1),
    ]
    if servers:
        names = ",".join(program.name for program in servers)
        # The higher number stops first: Redis outlives those that use it.
        parts.append(f"[group:{GROUP}]\nprograms={names}\npriority=10\n")
        parts += [_section(program, var, project, priority=10) for program in servers]
    return "\n".join(parts)


def open_files() -> int:
    """How many descriptors each program may have."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)


def _section(program: Program, var: Path, project: Path, priority: int) -> str:
    # A program that cannot run fails while it imports, which may take seconds: only then it counts as started.
    values = sorted(program.environment.items())
    if any(character in value for _key, value in values for character in '"\\\n'):
        raise RunError(f"A setting of {program.name} has a quote, a backslash or a line break in it.")
    # Supervisor expands what follows a percent sign, and a URL may have one.
    environment = ",".join(f'{key}="{value.replace("%", "%%")}"' for key, value in values)
    return f"""[program:{program.name}]
command={" ".join(program.command)}
directory={project}
environment={environment}
priority={priority}
autorestart=true
startsecs=5
startretries=3
stopwaitsecs={program.stop_seconds}
killasgroup=true
redirect_stderr=true
stdout_logfile={var}/log/{program.name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=3
"""


def redis_configuration(var: Path, memory_bytes: int) -> str:
    """Redis on a unix socket that only its group can use, and on no port; the control side has it listen in the mesh
    once there is one (``servers.redis_access``).

    Nothing in it is beyond repair (deadlines are refilled from the database), but nonces and the count of wrong
    attempts are worth more when they survive a restart: a replay, or a new round of guesses, must not profit from
    one. So each change is appended to a log, at most a second behind; the alternative, whole snapshots, forgets
    minutes and takes a fork of all memory each time.
    """
    return f"""# Written by bin/run at every start.
port 0
unixsocket {own_socket(var)}
unixsocketperm 660
dir {var}/redis
aclfile {var}/redis/users.acl
daemonize no
set-proc-title no
loglevel notice
save ""
appendonly yes
appendfsync everysec
auto-aof-rewrite-min-size 16mb
maxmemory {max(REDIS_LEAST, memory_bytes // 4)}
# Full means an error that is seen, never a nonce or a deadline that silently went.
maxmemory-policy noeviction
"""


def machine_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def stamp(project: Path, extra: str) -> str:
    """A short fingerprint of the server's code (names, sizes and times of its files) and of ``extra``."""
    digest = hashlib.sha256(f"{extra}\n{sys.version}\n".encode())
    for package in PACKAGES:
        for path in sorted((project / package).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                status = path.stat()
                digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    digest.update((project / "requirements.txt").read_bytes())
    return digest.hexdigest()[:16]
