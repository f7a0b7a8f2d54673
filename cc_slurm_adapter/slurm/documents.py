"""Splitting a large JSON document of squeue or sacct into its jobs, one at a time.

Slurm prints its JSON indented, with newlines inside texts escaped, so a job is the lines from
`    {` to `    }`. Parsing each by itself keeps memory small (a document of 10,000 jobs is 80 to
300 MB) and lets one damaged job cost nobody else anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.slurm.json_values import Json, get_list

MAX_JOB_BYTES = 64 * 1024 * 1024
"""More than the largest job has: 4,000 full nodes of 128 cores take 16 MB in v0.0.40 and 110 MB in v0.0.42."""
_JOB_ID = re.compile(rb' {6}"job_id": ([0-9]{1,10})\b')


class JobSplitter:
    """Takes a document in pieces and hands each job to `on_job`; `finish()` checks that it was whole.

    A job that is no JSON or too large goes to `on_broken` with its id (0 if that is not known) and the reason.
    """

    def __init__(
        self, command: str, on_job: Callable[[Json], None], on_broken: Callable[[int, str], None] | None = None
    ) -> None:
        self._command = command
        self._on_job = on_job
        self._on_broken = on_broken or self._refuse
        self._rest = b""
        self._frame: list[bytes] = []
        self._job: list[bytes] = []
        self._job_bytes = 0
        self._job_id = 0
        self._inside = False

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the document."""
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
        match = _JOB_ID.match(line)
        if match:
            self._job_id = int(match.group(1))
        self._job_bytes += len(line)
        if line.startswith(b"    }"):
            self._job.append(b"}")
            self._finish_job()
        elif self._job_bytes <= MAX_JOB_BYTES:
            self._job.append(line)
        else:
            self._job.clear()

    def _finish_job(self) -> None:
        text, size, job_id = b"\n".join(self._job), self._job_bytes, self._job_id
        self._job, self._job_bytes, self._job_id = [], 0, 0
        if size > MAX_JOB_BYTES:
            self._on_broken(job_id, f"it has more than {MAX_JOB_BYTES} bytes")
            return
        try:
            job = _load(text, f"{self._command}.jobs[]")
        except UnexpectedOutput as error:
            self._on_broken(job_id, str(error))
            return
        if isinstance(job, dict):
            self._on_job(job)
        else:
            self._on_broken(job_id, "it is no object")

    def _refuse(self, job_id: int, reason: str) -> None:
        raise UnexpectedOutput(f"{self._command}.jobs[{job_id}]", reason)


def check_errors(document: Json, command: str) -> None:
    """Raise UnexpectedOutput when the document itself says that the query failed: 22.05 then still exits 0."""
    errors = get_list(document, "errors", command) if "errors" in document else []
    if errors:
        raise UnexpectedOutput(f"{command}.errors", str(errors)[:200])


def _load(text: bytes, where: str) -> Any:
    try:
        return json.loads(text.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError) as error:
        raise UnexpectedOutput(where, f"no JSON ({error}); the output may be cut") from error
