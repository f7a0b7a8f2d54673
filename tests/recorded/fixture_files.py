"""The recorded output of real Slurm clusters under tests/recorded/slurm, and its right answers."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cc_slurm_adapter.model import Run
from cc_slurm_adapter.slurm.parse.gres import GPU, Names
from cc_slurm_adapter.slurm.parse.jobs import parse_job
from cc_slurm_adapter.slurm.parse.json_stream import JobSplitter
from cc_slurm_adapter.slurm.parse.json_values import Json
from cc_slurm_adapter.slurm.parse.nodes import CELL_END, COLUMNS, NodeLayout, Nodes, SinfoParser

FIXTURES = Path(__file__).parents[1] / "recorded" / "slurm"
VERSIONS = ("22.05.8", "23.02.8", "23.11.11", "24.05.8", "24.11.5", "25.05.8", "25.11.7", "26.05.5")
LAYOUTS = {f"node0{number}": NodeLayout(2, 4, 2, (4,), 16) for number in range(1, 5)}
CORES_PER_SOCKET = 4


class Recording(NamedTuple):
    """One recorded document and the truth about the jobs in it."""

    version: str
    case: str
    file: Path

    def __str__(self) -> str:
        return f"{self.version}-{self.case}-{self.file.name}"

    @property
    def text(self) -> bytes:
        return self.file.read_bytes()

    @property
    def truth(self) -> list[dict[str, Any]]:
        return read_truth(self.version, self.case)


@functools.cache
def read_truth(version: str, case: str) -> list[dict[str, Any]]:
    """The jobs of a case as they really were; read once and shared, so nobody changes them."""
    path = FIXTURES / f"slurm-{version}" / "jobs" / case / "truth.json"
    jobs: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["jobs"]
    return jobs


def recordings(pattern: str) -> Iterator[Recording]:
    """All recorded documents whose file name matches, of all versions and cases."""
    for version in VERSIONS:
        for file in sorted((FIXTURES / f"slurm-{version}" / "jobs").glob(f"*/{pattern}")):
            if file.suffix != ".err":
                yield Recording(version, file.parent.name, file)


@functools.cache
def runs_of(recording: Recording) -> tuple[Run, ...]:
    """Each run of a document of squeue or scontrol, also of other cases; parsed once for all tests of a process."""
    return tuple(parse_job(job, "lab", LAYOUTS) for job in split_document(recording.text, "squeue"))


def true_cores(job: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Node-wide core numbers by host: socket * cores per socket + core."""
    return {
        host: tuple(
            sorted(
                int(socket) * CORES_PER_SOCKET + core
                for socket, cores in held["cores_by_socket"].items()
                for core in cores
            )
        )
        for host, held in job["hosts"].items()
    }


def true_gpus(job: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """GPU indices by host."""
    return {host: tuple(held["gpu_indices"]) for host, held in job["hosts"].items()}


def sinfo_row(**values: str) -> str:
    """A row of sinfo as the program asks for it: a node of the lab, with other values where given."""
    row = {"NodeList": "node01", "StateComplete": "mixed", "CPUsState": "4/12/0/16", "AllocMem": "400"}
    row.update({"Sockets": "2", "Cores": "4", "Threads": "2", "Gres": "gpu:h100:4", "GresUsed": "gpu:h100:2(IDX:0-1)"})
    row.update(values)
    return "".join(f"{row[name]}{CELL_END}" for name in COLUMNS)


def parse_sinfo(text: str, accelerators: Names = GPU) -> Nodes:
    """What sinfo's output says, read for the first time."""
    return SinfoParser(accelerators).parse(text)


def split_document(text: bytes, command: str, size: int = 1 << 20) -> list[Json]:
    """The jobs of a whole document, which is fed in pieces of so many bytes."""
    jobs: list[Json] = []
    splitter = JobSplitter(command, jobs.append)
    for at in range(0, len(text), size):
        splitter.feed(text[at : at + size])
    splitter.finish()
    return jobs
