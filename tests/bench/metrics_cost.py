"""What metrics cost: memory and CPU of a daemon that is scraped, beside another one that shows none."""

from __future__ import annotations

import http.client
import time
from typing import Any

from tests.bench.practice import PracticeSite
from tests.bench.processes import BenchError, free_port, memory, peak_memory, run_times_of, wait_until
from tests.bench.reference import Reference
from tests.bench.report import Budget, Other
from tests.bench.site import Amount, Bench

JOBS = Amount(10_000, 2_000)
"""They run, and the start of each waits."""
SCRAPES = 40
PAUSE = 1.0
EVERY = 15.0
"""Seconds between two scrapes, as Prometheus mostly asks."""
GROWTH_MB, PIECES = 3.0, 47
"""Pieces of work for a scrape: 0.5 % of a core with a scrape every 15 s."""
SETTLE = 10.0
"""Seconds after the start until nothing of it is left to do."""
LIMIT = 60.0


def measure_metrics(bench: Bench) -> None:
    """Scrapes of a daemon with 10,000 running jobs and 10,000 messages that wait, beside one without metrics."""
    jobs, port = bench.some(JOBS), free_port()
    with _site(bench, jobs) as plain, _site(bench, jobs, metricsListen=f"127.0.0.1:{port}") as scraped:
        reference = Reference(bench.python)
        pids = plain.daemon.pid, scraped.daemon.pid
        time.sleep(SETTLE)
        _scrape(port, jobs)  # it loads what it needs, once in the life of a daemon
        before = [_used(pid) for pid in pids]
        for _ in range(SCRAPES):
            time.sleep(PAUSE)
            _scrape(port, jobs)
            reference.again()
        without, cpu = (_used(pid) - used for pid, used in zip(pids, before))
        now, peak = ([ask(pid) for pid in pids] for ask in (memory, peak_memory))
    of_one = max(cpu - without, 0.0) / SCRAPES
    add, limit, name = bench.report.add, Budget(GROWTH_MB), "without metrics"
    add("metrics", "memory", now[1], "MB", other=Other(name, now[0]))
    add("metrics", "peak memory", peak[1], "MB", other=Other(name, peak[0]))
    add("metrics", f"memory that {SCRAPES} scrapes add", now[1] - now[0], "MB", budget=limit)
    add("metrics", f"peak memory that {SCRAPES} scrapes add", peak[1] - peak[0], "MB", budget=limit)
    add("metrics", "CPU of a scrape", of_one, "s", other=reference.work(), budget=Budget(PIECES, of_ratio=True))
    add("metrics", "share of a core, a scrape every 15 s", 100 * of_one / EVERY, "%")


def _site(bench: Bench, jobs: int, **config: Any) -> PracticeSite:
    site = PracticeSite(bench, jobs=jobs, pending=jobs, backend=False, **config)
    try:
        site.start()
        wait_until("the messages to wait", lambda: site.daemon.waiting_messages() >= jobs, LIMIT)
    except BaseException:
        site.close()
        raise
    return site


def _used(pid: int) -> float:
    return sum(run_times_of(pid).values())


def _scrape(port: int, jobs: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        status, text = response.status, response.read().decode()
    finally:
        connection.close()
    if status != 200 or f'cc_slurm_adapter_open_runs{{stage="started"}} {jobs}\n' not in text:
        raise BenchError(f"the metrics do not show {jobs} running jobs: {status} {text[:200]!r}")
