"""The lines of `-queue`: messages as a table of 100 columns, one job, and what was changed. All functions are pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cc_slurm_adapter.daemon.job_state import JobState
from cc_slurm_adapter.daemon.screen_text import clipped
from cc_slurm_adapter.outbox.job_rows import MessageRow, RunRow
from cc_slurm_adapter.system.quantities import at, counted, moment

COLUMNS = 100
HEADER = ("JOB", "BEGAN", "MESSAGE", "TO", "STATE", "SINCE", "NEXT TRY")
WIDTHS = (10, 16, 7, 10, 9, 16)
"""Of all columns but the last."""
MOST_CHARACTERS = 2000
"""Of a message that is shown: -json shows all of it."""

Answer = Mapping[str, Any]


def table_header() -> str:
    """Return the first line of the table."""
    return _table_line(HEADER)


def table_lines(rows: Sequence[MessageRow], now: float) -> Iterator[str]:
    """Return two lines for each row: the second one has the reason, if there is one."""
    has_several_clusters = len({row.cluster for row in rows}) > 1
    for row in rows:
        job = f"{row.job_id} {row.cluster}" if has_several_clusters else str(row.job_id)
        since = row.parked_since if row.state == "parked" else row.created
        began, since_then = moment(row.start_time, now), moment(since, now)
        yield _table_line((job, began, row.what, row.to, row.state, since_then, _next_text(row, now)))
        if row.reason:
            yield f"    {clipped(row.reason, COLUMNS - 4)}"


def _table_line(words: Sequence[str]) -> str:
    *first, last = words
    return "  ".join([*(word.ljust(width) for word, width in zip(first, WIDTHS)), last]).rstrip()


def _next_text(row: MessageRow, now: float) -> str:
    """Return when a row is sent: a time, or what it waits for."""
    return row.next if row.next_try is None or row.next_try <= now else moment(row.next_try, now)


def summary(shown: int, answer: Answer, selected: str) -> str:
    """Return the last line of the table: how many messages there are, and how to see more."""
    of = "" if selected == "all" else f" ({selected})"
    if not answer["messages"]:
        return f"no message waits{of}"
    found = f"{counted(answer['messages'], 'message')}{of}: {kinds(answer)}"
    if shown >= answer["messages"]:
        return found
    return f"{shown} of {found}; more with -limit {answer['messages']}, or select less"


def job_lines(state: JobState, now: float) -> Iterator[str]:
    """Return all that the state file knows about a job: each run, the latest first, and below it its messages."""
    runs = {(run.cluster, run.start_time): run for run in state.rows.runs}
    keys = {*runs, *((row.cluster, row.start_time) for row in state.rows.rows)}
    if not keys:
        yield f"nothing is known of job {state.job_id}: it was never seen, or it is over and all was delivered"
    for cluster, start_time in sorted(keys, key=lambda key: (-key[1], key[0])):
        began = f"{moment(start_time, now)} ({start_time})"
        status = _run_status(runs.get((cluster, start_time)), now)
        yield f"job {state.job_id} of {cluster}, run that began {began}: {status}"
        for row in state.rows.rows:
            if (row.cluster, row.start_time) == (cluster, start_time):
                yield from _message_lines(row, now)


def _run_status(run: RunRow | None, now: float) -> str:
    if run is None:
        return "forgotten, as it is over for long"
    on = f" on {run.hosts}" if run.hosts else ""
    note = f" ({run.note})" if run.note else ""
    return f"{run.stage}{on}{note}, since {at(run.changed, now)}"


def _message_lines(row: MessageRow, now: float) -> Iterator[str]:
    sent = f", first sent {at(row.first_sent, now)}" if row.first_sent else ", not sent yet"
    parked = f", parked {counted(row.parkings, 'time')} since {at(row.parked_since, now)}" if row.parkings else ""
    next_step = f", next try: {_next_text(row, now)}" if row.next else ""
    yield f"  {row.what} to {row.to}: {row.state}{sent}{parked}{next_step}"
    if row.reason:
        yield f"    reason: {row.reason}"
    texts = f", and {counted(row.text_bytes, 'byte')} of texts" if row.text_bytes else ""
    yield f"    message of {counted(row.message_bytes, 'byte')}{texts}{_shown_message(row.message)}"


def _shown_message(message: object) -> str:
    if message is None:
        return ""
    text = json.dumps(message, ensure_ascii=False)
    return f": {text}" if len(text) <= MOST_CHARACTERS else f": {text[:MOST_CHARACTERS]}... (-json shows all of it)"


def retried_lines(answer: Answer, *, runs: bool) -> Iterator[str]:
    """Return what becomes of messages that are due now. `runs` says whether a daemon runs, which sends them."""
    if not answer["messages"]:
        yield "no message that waits is selected: none is due now"
    elif runs:
        yield f"due now: {amount(answer)}; -queue list shows the answers"
        yield from _durability(answer)
    else:
        verb = "is" if answer["messages"] == 1 else "are"
        yield f"no daemon runs: {amount(answer)} {verb} sent when it starts (systemctl start cc-slurm-adapter)"


def dropped_lines(answer: Answer) -> Iterator[str]:
    """Return what was dropped."""
    if not answer["messages"]:
        yield "no message that waits is selected: none is dropped"
        return
    yield f"dropped: {amount(answer)}"
    if answer["restored"]:
        yield f"sent again: {counted(answer['restored'], 'earlier run')} of these jobs, which had made room for them"
    yield from _durability(answer)


def _durability(answer: Answer) -> Iterator[str]:
    if not answer.get("durable", True):
        yield "the daemon cannot write its state file now: if it crashes before it can, this is undone"


def question(answer: Answer) -> str:
    """Return what is asked before messages are dropped."""
    return f"drop {amount(answer)}: they are never reported, nor are stops of these runs that are still to come? [y/N]"


def amount(answer: Answer) -> str:
    """Return how many messages of how many runs were changed."""
    return f"{counted(answer['messages'], 'message')} of {counted(answer['runs'], 'run')} ({kinds(answer)})"


def kinds(answer: Answer) -> str:
    """Return how many of the messages are starts, stops and removals."""
    others = answer["messages"] - answer["starts"] - answer["stops"]
    found = [counted(answer["starts"], "start"), counted(answer["stops"], "stop")]
    return ", ".join([*found, *([counted(others, "removal")] if others else [])])
