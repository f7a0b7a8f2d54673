"""How soon the daemon is ready, and how soon a short call is over."""

from __future__ import annotations

import time

from tests.bench.practice import PracticeSite
from tests.bench.processes import in_turn, wait_until
from tests.bench.report import Budget, Other, median
from tests.bench.site import Bench

STARTS, CALLS = 10, 30
READY, HELP = 0.5, 0.1
IMPORTS = ["-I", "-S", "-c", "import json, sqlite3, http.client, logging"]


def measure_startup(bench: Bench) -> None:
    """`-help`, and the daemon until it says that it reports."""
    environ = {"CC_SLURM_ADAPTER_PYTHON": bench.python, "PATH": "/usr/bin:/bin"}
    commands = [([str(bench.adapter), "-help"], environ), ([bench.python, *IMPORTS], environ)]
    usage, imports = map(median, in_turn(commands, bench.some(CALLS)))
    than = Other("python with the modules it needs", imports)
    bench.report.add("startup", "-help", usage, "s", other=than, budget=Budget(HELP))
    ready = [_ready(bench) for _ in range(bench.some(STARTS))]
    bench.report.add("startup", "the daemon is ready", median(ready), "s", other=than, budget=Budget(READY))


def _ready(bench: Bench) -> float:
    with PracticeSite(bench) as site:
        began = time.monotonic()
        site.daemon.launch(debug=2)
        wait_until("the daemon to be ready", site.daemon.is_ready, 30, every=0.002)
        return time.monotonic() - began
