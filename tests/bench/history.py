"""Gives the big stand-in Slurm a past: many runs that ended evenly in the last days, which only accounting knows."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from examples.practice.programs import write_program
from tests.bench.big_cluster import RECORDED, BigCluster

PROGRAM = Path(__file__).with_name("sacct_program.py")
COMMAND = """\
#!/bin/sh
cd {folder}
echo "sacct $*" >> calls
exec {python} -I -S -B {program} {folder} "$@"
"""
FIRST_OLD_JOB = 10_000_001
LASTED = 60


class History(NamedTuple):
    """So many runs that ended evenly in `seconds` seconds from `begin` (Unix time) on."""

    runs: int
    begin: int
    seconds: int

    @property
    def jobs(self) -> range:
        """Their job ids."""
        return range(FIRST_OLD_JOB, FIRST_OLD_JOB + self.runs)

    def end_of(self, job_id: int) -> int:
        """When a run ended (Unix time)."""
        return self.begin + (job_id - FIRST_OLD_JOB) * self.seconds // self.runs


def add_history(cluster: BigCluster, python: str, history: History) -> None:
    """From now on accounting has these runs, and no others."""
    folder = cluster.folder
    numbers = (FIRST_OLD_JOB, history.runs, cluster.nodes, history.begin, history.seconds, LASTED)
    (folder / "history").write_text(" ".join(map(str, numbers)), encoding="ascii")
    (folder / "accounted.json").write_text(_template(), encoding="utf-8")
    words = {"folder": folder, "python": python, "program": PROGRAM}
    write_program(folder / "bin" / "sacct", COMMAND.format(**{key: shlex.quote(str(words[key])) for key in words}))


def _template() -> str:
    """What sacct prints before, for and after each run: a recorded one with marks where runs differ."""
    path = RECORDED / "jobs/one-core/ended.sacct.v0.0.40.json"
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    job = document["jobs"][0]
    times = {**job["time"], "submission": "@#start@", "start": "@#start@", "end": "@#end@", "elapsed": LASTED}
    marks = {"job_id": "@#id@", "nodes": "@node@", "time": times}
    text = json.dumps({**document, "jobs": [{**job, **marks}]}, indent=2)
    for mark in ("id", "start", "end"):
        text = text.replace(f'"@#{mark}@"', f"@{mark}@")
    begin, end = text.index("    {\n"), text.index("\n    }\n") + len("\n    }")
    return f"{text[:begin]}@@@{text[begin:end]}@@@{text[end:]}\n"
