"""Brings the cluster of odd nodes up: each slurmd believes to be on a machine of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .debian import SUITES
from .namespaces import wait_for
from .odd_conf import (
    ADDED,
    ADDED_CONF,
    BLOCK,
    DEVICE_FILES,
    MACHINES,
    NODE_NAMES,
    ON_EVERY_NODE,
    RELEASE,
    UP_AT_FIRST,
    Machine,
    odd_files,
    port_of,
)
from .slurm_lab import SlurmLab, free_ports

if TYPE_CHECKING:
    from pathlib import Path

NOT_BINDING = r"""
import ctypes, os, struct, sys
LOAD, SKIP_ONE_UNLESS, RETURN = 0x20, 0x15, 0x06
SUCCESS, ALLOW = 0x00050000, 0x7FFF0000
call = {"x86_64": 203, "aarch64": 122}[os.uname().machine]
steps = (LOAD, 0, 0, 0), (SKIP_ONE_UNLESS, 0, 1, call), (RETURN, 0, 0, SUCCESS), (RETURN, 0, 0, ALLOW)
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps), 8 * len(steps))
program = struct.pack("@HP", len(steps), ctypes.addressof(code))
if ctypes.CDLL(None, use_errno=True).prctl(22, 2, program, 0, 0) != 0:
    raise OSError(ctypes.get_errno(), "no seccomp filter")
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Runs a program for which sched_setaffinity succeeds and does nothing: a seccomp filter for this call.

Most of the CPUs that slurmd binds jobs to are not there: without this the jobs go back to the queue at once.
"""


class OddCluster(SlurmLab):
    """Without slurmdbd. The nodes in the cloud are off at first."""

    def __init__(self, root: Path) -> None:
        super().__init__(SUITES[RELEASE], root, slurmdbd=False)
        self._first_port = free_ports()

    def start_slurmd(self, node: str, *options: str) -> None:
        """Switches the machine on."""
        slurmd = ["python3", "-I", "-c", NOT_BINDING, "slurmd", "-D", "-N", node, *options]
        self._service(f"slurmd-{node}", "root", ["env", synthetic(node), *slurmd])

    def run_on_machine(self, node: str, *argv: str) -> str:
        """All that a command prints where /sys is the machine's, with its name as srun gives it."""
        folder = self.path(f"/tmp/machine-{node}")
        for name, text in machine_of(node).files():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="ascii")
        # The root of a chroot is no mount, so nothing can be said of its propagation.
        script = 'mount --bind "$0" /sys/devices/system && exec "$@"'
        inside = ["unshare", "--mount", "--propagation=unchanged", "sh", "-c", script, f"/tmp/machine-{node}", *argv]
        done = self.run("env", synthetic(node), f"SLURMD_NODENAME={node}", *inside)
        return done.stdout + done.stderr

    def boot(self, node: str) -> None:
        """A node in the cloud that slurmctld has asked for: it only takes a slurmd that has booted since (-b)."""
        self.start_slurmd(node, "-b")

    def slurmd_log(self, node: str) -> Path:
        return self.path(f"/var/log/slurm/slurmd-{node}.log")

    def word_of(self, node: str) -> str:
        """Slurm's words for the node's state: MIXED+CLOUD."""
        found = re.search(r" State=(\S+)", self.output("scontrol", "show", "node", node, "-o"))
        return found[1] if found else ""

    def wait_for_word(self, node: str, word: str, seconds: float) -> str:
        """Waits until `word` is among Slurm's words for the node; gives all of them."""

        def words() -> str:
            said = self.word_of(node)
            return said if word in said.split("+") else ""

        return wait_for(f"{node} to be {word}", words, seconds=seconds, every=0.2)

    def _write_configuration(self) -> None:
        for name, text in odd_files(self._first_port).items():
            self.path(f"/etc/slurm/{name}").write_text(text, encoding="ascii")
        for name in DEVICE_FILES:
            self.output("mknod", "-m", "666", f"/dev/{name}", "c", "1", "3")

    def _start_nodes(self) -> None:
        for node in UP_AT_FIRST:
            self.start_slurmd(node, *([] if node in NODE_NAMES else self._as_added(node)))
        for node in UP_AT_FIRST:
            self.wait_for_word(node, "IDLE", seconds=60)
        # Only now slurmctld looks for the added node in topology.conf, and gives it jobs. Every slurmd starts anew.
        self.output("scontrol", "reconfigure")
        known = ["sh", "-c", f"scontrol show topology | grep -q 'Level=1.*{ADDED}'"]
        wait_for("the added node on its switch", lambda: self.run(*known).returncode == 0, seconds=30)
        wait_for("every slurmd to start anew", self._have_started_twice, seconds=60)

    def _have_started_twice(self) -> bool:
        logs = [self.slurmd_log(node).read_text(encoding="utf-8") for node in UP_AT_FIRST]
        return all(log.count("slurmd started on ") == 2 for log in logs)

    def _as_added(self, node: str) -> list[str]:
        words = ON_EVERY_NODE.format(port=port_of(node, self._first_port))
        return ["-Z", "--conf", f"{ADDED_CONF} {words}"]


def machine_of(node: str) -> Machine:
    return MACHINES.get(node, BLOCK)


def synthetic(node: str) -> str:
    """The setting with which hwloc, and so slurmd, takes this machine for that of the node."""
    return f"HWLOC_SYNTHETIC={machine_of(node).synthetic}"
