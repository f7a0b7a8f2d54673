"""The parts of the soak test: jobs of all kinds at a high rate, and what the daemon uses of the machine."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from examples.practice.adapter_daemon import AdapterDaemon
from examples.practice.demo.jobs import KINDS, PEOPLE
from examples.practice.site import Site
from examples.practice.slurm.model import JobRequest
from tests.built.soak_faults import Faults, Span
from tests.built.soak_model import key_of, stored_runs

LONGEST_JOB = 10.0
TURN = 0.05
LOOK_EVERY = 0.25
SHORTEST_PASS = 0.02
REQUEUE_EVERY = 2.0
PHASES = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")
NEVER_RUNS = JobRequest("never runs", tasks=2, cancel_pending=True, duration=0.5)
NODE_FAILS = JobRequest("node fails", nodes=2, gpus_per_node=1, ending="node_fail")
OF_EVERY_KIND = (*KINDS, NEVER_RUNS, NODE_FAILS)


class Load:
    """Submits jobs, cancels some of them and requeues others. `turn` is called often.

    `open_jobs` wait or hold nodes at the same time.
    """

    def __init__(self, site: Site, chance: random.Random, open_jobs: int) -> None:
        self.submitted = 0
        """Tasks of arrays counted one by one."""
        self._site = site
        self._chance = chance
        self._open_jobs = open_jobs
        self._cancels: list[tuple[float, int]] = []
        self._to_requeue: set[int] = set()
        self._next_look = self._next_requeue = 0.0

    def turn(self, now: float) -> None:
        """Do what is due, `now` seconds after the beginning."""
        for each in [each for each in self._cancels if each[0] <= now]:
            self._cancels.remove(each)
            self._site.cluster.cancel(each[1])
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY
            with self._site.cluster.store() as store:
                missing = self._open_jobs - len(store.in_phases(PHASES))
            if missing > 0:
                self._submit([self._draw() for _ in range(missing)], now)
        if now >= self._next_requeue:
            self._next_requeue = now + REQUEUE_EVERY
            self._requeue()

    def stop(self) -> None:
        """Nothing runs on for long."""
        for _, job_id in self._cancels:
            self._site.cluster.cancel(job_id)

    def _draw(self) -> JobRequest:
        request = self._chance.choice(OF_EVERY_KIND)
        user, account = self._chance.choice(PEOPLE)
        if request.duration == JobRequest().duration:
            # Most are short, as long ones would keep the nodes busy.
            request = request._replace(
                duration=self._chance.choice((0.3, 0.5, 1, 2, 3, self._chance.uniform(1, LONGEST_JOB)))
            )
        return request._replace(user=user, account=account)

    def _submit(self, requests: Sequence[JobRequest], now: float) -> None:
        self.submitted += sum(max(request.array_size, 1) for request in requests)
        for request, job_id in zip(requests, self._site.cluster.submit_all(requests)):
            is_endless = request.duration > LONGEST_JOB
            if not request.array_size and not is_endless:
                self._to_requeue.add(job_id)
            if is_endless or self._chance.random() < 0.05:
                self._cancels.append((now + self._chance.uniform(0, 6), job_id))

    def _requeue(self) -> None:
        """Only runs that the daemon has written down: of others nobody can say whether it saw them.

        No array, whose tasks are requeued together, and no job that would go on and on after a cancel that came
        between two of its runs.
        """
        seen = [job_id for job_id in open_runs(self._site.daemon) if job_id in self._to_requeue]
        for job_id in self._chance.sample(seen, min(2, len(seen))):
            self._site.cluster.requeue(job_id)


def open_runs(daemon: AdapterDaemon) -> list[int]:
    """The jobs of which the daemon reports a run that is not over."""
    return [row[0] for row in _ask(daemon, "SELECT job_id FROM run WHERE stage = 'started' ORDER BY job_id")]


def _ask(daemon: AdapterDaemon, question: str) -> list[tuple[int, ...]]:
    path = daemon.state_folder / "state.sqlite"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)) as state:
        return state.execute(question).fetchall()


def is_drained(site: Site) -> bool:
    """Whether no job waits or runs, the daemon knows no open run, and only what cc-backend never takes may wait.

    A start whose answer was lost and that is refused is looked for in cc-backend's list for five minutes.
    """
    if not site.cluster.is_idle() or _ask(site.daemon, "SELECT 1 FROM run WHERE stage != 'done' LIMIT 1"):
        return False
    truth = site.cluster.truth()
    stored = {key_of(run) for run in stored_runs(truth)}
    waiting = _ask(site.daemon, "SELECT DISTINCT job_id, start_time FROM delivery WHERE state IN ('pending', 'parked')")
    known = {(row.job_id, row.start_time) for row in site.backend.rows if row.stop_time is not None}
    return stored <= known and not stored & {(row[0], row[1]) for row in waiting}


class Usage(NamedTuple):
    """What a process holds. Connections come and go; they are counted by themselves."""

    files: int
    threads: int
    children: int
    connections: int


def usage_of(pid: int) -> Usage:
    """As of now."""
    links = [_link(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    connected = {f"socket:[{inode}]" for inode in _inodes_of_tcp(pid)}
    connections = sum(link in connected for link in links)
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    children = sum(len((task / "children").read_text().split()) for task in tasks)
    return Usage(sum(bool(link) for link in links) - connections, len(tasks), children, connections)


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""


def _inodes_of_tcp(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return [line.split()[9] for line in lines]


def peak_memory(pid: int) -> int:
    """VmHWM in KB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0  # it has ended


class Memory:
    """The peak of each process of the daemon, in KB, by process id."""

    def __init__(self, daemon: AdapterDaemon) -> None:
        self.peaks: dict[int, int] = {}
        self._daemon = daemon

    def look(self) -> int:
        """The peak of the present process."""
        pid = self._daemon.pid
        if self._daemon.running:
            self.peaks[pid] = max(self.peaks.get(pid, 0), peak_memory(pid))
        return self.peaks.get(pid, 0)


class Looks:
    """The whole passes of the daemon: from the moment that lastRunPath tells until that was seen."""

    def __init__(self, daemon: AdapterDaemon) -> None:
        self.spans: list[Span] = []
        self._last_run = daemon.state_folder / "lastrun"

    def look(self) -> None:
        """To be called often."""
        now, began = time.time(), self._last_run.stat().st_mtime
        # The daemon touches the file before it sets its time.
        is_new = not self.spans or began != self.spans[-1].begin
        if is_new and began < now - SHORTEST_PASS:
            self.spans.append(Span("a pass", began, now))


def run_load(load: Load, faults: Faults, memory: Memory, looks: Looks, seconds: float, jobs: int) -> int:
    """Until the time is over and so many jobs were submitted; the memory of the last process at two thirds of it."""
    began = time.monotonic()
    middle = 0
    while True:
        now = time.monotonic() - began
        if now >= seconds and load.submitted >= jobs:
            return middle
        memory.look()
        looks.look()
        faults.turn(now)
        load.turn(now)
        if not middle and now >= seconds * 2 / 3:
            middle = memory.look()
        time.sleep(TURN)
