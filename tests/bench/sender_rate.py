"""What the sender takes for a message by itself: into a destination without cost, beside a bare loop of the same."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from tests.bench.backend import BenchBackend
from tests.bench.processes import Cost
from tests.bench.report import Budget, Other, median
from tests.bench.site import Bench

JOBS, ROUNDS = 5_000, 5
"""Each job has a start and a stop."""
OF_BARE_LOOP = 0.6
LIMIT = 600.0


def measure_sender(bench: Bench) -> None:
    """10,000 messages from the outbox into a destination without cost, and in a bare loop, five times in turn."""
    jobs = bench.some(JOBS)
    drains: list[Cost] = []
    loops: list[Cost] = []
    for _ in range(ROUNDS):
        with BenchBackend(bench.python, "big") as backend:
            drains.append(_drain(bench, backend, jobs))
            backend.look()
            loops.append(backend.bare_loop(jobs, jobs))
    messages = 2 * jobs
    rate, cpu = (messages / median(each.wall for each in drains), median(each.cpu for each in drains) / messages)
    bare = Other("a bare loop", messages / median(each.wall for each in loops))
    budget = Budget(OF_BARE_LOOP, of_ratio=True, at_least=True)
    bench.report.add("sender", "messages into a destination without cost", rate, "/s", other=bare, budget=budget)
    bare_cpu = Other("a bare loop", median(each.cpu for each in loops) / messages)
    bench.report.add("sender", "CPU for a message", cpu, "s", other=bare_cpu)


def _drain(bench: Bench, backend: BenchBackend, jobs: int) -> Cost:
    program = str(Path(__file__).with_name("drain_program.py"))
    with tempfile.TemporaryDirectory(prefix="cc-slurm-adapter-") as folder:
        command = [bench.python, "-I", "-S", "-B", program, str(bench.adapter), folder, str(backend.port), str(jobs)]
        done = subprocess.run(command, capture_output=True, check=True, timeout=LIMIT)
    return Cost(*json.loads(done.stdout))
