"""The nats-server for the tests. As a program it prints where it is, or exits 1 with the reason why there is none."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.debian_program import Program, print_path

NATS_SERVER = Program(
    name="nats-server",
    package="nats-server",
    named_by="CC_SLURM_ADAPTER_NATS_SERVER",
    greeting="nats-server: v",
    kept_in=Path(__file__).parents[2] / ".build" / "nats",
)

if __name__ == "__main__":
    sys.exit(print_path(NATS_SERVER))
