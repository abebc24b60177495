"""Command line of ``bin/run``."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from . import checks, network
from .console import Progress, RunError
from .files import check_path

PROJECT = Path(__file__).resolve().parents[2]
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A person asked for the end: Ctrl-C, a signal, or the terminal closed."""


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bin/run",
        description="Run the VPN server on this machine until Ctrl-C: installs what is missing, keeps what is there.",
    )
    parser.add_argument("--check", action="store_true", help="say what is missing or wrong, and change nothing")
    parser.add_argument(
        "--public-address",
        metavar="ADDRESS",
        type=_address,
        help="IP address or DNS name at which clients reach this machine (default: found, and kept when given once)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        help="TCP port of the admin site and the API (default: 443, or 8443 if that is in use). Clients learn another "
        "port from the profile's sync_hosts only",
    )
    parser.add_argument(
        "--var",
        type=Path,
        default=Path(os.environ.get("VPN_VAR", PROJECT / "var")),
        help="directory of the database, secrets, sockets and logs (default: var, or VPN_VAR)",
    )
    # For the service alone: says no secret.
    parser.add_argument("--service", action="store_true", help=argparse.SUPPRESS)
    _add_other_commands(parser)
    _add_control_node(parser.add_argument_group("a further control node (docs/MANY_HOSTS.md)"))
    given = parser.parse_args(arguments)
    if given.check and given.join:
        parser.error("--check looks at no token: --join does, before it changes anything")
    if given.token_file and not given.join:
        parser.error("--token-file goes with --join")
    return given


def _add_other_commands(parser: argparse.ArgumentParser) -> None:
    """What ends by itself, and runs no server."""
    parser.add_argument("--install-service", action="store_true", help="have systemd run this at boot, and end")
    parser.add_argument("--uninstall-service", action="store_true", help="stop that service and remove it; var stays")
    parser.add_argument(
        "--new-password",
        metavar="NAME",
        nargs="?",
        const="admin",
        help="give an administrator (default: admin) a new one-time password, and end; the server may run meanwhile",
    )
    parser.add_argument(
        "--reset-second-factor",
        metavar="NAME",
        nargs="?",
        const="admin",
        help="take an administrator's lost second factor away (default: admin), and end; the server may run meanwhile",
    )


def _add_control_node(control: argparse._ArgumentGroup) -> None:
    control.add_argument(
        "--join",
        metavar=("ADDRESS", "TOKEN"),
        nargs="+",
        help="as the admin shows it: become a further control node, and run",
    )
    control.add_argument("--token-file", metavar="FILE", type=Path, help="file with the token, or -")
    control.add_argument("--node-key", action="store_true", help="print this node's public key, and end")
    control.add_argument(
        "--export-secrets",
        metavar="KEY",
        help="print the secrets and settings for the new control node with that public key, sealed to it, and end",
    )
    control.add_argument(
        "--import-secrets", metavar="FILE", type=Path, help="take what --export-secrets printed, and end"
    )
    control.add_argument("--from", metavar="KEY", dest="sender", help="public key of the node that exported it")


def _address(text: str) -> str:
    try:
        return network.parse_address(text)
    except RunError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number")
    return int(text)


@contextmanager
def alone(var: Path) -> Iterator[None]:
    """Hold the lock of ``var``. The kernel gives it back when this process ends, however it ends."""
    var.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (var / "run.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunError(
                f"bin/run is running already (process {file.read().strip() or 'unknown'}) with {var}. "
                "End that one with Ctrl-C, or give another directory with --var."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def stop_on_signals() -> None:
    """Turn the first stopping signal into ``Stopped``; later ones do not interrupt the stopping."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)
        raise Stopped

    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP on purpose
            signal.signal(number, stop)


def run(wanted: checks.Wanted, progress: Progress) -> int:
    """Start, watch, stop. Returns the exit code.

    Once tunnels may be up, only somebody's wish takes them down: never a failure, of ours or of what we start.
    """
    from .start import Start  # needs what --check must do without

    start = Start(wanted, progress)
    stopped = False
    try:
        start.begin()
        say_outcome(start.host_trouble, wanted, progress)
        assert start.watch is not None  # noqa: S101 (begin made it)
        start.watch.forever()
    except Stopped:
        stopped = True
        progress.plain()
    except (RunError, OSError) as error:
        progress.fail(str(error))
    finally:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)
        # Better a server without its bin/run than no server: clients keep their tunnels while this is mended.
        if start.untouched and not stopped:
            progress.warn("The programs of the earlier start go on. Start bin/run again once this is put right.")
        elif start.found_tunnels and not stopped:
            progress.warn("What is up stays up, tunnels above all. Start bin/run again once this is put right.")
        else:
            start.end()
    if stopped:
        progress.plain("  Stopped.")
    return 0 if stopped else 1


def say_outcome(host_trouble: str, wanted: checks.Wanted, progress: Progress) -> None:
    """Up, or what keeps clients from connecting and what to do about it."""
    ending = f"Logs: {wanted.var / 'log'}. Ctrl-C stops everything."
    if not host_trouble:
        progress.plain(f"  Up after {progress.elapsed():.1f} s. {ending}")
        return
    progress.fail(f"The admin is up, and the VPN is not: this machine's host says: {host_trouble}")
    progress.note(f"What it says in full: {wanted.var / 'log' / 'host.log'}. What this machine lacks: bin/run --check")
    progress.note("It is tried again by itself; the host's page in the admin shows when it works.")
    progress.plain(f"  {ending}")


def hand_over(given: argparse.Namespace, wanted: checks.Wanted, progress: Progress) -> int:
    """What is shared with further control nodes. What is printed may be piped, and is nothing else."""
    from . import handover  # needs what --check must do without

    if given.node_key:
        print(handover.public_key(wanted.var))
    elif given.export_secrets:
        print(handover.export_secrets(wanted.var, wanted.project, given.export_secrets))
    elif not given.sender:
        raise RunError("Say with --from whose secrets these are: the key that --node-key prints there.")
    else:
        with alone(wanted.var):
            names = handover.import_secrets(wanted.var, given.import_secrets.read_text(), given.sender)
        progress.good(f"Secrets taken, and {len(names)} settings: {', '.join(names)}")
        progress.plain("  bin/run starts this node now.")
    return 0


def main(arguments: list[str]) -> int:
    given = parse(arguments)
    wanted = checks.Wanted(PROJECT, given.var.resolve(), given.port, given.public_address, given.service)
    progress = Progress()
    try:
        if given.check:
            return checks.report(wanted, progress)
        check_path(wanted.var)
        check_path(wanted.project)
        for finding in checks.blocking(wanted):
            progress.fail(finding.words)
            return 1
        os.umask(0o077)  # here and in all that is started from here
        if given.install_service or given.uninstall_service:
            from . import service

            service.install(wanted, progress) if given.install_service else service.uninstall(progress)
            return 0
        if given.new_password is not None:
            from . import password

            password.renew(wanted, given.new_password, progress)
            return 0
        if given.reset_second_factor is not None:
            from . import password

            password.reset_second_factor(wanted, given.reset_second_factor, progress)
            return 0
        if given.node_key or given.export_secrets or given.import_secrets:
            return hand_over(given, wanted, progress)
        with alone(wanted.var):
            if given.join:
                from . import joining

                joining.join(wanted.var, given.join, given.token_file, progress)
            stop_on_signals()
            return run(wanted, progress)
    except (RunError, OSError) as error:
        progress.fail(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
