"""What the tests here take for the truth agrees with the recorded jobs and their right answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .slurm_jobs import Held, hostnames, numbers, parse_held

pytestmark = pytest.mark.slurm

FIXTURES = Path(__file__).parents[1] / "recorded" / "slurm"
RECORDED = ["gpu-typed-2nodes", "gpu-sparse", "one-core", "two-nodes-even", "exclusive-node", "cpus3-smt"]


@pytest.mark.parametrize("version", ["22.05.8", "24.11.5", "26.05.5"])
@pytest.mark.parametrize("case", RECORDED)
def test_held_cores_and_gpus_of_recorded_jobs(version: str, case: str) -> None:
    folder = FIXTURES / f"slurm-{version}" / "jobs" / case
    (job,) = json.loads((folder / "truth.json").read_text(encoding="utf-8"))["jobs"]
    expected = {
        host: Held(tuple(held["hw_threads"]), tuple(held["gpu_indices"])) for host, held in job["hosts"].items()
    }
    assert parse_held((folder / "running.scontrol.txt").read_text(encoding="utf-8")) == expected


def test_ranges_are_expanded() -> None:
    assert numbers("0-1,14-15,7") == [0, 1, 14, 15, 7]
    assert hostnames("node[01-02,04]") == ["node01", "node02", "node04"]
    assert hostnames("node03") == ["node03"]
