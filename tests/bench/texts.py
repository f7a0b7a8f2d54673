"""What job scripts cost over scontrol's standard output, beside the same scripts through files."""

from __future__ import annotations

import json
from pathlib import Path

from tests.bench.report import Budget, Other
from tests.bench.site import Bench
from tests.bench.sync import JOBS, SCRIPTS

PROGRAM = Path(__file__).with_name("texts_cost.py")
TIMES_THE_FILES = 2.0


def measure_texts(bench: Bench) -> None:
    """Job scripts over scontrol's standard output, beside the same scripts through files."""
    count = bench.some(SCRIPTS)
    with bench.big_site(bench, jobs=bench.some(JOBS), scripts=count, known=False) as site:
        with_script = sorted(site.jobs)[:count]
        ours, files = json.loads(site.run_program(PROGRAM, str(site.adapter), *map(str, with_script)))
    than = Other("through files", files / count)
    budget = Budget(TIMES_THE_FILES, of_ratio=True)
    bench.report.add("texts", "time for a job script", ours / count, "s", other=than, budget=budget)
