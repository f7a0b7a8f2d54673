"""What the measurements need of a site: a cluster with jobs, a cc-backend, and the built file as a daemon."""

from __future__ import annotations

import abc
import json
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, NamedTuple, Protocol, TypeVar

from tests.bench.backend import BenchBackend
from tests.bench.processes import BenchError, Cpu, cpu_of, wait_until
from tests.bench.reference import Reference
from tests.bench.report import Report

PROLOG, EPILOG = "prolog_slurmctld", "epilog_slurmctld"
NEVER = 86400
"""Seconds between two polls: they are asked for by SIGHUP."""
TOKEN = "bench.api.token"


class Amount(NamedTuple):
    """How many jobs, calls or seconds: in a full run, and in a quick one."""

    full: int
    quick: int


AnySite = TypeVar("AnySite", bound="Site")


class Event(NamedTuple):
    """A job that started or stopped, and when its hook was called (Unix time)."""

    kind: str
    job_id: int
    called: float


class Call(NamedTuple):
    """A command as the daemon called it."""

    argv: Sequence[str]
    stdin: str = ""


class Alone(NamedTuple):
    """What commands cost without the daemon, one after the other: seconds, seconds of CPU, MB of the largest."""

    wall: float
    cpu: float
    peak: float


class Daemon(Protocol):
    """A daemon and its files."""

    state_folder: Path

    @property
    def pid(self) -> int: ...
    @property
    def running(self) -> bool: ...
    def launch(self, debug: int = 3) -> None: ...
    def is_ready(self) -> bool: ...
    def signal(self, number: signal.Signals) -> None: ...
    def stop(self, seconds: float = 10) -> tuple[int, float]: ...
    def log(self) -> str: ...
    def last_words(self) -> str: ...


class Site(abc.ABC):
    """One site. The daemon is not started yet; nothing is left when the block ends."""

    backend: BenchBackend
    daemon: Daemon
    jobs: Sequence[int]
    """The ids of those that run all the time."""
    adapter: Path
    """The built file, where programs of `run_program` find it."""
    at_once = 1
    """So many threads may start and stop jobs at the same time."""

    def __enter__(self: AnySite) -> AnySite:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abc.abstractmethod
    def close(self) -> None:
        """End everything."""

    @abc.abstractmethod
    def start_job(self) -> Event:
        """A job begins: its nodes are made ready while the prolog hook runs."""

    @abc.abstractmethod
    def start_jobs(self, count: int) -> list[Event]:
        """Several begin as soon after each other as can be."""

    @abc.abstractmethod
    def stop_jobs(self, job_ids: Iterable[int]) -> list[Event]:
        """Jobs that began here end."""

    @abc.abstractmethod
    def flood(self, count: int) -> list[Event]:
        """So many begin sooner than their events can be dealt with."""

    def hook_times(self) -> list[float]:
        """Seconds that slurmctld waited for the hook so far, call by call; none where nobody knows."""
        return []

    @abc.abstractmethod
    def calls(self) -> list[Call]:
        """What the daemon asked since the last time, or since the start; to be looked at while nothing is asked."""

    @abc.abstractmethod
    def run_program(self, program: Path, *arguments: str) -> str:
        """What a Python program prints that runs as the daemon does."""

    @abc.abstractmethod
    def alone(self, calls: Iterable[Call]) -> Alone:
        """Run the same commands without the daemon."""

    def start(self) -> None:
        """Start the daemon with its usual log, and wait until its first pass is complete."""
        before = self._last_pass()
        self.daemon.launch(debug=2)
        self.wait_for_pass(before, 600)

    def poll(self, seconds: float = 60) -> None:
        """Ask for a poll, and wait until accounting was read as well. By SIGHUP: that costs more than other polls."""
        time.sleep(0.02)  # the times of two passes must differ
        before = self._last_pass()
        self.daemon.signal(signal.SIGHUP)
        self.wait_for_pass(before, seconds)

    def next_pass(self, seconds: float = 60) -> float:
        """Wait until one more pass is complete; how many seconds it took."""
        return self.wait_for_pass(self._last_pass(), seconds)

    def wait_for_pass(self, before: float, seconds: float) -> float:
        """Wait until a pass that began after that (Unix time) is complete; how many seconds the pass took.

        The file lastRunPath is given the time at which the pass began, when it ends.
        """

        def is_complete() -> bool:
            if not self.daemon.running:
                raise BenchError(f"the daemon has ended:\n{self.daemon.last_words()}")
            return self._last_pass() > before

        wait_until("a pass to be complete", is_complete, seconds, every=0.002)
        status = self._last_run.stat()
        return status.st_ctime - status.st_mtime

    @property
    def _last_run(self) -> Path:
        return self.daemon.state_folder / "lastrun"

    def _last_pass(self) -> float:
        """When the last complete pass began (Unix time)."""
        try:
            return self._last_run.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    @property
    def cpu(self) -> Cpu:
        """What the daemon and its commands have used."""
        return cpu_of(self.daemon.pid)


@dataclass(frozen=True)
class Bench:
    """What is measured, and how. `big_site` makes a Site with many jobs: the stand-in's, or one of a real Slurm."""

    adapter: Path
    python: str
    """The interpreter that runs the built file and the stand-ins."""
    report: Report
    big_site: Callable[..., Site]
    slurm: bool = False
    against: Path | None = None
    """Another adapter."""
    quick: bool = False
    records: int = 0
    """So many records the measurement `month` brings to a free destination; 0 for the usual number."""

    def some(self, amount: Amount) -> int:
        """So many, or fewer in a quick run."""
        return amount.quick if self.quick else amount.full

    def reference(self) -> Reference:
        """What the machine costs around a measurement; to be used in a `with` block."""
        return Reference(self.python)


def write_calls(path: Path, calls: Iterable[Call]) -> None:
    """As `replay` reads them."""
    path.write_text(json.dumps([[list(call.argv), call.stdin] for call in calls]), encoding="utf-8")


def read_calls(folder: Path) -> list[Call]:
    """The calls that the commands have noted in a folder: a line each, standard input in a file that it names."""
    noted = folder / "calls"
    lines = noted.read_text(encoding="utf-8").splitlines()
    noted.write_text("", encoding="utf-8")
    parts = [line.partition(" < ") for line in lines]
    return [
        Call(command.split(" "), (folder / stdin).read_text(encoding="utf-8") if stdin else "")
        for command, _, stdin in parts
    ]
