"""A job of thousands of nodes is read node by node: with all its cores, and within the daemon's memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.slurm.parse import json_stream
from cc_slurm_adapter.slurm.parse.json_stream import JobSplitter
from cc_slurm_adapter.slurm.parse.json_values import Json
from examples.practice.slurm.release import RELEASES, Release
from tests.fakes.large_job import document, held_cores, host, in_pieces, read_run, recorded_job
from tests.recorded.fixture_files import FIXTURES, split_document

ROOT = Path(__file__).parents[4]
MEMORY_BUDGET = 50_000_000
"""Bytes that the daemon may take, see the README. What runs here is its parser and its message."""
RUNNING = sorted(FIXTURES.glob("*/jobs/one-core/running.squeue*.json"))
"""A running job of each release in each of its formats."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs count as large before the list of their nodes ends."""
    monkeypatch.setattr(json_stream, "LARGE_JOB_BYTES", 5000)


def name_of(file: Path) -> str:
    return f"{file.parts[-4]}-{file.name}"


def format_of(file: Path) -> str:
    """The format that a recorded document was asked for in."""
    named = re.search(r"v0\.0\.\d\d", file.name)
    return named.group() if named else RELEASES[file.parts[-4][len("slurm-") :]].default


def test_each_release_and_format_is_there() -> None:
    recorded = {(file.parts[-4][len("slurm-") :], format_of(file)) for file in RUNNING}
    assert recorded == {
        (release.version, name)
        for release in RELEASES.values()
        for name in (release.formats or (release.default,))
        if name != release.silent
    }


@pytest.mark.parametrize("file", RUNNING, ids=name_of)
@pytest.mark.usefixtures("small")
def test_a_large_job_has_the_cores_of_all_its_nodes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[bool] = []
    begin = json_stream._LargeJob.begin.__func__  # type: ignore[attr-defined]

    def note(cls: type, text: bytearray) -> object:
        found = begin(cls, text)
        begun.append(found is not None)
        return found

    monkeypatch.setattr(json_stream._LargeJob, "begin", classmethod(note))
    monkeypatch.setattr("tests.fakes.large_job.PIECE", 1000)
    run = read_run(recorded_job(file), nodes=60, per_socket=8)
    assert any(begun)
    assert {each.hostname: list(each.cores) for each in run.resources} == {
        host(node): held_cores(node, 8) for node in range(60)
    }


@pytest.mark.parametrize("file", RUNNING[::3], ids=name_of)
@pytest.mark.parametrize("size", [1, 300, 5001])
@pytest.mark.usefixtures("small")
def test_what_is_split_node_by_node_is_what_the_document_says(file: Path, size: int) -> None:
    text = b"".join(document(recorded_job(file), nodes=12, per_socket=4))
    assert split_document(text, "squeue", size) == json.loads(text)["jobs"]


@pytest.mark.usefixtures("small")
def test_recorded_documents_are_the_same_node_by_node() -> None:
    for file in sorted(FIXTURES.glob("*/jobs/gpu-typed-2nodes/*.squeue*.json")):
        text = file.read_bytes()
        assert split_document(text, "squeue", 500) == json.loads(text)["jobs"]


def split(pieces: Iterator[bytes]) -> tuple[list[Json], dict[int, str]]:
    jobs: list[Json] = []
    broken: dict[int, str] = {}
    splitter = JobSplitter("squeue", jobs.append, broken.__setitem__)
    for piece in pieces:
        splitter.feed(piece)
    splitter.finish()
    return jobs, broken


NESTED = FIXTURES / "slurm-24.11.5/jobs/one-core/running.squeue.json"
FLAT = FIXTURES / "slurm-24.11.5/jobs/one-core/running.squeue.v0.0.40.json"


@pytest.mark.parametrize("file", [NESTED, FLAT], ids=name_of)
@pytest.mark.usefixtures("small")
def test_a_damaged_node_costs_its_job_and_no_other(file: Path) -> None:
    job = recorded_job(file)
    text = b"".join(document(job, nodes=30, per_socket=4)).decode()
    other = json.dumps([{"job_id": 7}], indent=2)[3:-2].replace("\n", "\n  ")
    text = text.replace("\n  ],\n", f",\n  {other}\n  ],\n", 1)
    assert [each["job_id"] for each in json.loads(text)["jobs"]] == [job["job_id"], 7]
    for node in (0, 17, 29):
        damaged = text.replace(f'"{host(node)}"', "NaN NaN")
        jobs, broken = split(in_pieces(iter([damaged.encode()]), 700))
        assert [each["job_id"] for each in jobs] == [7]
        assert list(broken) == [job["job_id"]]
        assert "not JSON" in broken[job["job_id"]]


@pytest.mark.usefixtures("small")
def test_a_large_job_that_is_cut_or_too_large_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    job = recorded_job(NESTED)
    text = b"".join(document(job, nodes=30, per_socket=4))
    at = text.index(f'"{host(20)}"'.encode())
    end = b'\n  ],\n  "errors": []\n}\n'
    jobs, broken = split(in_pieces(iter([text[:at] + end]), 700))
    assert (jobs, broken) == ([], {job["job_id"]: "it is cut"})
    monkeypatch.setattr(json_stream, "MAX_HOSTS", 29)
    jobs, broken = split(in_pieces(iter([text]), 700))
    assert jobs == []
    assert "more than 29" in broken[job["job_id"]]
    monkeypatch.setattr(json_stream, "MAX_JOB_BYTES", 6000)
    jobs, broken = split(in_pieces(iter([text.replace(b'"node00000"', b'"' + b"n" * 9000 + b'"')]), 700))
    assert (jobs, broken) == ([], {job["job_id"]: "it has more than 6000 bytes"})


@pytest.mark.parametrize("file", [FLAT, NESTED], ids=name_of)
def test_4000_nodes_of_128_cores_fit_into_the_memory_of_the_daemon(file: Path) -> None:
    """110 MB of text in v0.0.42. In a process of its own, whose memory nobody else has used."""
    argv = [sys.executable, "-m", "tests.fakes.large_job", str(file), "4000", "64"]
    told = json.loads(subprocess.run(argv, cwd=ROOT, capture_output=True, check=True).stdout)
    assert told["cores"] == sum(len(held_cores(node, 64)) for node in range(4000))
    assert told["read"] < MEMORY_BUDGET
    assert told["sent"] < MEMORY_BUDGET


@pytest.mark.parametrize("name", ["unknown-id", "empty-range"])
@pytest.mark.parametrize("release", RELEASES.values(), ids=lambda release: release.version)
def test_that_accounting_has_no_such_job_is_no_failure(release: Release, name: str) -> None:
    """22.05 lists it among its errors."""
    jobs: list[Json] = []
    splitter = JobSplitter("sacct", jobs.append)
    splitter.feed((FIXTURES / f"slurm-{release.version}" / "errors" / f"{name}.sacct-json.stdout").read_bytes())
    splitter.finish()
    assert jobs == []


def test_any_other_error_is_a_failure() -> None:
    splitter = JobSplitter("sacct", lambda _: None)
    splitter.feed(b'{"errors": [{"error_number": 9003}, {"error_number": 2000}], "jobs": []}')
    with pytest.raises(UnexpectedOutput, match="2000"):
        splitter.finish()
