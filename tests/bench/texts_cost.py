"""What job scripts cost: over scontrol's standard output, and through files that `write batch_script ID FILE` makes.

    python3 texts_cost.py FILE ID ...

FILE is the built file, whose modules are measured. Both ways are gone in turn. Prints JSON: seconds over standard
output and seconds through files, the least of each.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, f"{sys.argv[1]}/site-packages")

from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.texts import TextRequest, read_texts

LIMIT = 1024 * 1024
ROUNDS = 7


def over_standard_output(commands: Commands, ids: list[str]) -> list[str]:
    """With markers between the scripts; slurmInfo is known, so that nothing else is asked."""
    jobs = {int(job_id): TextRequest(job_id, job_id, "") for job_id in ids}
    return [texts.job_script for texts in read_texts(commands, jobs, LIMIT)]


def through_files(commands: Commands, ids: list[str]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        lines = "".join(f"write batch_script {job_id} {folder}/{job_id}\n" for job_id in ids)
        commands.run(["scontrol"], stdin=lines.encode())
        return [Path(folder, job_id).read_text(encoding="utf-8") for job_id in ids]


def seconds(way: Callable[[Commands, list[str]], list[str]], commands: Commands, ids: list[str]) -> float:
    began = time.perf_counter()
    scripts = way(commands, ids)
    took = time.perf_counter() - began
    if not all(script.startswith("#!") for script in scripts):
        sys.exit("a job has no script")
    return took


def main(ids: list[str]) -> None:
    commands = Commands()
    ways = (over_standard_output, through_files)
    rounds = [[seconds(way, commands, ids) for way in ways] for _ in range(ROUNDS)]
    print(json.dumps([min(each) for each in zip(*rounds)]))


main(sys.argv[2:])
