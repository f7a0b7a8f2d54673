"""How long an administrator waits for `-status` and the like, also where all else hangs; and the idle daemon."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.practice import PracticeSite
from tests.bench.processes import Command, in_turn, run_times_of, wait_until
from tests.bench.report import Budget, Other, noise_of
from tests.bench.site import Amount, Bench

JOBS = 10_000
"""They run, and the start of each waits."""
CALLS = Amount(20, 8)
TIMES_VERSION = 5.0
QUIET, PIECES_A_MINUTE = 60, 38
"""Seconds in which nothing happens, and how many pieces of work any one thread of the daemon may use in a minute of
them: 0.1 % of a core."""
SETTLE = 10.0
"""Seconds after the start until nothing of it is left to do."""
WELL_OR_NOT = frozenset({0, 1})
"""-status and -job exit with 1 if something needs a look: here cc-backend is always away."""
LIMIT = 60.0


def measure_status(bench: Bench) -> None:
    """-status beside -version with 10,000 running jobs and 10,000 messages that wait; an idle daemon."""
    with PracticeSite(bench, jobs=JOBS, pending=JOBS, backend=False) as site:
        site.start()
        wait_until("the messages to wait", lambda: site.daemon.waiting_messages() >= JOBS, LIMIT)
        if not bench.quick:
            time.sleep(SETTLE)
            _tell_idle(bench, site, f"{JOBS:,} jobs and messages")
        words = [["-status"], ["-job", str(site.jobs[0])], ["-queue", "list"], ["-metrics"]]
        _tell(bench, site, "quiet", words)
        if bench.quick:
            return
        with _hanging_backend(site):
            _tell(bench, site, "cc-backend hangs", words[:1])
        site.cluster.hold_squeue()
        site.daemon.signal(signal.SIGHUP)
        wait_until("squeue to hang", site.cluster.squeue_is_held, LIMIT)
        _tell(bench, site, "squeue hangs", words[:1])
    with PracticeSite(bench) as site:
        site.start()
        time.sleep(SETTLE)
        _tell_idle(bench, site, "100 jobs")


def _tell(bench: Bench, site: PracticeSite, when: str, words: list[list[str]]) -> None:
    """The first one has the budget."""
    version, *others = in_turn(_commands(bench, site, [["-version"], *words]), bench.some(CALLS), WELL_OR_NOT)
    than = Other("-version", min(version))
    for flags, times in zip(words, others):
        budget = Budget(TIMES_VERSION, of_ratio=True) if flags == words[0] else None
        noise = noise_of([each / beside for each, beside in zip(times, version)])
        what = f"{' '.join(flags)}, {when}"
        bench.report.add("status", what, min(times), "s", other=than, budget=budget, noise=noise)


def _commands(bench: Bench, site: PracticeSite, words: list[list[str]]) -> list[Command]:
    environ = {**site.cluster.environ, "CC_SLURM_ADAPTER_PYTHON": bench.python}
    config = ["-config", str(site.daemon.config_path)]
    return [([str(bench.adapter), *flags, *config], environ) for flags in words]


@contextmanager
def _hanging_backend(site: PracticeSite) -> Iterator[None]:
    """Something at cc-backend's address that takes connections and never answers. The daemon waits for it by then."""
    with socket.create_server(("127.0.0.1", site.backend.port)) as server:
        server.settimeout(LIMIT)
        site.daemon.signal(signal.SIGHUP)
        connection, _ = server.accept()
        with connection:
            yield


def _tell_idle(bench: Bench, site: PracticeSite, what: str) -> None:
    """What the busiest thread uses while nothing happens: the one that looks every few seconds at how the daemon is."""
    with bench.reference() as reference:
        before, began = run_times_of(site.daemon.pid), time.monotonic()
        time.sleep(QUIET)
        minutes = (time.monotonic() - began) / 60
        used = [after - before.get(thread, 0.0) for thread, after in run_times_of(site.daemon.pid).items()]
    busiest, work, budget = max(used) / minutes, reference.work(), Budget(PIECES_A_MINUTE, of_ratio=True)
    idle = f"of an idle daemon in a minute, {what}"
    bench.report.add("status", f"CPU of the busiest thread {idle}", busiest, "s", other=work, budget=budget)
    bench.report.add("status", f"CPU {idle}", sum(used) / minutes, "s", other=work)
