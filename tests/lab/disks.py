"""Small disks that can be made to fail."""

from __future__ import annotations

from pathlib import Path

from tests.lab.namespaces import Namespace

FAILURES = ("full", "read-only", "without inodes")


class Disk:
    """A tmpfs at ``path``, for all in one namespace, and the ways in which a disk takes no more."""

    def __init__(self, machine: Namespace, path: Path, size: str = "256k", inodes: int = 64) -> None:
        self._machine, self.path = machine, path
        machine.run("mount", "-t", "tmpfs", "-o", f"mode=700,size={size},nr_inodes={inodes}", "tmpfs", path)

    @property
    def seen_from_here(self) -> Path:
        """The same directory, for a process that is not in the namespace, as tests are not."""
        return Path(f"/proc/{self._machine.pid}/root{self.path}")

    def fail(self, how: str) -> None:
        """What is open for writing already stays so on one that is read-only."""
        run, path = self._machine.run, self.path
        if how == "read-only":
            run("mount", "--bind", path, path)
            run("mount", "-o", "remount,bind,ro", path)
        elif how == "full":
            run("dd", "if=/dev/zero", f"of={path}/fill", "bs=4k", check=False)
            # Somebody may have made room at that moment, such as a log that was turned over.
            run("sh", "-c", f"while echo >> {path}/fill-more; do :; done", check=False)
        else:
            run("sh", "-c", f"i=0; while : > {path}/fill-$i; do i=$((i+1)); done", check=False)

    def recover(self, how: str) -> None:
        if how == "read-only":
            self._machine.run("mount", "-o", "remount,bind,rw", self.path)
        self._machine.run("sh", "-c", f"rm -f {self.path}/fill*")

    def text(self, name: str) -> str:
        """Of the files whose names begin so."""
        return self._machine.run("sh", "-c", f"cat {self.path}/{name}*", check=False).stdout
