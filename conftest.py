"""For all tests, the server's and the client's."""

import hypothesis
import pytest

# How long one example takes says how busy the machine is, and nothing of the code.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

# What takes longest, the longest first. Begun last, they would go on by themselves when all else has ended.
LONGEST = (
    "tests/host/test_run_service.py",
    "tests/host/test_net_failover.py",
    "tests/host/test_run_whole.py",
    "tests/host/test_run_disks.py",
    "tests/host/test_net_joining.py",
    "tests/wgpeers/test_fleet_machine.py",
    "tests/host/test_net_failover_faults.py",
    "tests/host/test_net_two_control_nodes.py",
    "tests/host/test_end_to_end.py",
    "tests/host/test_failover_of_stores.py",
    "tests/host/test_net_server_links.py",
    "tests/host/test_three_hosts.py",
    "tests/host/test_net_reach.py",
    "tests/host/test_net_rolling_upgrade.py",
    "tests/host/test_front.py",
)
# By then the last of those that wait has begun, as a share of those that compute.
LAST_THAT_WAITS = 0.8


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first; then those that mostly wait, for networks and browsers, evenly between those that compute: so
    the processors are busy all the time, and never with more than they can do."""
    waits: dict[str, bool] = {}
    for item in items:
        waits[item.location[0]] = waits.get(item.location[0], False) or _waits(item)
    places: dict[str, tuple[float, float]] = {path: (0, place) for place, path in enumerate(LONGEST)}
    for kind, end in ((True, LAST_THAT_WAITS), (False, 1.0)):
        files = [path for path, each in waits.items() if each is kind and path not in places]
        places |= {path: (1, end * place / len(files)) for place, path in enumerate(files)}
    items.sort(key=lambda item: places[item.location[0]])


def _waits(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in ("host", "browser"))
