"""``python -m bench [--json] NAME...``: run these benchmarks one after the other and print what they found.

bin/bench calls this, and so does for each NAME bench/NAME.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from collections.abc import Sequence

from bench import postgresql
from bench.figures import Figure, table
from bench.sandbox import BenchFailed, run

NAMES = (
    "ping",
    "connect",
    "connect_postgresql",
    "slow_clients",
    "waiting",
    "apply",
    "sweep",
    "change",
    "mesh",
    "long_work",
    "storm",
    "fleet",
    "throughput",
    "start",
    "memory",
    "reconnect",
    "failover",
)
PROGRAMS = ("unshare", "ip", "redis-server", "nginx", "nft", "wg")
FURTHER_PROGRAMS = {"change": ("unbound",), "throughput": ("iperf3", "ping")}  # not on every server


def main() -> int:
    """0 when everything was measured, whatever was found; 1 when something could not be; 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure, each figure against something.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; none: all of them")
    parser.add_argument("--clients", type=int, default=0, metavar="N", help="for fleet: a smaller or larger one")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    options = parser.parse_args()
    names = options.names or NAMES
    if unknown := set(names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if options.clients and names != ["fleet"]:
        parser.error("--clients is for fleet alone")
    if hint := _missing(names):
        print(hint, file=sys.stderr)
        return 1
    figures: list[Figure] = []
    failed = []
    for name in names:
        try:
            found = run(name, options.clients)
        except BenchFailed:
            failed.append(name)
            continue
        figures += found
        if options.json:
            print("\n".join(figure.line() for figure in found), flush=True)
    if figures and not options.json:
        print(table(figures))
    if failed:
        print(f"failed: {', '.join(failed)}; see above", file=sys.stderr)
    return 1 if failed else 0


def _missing(names: Sequence[str]) -> str:
    wanted = [*PROGRAMS, *(program for name in names for program in FURTHER_PROGRAMS.get(name, ()))]
    lacking = [program for program in wanted if shutil.which(program) is None]
    if "connect_postgresql" in names and postgresql.installed() is None:
        lacking.append("postgresql")
    return f"Not installed: {', '.join(lacking)}. bin/test installs what the benchmarks need." if lacking else ""


if __name__ == "__main__":
    # Being ended by another program is like Ctrl-C: directories are to be removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped")
