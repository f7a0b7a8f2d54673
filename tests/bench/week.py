"""`-sync` of a week of accounting: killed in the middle and taken up again, into a cc-backend at its own pace."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections import Counter
from typing import NamedTuple

from tests.bench.backend import REAL_PACE, START, STOP
from tests.bench.history import History, add_history
from tests.bench.practice import PracticeSite
from tests.bench.processes import BenchError, Cpu, peak_memory, wait_until
from tests.bench.reference import Reference
from tests.bench.report import Budget, Other
from tests.bench.site import Amount, Bench

RUNS, WEEK = Amount(100_000, 10_000), 7 * 86400
MARGIN = 3600
"""Seconds: no run ended at the edge of the week, or so late that the daemon reads it by itself."""
BARE = 2_000
"""Of so many runs a bare loop sends the starts and stops."""
OF_BARE_LOOP, PEAK_MB, STOP_TIMES = 0.8, 60, 250
"""The last: as many times what Python takes for nothing, which are 2 s."""
AT_ONCE = 64
"""More messages than this are never under way: only they may come twice when the daemon is killed."""
LIMIT = 3600.0
EVERY = 0.5


class Week(NamedTuple):
    """A week that was brought. Times in seconds, memory in MB."""

    seconds: float
    bare: float
    """Seconds for a run's two requests in a bare loop."""
    cpu: Cpu
    peak: float
    doubles: int
    """Starts that came more than once."""
    overlaps: int
    """Queries of accounting while another one was under way."""
    stopping: float
    """From Ctrl-C to the end of the command."""
    python: Other
    """A Python that does nothing."""
    work: Other
    """A piece of work."""
    queries: int


def measure_week(bench: Bench) -> None:
    """`-sync` of a week with 100,000 runs, which a daemon does that is killed in the middle, and Ctrl-C in one more."""
    runs = bench.some(RUNS)
    history = History(runs, int(time.time()) - WEEK + MARGIN, WEEK - 4 * MARGIN)
    with PracticeSite(bench) as site:
        add_history(site.cluster, bench.python, history)
        site.backend.close()
        site.start_backend(REAL_PACE)
        site.backend.know(site.cluster.jobs, site.cluster.start)
        _tell(bench, runs, _bring(site, history))


def _bring(site: PracticeSite, history: History) -> Week:
    reference = Reference(site.bench.python)
    reference.again()
    site.start()
    site.calls()
    began, command = time.monotonic(), _sync(site)
    wait_until("the middle", lambda: site.backend.count(STOP) >= history.runs // 2, LIMIT, EVERY)
    peak, first = peak_memory(site.daemon.pid), site.cpu
    reference.again()
    site.daemon.signal(signal.SIGKILL)
    if command.wait(60) == 0:
        raise BenchError("the command says that all was brought by a daemon that was killed")
    site.start()
    again = _sync(site)
    if again.wait(LIMIT) != 0:
        raise BenchError(f"the sync was not taken up:\n{site.daemon.last_words()}")
    wait_until("the end", lambda: site.backend.count(STOP) >= history.runs, LIMIT, EVERY)
    site.backend.wait_for(STOP, history.jobs, 60)
    site.backend.wait_for(START, history.jobs, 60)
    seconds, second = time.monotonic() - began, site.cpu
    told = Counter(each.job_id for each in site.backend.log if each.kind == START)
    reference.again()
    log, queries = site.daemon.log(), sum(call.argv[0] == "sacct" for call in site.calls())
    bare = site.backend.bare_loop(BARE, BARE).wall / BARE
    return Week(
        seconds,
        bare,
        Cpu(first.own + second.own, first.children + second.children),
        max(peak, peak_memory(site.daemon.pid)),
        sum(number > 1 for number in told.values()),
        len(re.findall("asked while another query is under way", log)),
        _stop(site),
        reference.bare_python(),
        reference.work(),
        queries,
    )


def _sync(site: PracticeSite) -> subprocess.Popen[bytes]:
    words = [str(site.bench.adapter), "-sync", "-since", "7d", "-config", str(site.daemon.config_path)]
    return subprocess.Popen(words, env=site.daemon.environ, stderr=subprocess.DEVNULL)


def _stop(site: PracticeSite) -> float:
    """How long it takes from Ctrl-C to the end of one more."""
    command = _sync(site)
    time.sleep(3)
    began = time.monotonic()
    command.send_signal(signal.SIGINT)
    command.wait(60)
    return time.monotonic() - began


def _tell(bench: Bench, runs: int, week: Week) -> None:
    def add(what: str, figure: float, unit: str, other: Other | None = None, budget: Budget | None = None) -> None:
        bench.report.add("week", what, figure, unit, other=other, budget=budget)

    bare = Other("a bare loop at cc-backend's pace", 1 / week.bare)
    add(f"{runs:,} runs are brought", runs / week.seconds, "/s", bare, Budget(OF_BARE_LOOP, True, True))
    add("starts that came twice", week.doubles, "", None, Budget(AT_ONCE))
    add("queries of accounting at the same time", week.overlaps, "", None, Budget(0))
    add("queries of accounting for 1,000 runs", 1000 * week.queries / runs, "")
    add("own CPU for a run", week.cpu.own / runs, "s", week.work)
    add("CPU of the commands for a run", week.cpu.children / runs, "s")
    add("peak memory", week.peak, "MB", None, Budget(PEAK_MB))
    add("Ctrl-C until its end", week.stopping, "s", week.python, Budget(STOP_TIMES, of_ratio=True))
