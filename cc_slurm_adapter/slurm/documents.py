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
_JOB_ID = re.compile(rb'\n {6}"job_id": ([0-9]{1,10})\b')
_JOB_END, _LIST_END = b"\n    }", b"\n  ]"
"""What no line inside a job begins with."""


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
        self._frame: list[bytes] = []
        self._text = bytearray()
        """What was not taken yet: from the beginning of a line of the frame, or from what follows a job."""
        self._searched = 0
        self._too_large: int | None = None
        """The id of the job that is being left out."""
        self._inside = False

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the document."""
        self._text += piece
        while self._take_job() if self._inside else self._take_line():
            pass

    def finish(self) -> None:
        """Raises UnexpectedOutput when the document is not whole, has no jobs or names errors."""
        document = _load(b"\n".join([*self._frame, self._text]), self._command)
        if not isinstance(document, dict) or "jobs" not in document:
            raise UnexpectedOutput(self._command, "the document has no `jobs`")
        check_errors(document, self._command)
        for job in get_list(document, "jobs", self._command):
            self._on_job(job)  # a document that was not indented

    def _take_line(self) -> bool:
        """A line of what stands around the jobs. False when no whole one is left."""
        line, newline, _ = bytes(self._text).partition(b"\n")
        if not newline:
            return False
        self._frame.append(line)
        self._inside = line.startswith(b'  "jobs": [') and not line.rstrip(b", ").endswith(b"]")
        del self._text[: len(line) + (not self._inside)]
        return True

    def _take_job(self) -> bool:
        """A job, or the end of their list. False when there is no whole one yet."""
        end = self._text.find(_JOB_END, self._searched)
        list_end = self._text.find(_LIST_END, self._searched, end if end >= 0 else len(self._text))
        if list_end >= 0:
            self._end_list(list_end)
            return True
        if end < 0:
            self._limit()
            return False
        text = bytes(self._text[: end + len(_JOB_END)])
        del self._text[: len(text)]
        self._searched = 0
        self._finish_job(text)
        return True

    def _end_list(self, at: int) -> None:
        left = bytes(self._text[:at])
        del self._text[: at + 1]
        self._searched, self._inside = 0, False
        if left.strip(b",\n "):
            self._on_broken(_job_id(left), "it is cut")

    def _limit(self) -> None:
        """Of a job that is too large only its id is kept."""
        if len(self._text) > MAX_JOB_BYTES:
            if self._too_large is None:
                self._too_large = _job_id(self._text)
            del self._text[: -len(_JOB_END)]
        self._searched = max(len(self._text) - len(_JOB_END), 0)

    def _finish_job(self, text: bytes) -> None:
        if self._too_large is not None or len(text) > MAX_JOB_BYTES:
            job_id, self._too_large = self._too_large or _job_id(text), None
            self._on_broken(job_id, f"it has more than {MAX_JOB_BYTES} bytes")
            return
        try:
            job = _load(text.lstrip(b",\n "), f"{self._command}.jobs[]")
        except UnexpectedOutput as error:
            self._on_broken(_job_id(text), str(error))
            return
        if isinstance(job, dict):
            self._on_job(job)
        else:
            self._on_broken(_job_id(text), "it is no object")

    def _refuse(self, job_id: int, reason: str) -> None:
        raise UnexpectedOutput(f"{self._command}.jobs[{job_id}]", reason)


def _job_id(text: bytes | bytearray) -> int:
    match = _JOB_ID.search(text)
    return int(match.group(1)) if match else 0


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
