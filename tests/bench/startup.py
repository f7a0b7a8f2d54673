"""How soon the daemon is ready, and how soon a short call is over."""

from __future__ import annotations

import time

from tests.bench.practice import PracticeSite
from tests.bench.processes import in_turn, wait_until
from tests.bench.report import Budget, Other, median, noise_of
from tests.bench.site import Amount, Bench

STARTS, CALLS = Amount(10, 4), Amount(30, 12)
READY, HELP = 15, 2.5
"""As many times what Python takes with the modules that it needs: 0.6 s and 0.1 s
where that takes 40 ms."""
IMPORTS = ["-I", "-S", "-c", "import json, sqlite3, http.client, logging"]


def measure_startup(bench: Bench) -> None:
    """`-help`, and the daemon until it says that it reports."""
    environ = {"CC_SLURM_ADAPTER_PYTHON": bench.python, "PATH": "/usr/bin:/bin"}
    commands = [([str(bench.adapter), "-help"], environ), ([bench.python, *IMPORTS], environ)]
    _tell(bench, "-help", in_turn(commands, bench.some(CALLS)), HELP)
    ready = [(_ready(bench), *in_turn(commands[1:], 1)[0]) for _ in range(bench.some(STARTS))]
    _tell(bench, "the daemon is ready", [list(each) for each in zip(*ready)], READY)


def _tell(bench: Bench, what: str, times: list[list[float]], limit: float) -> None:
    """Ours, and beside each what Python takes."""
    ours, imports = times
    than = Other("python with the modules it needs", median(imports))
    noise = noise_of([each / other for each, other in zip(ours, imports)])
    budget = Budget(limit, of_ratio=True)
    bench.report.add("startup", what, median(ours), "s", other=than, budget=budget, noise=noise)


def _ready(bench: Bench) -> float:
    with PracticeSite(bench) as site:
        began = time.monotonic()
        site.daemon.launch(debug=2)
        wait_until("the daemon to be ready", site.daemon.is_ready, 30, every=0.002)
        return time.monotonic() - began
