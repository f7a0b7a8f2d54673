"""The demo on the practice cluster: jobs come and go, cc-backend is away for a while, all is compared at the end."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

from examples.practice.adapter_daemon import SiteError
from examples.practice.cc_backend import JobRow
from examples.practice.demo.jobs import PlannedJob
from examples.practice.demo.table import AWAY, UP, JobLine, Picture, holds
from examples.practice.site import Site
from examples.practice.slurm.hooks import EPILOG, PROLOG
from examples.practice.slurm.model import PENDING, Record, Settings
from examples.practice.slurm.view import holds_nodes, shown_state

SETTINGS = Settings(nodes="node[01-06]")
TITLE = "cc-slurm-adapter demo: 6 practice nodes, stand-in cc-backend"
POLL_SECONDS = 10
"""The hooks tell the daemon of every job; it polls only to be sure, and for the states of the nodes."""
AWAY_FROM, AWAY_UNTIL = 0.4, 0.55
"""The part of the demo's time in which cc-backend is away."""
LEEWAY = 60.0
"""Seconds that all may take longer than planned, and a second for each job."""
TICK = 0.25
REQUESTS = {"/api/jobs/start_job/": PROLOG, "/api/jobs/stop_job/": EPILOG}
"""The hook that each request follows."""

Event = tuple[int, str]
"""A job id, and the context of its hook."""


class Timing(NamedTuple):
    """One message. Unix seconds."""

    hook: float
    accepted: float

    @property
    def seconds(self) -> float:
        return self.accepted - self.hook


class PracticeDemo:
    """All that happens from the first submission until everything has been reported."""

    def __init__(self, site: Site, plan: Sequence[PlannedJob], seconds: float) -> None:
        self._site = site
        self._planned = list(plan)
        self._cancels: list[tuple[float, int]] = []
        self._runs = sum(job.runs for job in plan)
        self._submitted = 0
        self._seconds = seconds
        self._began = time.time()
        self._left = self._came_back = 0.0
        self._timings: dict[Event, Timing] = {}

    def turn(self) -> None:
        """Do what is due: submit, cancel, take cc-backend away and bring it back. SiteError on trouble."""
        now = self._now()
        while self._planned and self._planned[0].at <= now:
            self._submit(self._planned.pop(0))
        for when, job_id in [each for each in self._cancels if each[0] <= now]:
            self._cancels.remove((when, job_id))
            self._site.cluster.cancel(job_id)
        if not self._left and now >= self._seconds * AWAY_FROM:
            self._left = time.time()
            self._site.server.stop()
        elif self._left and not self._came_back and now >= self._seconds * AWAY_UNTIL:
            self._site.server.start()
            self._came_back = time.time()
        self._timings = timings(self._site)
        self._check()

    def _now(self) -> float:
        return time.time() - self._began

    def _submit(self, job: PlannedJob) -> None:
        job_id = self._site.cluster.submit(job.request)
        self._submitted += job.runs
        if job.cancel_after is not None:
            self._cancels.append((job.at + job.cancel_after, job_id))

    def _check(self) -> None:
        self._site.controller.check()
        if not self._site.daemon.running:
            raise SiteError(f"the daemon has ended:\n{self._site.daemon.last_words()}")
        if self._now() > self._seconds + LEEWAY + self._runs:
            raise SiteError(
                f"gave up after {self._now():.0f} s: {self._explain()[0]}; the daemon's last words:\n"
                f"{self._site.daemon.last_words()}"
            )

    def finished(self) -> bool:
        """Whether all jobs are over and reported."""
        return not self._planned and self._came_back > 0 and self._site.is_reported()

    def picture(self) -> Picture:
        """How it stands."""
        with self._site.cluster.store() as store:
            records = store.accounted()
        rows = {row.job_id: row for row in self._site.backend.rows}
        activity, progress = self._explain()
        pending = sum(_tasks(record) for record in records if record.phase == PENDING)
        running = sum(holds_nodes(record) for record in records)
        return Picture(
            title=TITLE,
            seconds=self._now(),
            activity=activity,
            progress=progress,
            pending=pending,
            running=running,
            over=sum(record.phase != PENDING for record in records) - running,
            starts=len(rows),
            stops=sum(row.stop_time is not None for row in rows.values()),
            waiting=self._site.daemon.waiting_messages(),
            backend=AWAY if self._left and not self._came_back else UP,
            jobs=[self._line(record, rows.get(record.job_id)) for record in records],
        )

    def _explain(self) -> tuple[str, str]:
        if self._left and not self._came_back:
            back_in = max(self._seconds * AWAY_UNTIL - self._now(), 0)
            return "cc-backend was taken away, jobs go on", f"(it comes back in {back_in:.0f} s)"
        if self._planned:
            return "jobs are submitted", f"({self._submitted} of {self._runs})"
        if not self._site.cluster.is_idle():
            return "all jobs are submitted, the last ones run", ""
        return "all jobs are over, the last messages are sent", f"({self._site.daemon.waiting_messages()} wait)"

    def _line(self, record: Record, row: JobRow | None) -> JobLine:
        return JobLine(
            job_id=record.job_id,
            user=record.user,
            name=record.name,
            state=shown_state(record),
            start_sent=self._sent(record.job_id, PROLOG) if row else "",
            stop_sent=self._sent(record.job_id, EPILOG) if row and row.stop_time is not None else "",
            holds=holds(row) if row else "",
        )

    def _sent(self, job_id: int, context: str) -> str:
        timing = self._timings.get((job_id, context))
        return f"{timing.seconds:.2f} s" if timing else "sent"

    def summary(self) -> list[str]:
        """What was sent and how fast, a line each."""
        rows, log = self._site.backend.rows, self._site.backend.log
        waited = [each for each in self._timings.values() if self._waited(each)]
        prompt = [each.seconds for each in self._timings.values() if not self._waited(each)]
        stops = sum(row.stop_time is not None for row in rows)
        nodes = sum(request.path == "/api/nodestate/" and request.status == 200 for request in log)
        truth = self._site.cluster.truth()
        lines = [
            f"{len(truth)} jobs ran, {sum(run.opted_out for run in truth)} of them opted out; sent: {len(rows)} starts,"
            f" {stops} stops, {nodes} times the states of all nodes",
            f"hook event to accepted request: {in_words(prompt)}",
            f"cc-backend was away for {self._came_back - self._left:.1f} s: {len(waited)} messages waited",
        ]
        if waited:
            last = max(each.accepted for each in waited) - self._came_back
            lines[-1] += f", all had come {last:.1f} s later"
        return lines

    def _waited(self, timing: Timing) -> bool:
        """Whether a message had to wait for cc-backend: until the first was accepted after it came back."""
        again = min((each.accepted for each in self._timings.values() if each.accepted > self._came_back), default=0)
        return self._left - TICK < timing.hook < again and timing.accepted > self._left

    def differences(self) -> list[str]:
        """What cc-backend has that did not happen, and the other way round; one line each."""
        return self._site.differences()


def _tasks(record: Record) -> int:
    """How many tasks of an array wait together in a record."""
    return 1 if record.array_first is None else record.array_size - record.array_first


def timings(site: Site) -> dict[Event, Timing]:
    """When slurmctld called each hook, and when cc-backend had accepted what follows from it."""
    found: dict[Event, Timing] = {}
    for request in site.backend.log:
        if request.path in REQUESTS and request.job and request.status in (200, 201):
            event = request.job[1], REQUESTS[request.path]
            calls = site.hooks.times.get(event)
            if calls:
                found[event] = Timing(calls[0], request.time + request.seconds)
    return found


def in_words(seconds: Sequence[float]) -> str:
    """Median and 95 % of some times."""
    if len(seconds) < 2:
        return "too few messages to tell"
    percent95 = statistics.quantiles(seconds, n=20, method="inclusive")[-1]
    return f"median {statistics.median(seconds):.2f} s, 95 % within {percent95:.2f} s ({len(seconds)} messages)"
