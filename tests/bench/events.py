"""Hook events beside many running jobs: how soon they are reported, and what one costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from tests.bench.backend import START, STOP
from tests.bench.processes import Cpu
from tests.bench.reference import Reference
from tests.bench.report import Budget, Other, median, noise_of, percentile
from tests.bench.site import Amount, Bench, Event, Site

JOBS = 10_000
RATE, SECONDS = 10, Amount(20, 6)
"""Events in a second, and for how long."""
SINGLES, BURST, BURSTS = Amount(20, 6), 100, Amount(5, 3)
FLOOD, REAL_FLOOD = Amount(1000, 500), Amount(500, 50)
"""The second is what a real Slurm can start within 10 s."""
MEDIAN, MOST = 37, 125
"""As many times what Python takes for nothing, which are 0.3 s and 1 s where that takes 8 ms."""
OF_ITS_COMMANDS, BURST_PIECES = 2.2, 6
"""As many times what the commands for a single event take alone: 60 ms for a start, 30 ms for a stop. As many pieces of
work for an event among many, which are 10 ms."""
EVERY = 10
"""After so many events a Python that does nothing is started, to compare with."""
LIMIT = 120.0
SETTLED = 0.3
"""Seconds after which the daemon has done all that belongs to an event that it has reported."""


class Costs(NamedTuple):
    """Seconds of CPU for one event, what its commands cost alone, and which jobs these were."""

    cpu: Cpu
    alone: float
    job_ids: list[int]


def measure_events(bench: Bench) -> None:
    """Hook events beside 10,000 running jobs: a steady stream, single ones, bursts, and a flood."""
    with bench.big_site(bench, jobs=JOBS) as site:
        site.start()
        older = site.start_jobs(RATE * bench.some(SECONDS) // 2)
        latencies_of(site, older)
        with bench.reference() as reference:
            latencies = _steady(site, _ids(older, START), reference)
        _tell_latencies(bench, f"{RATE} a second", latencies, reference.bare_python())
        _measure_costs(bench, site)
        _tell_flood(bench, site)


def _measure_costs(bench: Bench, site: Site) -> None:
    singles = [_costs(site, partial(_start_one, site)) for _ in range(bench.some(SINGLES))]
    _tell_costs(bench, "a single start", singles)
    ids = [job_id for each in singles for job_id in each.job_ids]
    stops = [_costs(site, partial(site.stop_jobs, [job_id])) for job_id in ids]
    _tell_costs(bench, "a single stop", stops)
    with bench.reference() as reference:
        starts, ends = [], []
        for _ in range(bench.some(BURSTS)):
            starts.append(_costs(site, partial(site.start_jobs, BURST)))
            reference.again()
            ends.append(_costs(site, partial(site.stop_jobs, starts[-1].job_ids)))
    _tell_burst(bench, f"a start among {BURST}", starts, reference.work())
    _tell_burst(bench, f"a stop among {BURST}", ends, reference.work())


def _start_one(site: Site) -> list[Event]:
    return [site.start_job()]


def _steady(site: Site, to_end: list[int], reference: Reference) -> list[float]:
    """Starts and stops in turn at the RATE; how long each took until cc-backend had accepted it."""
    began = time.monotonic()
    with ThreadPoolExecutor(site.at_once) as threads:
        acts = []
        for number in range(2 * len(to_end)):
            time.sleep(max(began + number / RATE - time.monotonic(), 0))
            stopped = to_end[number // 2]
            act = partial(site.stop_jobs, [stopped]) if number % 2 else partial(_start_one, site)
            acts.append(threads.submit(act))
            if number % EVERY == 0:
                reference.start_python()
    return latencies_of(site, [event for act in acts for event in act.result()])


def latencies_of(site: Site, events: Iterable[Event]) -> list[float]:
    """Waits until all are accepted."""
    listed = list(events)
    told = {kind: site.backend.wait_for(kind, _ids(listed, kind), LIMIT) for kind in (START, STOP)}
    return [told[event.kind][event.job_id] - event.called for event in listed]


def _ids(events: Iterable[Event], kind: str) -> list[int]:
    return [event.job_id for event in events if event.kind == kind]


def _costs(site: Site, act: Callable[[], list[Event]]) -> Costs:
    """What the daemon spends on the events of an act."""
    site.calls()
    before = site.cpu
    events = act()
    latencies_of(site, events)
    time.sleep(SETTLED)
    used, count = site.cpu.since(before), len(events)
    alone = site.alone(site.calls()).cpu / count
    return Costs(Cpu(used.own / count, used.children / count), alone, [event.job_id for event in events])


def _tell_latencies(bench: Bench, how: str, latencies: list[float], python: Other) -> None:
    what = f"event to accepted request, {how}:"
    middle, most = (Budget(limit, of_ratio=True) for limit in (MEDIAN, MOST))
    bench.report.add("events", f"{what} median", median(latencies), "s", other=python, budget=middle)
    bench.report.add("events", f"{what} 95 %", percentile(latencies, 0.95), "s", other=python, budget=most)
    bench.report.add("events", f"{what} slowest", max(latencies), "s")


def _tell_costs(bench: Bench, what: str, costs: list[Costs]) -> None:
    own, every, alone = (statistics.mean(each) for each in zip(*((c.cpu.own, c.cpu.total, c.alone) for c in costs)))
    bench.report.add("events", f"own CPU for {what}", own, "s")
    than, budget = Other("its commands alone", alone), Budget(OF_ITS_COMMANDS, of_ratio=True)
    bench.report.add("events", f"all CPU for {what}", every, "s", other=than, budget=budget)


def _tell_burst(bench: Bench, what: str, costs: list[Costs], work: Other) -> None:
    own, every, budget = [c.cpu.own for c in costs], [c.cpu.total for c in costs], Budget(BURST_PIECES, of_ratio=True)
    bench.report.add("events", f"own CPU for {what}", median(own), "s", other=work, noise=noise_of(own))
    bench.report.add(
        "events", f"all CPU for {what}", median(every), "s", other=work, budget=budget, noise=noise_of(every)
    )


def _tell_flood(bench: Bench, site: Site) -> None:
    """All are served by events alone: there is no poll."""
    count = bench.some(REAL_FLOOD if bench.slurm else FLOOD)
    before = len(site.hook_times())
    began = time.time()
    events = site.flood(count)
    spread = max(event.called for event in events) - began
    latencies = latencies_of(site, events)
    what = f"{count:,} jobs that start within {spread:.1f} s:"
    bench.report.add("events", f"{what} median latency", median(latencies), "s")
    bench.report.add("events", f"{what} longest latency", max(latencies), "s")
    hooks = site.hook_times()[before:]
    if hooks:
        bench.report.add("events", f"{what} median call of the hook", median(hooks), "s")
        bench.report.add("events", f"{what} longest call of the hook", max(hooks), "s")
