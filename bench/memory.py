"""The memory of all that bin/run starts, itself included: once everything is up and has come to rest, and again when
web has been used. Forked processes share less and less of what their parent loaded.

Proportional set size (PSS): what processes share is counted once, each of them having its part of it.
"""

from __future__ import annotations

import re
import ssl
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.figures import Figure
from bench.installation import say
from bench.run import Run
from tests.lab import HANGING, Lab, Machine

BAR = 780.0  # MiB
REST = 30.0  # seconds in which each sweep has run, and each worker done its first task
PAGES, ASKING = 1000, 8
# How a process is known by its command, in this order; ``front`` and tunnels by their own titles.
NAMES = {
    "runner": r"-m runner",
    "supervisor": r"supervisord\.py",
    "waiting": r"wsgi_waiting",
    "gateway": r"wsgi_gateway",
    "web": r"vpnproject\.wsgi:",
    "control": r"control@",
    "keys": r"keys@",
    "beat": r"beat_alone",
    "host": r"servers\.hostnet",
    "front": r"^nginx",
    "redis": r"^redis-server",
    "tunnels": r"^wireguard-go",
}


def measure(directory: Path) -> Iterator[Figure]:
    with Lab() as lab:
        machine = lab.add_host()
        before = set(machine.processes())
        run = Run(machine, directory / "run")
        run.start()
        time.sleep(REST)
        yield _figure("run_memory_mib", machine, before)
        _use(machine)
        yield _figure("run_memory_used_mib", machine, before)
        run.stop()


def _figure(name: str, machine: Machine, before: set[int]) -> Figure:
    used, processes = _used(set(machine.processes()) - before)
    parts = ", ".join(f"{part} {size / 1024:.0f} ({processes[part]})" for part, size in used.most_common())
    note = f"in {processes.total()} processes: {parts}"
    say(f"memory: {used.total() / 1024:.0f} MiB {note}")
    return Figure(name, used.total() / 1024, "MiB", BAR, at_most=True, note=note)


def _use(machine: Machine) -> None:
    """Ask for many pages, at more than one process at a time."""
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE

    def ask() -> None:
        for _ in range(PAGES // ASKING):
            with urllib.request.urlopen("https://127.0.0.1/admin/login/", timeout=HANGING, context=nobody) as answer:
                answer.read()

    with ThreadPoolExecutor(ASKING) as pool:
        for each in [pool.submit(machine.call, ask) for _ in range(ASKING)]:
            each.result()


def _used(pids: set[int]) -> tuple[Counter[str], Counter[str]]:
    """KiB by program, and how many processes each has."""
    used: Counter[str] = Counter()
    processes: Counter[str] = Counter()
    for pid in pids:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        if found:  # a zombie has no memory
            name = next((name for name, pattern in NAMES.items() if re.search(pattern, command)), command.strip())
            used[name] += int(found[1])
            processes[name] += 1
    return used, processes
