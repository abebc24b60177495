"""``python -m servers.hostnet``: the worker of a host; see ``agent.worker``."""

import sys

from .agent.worker import main

main(sys.argv[1:])
