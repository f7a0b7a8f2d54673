"""Prometheus and its promtool for the tests.

As a program it prints where promtool is, or exits 1 with the reason why there is none.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.debian_program import Program, print_path

KEPT_IN = Path(__file__).parents[2] / ".build" / "prometheus"
PROMTOOL = Program(
    name="promtool",
    package="prometheus",
    named_by="CC_SLURM_ADAPTER_PROMTOOL",
    greeting="promtool, version ",
    kept_in=KEPT_IN,
)
PROMETHEUS = PROMTOOL._replace(
    name="prometheus", named_by="CC_SLURM_ADAPTER_PROMETHEUS", greeting="prometheus, version "
)

if __name__ == "__main__":
    sys.exit(print_path(PROMTOOL))
