"""The first sync of many running jobs into an empty cc-backend, with hook events and a stop in the middle."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from tests.bench.backend import START
from tests.bench.processes import Cost, Cpu, peak_memory, wait_until
from tests.bench.report import Budget, Other
from tests.bench.site import Alone, Amount, Bench, Site

JOBS, SCRIPTS = Amount(10_000, 2_000), Amount(500, 100)
EVENTS = 5
PIECES_A_JOB, TIMES_THE_FLOOR = 2.2, 1.15
"""Pieces of work in the time for a job, which are 35 s for 10,000 jobs; as many times what its commands and requests
take alone on a real Slurm."""
SCRIPT_PIECES = 1.9
"""Pieces of work, which are 3 ms."""
EVENT, STOP = 125, 250
"""As many times what Python takes for nothing, which are 1 s and 2 s."""
PEAK_MB, COMMAND_MB = 50, 100
LONG = 15.0
"""Seconds: what takes longer says in the log how far it is."""
AGAIN = 2
"""So often two syncs are made once more whose difference says what scripts cost: the least of each counts."""
LIMIT = 600.0
AFTER = 3.0
"""Seconds for what is left to ask after the last start."""


class Sync(NamedTuple):
    """One whole sync: seconds, seconds of CPU, MB."""

    seconds: float
    cpu: Cpu
    peak: float
    latencies: list[float]
    """Of hook events meanwhile."""
    lines: int
    """In the log that say how far it is."""
    commands: Alone
    requests: Cost
    work: Other
    """A piece of work."""
    python: Other
    """A Python that does nothing."""


def measure_sync(bench: Bench) -> None:
    """The first sync of 10,000 running jobs with hook events meanwhile, what scripts cost, and SIGTERM in one more."""
    whole = _whole(bench)
    _tell(bench, whole)
    if not bench.quick:  # a small difference of large figures
        _tell_scripts(bench, whole)
    _tell_stop(bench)


def _site(bench: Bench, **config: int) -> Site:
    return bench.big_site(bench, jobs=bench.some(JOBS), scripts=bench.some(SCRIPTS), known=False, **config)


def _whole(bench: Bench, **config: int) -> Sync:
    with bench.reference() as reference, _site(bench, **config) as site:
        jobs = len(site.jobs)
        began = time.time()
        site.daemon.launch(debug=2)
        latencies = _events_meanwhile(site, jobs // 4)
        told = site.backend.wait_for(START, site.jobs, LIMIT)
        time.sleep(AFTER)
        cpu, peak = site.cpu, peak_memory(site.daemon.pid)
        site.daemon.stop()
        lines = len(re.findall(r"\b\d+ of \d+\b", site.daemon.log()))
        commands, requests = site.alone(site.calls()), site.backend.bare_loop(jobs, 0)
        reference.again()
        than = reference.work(), reference.bare_python()
        return Sync(max(told.values()) - began, cpu, peak, latencies, lines, commands, requests, *than)


def _events_meanwhile(site: Site, after: int) -> list[float]:
    """Jobs that begin when so many are known; how long each took from the hook to its accepted start."""
    wait_until("the sync to be under way", lambda: site.backend.count(START) >= after, LIMIT)
    events = []
    for _ in range(EVENTS):
        events.append(site.start_job())
        time.sleep(0.3)
    told = site.backend.wait_for(START, [event.job_id for event in events], LIMIT)
    return [told[event.job_id] - event.called for event in events]


def _tell(bench: Bench, sync: Sync) -> None:
    jobs = bench.some(JOBS)
    floor = Other("its commands and requests alone, one after the other", sync.commands.wall + sync.requests.wall)
    own, commands = sync.cpu.own / jobs, sync.cpu.children / jobs

    def add(what: str, figure: float, unit: str, other: Other | None = None, budget: Budget | None = None) -> None:
        bench.report.add("sync", what, figure, unit, other=other, budget=budget)

    many = Other(f"{jobs:,} pieces of work", sync.work.figure * jobs)
    add(f"time for {jobs:,} jobs", sync.seconds, "s", many, Budget(PIECES_A_JOB, of_ratio=True))
    # The commands of the stand-in cost too little to be a floor.
    ratio = Budget(TIMES_THE_FLOOR, of_ratio=True) if bench.slurm else None
    add(f"time for {jobs:,} jobs", sync.seconds, "s", floor, ratio)
    add("own CPU for each job", own, "s", sync.work)
    add("own CPU for each job", own, "s", Other("a bare loop of requests", sync.requests.cpu / jobs))
    add("CPU of the commands for each job", commands, "s", Other("alone", sync.commands.cpu / jobs))
    add("slowest hook event meanwhile", max(sync.latencies), "s", sync.python, Budget(EVENT, of_ratio=True))
    expected = Budget(1, at_least=True) if sync.seconds > LONG else None
    add("lines in the log that say how far it is", sync.lines, "lines", None, expected)
    add("peak memory", sync.peak, "MB", None, Budget(PEAK_MB))
    if bench.slurm:
        add("largest command", sync.commands.peak, "MB", None, Budget(COMMAND_MB))


def _tell_scripts(bench: Bench, whole: Sync) -> None:
    """What each job script adds, commands included: a small difference of large figures, whatever else runs here."""
    with_scripts, without = [whole.cpu.total], [_cpu_without_scripts(bench)]
    for _ in range(AGAIN):
        with_scripts.append(_whole(bench).cpu.total)
        without.append(_cpu_without_scripts(bench))
    seconds = (min(with_scripts) - min(without)) / bench.some(SCRIPTS)
    budget = Budget(SCRIPT_PIECES, of_ratio=True)
    bench.report.add("sync", "CPU for each job script", seconds, "s", other=whole.work, budget=budget)


def _cpu_without_scripts(bench: Bench) -> float:
    return _whole(bench, jobScriptMaxBytes=0).cpu.total


def _tell_stop(bench: Bench) -> None:
    with bench.reference() as reference, _site(bench) as site:
        site.daemon.launch(debug=2)
        wanted = len(site.jobs) // 3
        wait_until("a third of the sync", lambda: site.backend.count(START) >= wanted, LIMIT)
        code, seconds = site.daemon.stop(30)
    than, budget = reference.bare_python(), Budget(STOP, of_ratio=True)
    bench.report.add("sync", "SIGTERM in the middle, until its end", seconds, "s", other=than, budget=budget)
    bench.report.add("sync", "exit code after it", code, "", budget=Budget(0))
