"""The resend that an administrator has asked for on the control socket, and what became of it.

One is done at a time, and it is one step: some hundred runs. Whoever wants more asks again with what comes next, as for
changes of the queue (see `outbox.admin`). So no request takes long, and what is kept here stays small.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cc_slurm_adapter.errors import UnderWay, UsageError
from cc_slurm_adapter.jobs.resend import Outcome
from cc_slurm_adapter.outbox.admin import LARGEST_ROW_ID, QueueAdmin
from cc_slurm_adapter.outbox.resends import Wanted
from cc_slurm_adapter.outbox.selection import parse_job, parse_number

NONE, UNDER_WAY, DONE, FAILED = "none", "under way", "done", "failed"
KEYS = ("job", "since", "after", "dry_run")
HOW = "give a job, or since as a Unix time, or both"
ONLY_REST = (
    "jobs are not reported over cc-backend's REST interface here, and over NATS nothing can be removed from cc-backend:"
    " nothing can be sent anew"
)
Answer = dict[str, Any]


class ResendRequest(NamedTuple):
    """What the main thread is to do."""

    id: int = 0
    wanted: Wanted = Wanted()
    after: tuple[int, int] = (0, 0)
    """The job id and start time of the last run of the step before."""
    uid: int | None = None

    @property
    def who(self) -> str:
        """Who wants what, for the log."""
        return str(self.wanted) if self.uid is None else f"uid {self.uid}: {self.wanted}"


class ResendReport(NamedTuple):
    """What became of a request."""

    id: int = 0
    state: str = NONE
    error: str = ""
    """Why it has failed. What had been done before that is among the outcomes."""
    outcomes: tuple[Outcome, ...] = ()
    next: tuple[int, int] | None = None
    """Where the next step goes on; None if there is nothing left."""


class ResendRequests:
    """The last request and its report. The server's thread makes requests, and the main thread ends them.

    The report is replaced as a whole, so no lock is needed.
    """

    def __init__(self, cluster: str, put: Callable[[ResendRequest], None], *, over_rest: bool) -> None:
        """`put` hands a request to the main thread. `over_rest` tells whether the leading sink removes runs."""
        self._cluster = cluster
        self._put = put
        self._over_rest = over_rest
        self._report = ResendReport()

    def answer(self, admin: QueueAdmin, words: Mapping[str, Any], uid: int | None) -> Answer:
        """Begin what the words ask for, and return its id. With `dry_run`, only count.

        Raises UsageError, StateError, and UnderWay if another one is not done yet.
        """
        wanted, after, dry_run = parse_wanted(words)
        if not self._over_rest:
            raise UsageError(ONLY_REST)
        if dry_run:
            runs, jobs = admin.count_runs(self._cluster, wanted)
            return {"runs": runs, "jobs": jobs}
        if self._report.state == UNDER_WAY:
            raise UnderWay("another resend is under way: ask again when GET /resend says that it is done")
        request = ResendRequest(max(time.time_ns() // 1_000_000, self._report.id + 1), wanted, after, uid)
        self._report = ResendReport(request.id, UNDER_WAY)
        self._put(request)
        return {"id": request.id}

    def ended(self, report: ResendReport) -> None:
        """Record what became of the request. The main thread calls it."""
        self._report = report

    def as_object(self) -> Answer:
        """Return what became of the last request."""
        report = self._report
        return {
            "id": report.id,
            "state": report.state,
            "failure": report.error,
            "runs": [outcome._asdict() for outcome in report.outcomes],
            "next": list(report.next) if report.next else None,
        }


def parse_wanted(words: Mapping[str, Any]) -> tuple[Wanted, tuple[int, int], bool]:
    """Return which runs are meant, where to go on, and whether to count only. Raises UsageError."""
    unknown = sorted(set(words) - set(KEYS))
    if unknown:
        raise UsageError(f"{unknown[0]!r:.50} is not understood: there are {', '.join(KEYS)}")
    wanted = Wanted(parse_job(words.get("job")) or 0, parse_number(words, "since", 0, LARGEST_ROW_ID))
    if wanted == Wanted():
        raise UsageError(f"nothing is selected: {HOW}")
    dry_run = words.get("dry_run", False)
    if not isinstance(dry_run, bool):
        raise UsageError("dry_run must be true or false")
    return wanted, _after(words.get("after")), dry_run


def _after(word: object) -> tuple[int, int]:
    if word is None:
        return (0, 0)
    if isinstance(word, list) and len(word) == 2 and all(_is_number(each) for each in word):
        return word[0], word[1]
    raise UsageError("after must be what `next` was in the answer before: a list of job id and start time")


def _is_number(word: object) -> bool:
    return isinstance(word, int) and not isinstance(word, bool) and abs(word) <= LARGEST_ROW_ID
