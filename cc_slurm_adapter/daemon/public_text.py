"""What may be shown to anyone who reaches the status page: no text that comes from a job.

A destination that refuses a message may quote it, with the names of its job and its user. Such a text is shown on the
control socket and in the log, but not where everybody on the network may read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from cc_slurm_adapter.daemon.report import StatusReport
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox.report import Parked, SinkReport

NO_RUN = RunKey("", 0, 0)
KNOWN_ANSWERS = (
    "no such cluster",
    "no subcluster found",
    "already assigned subcluster",
    "job without any resources/hosts",
    "should not be empty",
    "'numNodes', 'numAcc' or 'numHWThreads' invalid",
    "does not equal numNodes",
    "must be larger/equal than startTime",
    "invalid requested job state",
    "unknown field",
    "cannot unmarshal",
    "parsing request body failed",
    "CHECK constraint failed",
    "UNIQUE constraint failed",
    "insert into database failed",
    "database is locked",
    "no rows in result set",
    "token is malformed",
    "token is expired",
    "signature is invalid",
    "missing authentication",
    "no user for secured check",
    "the requested endpoint does not exist",
)
"""Words of cc-backend that contain nothing from a message. The first that an answer contains is shown."""
_ANSWER = re.compile(r"(HTTP \d{3})\b:?\s*(.*)", re.DOTALL)
"""The status of a response and what the destination wrote."""
_QUOTED = re.compile(
    r"""
    "(?:\\.|[^"\\])*(?:"|\\?$)             # "so"; without its end it was cut, and all the rest is quoted
    | `[^`]*(?:`|$)
    | (?<!\w)'(?:\\.|[^'\\])*'(?!\w)       # 'so', but not the end of a word: the daemon's
    | (?<!\w)'\S.*$
    """,
    re.VERBOSE | re.DOTALL,
)


def public(text: str) -> str:
    """Return a reason or a fault without what a destination wrote after its HTTP status, and without quoted parts.

    Of what it wrote, only well-known words remain.
    """
    answer = _ANSWER.search(text)
    if answer is None:
        return _unquoted(text)
    before, known = _unquoted(text[: answer.start()]), known_answer(answer[2])
    return f"{before}{answer[1]}: {known}" if known else f"{before}{answer[1]}"


def known_answer(words: str) -> str:
    """Return the first of KNOWN_ANSWERS that a destination's words contain, or ''."""
    return next((known for known in KNOWN_ANSWERS if known in words), "")


def _unquoted(text: str) -> str:
    return _QUOTED.sub("…", text)


def public_report(report: StatusReport) -> StatusReport:
    """Return a report whose reasons may be shown to anybody.

    Refused messages are counted by their reason again, without the job that was refused first. What there is to do is
    written by this program, so it stays as it is.
    """
    return replace(
        report,
        program=report.program._replace(phase=public(report.program.phase)),
        steps={name: step._replace(why=public(step.why)) for name, step in report.steps.items()},
        destinations=tuple(each._replace(sink=_public_sink(each.sink)) for each in report.destinations),
        parked=tuple(_public_parked(report.parked)),
        findings=(),
        faults=tuple(replace(fault, text=public(fault.text)) for fault in report.faults),
    )


def _public_sink(sink: SinkReport) -> SinkReport:
    return sink._replace(why=public(sink.why), nodes_why=public(sink.nodes_why))


def _public_parked(parked: Iterable[Parked]) -> list[Parked]:
    """Return one entry for each destination and reason, the reason with most messages first."""
    numbers: Counter[tuple[str, str]] = Counter()
    for each in parked:
        numbers[each.sink, public(each.reason)] += each.messages
    return [Parked(sink, number, NO_RUN, reason) for (sink, reason), number in numbers.most_common()]
