"""The first sync of many running jobs into an empty cc-backend, with hook events and a stop in the middle."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from tests.bench.backend import START
from tests.bench.processes import Cost, Cpu, peak_memory, wait_until
from tests.bench.report import Budget, Other
from tests.bench.site import Alone, Bench, Site

JOBS, SCRIPTS = 10_000, 500
EVENTS = 5
SECONDS, TIMES_THE_FLOOR = 35.0, 1.5
SCRIPT_CPU = 0.003
EVENT_SECONDS, STOP_SECONDS, PEAK_MB, COMMAND_MB = 1.0, 2.0, 50, 100
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


def measure_sync(bench: Bench) -> None:
    """The first sync of 10,000 running jobs with hook events meanwhile, what scripts cost, and SIGTERM in one more."""
    whole = _whole(bench)
    _tell(bench, whole)
    _tell_scripts(bench, whole)
    _tell_stop(bench)


def _site(bench: Bench, **config: int) -> Site:
    return bench.big_site(bench, jobs=bench.some(JOBS), scripts=bench.some(SCRIPTS), known=False, **config)


def _whole(bench: Bench, **config: int) -> Sync:
    with _site(bench, **config) as site:
        jobs = len(site.jobs)
        began = time.time()
        site.daemon.launch(debug=2)
        latencies = _events_meanwhile(site, jobs // 4)
        told = site.backend.wait_for(START, site.jobs, LIMIT)
        time.sleep(AFTER)
        cpu, peak = site.cpu, peak_memory(site.daemon.pid)
        site.daemon.stop()
        lines = len(re.findall(r"\b\d+ of \d+\b", site.daemon.log()))
        commands = site.alone(site.calls())
        return Sync(max(told.values()) - began, cpu, peak, latencies, lines, commands, site.backend.bare_loop(jobs, 0))


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

    add(f"time for {jobs:,} jobs", sync.seconds, "s", None, Budget(SECONDS))
    # The commands of the stand-in cost too little to be a floor.
    ratio = Budget(TIMES_THE_FLOOR, of_ratio=True) if bench.slurm else None
    add(f"time for {jobs:,} jobs", sync.seconds, "s", floor, ratio)
    add("own CPU for each job", own, "s", Other("a bare loop of requests", sync.requests.cpu / jobs))
    add("CPU of the commands for each job", commands, "s", Other("alone", sync.commands.cpu / jobs))
    add("slowest hook event meanwhile", max(sync.latencies), "s", None, Budget(EVENT_SECONDS))
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
    bench.report.add("sync", "CPU for each job script", seconds, "s", budget=Budget(SCRIPT_CPU))


def _cpu_without_scripts(bench: Bench) -> float:
    return _whole(bench, jobScriptMaxBytes=0).cpu.total


def _tell_stop(bench: Bench) -> None:
    with _site(bench) as site:
        site.daemon.launch(debug=2)
        wanted = len(site.jobs) // 3
        wait_until("a third of the sync", lambda: site.backend.count(START) >= wanted, LIMIT)
        code, seconds = site.daemon.stop(30)
    bench.report.add("sync", "SIGTERM in the middle, until its end", seconds, "s", budget=Budget(STOP_SECONDS))
    bench.report.add("sync", "exit code after it", code, "", budget=Budget(0))
