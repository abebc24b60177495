"""Machines that systemd runs: this one's files under a layer of memory, and systemd as the first process in there."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import tempfile
from functools import partial
from pathlib import Path

from tests.lab.namespaces import Namespace
from tests.lab.networks import Lab, Machine
from tests.lab.programs import PROJECT
from tests.lab.waiting import HANGING, until

# The disk: what is written on it is there after the next boot. None of this machine's services is started in there.
# Without an id of its own it would be new, and enable all there is; its /tmp, which it empties at boot, is another.
DISK = """
disk=$1 project=$2
layer() {
    new=$disk/$2.new work=$disk/$2.work
    mkdir -p "$new" "$work" && mount -t overlay -o "lowerdir=$1,upperdir=$new,workdir=$work" overlay "$3"
}
mount -t tmpfs -o mode=755 disk "$disk" && mkdir "$disk/root" "$disk/groups" &&
layer / files "$disk/root" && cd "$disk/root" &&
mount -t tmpfs -o mode=1777 tmp tmp && mkdir -p ".$project" && layer "$project" project ".$project" &&
rm -rf etc/systemd/system/* etc/rc?.d/* && : >etc/fstab &&
tr -d - </proc/sys/kernel/random/uuid >machine-id && mv machine-id etc/machine-id &&
mkdir -p outside && mount -t cgroup2 cgroup2 "$disk/groups"
"""
# A tree of control groups of its own, whose root is a group of this machine's.
BOOT = """
mkdir "$1/groups/$2" && echo $$ >"$1/groups/$2/cgroup.procs" &&
exec unshare --mount --propagation private --pid --uts --ipc --cgroup --fork --kill-child sh -ec "$3" sh "$1/root"
"""
# As a container's: what is the kernel's and not the machine's cannot be changed. Each boot has an id of its own.
FIRST = """
cd "$1"
mount --rbind . . && cd "$1"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -o remount,bind,ro sys
mount -t tmpfs -o mode=755 dev dev
for each in null zero full random urandom tty net/tun; do
    mkdir -p "dev/$(dirname "$each")" && : >"dev/$each" && mount --bind "/dev/$each" "dev/$each"
done
mkdir dev/shm dev/pts && mount -t tmpfs shm dev/shm && mount -t devpts -o newinstance,ptmxmode=666 pts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for each in 0/stdin 1/stdout 2/stderr; do ln -s "/proc/self/fd/${each%/*}" "dev/${each#*/}"; done
mount -t tmpfs -o mode=755 run run
cat proc/sys/kernel/random/uuid >run/boot-id
mount --bind run/boot-id proc/sys/kernel/random/boot_id
pivot_root . outside
umount --lazy /outside
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd </dev/null >/dev/null 2>&1
"""

# Nothing of a test's own environment, which has Django's settings, is on a machine where somebody signs in.
CLEAN = (
    *("env", "-i", "--default-signal=INT", "-C", str(PROJECT)),
    *("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"),
)


class Booted:
    """A host of ``lab`` that can be booted again and again. Its network begins anew each time, its disk does not."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.machine: Machine = lab.add_host()
        self._groups: list[str] = []
        self._directory = Path(tempfile.mkdtemp(prefix="lab-disk-"))
        self._directory.chmod(0o755)
        self._disk = Namespace("disk")
        self._process: subprocess.Popen[bytes] | None = None
        self._disk.run("sh", "-ec", DISK, "sh", self._directory, PROJECT)

    def show(self, directory: Path, at: str) -> None:
        """Have ``directory`` of this machine in there at another path as well, from the next boot on."""
        path = f"{self._directory}/root{at}"
        self._disk.run("mkdir", "-p", path)
        self._disk.run("mount", "--bind", directory, path)

    # Power

    def boot(self) -> None:
        """Switch it on, and wait until systemd has started what it starts at boot."""
        group = f"lab-{secrets.token_hex(4)}"
        self._groups.append(group)
        self._process = subprocess.Popen(
            [
                *("nsenter", f"--mount=/proc/{self._disk.pid}/ns/mnt", f"--net=/proc/{self.machine.pid}/ns/net", "--"),
                *("sh", "-ec", BOOT, "sh", self._directory, group, FIRST),
            ],
            stdin=subprocess.DEVNULL,
        )
        until(self._is_up, timeout=5 * HANGING, every=0.5)

    def _is_up(self) -> bool:
        # One of its own services may have failed (degraded), such as one that a busy machine let wait for too long.
        said = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return said in {"running", "degraded"}

    def ended(self) -> int:
        """Wait until it is off. Minus the signal by which its first process ended: 1 asks for a boot, 2 for none."""
        assert self._process is not None
        result = self._process.wait(HANGING)
        self._network_anew()
        return result

    def cut_power(self) -> None:
        """Every process in there is gone at once."""
        assert self._process is not None
        os.kill(self._first(), signal.SIGKILL)
        self.ended()

    def _network_anew(self) -> None:
        self.machine = self._lab.renew(self.machine)

    def _first(self) -> int:
        """The pid of its systemd, as this machine counts."""
        assert self._process is not None
        return _child(self._process)

    # Commands

    def command(self, *arguments: str | Path) -> list[str]:
        enter = [
            "nsenter",
            "--target",
            str(self._first()),
            *("--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup"),
        ]
        return [*enter, "--", *CLEAN, *map(str, arguments)]

    def run(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in there to its end. With ``check``, a failure shows what it said."""
        done = subprocess.run(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=5 * HANGING,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(map(str, arguments))}: {done.stderr.strip()} {done.stdout}")
        return done

    def start(self, *arguments: str | Path, log: Path) -> subprocess.Popen[bytes]:
        """What is returned is the process that waits for it (``interrupt``)."""
        with log.open("wb") as output:
            return subprocess.Popen(self.command(*arguments), stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    @staticmethod
    def interrupt(started: subprocess.Popen[bytes]) -> None:
        """Ctrl-C, and wait for its end."""
        os.kill(_child(started), signal.SIGINT)
        started.wait(HANGING)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()  # and its child with it
            self._process.wait(HANGING)
        for group in self._groups:
            tree = self._directory / "groups" / group
            until(partial(self._is_gone, tree))
        self._disk.close()
        self._directory.rmdir()

    def _is_gone(self, tree: Path) -> bool:
        """Whether a tree of groups, in which no process is any more, could be removed."""
        return not self._disk.run(
            "find", tree, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+", check=False
        ).returncode


def _child(of: subprocess.Popen[bytes]) -> int:
    """The pid of its one child, as this machine counts. It is of other namespaces, which to enter takes a process."""
    children = Path(f"/proc/{of.pid}/task/{of.pid}/children")
    return int(until(lambda: children.read_text().split())[0])
