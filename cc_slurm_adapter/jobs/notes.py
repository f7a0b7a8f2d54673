"""What the state file keeps about exceptional runs, in a few words: why they are not reported, or only in part.

The note of a run is '' for nearly all runs, so the file does not grow because of them. `-job` shows the notes, and
recognizes them by the beginnings that are constants here.
"""

from __future__ import annotations

from collections.abc import Iterable

from cc_slurm_adapter.jobs.decisions import FORGOTTEN, LOST, Decision
from cc_slurm_adapter.model import End, Missing
from cc_slurm_adapter.outbox import dropped_runs

LEFT_OUT = "left out: "
"""Followed by the key of the configuration, or by what the administrator's comment has."""
INCOMPLETE = "without its "
IDLE = "launched nothing before its job went back to the queue"
REMAINDER = "a part of a run that was resized, which is reported as one run"
NEVER_RAN = "cancelled before it began"
STOPPED_THERE = "its stop was sent because cc-backend believed that it was still running"
LOST_BY_SLURM = "lost by Slurm: reported as failed, at the time when it was last seen"
FORGOTTEN_BY_SLURM = "forgotten by slurmctld: reported as failed, at the time when that was noticed"
TOO_LATE = "ended before it was seen"
NOT_SHOWN = "Slurm does not say which"


def note_of(decision: Decision) -> str:
    """Return the note for a run with this decision."""
    if decision.left_out:
        return LEFT_OUT + decision.left_out
    if decision.run.missing and decision.enqueue_start:
        why = TOO_LATE if decision.run.end else NOT_SHOWN
        return f"{INCOMPLETE}{list_of(decision.run.missing)}: {why}"
    return NEVER_RAN if decision.run.never_ran else ""


def is_dropped(note: str, sink: str) -> bool:
    """Return whether a note says that an administrator has dropped the run for a sink."""
    return dropped_runs.note_for(sink) in note


def note_of_end(end: End) -> str:
    """Return the note for a run whose end Slurm has not told."""
    return {LOST: LOST_BY_SLURM, FORGOTTEN: FORGOTTEN_BY_SLURM}.get(end.raw_state, "")


def list_of(missing: Iterable[Missing]) -> str:
    """Return what is missing, for people."""
    return " and ".join(sorted(each.value for each in missing))
