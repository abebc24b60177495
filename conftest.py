"""For all tests, the server's and the client's."""

import hypothesis
import pytest

# How long one example takes says how busy the machine is, and nothing of the code.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

# A minute or more each, the longest first. Begun last, they would go on by themselves when all else has ended.
LONGEST = (
    "tests/host/test_run_service.py",
    "tests/host/test_run_disks.py",
    "tests/host/test_run_whole.py",
    "tests/host/test_net_failover_faults.py",
    "tests/host/test_net_server_links.py",
    "tests/host/test_end_to_end.py",
    "tests/host/test_net_joining.py",
    "tests/host/test_failover_of_stores.py",
    "tests/host/test_net_failover.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        path = item.location[0]
        if path in LONGEST:
            return LONGEST.index(path)
        return len(LONGEST) + (item.get_closest_marker("host") is None)

    items.sort(key=place)
