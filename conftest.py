"""For all tests, the server's and the client's."""

from __future__ import annotations

from collections import defaultdict

import hypothesis
import pytest

from tests import order

# How long one example takes says how busy the machine is, and nothing of the code.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--measure", action="store_true", help="Write down how long each file took: see tests/order.py.")


def pytest_configure(config: pytest.Config) -> None:
    # What the others of several processes have measured comes to the first one, which has no such input.
    if config.getoption("--measure") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Measuring())


class Measuring:
    """Adds up what each file took: its tests, and what was made and taken away for them."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.location[0]] += report.duration

    def pytest_sessionfinish(self) -> None:
        order.write(self._seconds)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    waits: dict[str, bool] = {}
    for item in items:
        path = item.location[0]
        waits[path] = waits.get(path, False) or any(item.get_closest_marker(name) for name in ("host", "browser"))
    places = order.places(waits, order.known())
    items.sort(key=lambda item: (places[item.location[0]], item.location[0]))
