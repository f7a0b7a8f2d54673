"""Splitting a large JSON document of squeue or sacct into its jobs, one at a time.

Slurm prints its JSON indented, with newlines inside texts escaped, so a job is the lines from
`    {` to `    }`. Parsing each by itself keeps memory small (a document of 10,000 jobs is 80 to
300 MB) and lets one damaged job cost nobody else anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.slurm.json_values import Json, get_list

MAX_JOB_BYTES = 16 * 1024 * 1024
"""A single job that is larger is damaged output: its whole document is refused."""


class JobSplitter:
    """Takes a document in pieces and hands each job to `on_job`; `finish()` checks that it was whole."""

    def __init__(self, command: str, on_job: Callable[[Json], None]) -> None:
        self._command = command
        self._on_job = on_job
        self._rest = b""
        self._frame: list[bytes] = []
        self._job: list[bytes] = []
        self._job_bytes = 0
        self._inside = False

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the document. Raises UnexpectedOutput when a job is too large."""
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            self._take(line)

    def finish(self) -> None:
        """Raises UnexpectedOutput when the document is not whole, has no jobs or names errors."""
        self._take(self._rest)
        document = _load(b"\n".join(self._frame), self._command)
        if not isinstance(document, dict) or "jobs" not in document:
            raise UnexpectedOutput(self._command, "the document has no `jobs`")
        check_errors(document, self._command)
        for job in get_list(document, "jobs", self._command):
            self._on_job(job)  # a document that was not indented

    def _take(self, line: bytes) -> None:
        if not self._inside and line.startswith(b'  "jobs": [') and not line.rstrip(b", ").endswith(b"]"):
            self._inside = True
            self._frame.append(line)
        elif self._inside:
            self._take_inside(line)
        else:
            self._frame.append(line)

    def _take_inside(self, line: bytes) -> None:
        if line.startswith(b"  ]"):
            self._inside = False
            self._frame.append(line)
            return
        self._job_bytes += len(line)
        if self._job_bytes > MAX_JOB_BYTES:
            raise UnexpectedOutput(f"{self._command}.jobs[]", f"a job of more than {MAX_JOB_BYTES} bytes")
        if line.startswith(b"    }"):
            self._job.append(b"}")
            self._finish_job()
        else:
            self._job.append(line)

    def _finish_job(self) -> None:
        text = b"\n".join(self._job)
        self._job, self._job_bytes = [], 0
        job = _load(text, f"{self._command}.jobs[]")
        if not isinstance(job, dict):
            raise UnexpectedOutput(f"{self._command}.jobs[]", "expected an object")
        self._on_job(job)


def check_errors(document: Json, command: str) -> None:
    """Raise UnexpectedOutput when the document itself says that the query failed: 22.05 then still exits 0."""
    errors = get_list(document, "errors", command)
    if errors:
        raise UnexpectedOutput(f"{command}.errors", str(errors)[:200])


def split_document(text: bytes, command: str) -> list[Json]:
    """The jobs of a whole document."""
    jobs: list[Json] = []
    splitter = JobSplitter(command, jobs.append)
    splitter.feed(text)
    splitter.finish()
    return jobs


def _load(text: bytes, where: str) -> Any:
    try:
        return json.loads(text.decode("utf-8", errors="replace"))
    except ValueError as error:
        raise UnexpectedOutput(where, f"no JSON ({error}); the output may be cut") from error
