"""What has gathered while cc-backend was away: how fast it drains, and what queueing costs."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.bench.backend import REAL_PACE, START, STOP
from tests.bench.practice import PracticeSite
from tests.bench.processes import Cpu, peak_memory, wait_until
from tests.bench.report import Budget, Other, median, noise_of
from tests.bench.site import Amount, Bench

JOBS = Amount(5_000, 1_000)
"""Each has a start and a stop."""
OF_BARE_LOOP, GROWTH_MB, PEAK_MB, SECOND_SIZE = 0.8, 2.0, 50, 1.2
OUTBOX_PIECES = 0.35
"""Pieces of work for a job in the outbox and out of it, which are 0.5 ms."""
OUTBOX_JOBS, OUTBOX_TIMES = 2_000, Amount(5, 3)
LIMIT = 600.0


class Drain(NamedTuple):
    """One backlog. Rates are requests per second; memory and file in MB."""

    rate: float
    bare_rate: float
    used: Cpu
    bare_cpu: float
    peak_before: float
    peak_after: float
    state_size: float
    """When all waited."""


def measure_backlog(bench: Bench) -> None:
    """10,000 queued starts and stops drain: as fast as can be, and at the pace of a real cc-backend."""
    jobs = bench.some(JOBS)
    with PracticeSite(bench, backend=False) as site:
        site.start()
        first = _drain(site, jobs, (0.0, 0.0))
        second = _drain(site, jobs, REAL_PACE)
    _tell_drain(bench, jobs, "as fast as can be", first)
    of_bare_loop = Budget(OF_BARE_LOOP, of_ratio=True, at_least=True)
    _tell_drain(bench, jobs, "at cc-backend's pace", second, of_bare_loop)
    add = bench.report.add
    grown = max(each.peak_after - each.peak_before for each in (first, second))
    add("backlog", "growth of peak memory by draining", grown, "MB", budget=Budget(GROWTH_MB))
    add("backlog", "peak memory", second.peak_after, "MB", budget=Budget(PEAK_MB))
    than = Other("the first backlog", first.state_size)
    limit = Budget(SECOND_SIZE, of_ratio=True)
    add("backlog", "state file with the second backlog", second.state_size, "MB", other=than, budget=limit)
    _tell_outbox(bench)


def _drain(site: PracticeSite, jobs: int, pace: tuple[float, float]) -> Drain:
    site.backend.close()
    job_ids = site.cluster.begin(jobs)
    site.poll(LIMIT)
    wait_until("the starts to wait", lambda: site.daemon.waiting_messages() >= jobs, LIMIT)
    site.cluster.end(job_ids)
    site.poll(LIMIT)
    wait_until("the stops to wait", lambda: site.daemon.waiting_messages() >= 2 * jobs, LIMIT)
    size, peak, before = _state_size(site), peak_memory(site.daemon.pid), site.cpu
    site.start_backend(pace)
    site.daemon.signal(signal.SIGHUP)
    site.backend.wait_for(STOP, job_ids, LIMIT)
    used, after = site.cpu.since(before), peak_memory(site.daemon.pid)
    times = [told.time for told in site.backend.log if told.kind in (START, STOP)]
    bare = site.backend.bare_loop(jobs, jobs)
    rate = len(times) / (max(times) - min(times))
    return Drain(rate, 2 * jobs / bare.wall, used, bare.cpu, peak, after, size)


def _state_size(site: PracticeSite) -> float:
    return sum(path.stat().st_size for path in site.daemon.state_folder.glob("state.sqlite*")) / 2**20


def _tell_drain(bench: Bench, jobs: int, way: str, drain: Drain, budget: Budget | None = None) -> None:
    than = Other("a bare loop", drain.bare_rate)
    what = f"{2 * jobs:,} messages drain, {way}"
    bench.report.add("backlog", what, drain.rate, "/s", other=than, budget=budget)
    cpu = Other("a bare loop", drain.bare_cpu / jobs)
    bench.report.add("backlog", f"own CPU for a job, {way}", drain.used.own / jobs, "s", other=cpu)


def _tell_outbox(bench: Bench) -> None:
    with bench.reference() as reference:
        costs = []
        for _ in range(bench.some(OUTBOX_TIMES)):
            costs.append(_outbox_cost(bench))
            reference.again()
    work, budget = reference.work(), Budget(OUTBOX_PIECES, of_ratio=True)
    noise = noise_of(costs)
    bench.report.add(
        "backlog", "CPU of the outbox for a job", median(costs), "s", other=work, budget=budget, noise=noise
    )


def _outbox_cost(bench: Bench) -> float:
    """Seconds of CPU for a start and a stop in the outbox and out of it, with a destination that takes all at once."""
    program = str(Path(__file__).with_name("outbox_cost.py"))
    with tempfile.TemporaryDirectory(prefix="cc-slurm-adapter-") as folder:
        command = [bench.python, "-I", "-S", "-B", program, str(bench.adapter), folder, str(OUTBOX_JOBS)]
        return float(subprocess.run(command, capture_output=True, check=True, timeout=LIMIT).stdout)
