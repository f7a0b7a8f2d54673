"""Slurm's job states and what they mean for a run.

A job has one base state and any number of flags. JSON gives them as a list (a single string up to
23.02); text prints one of them alone, a flag before the base, so COMPLETING hides how the job ended.
The combinations that Slurm makes, with their source, are the table in `tests/unit/slurm/parse/test_states.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from cc_slurm_adapter.model import EndState, Phase

log = logging.getLogger(__name__)

ENDS = {
    "BOOT_FAIL": EndState.BOOT_FAIL,
    "CANCELLED": EndState.CANCELLED,
    "COMPLETED": EndState.COMPLETED,
    "DEADLINE": EndState.DEADLINE,
    "FAILED": EndState.FAILED,
    "NODE_FAIL": EndState.NODE_FAIL,
    "OUT_OF_MEMORY": EndState.OUT_OF_MEMORY,
    "PREEMPTED": EndState.PREEMPTED,
    "TIMEOUT": EndState.TIMEOUT,
}
FLAG_ENDS = {
    # Accounting closes a run with these when the job itself lives on: beside a base state they end nothing.
    "LAUNCH_FAILED": EndState.FAILED,
    "RECONFIG_FAIL": EndState.FAILED,
    "REQUEUED": EndState.CANCELLED,
    "REVOKED": EndState.CANCELLED,
    "SPECIAL_EXIT": EndState.FAILED,
}
WAITING = frozenset({"PENDING", "EXPEDITING", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD"})
CONFIGURING = frozenset({"CONFIGURING", "POWER_UP_NODE"})
_BASE_HOLDING = frozenset({"RUNNING", "SUSPENDED"})
HOLDING = _BASE_HOLDING | frozenset({"STOPPED", "SIGNALING", "RESIZING", "UPDATE_DB"})
CLEARING = frozenset({"COMPLETING", "STAGE_OUT"})
"""Flags of what goes on when a run is over: its nodes are cleaned, or its burst buffer is copied."""
_AMBIGUOUS = frozenset({"EXPEDITING", "REQUEUE_FED"})
"""Flags of jobs that wait, and for a moment of one that is over or runs."""

LISTED = "BF,CA,CD,CF,CG,DL,F,NF,OOM,PR,R,RS,S,SE,SI,SO,ST,TO"
"""What the short listing asks for: every state but those of jobs that wait here, or run in another cluster (REVOKED).

Known to 22.05 and later.
"""

CLOSED = "BF,CA,CD,DL,F,NF,OOM,PR,RQ,RS,RV,TO"
"""The states in which accounting closes a record: those of a run's end, and RESIZING."""

_warned: set[str] = set()


def read_states(words: Iterable[str]) -> tuple[Phase, EndState | None]:
    """Phase of a job with these state words, and how it ended if they say so.

    (ENDED, None) is a job of which only COMPLETING or STAGE_OUT is known. A word that nobody knows is
    logged once; alone it counts as a failed end, since a job that holds its nodes has a known one.
    """
    found = set(words)
    end_state = _end_state(found)
    if end_state:
        return Phase.ENDED, end_state
    if found & WAITING and not found & _BASE_HOLDING:
        return Phase.WAITING, None
    if found & CONFIGURING:
        return Phase.CONFIGURING, None
    if found & HOLDING:
        return Phase.RUNNING, None
    if found & CLEARING:
        return Phase.ENDED, None
    warn_once(" ".join(sorted(found)))
    return Phase.ENDED, EndState.FAILED


def _end_state(found: set[str]) -> EndState | None:
    tables = [ENDS] if found & (WAITING | _BASE_HOLDING) else [ENDS, FLAG_ENDS]
    return next((table[word] for table in tables for word in table if word in found), None)


def read_shown(word: str) -> tuple[Phase, EndState | None]:
    """The same for the single word that squeue's text shows, and its JSON up to 23.02: it may hide others.

    (ENDED, None) is what it does not tell: a flag behind which a job waits, holds its nodes or is over, or a
    word that is new here.
    """
    is_certain = any(word in table for table in (ENDS, WAITING, CONFIGURING, HOLDING)) and word not in _AMBIGUOUS
    return read_states([word]) if is_certain else (Phase.ENDED, None)


def warn_once(words: str) -> None:
    """Say once for each unknown word that it was taken as a failed end."""
    if words not in _warned:
        _warned.add(words)
        log.warning("Slurm reports the job state %r, which this version does not know: taken as failed", words)
