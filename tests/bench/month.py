"""Catching up with a month of accounting that has three million runs: how it is read, and how it waits for cc-backend.

To bring all of them takes seven hours at cc-backend's own pace. So there are two measurements with as many runs a day.
First all of a span is known here already, as it is after an outage of slurmdbd or at an audit: nothing is sent, and
only reading counts. Then nothing is known, cc-backend takes as long for each message as a real one, and it is looked at
until reading has waited for it a while.
"""

from __future__ import annotations

import re
import sqlite3
import subprocess
import time
from contextlib import closing
from typing import NamedTuple

from cc_slurm_adapter.jobs.catch_up import CATCHING_UP, MAX_PENDING
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox.moment_file import moment_path
from cc_slurm_adapter.outbox.outbox import Batch, OpenRun, Outbox, Stage
from tests.bench.backend import REAL_PACE, START, STOP
from tests.bench.big_cluster import CLUSTER
from tests.bench.history import LASTED, History, add_history
from tests.bench.practice import PracticeSite
from tests.bench.processes import BenchError, peak_memory, wait_until
from tests.bench.report import Budget, Other
from tests.bench.site import Bench

DAY = 86400
DAYS, RUNS_A_DAY = 30, 100_000
KNOWN_DAYS = 3
"""Days whose runs are known; the rest would take as long each, and find nothing else."""
AT_ONCE = 2000
PEAK_MB, STOP_SECONDS = 60, 2.0
READ_A_SECOND = 3000
OF_BARE_LOOP = 0.8
BARE = 1_000
"""Of so many runs a bare loop sends the starts and stops."""
BOUND = MAX_PENDING + 2 * AT_ONCE
"""Messages that may wait at most: reading stops between two batches of sacct's lines."""
FULL, BRIEF = 60.0, 15.0
"""Seconds for which it is watched after it has begun to wait for cc-backend, and in a quick run."""
LIMIT = 600.0
EVERY = 0.25


class Known(NamedTuple):
    """A span was read whose runs are all known. Times in seconds, memory in MB."""

    runs: int
    seconds: float
    cpu: float
    commands: float
    """Seconds that the same commands take alone."""
    peak: float


class Waiting(NamedTuple):
    """A month was read into a cc-backend that takes less than is read. Times in seconds, sizes in MB."""

    rate: float
    """Runs that were brought in a second, while reading waited."""
    bare: float
    """The same of a bare loop."""
    most_pending: int
    file: float
    """The largest state file."""
    growth: float
    """By how much the memory's peak grew while it was watched, as a share."""
    peak: float
    shows_progress: bool
    stopping: float
    overlaps: int


def measure_month(bench: Bench) -> None:
    """Catching up with 30 days and 3 million runs: what reading takes, and how it waits for cc-backend."""
    _tell_known(bench, _read_known(bench))
    _tell_waiting(bench, _wait_for_backend(bench))


def _read_known(bench: Bench) -> Known:
    runs = bench.some(KNOWN_DAYS * RUNS_A_DAY)
    span = runs * DAY // RUNS_A_DAY
    history = History(runs, int(time.time()) - span, span - 2 * LASTED)
    with PracticeSite(bench, slurmQueryMaxSpan=(KNOWN_DAYS + 1) * DAY) as site:
        add_history(site.cluster, bench.python, history)
        _remember(site, history, are_known=True)
        began = time.monotonic()
        site.start()
        seconds, used = time.monotonic() - began, site.cpu
        alone = site.alone(call for call in site.calls() if call.argv[0] == "sacct")
        if site.backend.count(START):
            raise BenchError("runs that are known were sent again")
        return Known(runs, seconds, used.own, alone.wall, peak_memory(site.daemon.pid))


def _remember(site: PracticeSite, history: History, *, are_known: bool) -> None:
    """The daemon has run before this history, and was away since then; or it knows all of it, but not that it does."""
    state = site.daemon.state_folder / "state.sqlite"
    outbox = Outbox(str(state))
    for at in range(0, history.runs if are_known else 0, AT_ONCE):
        starts = {job_id: history.end_of(job_id) - LASTED for job_id in history.jobs[at : at + AT_ONCE]}
        keys = [RunKey(CLUSTER, job_id, start) for job_id, start in starts.items()]
        outbox.commit(CLUSTER, Batch(runs={key: OpenRun(key, Stage.DONE, "", None) for key in keys}))
    outbox.commit(CLUSTER, Batch(checkpoint=history.begin - LASTED))
    outbox.close()
    with open(moment_path(str(state)), "w", encoding="ascii") as file:
        file.write(f"{history.begin - DAY}\n")


def _wait_for_backend(bench: Bench) -> Waiting:
    history = History(DAYS * RUNS_A_DAY, int(time.time()) - DAYS * DAY, DAYS * DAY - 2 * LASTED)
    with PracticeSite(bench, slurmQueryMaxSpan=(DAYS + 1) * DAY) as site:
        add_history(site.cluster, bench.python, history)
        _remember(site, history, are_known=False)
        site.backend.close()
        site.start_backend(REAL_PACE)
        site.backend.know(site.cluster.jobs, site.cluster.start)
        site.daemon.launch(debug=2)
        wait_until("reading to wait for cc-backend", lambda: _pending(site) >= MAX_PENDING, LIMIT, EVERY)
        before = peak_memory(site.daemon.pid)
        rate, most_pending, size = _watch(site, BRIEF if bench.quick else FULL)
        after, shows_progress = peak_memory(site.daemon.pid), _shows_progress(site)
        code, stopping = site.daemon.stop()
        if code != 0:
            raise BenchError(f"it ends with {code}:\n{site.daemon.last_words()}")
        overlaps = len(re.findall("asked while another query is under way", site.daemon.log()))
        bare = BARE / site.backend.bare_loop(BARE, BARE).wall
        return Waiting(rate, bare, most_pending, size, after / before - 1, after, shows_progress, stopping, overlaps)


def _watch(site: PracticeSite, seconds: float) -> tuple[float, int, float]:
    """The runs a second that cc-backend is brought, the most messages that wait, and the largest file in MB."""
    began, stops = time.monotonic(), site.backend.count(STOP)
    most_pending, size = 0, 0
    while time.monotonic() < began + seconds:
        if not site.daemon.running:
            raise BenchError(f"the daemon has ended:\n{site.daemon.last_words()}")
        most_pending = max(most_pending, _pending(site))
        size = max(size, sum(each.stat().st_size for each in site.daemon.state_folder.glob("state.sqlite*")))
        time.sleep(EVERY)
    return (site.backend.count(STOP) - stops) / (time.monotonic() - began), most_pending, size / (1 << 20)


def _pending(site: PracticeSite) -> int:
    with closing(sqlite3.connect(f"file:{site.daemon.state_folder / 'state.sqlite'}?mode=ro", uri=True)) as state:
        return int(state.execute("SELECT count(*) FROM delivery WHERE state = 'pending'").fetchone()[0])


def _shows_progress(site: PracticeSite) -> bool:
    words = [str(site.bench.adapter), "-status", "-json", "-config", str(site.daemon.config_path)]
    done = subprocess.run(words, env=site.daemon.environ, capture_output=True, text=True, check=False, timeout=60)
    return CATCHING_UP in done.stdout or "waits" in done.stdout


def _tell_known(bench: Bench, known: Known) -> None:
    def add(what: str, figure: float, unit: str, other: Other | None = None, budget: Budget | None = None) -> None:
        bench.report.add("month", what, figure, unit, other=other, budget=budget)

    alone = Other("sacct alone", known.runs / known.commands)
    add(
        f"{known.runs:,} known runs are read",
        known.runs / known.seconds,
        "/s",
        alone,
        Budget(READ_A_SECOND, at_least=True),
    )
    add("own CPU for a known run", known.cpu / known.runs, "s")
    add("peak memory, known runs", known.peak, "MB", None, Budget(PEAK_MB))


def _tell_waiting(bench: Bench, waiting: Waiting) -> None:
    def add(what: str, figure: float, unit: str, other: Other | None = None, budget: Budget | None = None) -> None:
        bench.report.add("month", what, figure, unit, other=other, budget=budget)

    bare = Other("a bare loop at cc-backend's pace", waiting.bare)
    add("3,000,000 new runs, while reading waits", waiting.rate, "/s", bare, Budget(OF_BARE_LOOP, True, True))
    add("messages that wait at most", waiting.most_pending, "", None, Budget(BOUND))
    add("state file at most", waiting.file, "MB")
    add("growth of the peak memory meanwhile", 100 * waiting.growth, "%", None, Budget(5))
    add("peak memory, new runs", waiting.peak, "MB", None, Budget(PEAK_MB))
    add("-status shows how far it is (1: yes)", waiting.shows_progress, "", None, Budget(1, at_least=True))
    add("SIGTERM until its end", waiting.stopping, "s")
    add("SIGTERM within 2 s (1: yes)", waiting.stopping <= STOP_SECONDS, "", None, Budget(1, at_least=True))
    add("queries of accounting at the same time", waiting.overlaps, "", None, Budget(0))
