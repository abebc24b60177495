"""The process that keeps one profile up, and what other processes do with it: start, watch and stop it, read its
status."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from pyroute2.netlink.exceptions import NetlinkError

from wgpeer import device_key
from wgpeer import status as s
from wgpeer.api_client import ApiClient, DeviceInfo
from wgpeer.clock import Stopped, SystemClock
from wgpeer.connecting import SessionEnded
from wgpeer.envelope import Identity
from wgpeer.factors import FactorToken
from wgpeer.profile import Profile
from wgpeer.session import Session
from wgpeer.status import Status
from wgpeer.store import Store, StoreError, is_locked, locked
from wgpeer.tpm import TpmError
from wgpeer.transport import HttpTransport
from wgpeer.tunnel.contract import TunnelError
from wgpeer.tunnel.linux import LinuxTunnel
from wgpeer.tunnel.recovery import SUFFIX, both_of, clean_up, profile_of
from wgpeer.tunnel.renewable import RenewableTunnel
from wgpeer.tunnel.uplink import Uplink
from wgpeer.tunnel.watch import Watch

LOG_BYTES = 1024 * 1024
LOG_FILES = 3
SECRET_VARIABLES = ("WGPEER_PIN", "WGPEER_OTP", "WGPEER_PASSWORD")
POLL = 0.1  # how often a person's progress display looks at the status file

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED, EXIT_PENDING, EXIT_MISSING, EXIT_RIGHTS = range(7)


class PrivateLog(logging.handlers.RotatingFileHandler):
    """A rotated log that only its owner can read."""

    def _open(self) -> IO[str]:  # type: ignore[override]
        handle = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return os.fdopen(handle, "a", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user chose for a profile that goes up: a key of ``BACKENDS``, and the name of this device (empty: its
    host name)."""

    backend: str = "auto"
    device_name: str = ""


def run(store: Store, name: str, password: str, choices: Choices) -> int:
    """Keep a profile up until a signal, a refusal or an error; returns the exit code. Errors are in the status and in
    the log. Raises ``StoreError`` when the profile is up already."""
    with contextlib.ExitStack() as held:
        with store.guard():
            if not held.enter_context(locked(store.lock_path(name))):
                raise StoreError(f"{name} is up already; see: wgpeer status")
            # Before anybody can see us up: what a killed process wrote last would pass for ours.
            status_file = StatusFile(store.status_path(name), Status(profile=name, pid=os.getpid()))
            _clean_up_leftovers(store, name)
        log = _open_log(store, name)
        clock = SystemClock()
        clock.install()
        try:
            return _run(
                lambda: _session(store, name, password, choices, clock, log, status_file), clock, log, status_file
            )
        finally:
            log.handlers[0].close()


def _run(
    make_session: Callable[[], tuple[Session, RenewableTunnel]],
    clock: SystemClock,
    log: logging.Logger,
    status_file: StatusFile,
) -> int:
    """Run a session until it ends, and say why it ended: in the log, in the status and by the exit code."""
    try:
        session, tunnel = make_session()
        uplink = Uplink()
        with Watch(lambda: _network_changed(uplink, clock, log) and _repair(tunnel, log)):
            session.run()
    except Stopped:
        log.info("stopped")
        status_file.end(s.DOWN)
        return EXIT_OK
    except SessionEnded as error:
        log.error("refused: %s%s", error, f" (registration key {error.reg_key})" if error.reg_key else "")
        status_file.end(s.REFUSED, last_error=str(error), reg_key=error.reg_key)
        return EXIT_REFUSED
    except (TunnelError, StoreError, TpmError) as error:
        log.error("%s", error)
        status_file.end(s.FAILED, last_error=str(error))
        return EXIT_FAILED
    except BaseException:
        # A fault of ours: the tunnel is gone already (the session saw to that), and the trace belongs into the log.
        log.exception("a fault in wgpeer")
        status_file.end(s.FAILED, last_error="a fault in wgpeer; see: wgpeer logs")
        raise
    return EXIT_OK


def _network_changed(uplink: Uplink, clock: SystemClock, log: logging.Logger) -> bool:
    """See whether this machine is connected in another way than before; then the session looks at once whether its
    tunnel works. False when that could not be read."""
    try:
        if uplink.has_changed():
            log.info("the network of this machine has changed: looking whether the tunnel works")
            clock.wake()
    except (NetlinkError, OSError) as error:
        log.warning("the network of this machine cannot be read: %s", error)
        return False
    return True


def _repair(tunnel: RenewableTunnel, log: logging.Logger) -> bool:
    """A repair on its own thread, which nothing may end but the end of the session."""
    try:
        return tunnel.repair()
    except Stopped:
        return True
    except Exception:
        log.exception("a fault in wgpeer")
        return False


def _session(
    store: Store,
    name: str,
    password: str,
    choices: Choices,
    clock: SystemClock,
    log: logging.Logger,
    status_file: StatusFile,
) -> tuple[Session, RenewableTunnel]:
    profile = store.load(name)
    if profile.flag("device_auth"):
        mine = device_key.held(store)
        log.info("this device's key is %s%s", mine.where, f" ({mine.why})" if mine.why else "")
    transport = HttpTransport(clock)
    tunnel = RenewableTunnel(
        lambda path: LinuxTunnel(path, transport.resolver.lookup, log.info, clock.wait, choices.backend),
        store.recovery_path(name),
    )
    session = Session(
        api=ApiClient(profile, identity_of(profile, store), DeviceInfo.gather(choices.device_name), clock, transport),
        clock=clock,
        tunnel=tunnel,
        token=FactorToken.load(store.token_path(name), profile),
        password=password,
        report=status_file.report,
        save=lambda changed: store.save(name, changed),
        log=log.info,
        resolver=transport.resolver,
        first_status=status_file.status,
    )
    tunnel.on_change = session.tunnel_changed
    return session, tunnel


def identity_of(profile: Profile, store: Store) -> Identity:
    """What a profile's requests are signed with, this machine's device key included where the server wants one. Raises
    ``StoreError``."""
    key = device_key.held(store).key if profile.flag("device_auth") else None
    return Identity(profile.text("sync_token"), profile.text("sync_secret"), profile.rsa_key(), profile.box_key, key)


class StatusFile:
    """The file that holds the status of this process."""

    def __init__(self, path: Path, status: Status) -> None:
        self._path = path
        self.status = status
        self.report(status)

    def report(self, status: Status) -> None:
        """Write a status."""
        self.status = status
        s.save(self._path, status)

    def end(self, state: str, *, last_error: str = "", reg_key: str = "") -> None:
        """Write the last status of this process. What it says of the tunnel is left out: there is none any more."""
        self.report(
            replace(
                Status(profile=self.status.profile, reconnects=self.status.reconnects),
                state=state,
                last_error=last_error,
                reg_key=reg_key,
            )
        )


def _open_log(store: Store, name: str) -> logging.Logger:
    """To the profile's log file, and to stderr as well (which the service manager, or a person, reads)."""
    log = logging.Logger(f"wgpeer.{name}", logging.INFO)
    file = PrivateLog(store.log_path(name), maxBytes=LOG_BYTES, backupCount=LOG_FILES)
    for handler in (file, logging.StreamHandler(sys.stderr)):
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
    return log


def _clean_up_leftovers(store: Store, own: str) -> None:
    """Remove what crashed processes left behind: of this profile, and of all others that are not up now."""
    for recovery_file in store.run.glob(f"*{SUFFIX}"):
        name = profile_of(recovery_file)
        if name == own:
            clean_up(recovery_file)
            continue
        with locked(store.lock_path(name)) as free:
            if free:
                clean_up(recovery_file)


# --- from outside -----------------------------------------------------------------------------------------------------


def is_up(store: Store, name: str) -> bool:
    """Whether a process keeps this profile up."""
    with store.guard():
        return is_locked(store.lock_path(name))


def current_status(store: Store, name: str) -> Status:
    """The status of a profile. That of a process that died without writing its last one is ``failed``."""
    with store.guard():  # at one moment: a status read before a new process came up would pass for the new one's
        up, seen = is_locked(store.lock_path(name)), s.load(store.status_path(name))
    seen = seen or Status(profile=name, state=s.DOWN)
    if up or seen.state in s.ENDED:
        return seen
    return Status(profile=name, state=s.FAILED, last_error="its process died; start it again with: wgpeer up")


def start(store: Store, name: str, password: str, choices: Choices) -> subprocess.Popen[bytes]:
    """Start the process in the background. The password goes through a pipe, because every user can see arguments."""
    # -P: this runs as root, and must not import what lies in the current directory.
    command = [sys.executable, "-P", "-m", "wgpeer", "--dir", str(store.root), "up", name]
    options = ["--foreground", "--password-stdin", "--backend", choices.backend, "--device-name", choices.device_name]
    process = subprocess.Popen(
        [*command, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={key: value for key, value in os.environ.items() if key not in SECRET_VARIABLES},
    )
    if process.stdin is None:
        raise RuntimeError("a pipe was asked for")
    with contextlib.suppress(BrokenPipeError):  # it ended already; its exit code tells more
        process.stdin.write(password.encode())
        process.stdin.close()
    return process


def watch(store: Store, name: str, process: subprocess.Popen[bytes], seconds: float) -> Iterator[Status]:
    """The statuses of a process just started, as they change, until it is connected, has ended, or ``seconds`` are
    over."""
    deadline, last = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        seen = s.load(store.status_path(name))
        if seen and seen != last and (seen.pid == process.pid or ended):
            last = seen
            yield seen
            if seen.state == s.CONNECTED:
                return
        if ended:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL)


def stop(store: Store, name: str, seconds: float = 20.0) -> bool:
    """End the process of a profile and wait for it. False when there is none. Raises ``StoreError`` when it has not
    ended after ``seconds``."""
    seen = s.load(store.status_path(name))
    if not is_up(store, name) or seen is None or not seen.pid:
        clean_up_if_down(store, name)
        return False
    try:
        handle = os.pidfd_open(seen.pid)
    except ProcessLookupError:
        clean_up_if_down(store, name)
        return False
    try:
        # With the handle open the number cannot come to mean another process; the lock still held says it is ours.
        if is_up(store, name):
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        ended, _, _ = select.select([handle], [], [], seconds)
        if not ended:
            raise StoreError(f"process {seen.pid} of {name} does not end; see: wgpeer logs")
    finally:
        os.close(handle)
    clean_up_if_down(store, name)
    return True


def clean_up_if_down(store: Store, name: str) -> None:
    """Remove what a crashed process left behind, unless the profile is up."""
    with store.guard(), locked(store.lock_path(name)) as free:
        for path in both_of(store.recovery_path(name)) if free else ():
            if path.exists():
                clean_up(path)
