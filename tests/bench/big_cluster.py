"""A stand-in Slurm for many jobs: prepared output that `cat` prints, and a small program for details.

Its commands cost as little as can be, so that what is measured is the daemon. Each call is noted, so that the
same questions can be asked again without the daemon. Jobs begin and end by files that are replaced in one step.
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from examples.practice.programs import write_program

PROGRAM = Path(__file__).with_name("slurm_program.py")
RECORDED = Path(__file__).parents[1] / "recorded" / "slurm" / "slurm-24.11.5"
CLUSTER = "big"
CORES = 128
FIRST_JOB = 100_001
RUNNING, CONFIGURING, COMPLETED = "RUNNING", "RUNNING+CONFIGURING", "COMPLETED"
HELD_SECONDS = 600

NOTE = """\
#!/bin/sh
cd {folder}
"""
COMMANDS = {
    "sinfo": """\
echo "sinfo $*" >> calls
exec cat sinfo.txt
""",
    "squeue": """\
echo "squeue $*" >> calls
case "$*" in
    --json=list) exec cat formats.txt ;;
    *" -o %A|%T|%S|%e|%1N") exec cat listing.txt changed.txt ;;
    "-h -a -t all -o %A") exec cut -d '|' -f 1 listing.txt changed.txt ;;
    *) exec {python} -I -S -B {program} {folder} squeue "$@" ;;
esac
""",
    "scontrol": """\
case "$*" in
    "show config") echo "scontrol $*" >> calls; exec cat config.txt ;;
    "--all --oneliner show partition") echo "scontrol $*" >> calls; exec cat partitions.txt ;;
    "-a -o show node") echo "scontrol $*" >> calls; exec cat nodes.txt ;;
    "") tee stdin.$$ | {python} -I -S -B {program} {folder} scontrol; echo "scontrol < stdin.$$" >> calls ;;
    *) echo "scontrol $*" >> calls; exec {python} -I -S -B {program} {folder} scontrol "$@" ;;
esac
""",
    "sacct": """\
echo "sacct $*" >> calls
case "$*" in
    *--json*) echo "the stand-in sacct does not know: $*" >&2; exit 1 ;;
    *) exec cat ended.txt ;;
esac
""",
}


class BigCluster:
    """A cluster in a folder of its own, with jobs of one core each that run since a quarter of an hour.

    `scripts` of them have a batch script of a kilobyte. Job ids count from FIRST_JOB.
    """

    def __init__(self, folder: Path, python: str, *, nodes: int, jobs: int, scripts: int = 0) -> None:
        self.folder = folder
        self.nodes = nodes
        self.jobs = range(FIRST_JOB, FIRST_JOB + jobs)
        self.start = int(time.time()) - 900
        self._next_job = self.jobs.stop
        self._changed: dict[int, tuple[str, int, int]] = {}
        self._forgotten: list[str] = []
        (folder / "jobs").mkdir(parents=True)
        self._write_answers(scripts)
        self._write_commands(python)

    @property
    def environ(self) -> dict[str, str]:
        """What the daemon inherits, and what runs the commands."""
        return {"PATH": f"{self.folder / 'bin'}:{os.environ.get('PATH', os.defpath)}"}

    def _write_answers(self, scripts: int) -> None:
        later = self.start + 86400
        listing = "".join(f"{job_id}|RUNNING|{self.start}|{later}|n\n" for job_id in self.jobs)
        cells = "mixed|64/64/0/128|640000|2|64|1|gpu:a100:4|gpu:a100:0(IDX:N/A)|"
        config = (RECORDED / "cluster/scontrol-show-config.txt").read_text(encoding="utf-8")
        base = (FIRST_JOB, len(self.jobs), self.nodes, CORES, self.start, scripts)
        for name, text in {
            "listing.txt": listing,
            "changed.txt": "",
            "ended.txt": "",
            "calls": "",
            "sinfo.txt": "".join(f"n{node:05}|{cells}\n" for node in range(self.nodes)),
            "nodes.txt": "".join(f"NodeName=n{node:05} Arch=x86_64\n" for node in range(self.nodes)),
            "config.txt": _with_line(config, "ClusterName", CLUSTER),
            "partitions.txt": (RECORDED / "cluster/scontrol-show-partition-oneline.txt").read_text(encoding="utf-8"),
            "formats.txt": "data_parser/v0.0.42\ndata_parser/v0.0.40\ndata_parser/v0.0.41\n",
            "base": " ".join(map(str, base)),
            "job.json": _details_template(),
            "job.txt": _text_template(),
        }.items():
            (self.folder / name).write_text(text, encoding="utf-8")

    def _write_commands(self, python: str) -> None:
        (self.folder / "bin").mkdir()
        words = {"folder": self.folder, "python": python, "program": PROGRAM}
        quoted = {name: shlex.quote(str(word)) for name, word in words.items()}
        for name, text in COMMANDS.items():
            write_program(self.folder / "bin" / name, (NOTE + text).format(**quoted))

    def begin(self, count: int, *, configuring: bool = False) -> list[int]:
        """So many new jobs begin now; their ids. `configuring`: their nodes are still made ready."""
        job_ids = list(range(self._next_job, self._next_job + count))
        self._next_job += count
        now, state = int(time.time()), CONFIGURING if configuring else RUNNING
        self._put(dict.fromkeys(job_ids, (state, now, now + 86400)))
        return job_ids

    def make_ready(self, job_ids: Iterable[int]) -> None:
        """Jobs that were CONFIGURING run."""
        self._put({job_id: (RUNNING, *self._changed[job_id][1:]) for job_id in job_ids})

    def end(self, job_ids: Iterable[int]) -> None:
        """Jobs that began here end now."""
        now = int(time.time())
        self._put({job_id: (COMPLETED, self._changed[job_id][1], now) for job_id in job_ids})

    def forget(self, seconds: int) -> None:
        """slurmctld has forgotten jobs that began here and ended so long ago (MinJobAge); accounting has them still."""
        until = int(time.time()) - seconds
        old = [job_id for job_id, (state, _, end) in self._changed.items() if state == COMPLETED and end < until]
        self._forgotten += [_ended_line(job_id, *self._changed.pop(job_id)[1:]) for job_id in old]
        for job_id in old:
            (self.folder / "jobs" / str(job_id)).unlink()
        self._put({})

    def hold_squeue(self) -> None:
        """From now on squeue hangs. Nothing brings it back."""
        command = f"{NOTE}> held\nexec sleep {HELD_SECONDS}\n".format(folder=shlex.quote(str(self.folder)))
        write_program(self.folder / "bin" / "squeue", command)

    def squeue_is_held(self) -> bool:
        """Whether it was called since it hangs."""
        return (self.folder / "held").exists()

    def _put(self, jobs: dict[int, tuple[str, int, int]]) -> None:
        self._changed.update(jobs)
        for job_id, job in jobs.items():
            self._replace(f"jobs/{job_id}", " ".join(map(str, job)))
        lines = [f"{job_id}|{_shown(state)}|{start}|{end}|n\n" for job_id, (state, start, end) in self._changed.items()]
        self._replace("changed.txt", "".join(lines))
        ended = [_ended_line(job_id, *times) for job_id, (state, *times) in self._changed.items() if state == COMPLETED]
        self._replace("ended.txt", "".join([*self._forgotten, *ended]))

    def _replace(self, name: str, text: str) -> None:
        new = self.folder / "new"
        new.write_text(text, encoding="utf-8")
        new.replace(self.folder / name)


def _ended_line(job_id: int, start: int, end: int) -> str:
    """What sacct prints."""
    return f"{job_id}|COMPLETED|{start}|{start}|{end}|1\n"


def _shown(state: str) -> str:
    """Slurm's text has the most telling word alone."""
    return state.rpartition("+")[2]


def _with_line(config: str, key: str, value: str) -> str:
    lines = [f"{key:<23} = {value}" if line.split(" ")[0] == key else line for line in config.splitlines()]
    return "\n".join(lines) + "\n"


def _details_template() -> str:
    """What squeue and scontrol print before, for and after each job: a recorded job with marks where jobs differ."""
    path = RECORDED / "jobs/alice-proj/running.squeue.v0.0.40.json"
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    job = document["jobs"][0]
    job["job_resources"]["allocated_nodes"][0]["sockets"] = {"@socket@": {"cores": {"@core@": "allocated"}}}
    marks = {
        "job_id": "@#id@",
        "batch_flag": "@#batch@",
        "job_state": ["@state@"],
        "nodes": "@node@",
        "batch_host": "@node@",
        "start_time": {**job["start_time"], "number": "@#start@"},
        "submit_time": {**job["submit_time"], "number": "@#start@"},
        "end_time": {**job["end_time"], "number": "@#end@"},
        "tres_alloc_str": "cpu=1,mem=200M,node=1,billing=1",
    }
    text = json.dumps({**document, "jobs": [{**job, **marks}]}, indent=2).replace("node02", "@node@")
    for mark in ("id", "batch", "start", "end"):
        text = text.replace(f'"@#{mark}@"', f"@{mark}@")
    begin, end = text.index("    {\n"), text.index("\n    }\n") + len("\n    }")
    return f"{text[:begin]}@@@{text[begin:end]}@@@{text[end:]}\n"


def _text_template() -> str:
    text = (RECORDED / "jobs/alice-proj/running.scontrol.txt").read_text(encoding="utf-8")
    return (
        text.replace("JobId=45", "JobId=@id@")
        .replace("JobState=RUNNING", "JobState=@state@")
        .replace("node02", "@node@")
    )
