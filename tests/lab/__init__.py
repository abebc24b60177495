"""Networks of namespaces on one machine, for tests and demonstrations. Needs root.

    with Lab() as lab:
        host, client = lab.add_host(), lab.add_client()
        lan = lab.add_lan(host)
        with Echo(lan, lan.address, 7000):
            answer = client.ask_tcp(lan.address, 7000)

A namespace here is a process that holds a network and a mount namespace, not a file. Whatever dies, be it the test
itself by SIGKILL, nothing stays behind: the processes in a namespace are found by it and ended. Each has a
``/run/wireguard`` of its own, because WireGuard's sockets are files, which network namespaces would share; so it
has unbound's directories.
"""

from tests.lab.capture import Capture, Seen
from tests.lab.disks import FAILURES, Disk
from tests.lab.namespaces import Namespace
from tests.lab.networks import Lab, Machine
from tests.lab.postgresql import PostgresPair
from tests.lab.programs import PROJECT, PYTHON, RedisServer, ended_afterwards
from tests.lab.sentinels import SentinelRedis
from tests.lab.traffic import Echo, Pinger, segment_sizes
from tests.lab.tunnels import KeyPair, Tunnel
from tests.lab.waiting import HANGING, NEVER, ONE_TRY, PATIENCE, until

__all__ = [
    "FAILURES",
    "HANGING",
    "NEVER",
    "ONE_TRY",
    "PATIENCE",
    "PROJECT",
    "PYTHON",
    "Capture",
    "Disk",
    "Echo",
    "KeyPair",
    "Lab",
    "Machine",
    "Namespace",
    "Pinger",
    "PostgresPair",
    "RedisServer",
    "Seen",
    "SentinelRedis",
    "Tunnel",
    "ended_afterwards",
    "segment_sizes",
    "until",
]
