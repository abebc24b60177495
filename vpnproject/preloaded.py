"""Granian, with the application loaded before its processes are forked: what is loaded is in memory once for all.

python -m vpnproject.preloaded OPTIONS MODULE:NAME, the options being granian's. An application that cannot be loaded
ends it at once, with its traceback. Loading must begin no thread and open no connection, since a fork has no part in
the one and shares the other.
"""

from __future__ import annotations

import importlib
import multiprocessing
import runpy
import sys


def main() -> None:
    multiprocessing.set_start_method("fork")  # what Python does by itself up to 3.13
    importlib.import_module(sys.argv[-1].partition(":")[0])
    runpy.run_module("granian", run_name="__main__")


if __name__ == "__main__":
    main()
