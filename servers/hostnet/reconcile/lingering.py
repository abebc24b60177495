"""Connections that have ended and are still to be told so by the answer to their next ping, each with its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator


class Lingering:
    """By connection, until when; in seconds of ``steady``, a clock that nobody sets."""

    def __init__(self, steady: Callable[[], float]) -> None:
        self.steady = steady
        self._until: dict[str, float] = {}

    def allow(self, connection: str, seconds: float) -> None:
        """For so many seconds from now. A later word never makes it longer."""
        until = self.steady() + seconds
        self._until[connection] = min(until, self._until.get(connection, until))

    def forget(self, connection: str) -> None:
        self._until.pop(connection, None)

    def over(self) -> list[str]:
        """Whose time is over."""
        now = self.steady()
        return [connection for connection, until in self._until.items() if until <= now]

    def copy(self) -> Lingering:
        copy = Lingering(self.steady)
        copy._until = dict(self._until)
        return copy

    def __contains__(self, connection: object) -> bool:
        return connection in self._until

    def __iter__(self) -> Iterator[str]:
        return iter(self._until)

    def __len__(self) -> int:
        return len(self._until)
