"""What processes cost: CPU and memory as the kernel counts them, and the time that commands take."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

TICK = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds: how finely the kernel tells CPU time."""
CHECK_SECONDS = 0.02
QUIET = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)


class BenchError(Exception):
    """Something could not be measured; the text says what."""


class Cpu(NamedTuple):
    """Seconds of CPU: of a process, and of those of its children that have ended."""

    own: float
    children: float

    def since(self, before: Cpu) -> Cpu:
        """What was spent since then."""
        return Cpu(self.own - before.own, self.children - before.children)

    @property
    def total(self) -> float:
        """Both together."""
        return self.own + self.children


class Cost(NamedTuple):
    """Seconds that something took, and seconds of CPU that it used."""

    wall: float
    cpu: float


def cpu_of(pid: int) -> Cpu:
    """What a process has used so far; its children only in ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return Cpu(time.clock_gettime(_clock_of(pid)), sum(map(int, fields[13:15])) * TICK)


def _clock_of(pid: int) -> int:
    """The clock of a process's CPU, as clock_getcpuclockid(3) makes it on Linux."""
    return ~pid << 3 | 2


def forget_peak(pid: int) -> None:
    """From now on `peak_memory` is the most that the process has from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def run_times_of(pid: int) -> dict[int, float]:
    """Seconds of CPU that each thread of a process has used so far, more finely than in ticks."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # it may have ended
            found[int(task.name)] = int((task / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9
    return found


def peak_memory(pid: int) -> float:
    """The most memory that a process ever had, in MB (VmHWM)."""
    return _memory(pid, "VmHWM")


def memory(pid: int) -> float:
    """The memory that a process has now, in MB (VmRSS)."""
    return _memory(pid, "VmRSS")


def _memory(pid: int, what: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    raise BenchError(f"process {pid} has no {what}: it has ended")


WELL = frozenset({0})
"""The exit codes of a process that did what it was asked."""


def spawn_time(argv: Sequence[str], environ: Mapping[str, str], codes: Collection[int] = WELL) -> float:
    """Seconds from the start of a process to its end, as slurmctld waits for a hook. Nobody reads what it prints.

    BenchError when it ends with an exit code other than `codes`.
    """
    began = time.perf_counter()
    pid = os.posix_spawn(argv[0], list(argv), environ, file_actions=[QUIET])
    _, status = os.waitpid(pid, 0)
    seconds = time.perf_counter() - began
    if os.waitstatus_to_exitcode(status) not in codes:
        raise BenchError(f"{' '.join(argv)[:200]} ended with {os.waitstatus_to_exitcode(status)}")
    return seconds


Command = tuple[list[str], dict[str, str]]
"""Words and environment."""


def in_turn(commands: Iterable[Command], times: int, codes: Collection[int] = WELL) -> list[list[float]]:
    """Run commands in turn, so that whatever else the machine does hits all of them alike; the times of each."""
    listed = list(commands)
    taken: list[list[float]] = [[] for _ in listed]
    for _ in range(times):
        for seconds, (argv, environ) in zip(taken, listed):
            seconds.append(spawn_time(argv, environ, codes))
    return taken


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def wait_until(what: str, condition: Callable[[], bool], seconds: float, every: float = CHECK_SECONDS) -> float:
    """Wait until a condition holds; how many seconds it took. BenchError when it takes longer."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise BenchError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(every)
    return time.monotonic() - began
