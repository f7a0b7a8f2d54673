"""A poll in which nothing has changed, by the number of running jobs and of nodes; and the memory of the daemon."""

from __future__ import annotations

import time
from typing import NamedTuple

from cc_slurm_adapter.jobs.decisions import compare
from cc_slurm_adapter.jobs.open_runs import OpenRuns
from cc_slurm_adapter.sinks.messages import encode_nodes
from cc_slurm_adapter.slurm.parse.listing import parse_listing
from cc_slurm_adapter.slurm.parse.nodes import SinfoParser
from tests.bench.big_cluster import CLUSTER
from tests.bench.others import polls_of_another
from tests.bench.practice import PracticeSite
from tests.bench.processes import Cpu, peak_memory
from tests.bench.report import Budget, Other, median
from tests.bench.site import Alone, Amount, Bench, Site

MAIN = (10_000, 100)
"""Running jobs and nodes for which the budgets are."""
LARGEST = (50_000, 5_000)
SIZES = ((100, 100), (1_000, 100), MAIN, (50_000, 100), (10_000, 5_000), LARGEST)
FEW, MANY = SIZES[1], SIZES[3]
POLLS = Amount(10, 5)
"""One a second."""
OWN_PIECES, ALL_PIECES, PER_10_000_JOBS = 60, 250, 12
"""As many pieces of work, which are 0.1 s, 0.4 s and 20 ms of CPU where a piece takes 1.6 ms."""
TIMES_THE_FLOOR, TIMES_ITS_COMMANDS = 1.5, 5
"""As many times what its commands take alone: those of a real Slurm, and those of the stand-in."""
COMMAND_MB = 100
MEMORY_MB = {SIZES[0]: 35, MAIN: 50, LARGEST: 64}
TIMES_READING_ALL = 0.5
"""What a poll of the largest cluster may cost at most, as a multiple of reading each line that Slurm prints."""


class Polls(NamedTuple):
    """What one of several polls cost: seconds of CPU, seconds, and the peak of the daemon's memory in MB."""

    cpu: Cpu
    wall: float
    commands: Alone
    """The same commands without the daemon."""
    peak: float
    reading: float
    """Seconds of CPU for reading each line of its sinfo and squeue, as if none had been read before."""
    work: Other
    """A piece of work, measured before and after."""


def measure_polls(bench: Bench) -> None:
    """A poll in which nothing has changed, with up to 50,000 running jobs and 5,000 nodes, and the memory."""
    sizes = (MAIN,) if bench.slurm or bench.quick else SIZES
    found = {size: _polls(bench, *size) for size in sizes}
    for size, polls in found.items():
        _tell(bench, f"{size[0]:,} jobs, {size[1]:,} nodes", polls, is_main=size == MAIN)
        memory = Budget(MEMORY_MB[size]) if size in MEMORY_MB else None
        what = f"peak memory, {size[0]:,} jobs, {size[1]:,} nodes"
        bench.report.add("poll", what, polls.peak, "MB", budget=memory)
    if LARGEST in found:
        polls, limit = found[LARGEST], Budget(TIMES_READING_ALL, of_ratio=True)
        every = Other("reading all lines", polls.reading)
        bench.report.add("poll", "own CPU of the largest cluster", polls.cpu.own, "s", other=every, budget=limit)
    if MANY in found:
        further = 10_000 * (found[MANY].cpu.own - found[FEW].cpu.own) / (MANY[0] - FEW[0])
        budget, work = Budget(PER_10_000_JOBS, of_ratio=True), found[MANY].work
        bench.report.add("poll", "own CPU for 10,000 further running jobs", further, "s", other=work, budget=budget)
    if bench.slurm:
        _tell_floor(bench, found[MAIN])
    if bench.slurm and bench.against:
        _compare(bench, found[MAIN])


def _polls(bench: Bench, jobs: int, nodes: int) -> Polls:
    times = bench.some(POLLS)
    with bench.big_site(bench, jobs=jobs, nodes=nodes, slurmPollInterval=1) as site, bench.reference() as reference:
        site.start()
        site.next_pass()
        site.next_pass()
        site.calls()
        site.next_pass()
        calls = site.calls()
        alone = [site.alone(calls)]
        site.next_pass()
        before = site.cpu
        walls = [site.next_pass() for _ in range(times)]
        used = site.cpu.since(before)
        alone.append(site.alone(calls))
        reference.again()
        wall, cpu, peak = (sum(figures) / 2 for figures in zip(*alone))
        each = Cpu(used.own / times, used.children / times)
        commands, peak_of_daemon = Alone(wall, cpu, peak), peak_memory(site.daemon.pid)
        return Polls(each, median(walls), commands, peak_of_daemon, _reading(site), reference.work())


def _reading(site: Site) -> float:
    """Measured in this process, with the program's own code."""
    if not isinstance(site, PracticeSite):
        return 0.0
    listing = (site.cluster.folder / "listing.txt").read_bytes()
    nodes = (site.cluster.folder / "sinfo.txt").read_text(encoding="utf-8")
    began = time.process_time()
    compare(parse_listing(listing.splitlines()), OpenRuns(), CLUSTER)
    encode_nodes(CLUSTER, SinfoParser().parse(nodes)[1])
    return time.process_time() - began


def _tell(bench: Bench, size: str, polls: Polls, *, is_main: bool) -> None:
    add, name = bench.report.add, "its commands alone"
    own, every, time = (
        Budget(limit, True) if is_main else None for limit in (OWN_PIECES, ALL_PIECES, TIMES_ITS_COMMANDS)
    )
    add("poll", f"own CPU, {size}", polls.cpu.own, "s", other=polls.work, budget=own)
    add("poll", f"all CPU, {size}", polls.cpu.total, "s", other=polls.work, budget=every)
    add("poll", f"all CPU, {size}", polls.cpu.total, "s", other=Other(name, polls.commands.cpu))
    add("poll", f"time, {size}", polls.wall, "s", other=Other(name, polls.commands.wall), budget=time)


def _tell_floor(bench: Bench, polls: Polls) -> None:
    """How close it is to the commands of a real Slurm; those of the stand-in cost too little to say so."""
    floor = Other("its commands alone", polls.commands.wall)
    bench.report.add("poll", "time", polls.wall, "s", other=floor, budget=Budget(TIMES_THE_FLOOR, of_ratio=True))
    bench.report.add("poll", "largest command", polls.commands.peak, "MB", budget=Budget(COMMAND_MB))


def _compare(bench: Bench, polls: Polls) -> None:
    """With another adapter's polls."""
    another, name = polls_of_another(bench), "the other adapter"
    bench.report.add("poll", "own CPU", polls.cpu.own, "s", other=Other(name, another.cpu.own))
    bench.report.add("poll", "all CPU", polls.cpu.total, "s", other=Other(name, another.cpu.total))
    bench.report.add("poll", "time", polls.wall, "s", other=Other(name, another.wall))
    bench.report.add("poll", "peak memory", polls.peak, "MB", other=Other(name, another.peak))
    bench.report.add("poll", "largest command", polls.commands.peak, "MB", other=Other(name, another.command_peak))
    bench.report.add("sync", "time, for comparison", another.sync, "s")
