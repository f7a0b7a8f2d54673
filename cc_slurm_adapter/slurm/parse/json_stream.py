"""Splits a large JSON document of squeue or sacct into its jobs, one at a time.

Slurm prints its JSON indented, with newlines inside texts escaped. So a job is the lines from `    {` to `    }`. Each
job is parsed by itself. That keeps memory small (a document of 10,000 jobs is 80 to 300 MB), and one damaged job does
not affect others.

A single job of thousands of nodes can be even larger: its cores are listed node by node, from v0.0.41 on also the cores
that are not allocated to it. Each node of such a job is parsed by itself, and what is equal on several nodes is kept
once.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.slurm.parse.hostlist import MAX_HOSTS
from cc_slurm_adapter.slurm.parse.json_values import Json, get_list, get_object

LARGE_JOB_BYTES = 1024 * 1024
"""From this size on a job is parsed node by node. As a whole it needs five times as much memory as its text."""
MAX_JOB_BYTES = 64 * 1024 * 1024
"""Most bytes of a job that are kept in memory, without its nodes. 4,000 nodes of 128 cores are 110 MB in v0.0.42."""
MAX_KNOWN = 1000
"""Most different parts of nodes that are remembered. A core with its status is one. The nodes of a job are very
similar."""
NOTHING_FOUND = 9003
"""The error_number with which sacct of 22.05 says that no job fits. Later releases print an empty list."""
_JOB_ID = re.compile(rb'\n {6}"job_id": ([0-9]{1,10})\b')
_JOB_END, _LIST_END = b"\n    }", b"\n  ]"
"""No line inside a job begins like these."""
WINDOW = 2400
"""Bytes that are searched at once: in longer ones `bytes.find` is four times slower (Python 3.10 and later)."""
_NODES = re.compile(rb'\n( {8}(?="allocated_nodes")| {10}(?="allocation"))"[a-z_]+": \[(?=\n)')
"""Where the list of a job's nodes begins in `job_resources`: up to v0.0.40, and in its `nodes` from v0.0.41 on."""


class JobSplitter:
    """Reads a document in pieces and calls `on_job` for each job. `finish()` checks that it was complete.

    If a job is not JSON or too large, `on_broken` is called with its id (0 if unknown) and the reason.
    """

    def __init__(
        self, command: str, on_job: Callable[[Json], None], on_broken: Callable[[int, str], None] | None = None
    ) -> None:
        self._command = command
        self._on_job = on_job
        self._on_broken = on_broken or self._refuse
        self._frame: list[bytes] = []
        self._text = bytearray()
        """The text that is not parsed yet. It begins with a line of the frame, or with what follows a job."""
        self._searched = 0
        self._large: _LargeJob | None = None
        """The job whose nodes were removed from the text."""
        self._too_large: int | None = None
        """The id of the job that is being left out because it is too large."""
        self._inside = False

    def feed(self, piece: bytes) -> None:
        """Parse the next bytes of the document."""
        self._text += piece
        while self._pop_job() if self._inside else self._pop_line():
            pass

    def finish(self) -> None:
        """End the document. Raises UnexpectedOutput if it is incomplete, has no jobs or lists errors."""
        document = _load(b"\n".join([*self._frame, self._text]), self._command)
        if not isinstance(document, dict) or "jobs" not in document:
            raise UnexpectedOutput(self._command, "the document has no `jobs`")
        check_errors(document, self._command)
        for job in get_list(document, "jobs", self._command):
            self._on_job(job)  # a document that was not indented

    def _pop_line(self) -> bool:
        """Remove a line of the frame around the jobs from the text. Return False if there is no whole line."""
        line, newline, _ = bytes(self._text).partition(b"\n")
        if not newline:
            return False
        self._frame.append(line)
        self._inside = line.startswith(b'  "jobs": [') and not line.rstrip(b", ").endswith(b"]")
        del self._text[: len(line) + (not self._inside)]
        return True

    def _pop_job(self) -> bool:
        """Remove a job, or the end of the list of jobs, from the text. Return False if there is no whole one yet."""
        end = _find(self._text, _JOB_END, self._searched, len(self._text))
        list_end = _find(self._text, _LIST_END, self._searched, end if end >= 0 else len(self._text))
        if list_end >= 0:
            self._end_list(list_end)
            return True
        if end < 0:
            self._limit_text()
            return False
        text = bytes(self._text[: end + len(_JOB_END)])
        del self._text[: len(text)]
        self._searched = 0
        self._finish_job(text)
        return True

    def _end_list(self, at: int) -> None:
        left = self._with_head(bytes(self._text[:at]))
        del self._text[: at + 1]
        self._searched, self._inside, self._large = 0, False, None
        if left.strip(b",\n "):
            self._on_broken(_job_id(left), "it is cut")

    def _limit_text(self) -> None:
        """Remove the nodes of a large job from the text. Of a job that is too large keep only the id."""
        if len(self._text) > LARGE_JOB_BYTES and self._too_large is None:
            self._large = self._large or _LargeJob.begin(self._text)
            if self._large:
                self._text = bytearray(self._large.pop_nodes(self._text))
        if len(self._text) > MAX_JOB_BYTES:
            if self._too_large is None:
                self._too_large = _job_id(self._with_head(bytes(self._text)))
            del self._text[: -len(_JOB_END)]
        self._searched = max(len(self._text) - len(_JOB_END), 0)

    def _with_head(self, text: bytes) -> bytes:
        return self._large.head + text if self._large else text

    def _finish_job(self, text: bytes) -> None:
        large, self._large = self._large, None
        if large:
            text = large.head + large.pop_nodes(text)
        if self._too_large is not None or len(text) > MAX_JOB_BYTES:
            job_id, self._too_large = self._too_large or _job_id(text), None
            self._on_broken(job_id, f"it has more than {MAX_JOB_BYTES} bytes")
            return
        try:
            job = _load(text.lstrip(b",\n "), f"{self._command}.jobs[]")
            if large:
                large.put_nodes(job)
        except UnexpectedOutput as error:
            self._on_broken(_job_id(text), str(error))
            return
        if isinstance(job, dict):
            self._on_job(job)
        else:
            self._on_broken(_job_id(text), "it is not an object")

    def _refuse(self, job_id: int, reason: str) -> None:
        raise UnexpectedOutput(f"{self._command}.jobs[{job_id}]", reason)


class _LargeJob:
    """A job whose nodes were parsed one by one."""

    def __init__(self, head: bytes, indent: bytes) -> None:
        self.head = head
        """The text before the list of nodes."""
        self._end = b"\n" + indent + b"]"
        self._node_end = b"\n  " + indent + b"}"
        self._nodes: list[Json] = []
        self._problem: UnexpectedOutput | None = None
        self._known: dict[str, Json] = {}
        """Objects by their text."""

    @classmethod
    def begin(cls, text: bytearray) -> _LargeJob | None:
        """Cut off the text before the list of nodes and return the job; None if the list is not reached yet."""
        match = _NODES.search(text, 0, LARGE_JOB_BYTES)
        if match is None:
            return None
        head, indent = bytes(text[: match.end()]), match.group(1)
        del text[: match.end()]
        return cls(head, indent)

    def pop_nodes(self, text: bytes | bytearray) -> bytes:
        """Parse the complete nodes in a part of the job's text. Return the rest of the text."""
        done = 0
        while (end := text.find(self._node_end, done)) >= 0 and text.find(self._end, done, end) < 0:
            end += len(self._node_end)
            self._add(bytes(text[done:end]).lstrip(b",\n "))
            done = end
        return bytes(text[done:])

    def _add(self, node: bytes) -> None:
        if self._problem is not None:
            return
        try:
            self._nodes.append(_load(node, "job_resources.nodes[]", self._shared))
            if len(self._nodes) > MAX_HOSTS:
                raise UnexpectedOutput("job_resources.nodes", f"there are more than {MAX_HOSTS}")
        except UnexpectedOutput as error:
            self._problem = error

    def _shared(self, value: Json) -> Json:
        """Return an equal object that was parsed before: a core with its status, or the allocated cores of a socket."""
        if not all(_is_flat(each) for each in value.values()):
            return value
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        compact = {sys.intern(name): sys.intern(each) if type(each) is str else each for name, each in value.items()}
        return self._known.setdefault(repr(value), compact)

    def put_nodes(self, job: Any) -> None:
        """Put the nodes into the job that was parsed without them. Raises UnexpectedOutput."""
        if self._problem is not None:
            raise self._problem
        resources = get_object(job, "job_resources", "jobs[]") if isinstance(job, dict) else {}
        if "allocated_nodes" in resources:
            resources["allocated_nodes"] = self._nodes
        else:
            get_object(resources, "nodes", "jobs[].job_resources")["allocation"] = self._nodes


def _find(text: bytearray, wanted: bytes, begin: int, end: int) -> int:
    """Return where the wanted bytes are first found between two places; -1 if they are not."""
    for at in range(begin, end, WINDOW):
        found = text.find(wanted, at, min(at + WINDOW + len(wanted) - 1, end))
        if found >= 0:
            return found
    return -1


def _is_flat(value: object) -> bool:
    return not isinstance(value, (dict, list)) or (type(value) is list and all(type(each) is str for each in value))


def _job_id(text: bytes | bytearray) -> int:
    match = _JOB_ID.search(text)
    return int(match.group(1)) if match else 0


def check_errors(document: Json, command: str) -> None:
    """Raise UnexpectedOutput if the document says that the query failed: 22.05 exits with 0 even then."""
    listed = get_list(document, "errors", command) if "errors" in document else []
    errors = [each for each in listed if not (isinstance(each, dict) and each.get("error_number") == NOTHING_FOUND)]
    if errors:
        raise UnexpectedOutput(f"{command}.errors", str(errors)[:200])


def _load(text: bytes, where: str, object_hook: Callable[[Json], Json] | None = None) -> Any:
    try:
        return json.loads(text.decode("utf-8", errors="replace"), object_hook=object_hook)
    except (ValueError, RecursionError) as error:
        raise UnexpectedOutput(where, f"not JSON ({error}); the output may be cut") from error
