"""A machine of its own: a chroot whose systemd is process 1, in namespaces, and that can be rebooted.

The chroot is only read: what the machine writes lies in memory and outlives a reboot, as on a disk, but for /run, /tmp
and /dev. The machine shares the network of the host, and nothing else: systemd sets nothing in /proc/sys and /sys, and
has no devices.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from .debian import OWN_DEV, describe, tail
from .namespaces import ENVIRONMENT, ClosedAtTheEnd, LabError, Namespaces, child_of, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

BOOT_SECONDS = 60.0
"""A boot takes some seconds; on a machine that does much else it takes longer."""
CGROUPS = "cc-slurm-adapter-lab-"
"""What the names of the machines' control groups begin with; then come the process that made them, and a number."""
NUMBERS = itertools.count()
"""A process may have several machines of the same Debian."""

DISK = r"""
mount -t tmpfs disk "$1/run"
mkdir "$1/run/written" "$1/run/work"
mount -t overlay -o "lowerdir=$1,upperdir=$1/run/written,workdir=$1/run/work" overlay "$1"
mount -t cgroup2 cgroup2 "$1/sys"
mkdir "$1/sys/$2"
cd "$1/etc/systemd/system"
for unit in $3; do ln -s /dev/null "$unit"; done
echo lab > "$1/etc/hostname"
"""
"""Lays what is written over the chroot $1, makes the control group $2 and masks the units $3."""
MASKED = "systemd-logind.service console-getty.service getty.target apt-daily.timer apt-daily-upgrade.timer"
"""What a machine without users and hardware needs not, or cannot have: the first one wants dbus."""

HARDWARE = (
    r"""
echo $$ > "$1/sys/$2/cgroup.procs"
exec unshare --mount --uts --ipc --pid --cgroup --fork sh -ec '
umount "$1/sys"
mount -t proc proc "$1/proc"
mount --bind "$1/proc/sys" "$1/proc/sys"
mount -o remount,bind,ro "$1/proc/sys"
if [ -e "$1/proc/sysrq-trigger" ]; then mount --bind /dev/null "$1/proc/sysrq-trigger"; fi
for folder in run tmp; do mount -t tmpfs -o mode=755 "$folder" "$1/$folder"; done
chmod 1777 "$1/tmp"
mount -t sysfs -o ro sysfs "$1/sys"
mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup"
"""
    + OWN_DEV
    + r"""
ln -s null console
mknod -m 666 tty c 5 0
mount --make-rshared "$1"
cd "$1"
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$1" /lib/systemd/systemd --unit=multi-user.target
' sh "$1"
"""
)
"""A boot of the chroot $1 in the control group $2: what the kernel would give a machine, then its systemd."""

INSIDE = ("--mount", "--uts", "--ipc", "--pid", "--cgroup", "--root", "--wd")


class Machine(ClosedAtTheEnd):
    """Use it in a `with` block, or call `close`.

    `root` is a chroot made by `make_chroot`; what a boot says before there is a journal goes to `log`.
    """

    def __init__(self, root: Path, log: Path) -> None:
        self.root = root
        self.log = log
        self._group = f"{CGROUPS}{os.getpid()}-{root.name}-{next(NUMBERS)}"
        self._place = Namespaces()
        self._systemd = 0
        self._running: subprocess.Popen[bytes] | None = None
        try:
            self._do(["sh", "-ec", DISK, "sh", str(root), self._group, MASKED])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends all that runs on it and takes its control groups away."""
        groups = self._place.seen_from_outside(self.root / "sys")
        with contextlib.suppress(OSError):  # what is left of it is taken away by the next machine
            end_group(groups / self._group)
            remove_left_groups(groups)
        self._place.close()

    def _do(self, argv: Sequence[str]) -> None:
        done = self._place.run(argv, seconds=20)
        if done.returncode != 0:
            raise LabError(f"{describe(argv[:2], done.returncode, 20)}\n{done.stdout}{done.stderr}")

    def on_disk(self, script: str) -> None:
        """Runs a shell script as root in the file system of the machine, which may be off."""
        self._do(["chroot", str(self.root), "sh", "-ec", script])

    # --- its life

    def boot(self) -> None:
        """Returns as soon as its systemd takes commands, long before all units are started."""
        with self.log.open("ab") as output:
            self._running = self._place.popen(["sh", "-ec", HARDWARE, "sh", str(self.root), self._group], log=output)
        try:
            self._systemd = child_of(child_of(self._running.pid))
            wait_for("systemd", lambda: self.path("/run/systemd/private").exists(), seconds=BOOT_SECONDS)
        except LabError as error:
            raise LabError(f"{self.root.name} does not boot: {error}\n{tail(self.log)}") from None

    def shut_down(self) -> None:
        """As `systemctl poweroff` does it: the units are stopped in their order."""
        assert self._running is not None
        self.run("systemctl", "poweroff")
        try:
            self._running.wait(timeout=BOOT_SECONDS)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.root.name} does not shut down:\n{self.journal()[-2000:]}") from None

    def wait_for_target(self, unit: str = "multi-user.target", seconds: float = BOOT_SECONDS) -> None:
        """Returns when the unit is active; the error says what systemd is still busy with."""
        try:
            wait_for(unit, lambda: self.state_of(unit) == "active", seconds=seconds, every=0.1)
        except LabError as error:
            jobs = self.run("systemctl", "list-jobs", "--no-pager").stdout
            raise LabError(f"{error}\n{jobs}\n{self.journal()[-3000:]}") from None

    # --- what is asked of it

    def path(self, inside: str | Path) -> Path:
        """Where a file of the running machine can be reached from here."""
        return Path(f"/proc/{self._systemd}/root/{str(inside).lstrip('/')}")

    def disk(self, inside: str | Path) -> Path:
        """The same for what outlives a reboot; the machine may be off."""
        return self._place.seen_from_outside(self.root / str(inside).lstrip("/"))

    def command(self, argv: Sequence[str], user: str = "root") -> list[str]:
        """The command line that runs `argv` on the machine; `user` may be `user:group`."""
        as_user = [] if user == "root" else ["chroot", f"--userspec={user}", "/"]
        return ["nsenter", f"--target={self._systemd}", *INSIDE, "--", *as_user, *argv]

    def run(
        self, *argv: str, user: str = "root", seconds: float = 30, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command; its exit code is not looked at, and is 124 when it took longer."""
        return subprocess.run(
            self.command(["timeout", "--kill-after=5", str(seconds), *argv], user),
            input=text,
            capture_output=True,
            env=ENVIRONMENT,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
            timeout=seconds + 15,
        )

    def output(self, *argv: str, user: str = "root", seconds: float = 30, text: str = "") -> str:
        """What a command prints; a LabError if it fails."""
        done = self.run(*argv, user=user, seconds=seconds, text=text)
        if done.returncode != 0:
            raise LabError(f"{describe(argv, done.returncode, seconds)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def state_of(self, unit: str) -> str:
        """As in `systemctl is-active`."""
        return self.run("systemctl", "is-active", unit).stdout.strip()

    def property_of(self, unit: str, name: str) -> str:
        """As in `systemctl show`."""
        return self.output("systemctl", "show", "--property", name, "--value", unit).strip()

    def journal(self, *options: str) -> str:
        """The lines of this boot."""
        return self.run("journalctl", "--boot", "--no-pager", "--output=short-precise", *options).stdout


def end_group(group: Path) -> None:
    """Kills what is left in a control group and all below it, and removes them."""
    with contextlib.suppress(FileNotFoundError):
        (group / "cgroup.kill").write_text("1", encoding="ascii")
        wait_for("processes to end", lambda: not is_populated(group), seconds=20)
        remove_group(group)


def remove_left_groups(groups: Path) -> None:
    """Those of processes that were killed before they could do it."""
    for group in groups.glob(f"{CGROUPS}*"):
        owner = group.name[len(CGROUPS) :].partition("-")[0]
        if not Path("/proc", owner).exists() and not is_populated(group):
            remove_group(group)


def is_populated(group: Path) -> bool:
    return "populated 1" in (group / "cgroup.events").read_text(encoding="ascii")


def remove_group(group: Path) -> None:
    for folder, _, _ in os.walk(group, topdown=False):
        Path(folder).rmdir()
