"""The front's configuration follows the networks of the mesh, which an administrator may change while it runs."""

from __future__ import annotations

from collections.abc import Callable

Networks = tuple[str, ...]


class Following:
    """``said`` gives the networks as they are now, None where nobody can say; ``write`` writes the configuration for
    them; ``known`` are those that it was written for last."""

    def __init__(
        self, said: Callable[[], Networks | None], write: Callable[[Networks], None], known: Networks | None
    ) -> None:
        self._said, self._write, self._known = said, write, known

    def changed(self) -> bool:
        """Whether the configuration is another one now, which the front is to be told of. Raise ``OSError``."""
        now = self._said()
        if now is None or now == self._known:
            return False
        self._write(now)
        self._known = now
        return True

    def again(self) -> None:
        """The front could not be told: have the next call of ``changed`` say so once more."""
        self._known = None
