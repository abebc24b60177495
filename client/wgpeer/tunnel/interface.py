"""The WireGuard interface of a tunnel: made by the kernel or by a process, made anew when it is gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from wgpeer.constants import HANDSHAKE_POLL, NAME_FREE_POLLS
from wgpeer.tunnel import link
from wgpeer.tunnel.backend import Backend, BackendError
from wgpeer.tunnel.kernel import KernelBackend
from wgpeer.tunnel.userspace import UserspaceBackend, socket_is_alive

BACKENDS: dict[str, tuple[type[KernelBackend] | type[UserspaceBackend], ...]] = {
    "auto": (KernelBackend, UserspaceBackend),
    "kernel": (KernelBackend,),
    "userspace": (UserspaceBackend,),
}


@dataclass(slots=True)
class Interface:
    """``before`` is called with name and index (0: not made yet) before and after it is made. ``name`` is empty and
    ``backend`` None until then. The tables of ``lost`` names still hold back traffic."""

    before: Callable[[str, int], None]
    wait: Callable[[float], object] = time.sleep
    choice: str = "auto"
    name: str = ""
    index: int = 0
    backend: Backend | None = None
    lost: set[str] = field(default_factory=set)

    def is_there(self) -> bool:
        """Whether it is there, ours and alive."""
        # First the index: without our interface its socket may answer from another namespace, for a process that has
        # taken the name since.
        if self.backend is None or not self.index or link.interface_index(self.name) != self.index:
            return False
        try:
            return self.backend.last_handshake(self.name) >= 0
        except BackendError:
            return False

    def ensure(self) -> Backend:
        """The backend, with the interface there, made anew when somebody deleted it or its process died. Raises
        ``BackendError``."""
        if self.backend and self.is_there():
            return self.backend
        # Only the interface is made anew. Its tables and rules stay: what would have gone through it must not leave by
        # another way meanwhile.
        held = self.name
        if held:
            if link.interface_index(held) == self.index:
                link.delete_link(held)
            if not self._is_free(held):
                self.lost.add(held)
                held = ""
        return self._create(held)

    def _create(self, held: str) -> Backend:
        problem = BackendError("no free interface name")
        for kind in BACKENDS[self.choice]:
            backend: Backend = kind()
            for name in [held] if held else _free_names():
                self.before(name, 0)
                try:
                    backend.create(name)
                except BackendError as error:
                    problem = error
                    if name in _free_names():  # not taken by somebody quicker: this backend does not work here
                        break
                    continue
                self.name, self.index, self.backend = name, link.interface_index(name), backend
                self.before(name, self.index)
                return backend
        raise problem

    def _is_free(self, name: str) -> bool:
        """Wait a moment for the process of a deleted interface to end. It removes its socket file, and must not remove
        that of the next one."""
        for _ in range(NAME_FREE_POLLS):
            if not socket_is_alive(name) and not link.interface_index(name):
                return True
            self.wait(HANDSHAKE_POLL)
        return False


def _free_names() -> list[str]:
    # UAPI sockets are files, shared by network namespaces: a name can be taken though no such link is here.
    return [name for name in link.free_names() if not socket_is_alive(name)][:10]
