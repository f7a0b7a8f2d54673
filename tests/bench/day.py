"""The pace of a million jobs a day, in bursts, with hooks; and a peak of as many jobs as cc-backend can take."""

from __future__ import annotations

import time
from collections import Counter
from typing import NamedTuple

from tests.bench.backend import REAL_PACE, START, STOP
from tests.bench.events import latencies_of
from tests.bench.practice import PracticeSite
from tests.bench.processes import Cpu, forget_peak, peak_memory
from tests.bench.report import Budget, Other, median, noise_of, percentile
from tests.bench.site import Alone, Amount, Bench, Call, Event

JOBS = 10_000
"""They run all the time."""
POLL = 60
BURST, EVERY = 120, 10.0
"""So many starts and so many ends together, and seconds from one burst to the next: 1,036,800 jobs a day."""
BURSTS = Amount(60, 2)
KEPT = 300
"""Seconds for which squeue shows a job that is over (MinJobAge)."""
RATE, SECONDS, LASTING = 240, Amount(60, 6), 5
"""A peak: jobs that begin in a second and as many that end, for how many seconds, and how long each job lasts."""
MEDIAN, MOST = 0.45, 2.0
"""As many times what a burst takes alone (`Bare`), of which half a second is cc-backend's: 0.4 s and 2 s."""
PIECES = 4.0
"""Pieces of work for an event, which are 15 % of a core at this pace."""
OF_BARE = 4.0
"""As many times the CPU of the same commands and requests alone."""
QUESTIONS = 0.2
"""To slurmctld for an event."""
PEAK_MB, GROWTH = 60, 1.15
"""MB; as many times the first half of a peak. In the second squeue shows up to 14,400 more jobs that are over."""
WITH_BACKLOG = 1.34
"""As many times what the requests of a peak take alone: the peak and half as long again."""
BARE = 500
"""Of so many jobs a bare loop sends the starts and stops."""
LIMIT = 120.0


class Bare(NamedTuple):
    """What the events of one burst take alone, one after the other."""

    hooks: float
    """Seconds for a shell that does nothing, instead of each hook."""
    commands: Alone
    requests: float
    """Seconds for both requests of a job."""
    requests_cpu: float

    @property
    def wall(self) -> float:
        """Seconds for hooks, commands and requests."""
        return self.hooks + self.commands.wall + BURST * self.requests

    @property
    def cpu(self) -> float:
        """Seconds of CPU for the commands and requests of an event."""
        return self.commands.cpu / (2 * BURST) + self.requests_cpu / 2


class Pace(NamedTuple):
    """Many bursts: seconds, MB, and what was asked of Slurm."""

    seconds: float
    cpu: Cpu
    latencies: list[list[float]]
    """Burst by burst."""
    asked: list[Call]
    hooks: list[float]
    bare: Bare
    work: Other


def measure_day(bench: Bench) -> None:
    """A million jobs a day, in bursts of 120 starts and ends with hooks; then a minute of 240 jobs a second."""
    with PracticeSite(bench, jobs=JOBS, slurmPollInterval=POLL, backend=False) as site:
        site.start_backend(REAL_PACE)
        site.backend.know(site.cluster.jobs, site.cluster.start)
        site.start()
        pace = _keep_pace(bench, site)
        _tell_pace(bench, pace)
        _tell_whole(bench, site, "at this pace")
        bench.report.add("day", "peak memory", peak_memory(site.daemon.pid), "MB", budget=Budget(PEAK_MB))
        _measure_peak(bench, site)
        _tell_whole(bench, site, f"with a peak of {RATE} jobs a second")


def _keep_pace(bench: Bench, site: PracticeSite) -> Pace:
    running = site.start_jobs(BURST)
    latencies_of(site, running)
    time.sleep(1)
    site.calls()
    latencies: list[list[float]] = []
    asked: list[Call] = []
    of_one: list[Call] = []
    with bench.reference() as reference:
        hooks_before = len(site.hook_times())
        before, began = site.cpu, time.monotonic()
        for number in range(bench.some(BURSTS)):
            time.sleep(max(began + number * EVERY - time.monotonic(), 0))
            site.cluster.forget(KEPT)
            ended = site.stop_jobs([event.job_id for event in running])
            running = site.start_jobs(BURST)
            latencies.append(latencies_of(site, ended + running))
            time.sleep(1)
            of_one = site.calls()
            asked += of_one
        used, seconds = site.cpu.since(before), EVERY * len(latencies)  # the daemon rests until the next one would come
        bare = _bare(site, of_one)
    hooks = site.hook_times()[hooks_before:]
    return Pace(seconds, used, latencies, asked + site.calls(), hooks, bare, reference.work())


def _bare(site: PracticeSite, calls: list[Call]) -> Bare:
    commands = site.alone(calls)
    requests = site.bare_requests(BARE, REAL_PACE)
    return Bare(2 * BURST * site.bare_hook(), commands, requests.wall / BARE, requests.cpu / BARE)


def _tell_pace(bench: Bench, pace: Pace) -> None:
    def add(
        what: str, figure: float, unit: str, other: Other | None, limit: float | None = None, noise: float = 0
    ) -> None:
        budget = Budget(limit, of_ratio=other is not None) if limit is not None else None
        bench.report.add("day", what, figure, unit, other=other, budget=budget, noise=noise or None)

    every = [each for burst in pace.latencies for each in burst]
    burst, events = Other("a burst's hooks, commands and requests alone", pace.bare.wall), len(every)
    each = [median(some) for some in pace.latencies]
    add("event to accepted request: median", median(every), "s", burst, MEDIAN, noise_of(each))
    add("event to accepted request: 99 %", percentile(every, 0.99), "s", burst, MOST)
    add("event to accepted request: slowest", max(every), "s", None)
    add("median call of the hook", median(pace.hooks), "s", None)
    add("own CPU of an event", pace.cpu.own / events, "s", pace.work)
    add("all CPU of an event", pace.cpu.total / events, "s", pace.work, PIECES)
    alone = Other("its commands and requests alone", pace.bare.cpu)
    add("all CPU of an event", pace.cpu.total / events, "s", alone, OF_BARE)
    add("share of a core, own", 100 * pace.cpu.own / pace.seconds, "%", None)
    add("share of a core, commands included", 100 * pace.cpu.total / pace.seconds, "%", None)
    questions = sum(call.argv[0] != "sacct" for call in pace.asked)
    add("questions to slurmctld for an event", questions / events, "", None, QUESTIONS)


def _tell_whole(bench: Bench, site: PracticeSite, when: str) -> None:
    """How many starts and stops are not there exactly once."""
    told = Counter((each.kind, each.job_id) for each in site.backend.look() if each.kind in (START, STOP))
    wanted = site.events
    wrong = sum(told[event.kind, event.job_id] != 1 for event in wanted) + len(told.keys() - {e[:2] for e in wanted})
    bench.report.add("day", f"of {len(wanted):,} events lost or double, {when}", wrong, "", budget=Budget(0))


def _measure_peak(bench: Bench, site: PracticeSite) -> None:
    """So many that no hooks could be started: their events are left as the hook leaves them."""
    seconds, half = bench.some(SECONDS), 0.0
    events: list[Event] = []
    begun: list[list[int]] = []
    with bench.reference() as reference:
        forget_peak(site.daemon.pid)
        before, began = site.cpu, time.time()
        for second in range(seconds + LASTING):
            time.sleep(max(began + second - time.time(), 0))
            if second == seconds // 2:
                half = peak_memory(site.daemon.pid)
                forget_peak(site.daemon.pid)
            if second >= LASTING:
                events += site.leave_stops(begun[second - LASTING])
            if second < seconds:
                some = site.flood(RATE)
                begun.append([event.job_id for event in some])
                events += some
        last = time.time()
        latencies = latencies_of(site, events)
        done = max(event.called + latency for event, latency in zip(events, latencies))
        used, peak = site.cpu.since(before), peak_memory(site.daemon.pid)
        bare = site.bare_requests(BARE, REAL_PACE).wall / BARE * len(events) / 2
    _tell_peak(bench, len(events), (done - began - LASTING, bare), (peak, half))
    add = bench.report.add
    add("day", "from the last event of a peak until nothing waits", max(done - last, 0.0), "s")
    add("day", "all CPU of an event in a peak", used.total / len(events), "s", other=reference.work())


def _tell_peak(bench: Bench, events: int, seconds: tuple[float, float], memory: tuple[float, float]) -> None:
    """Each beside what it is compared with: the same requests alone, and the first half."""
    add, what = bench.report.add, f"{events:,} events at {RATE} jobs a second"
    bare, budget = Other("their requests alone", seconds[1]), Budget(WITH_BACKLOG, of_ratio=True)
    add("day", f"{what} and their backlog", seconds[0], "s", other=bare, budget=budget)
    half, budget = Other("its first half", memory[1]), Budget(GROWTH, of_ratio=True)
    add("day", f"peak memory in the second half of {what}", memory[0], "MB", other=half, budget=budget)
