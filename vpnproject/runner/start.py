"""A start from nothing, or from what an earlier start left, to a server that answers; and its end."""

from __future__ import annotations

import datetime
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from servers.hostnet.dns import unbound
from servers.hostnet.state.redis_urls import own_socket

from . import (
    checkout,
    checks,
    client_wheel,
    files,
    front,
    layout,
    mounts,
    network,
    privileges,
    probes,
    processes,
    programs,
    redis_login,
    sysctls,
)
from .announce import announce
from .certificate import Pair, ensure_certificate, fingerprint
from .console import Progress, RunError
from .django_side import Setup, cleanup_host
from .following import Following
from .signs import Signs
from .supervise import Supervisor, until
from .vigil import Vigil
from .watch import Watch

# Settings that may be given in the environment of the first start. They are kept in var/settings.env, so that the next
# start, perhaps from another shell, does not quietly use another database.
KEPT_SETTINGS = ("DATABASE_URL",)
ANSWER_WITHIN = 120.0


@dataclass(frozen=True, slots=True)
class Chosen:
    """What this machine tells clients, and what it told them before."""

    address: network.Address
    old_address: str
    port: int
    plain_port: int = 0

    @property
    def url(self) -> str:
        return f"https://{self.address.in_url}" + ("" if self.port == network.HTTPS else f":{self.port}")


class _HostTrouble(Exception):
    """The step is not done, and the start goes on."""


class Start:
    """One ``bin/run``. ``begin`` brings everything up; ``end`` takes it down, whatever ``begin`` got to."""

    def __init__(self, wanted: checks.Wanted, progress: Progress) -> None:
        self._wanted = wanted
        self._progress = progress
        self._var = wanted.var
        self._choices_file = self._var / "choices.json"
        self._sysctl_file = self._var / "sysctls_before.json"
        self._pair = Pair(self._var / "certificate.pem", self._var / "certificate_key.pem", self._hand_over_pair)
        self._owns_processes = False
        # True while all that runs was running before, and nothing of it has been changed.
        self.untouched = False
        # Whether an earlier start may have left tunnels up.
        self.found_tunnels = False
        # What keeps this machine from being a VPN host, in its own words; empty where nothing does.
        self.host_trouble = ""
        self.instance = ""
        self.house: mounts.House | None = None
        self.site: programs.Site | None = None
        self.supervisor: Supervisor | None = None
        self.watch: Watch | None = None

    def begin(self) -> None:
        """Bring everything up and say where it is. ``RunError`` where a person must help."""
        checkout.check_reachable(self._wanted.project)
        privileges.forbid_core_dumps()
        self.instance = files.make_instance(self._var)
        house = self.house = mounts.house(self.instance, self._wanted.project, self._var)
        self.supervisor = self._supervisor()
        adopted = self.untouched = self._find(house)
        if not adopted:
            self._end_left_behind()
        self._prepare_files()
        mounts.enter(house)
        chosen = self._choose(adopted)
        site = self.site = self._configure(chosen, house)
        self.found_tunnels = sysctls.remember(self._sysctl_file)
        self._owns_processes = True
        if adopted:
            self._progress.good("Found the programs of an earlier start still running; they go on")
        else:
            self._start_supervisor()
        with self._progress.step("Redis answers"):
            until(lambda: self._redis_answers(), ANSWER_WITHIN, self._see("Redis", "redis"))
        setup = Setup(site, self.instance, self._setup_arguments(chosen, site, adopted))
        try:
            self._set_up(setup, chosen, site)
        finally:
            setup.close()

    def _set_up(self, setup: Setup, chosen: Chosen, site: programs.Site) -> None:
        with self._progress.step("Database is up to date"):
            setup.expect("database")
        with self._progress.step("Admin, host, organization, server and user"):
            rows = setup.expect("rows")
        try:
            self._keep_host(rows["host_id"])
            mesh = tuple(rows["mesh"])
            self._configure_front(site, chosen, mesh)
            self._start_servers(replace(site, host_id=rows["host_id"]), chosen, mesh, setup)
        finally:
            # Whatever happens from here on, the one-time password is shown: it is stored nowhere.
            # Not in a journal, though: there a new password is set by hand.
            shown = {"never_signed_in": True} if self._wanted.service else rows
            announce(self._progress.plain, chosen.url, self._var, shown)

    # -- before anything runs ------------------------------------------------------------------------------------

    def _find(self, house: mounts.House) -> bool:
        """Take over what an earlier run left. A supervisor of another checkout, or of a release whose programs all were
        root's, cannot run ours."""
        supervisor = self.supervisor
        if supervisor is None or not supervisor.find():
            return False
        if supervisor.process is not None and mounts.lives_in(house, supervisor.process.pid):
            return True
        supervisor.process = None
        return False

    def _prepare_files(self) -> None:
        """No program of an older release runs any more, or what is there is as it should be already."""
        for path in files.make_directories(self._var):
            self._progress.warn(f"{path} could be used by others on this machine; it is private now.")
        files.make_secrets(self._var)
        redis_login.prepare(self._var)
        if unbound.PROGRAM.exists():
            unbound.make_directories()
        self._offer_client()

    def _offer_client(self) -> None:
        source = self._wanted.project / "client"
        try:
            if source.is_dir():
                client_wheel.put(source, self._var)
        except OSError as error:
            self._progress.warn(f"Users cannot download the client from here: {error}.")

    def _end_left_behind(self) -> None:
        """End what a supervisor that was killed left: it would hold our ports. Tunnels go on."""
        left = self._programs()
        if left:
            with self._progress.step("Programs left by an earlier start are ended"):
                processes.end(left, self.instance, grace=10)

    def _programs(self) -> list[processes.Process]:
        """Every process of this installation but the tunnels. We ourselves do not carry the mark."""
        return processes.strays(processes.marked(self.instance), roots=[])

    def _supervisor(self) -> Supervisor:
        return Supervisor(self._var, self._wanted.project, programs.base_environment(self.instance), self.instance)

    def _choose(self, adopted: bool) -> Chosen:
        """Settle address and port, and write them down for the next start."""
        choices = files.read_json(self._choices_file)
        address = network.choose_address(self._wanted.public_address, choices.get("public_address"))
        ours = {choices.get("port")} if adopted else set()
        port, words = network.choose_port(
            self._wanted.port, choices.get("port"), lambda port: port in ours or network.port_free(port)
        )
        gateway = checks.gateway_port(self._var)
        if not adopted and not network.port_free(gateway):
            raise RunError(checks.gateway_taken(gateway))
        doubt = address.doubt()
        self._progress.good(f"Public address: {address.text}" + (f", port {port}" if port != network.HTTPS else ""))
        if doubt:
            self._progress.warn(f"{address.text}: {doubt}. Another one: --public-address.")
        if words:
            self._progress.note(words)
        setting = files.read_settings(self._var / "settings.env").get("PLAIN_PORT", str(network.PLAIN_HTTP))
        plain, words = network.choose_plain_port(setting, choices.get("plain_port") if adopted else None, port)
        if plain:
            self._progress.good(f"Port {plain} sends browsers to {port} (PLAIN_PORT=0 in settings.env: not)")
        elif words:
            self._progress.note(words)
        chosen = Chosen(address, choices.get("address", ""), port, plain)
        self._keep(chosen, choices)
        return chosen

    def _keep(self, chosen: Chosen, choices: dict[str, Any]) -> None:
        settings = self._var / "settings.env"
        values = {name: value for name in KEPT_SETTINGS if (value := os.environ.get(name))}
        present = files.read_settings(settings).get("API_URLS")
        if present in (None, choices.get("api_urls")):
            values["API_URLS"] = chosen.url
        elif chosen.url not in str(present):
            self._progress.warn(f"API_URLS in {settings} was set by hand and lacks {chosen.url}; it stays as it is.")
        files.set_settings(settings, values)
        new = {**choices, "address": chosen.address.text, "port": chosen.port, "api_urls": chosen.url}
        new["plain_port"] = chosen.plain_port
        if chosen.address.given:
            new["public_address"] = chosen.address.text
        files.write_json(self._choices_file, new)

    def _configure(self, chosen: Chosen, house: mounts.House) -> programs.Site:
        now = datetime.datetime.now(datetime.UTC)
        if done := ensure_certificate(self._pair.certificate, self._pair.key, chosen.address.text, now):
            self._progress.good(f"Certificate {done}")
        front.prepare(front.directory(self.instance))
        self._hand_over_pair()
        self._pair.renewed()  # what is there now is what the front will read first
        redis = programs.redis_configuration(house.var, programs.machine_memory())
        files.write_private(self._var / "redis.conf", redis.encode(), layout.FILES["redis.conf"])
        checkout.compile_code(self._wanted.project)
        settings = files.read_settings(self._var / "settings.env")
        site = programs.Site(
            project=house.code,
            var=house.var,
            host_side=house.host_side,
            hidden=tuple(house.hidden()),
            instance=self.instance,
            gateway_port=checks.gateway_port(self._var),
            host_id="",
            backend=os.environ.get("HOSTNET_BACKEND", "auto"),
            # Whoever names another Redis in the settings means all of the server, this machine's host included.
            redis_url=settings.get("REDIS_URL", ""),
            log_format=settings.get("LOG_FORMAT", "line"),
            redis_password=redis_login.read(self._var / redis_login.PASSWORD),
            stamp=programs.stamp(self._wanted.project, (self._var / "settings.env").read_text()),
        )
        self._configure_front(site, chosen)
        return site

    def _hand_over_pair(self) -> None:
        """Give certificate and key to those who use them, whoever put them there."""
        for path in (self._pair.certificate, self._pair.key):
            layout.give_file(self._var, path.name)
        front.take_pair(front.directory(self.instance), self._pair.certificate, self._pair.key)

    def _configure_front(self, site: programs.Site, chosen: Chosen, mesh: tuple[str, ...] = ()) -> None:
        """``mesh`` are its networks, once the database has said it: the front starts only then."""
        proxies = files.read_settings(self._var / "settings.env").get("TRUSTED_PROXIES", "")
        wanted = front.Front(
            directory=site.front,
            port=chosen.port,
            plain_port=chosen.plain_port,
            gateway_port=site.gateway_port,
            ipv6=network.has_ipv6(),
            trusted=tuple(word.strip() for word in proxies.split(",")),
            mesh=mesh,
        )
        text = front.configuration(wanted, programs.open_files())
        # The front is started anew for another certificate too: should it run, from an earlier start, it has the old.
        text += f"# {fingerprint(self._pair.certificate)}\n"
        front.configure(site.front, text)

    # -- bringing up ---------------------------------------------------------------------------------------------

    def _start_supervisor(self) -> None:
        assert self.supervisor is not None  # noqa: S101 (begin made it)
        self._write_configuration([])
        with self._progress.step("Supervisor started"):
            self.supervisor.start()

    def _setup_arguments(self, chosen: Chosen, site: programs.Site, adopted: bool) -> list[str]:
        return [
            *("--public-address", chosen.address.text, "--old-address", chosen.old_address),
            *("--wireguard-port", str(network.choose_wireguard_port()), "--stamp", site.stamp),
            *("--host-id", str(files.read_json(self._choices_file).get("host_id", ""))),
            *("--host-redis-hash", "" if site.redis_url else redis_login.host_hash(self._var)),
            *([] if adopted else ["--fresh"]),
        ]

    def _keep_host(self, host_id: str) -> None:
        files.write_json(self._choices_file, {**files.read_json(self._choices_file), "host_id": host_id})

    def _start_servers(self, site: programs.Site, chosen: Chosen, mesh: tuple[str, ...], setup: Setup) -> None:
        watch = self.watch = self._make_watch(site, chosen, mesh)
        assert self.supervisor is not None  # noqa: S101
        self.site = site
        self.untouched = False
        self._write_configuration(programs.server_programs(site))
        with self._progress.step("Programs started"):
            self.supervisor.update()
        with self._progress.step("Web answers"):
            until(lambda: probes.web_answers(chosen.port), ANSWER_WITHIN, self._see("web", "web"))
        with self._progress.step("Gateway web answers"):
            until(lambda: probes.gateway_answers(site.gateway_port), ANSWER_WITHIN, self._see("gateway web", "gateway"))
        self._await_host(setup, watch)
        with self._progress.step("The user's key is made"):
            user = setup.expect("user_key", lambda: watch.look([setup.pid]))
        if error := user.get("error"):
            self._progress.warn(f"{error} See {self._var / 'log' / 'keys.log'}.")

    def _make_watch(self, site: programs.Site, chosen: Chosen, mesh: tuple[str, ...]) -> Watch:
        assert self.supervisor is not None  # noqa: S101
        signs = Signs(site, self.instance)
        vigil = Vigil(signs, lambda: processes.marked(self.instance))
        following = Following(signs.networks, lambda now: self._configure_front(site, chosen, now), mesh)
        return Watch(self.supervisor, self.instance, self._progress, self._pair, self._var, vigil, following=following)

    def _redis_answers(self) -> bool:
        return probes.redis_answers(own_socket(self._var), redis_login.read(self._var / redis_login.PASSWORD))

    def _await_host(self, setup: Setup, watch: Watch) -> None:
        """Wait until this machine is a VPN host, or says what keeps it from that: then all else runs, and is said."""
        with suppress(_HostTrouble), self._progress.step("This host has put up its tunnels"):
            host = setup.expect("host", lambda: watch.look([setup.pid]))
            self.host_trouble = str(host["error"])
            if self.host_trouble and not host["reported"]:
                # Then its worker does not even start, and only its log knows why.
                self.host_trouble += self._last_words("host")
            if self.host_trouble:
                raise _HostTrouble

    def _last_words(self, program: str) -> str:
        try:
            lines = (self._var / "log" / f"{program}.log").read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return f" ({lines[-1].strip()[:300]})" if lines else ""

    def _write_configuration(self, servers: list[programs.Program]) -> None:
        assert self.house is not None  # noqa: S101 (begin made it)
        redis = programs.redis_program(self.house.var)
        text = programs.supervisor_configuration(self._var, self.house.code, redis, servers)
        files.write_private(self._var / "supervisord.conf", text.encode())

    def _see(self, name: str, log: str) -> str:
        return f"{name} does not answer (see {self._var / 'log' / log}.log); waited"

    # -- taking down ---------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Stop all programs, take down tunnels and rules, and put forwarding back."""
        if not self._owns_processes or self.supervisor is None or self.site is None or self.house is None:
            # What runs on lives in a house at the same place: it would lose it.
            if self.house is not None and not self.untouched:
                mounts.leave(self.house)
            return
        with self._progress.step("Programs stopped"):
            self.supervisor.stop()
            processes.end(self._programs(), self.instance, grace=10)
        with self._progress.step("Tunnels and firewall rules removed"):
            environment = {**programs.base_environment(self.instance), **programs.host_environment(self.site)}
            error = cleanup_host(self.site, environment)
        if error:
            self._progress.fail(f"Not everything could be taken down: {error}")
        with suppress(OSError):  # /proc/sys is read-only in some containers, and then nothing was changed either
            for words in sysctls.put_back(self._sysctl_file):
                self._progress.note(words)
        processes.end(self._programs(), self.instance, grace=5)
        front.remove(self.site.front)
        unbound.remove_directories()
        mounts.leave(self.house)
