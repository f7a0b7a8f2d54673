"""Slurm's job states and what they mean for a run.

A job has one base state and any number of flags. JSON gives them as a list (a single string up to 23.02). Text prints
one of them alone, a flag before the base. So COMPLETING hides how the job ended. The table in
`tests/unit/slurm/parse/test_states.py` has the combinations that Slurm makes, with their source.
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
    # Accounting closes a run with these while the job itself goes on: beside a base state they end nothing.
    "LAUNCH_FAILED": EndState.FAILED,
    "RECONFIG_FAIL": EndState.FAILED,
    "REQUEUED": EndState.CANCELLED,
    "REVOKED": EndState.CANCELLED,
    "SPECIAL_EXIT": EndState.FAILED,
}
WAITING = frozenset({"PENDING", "EXPEDITING", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD"})
CONFIGURING = frozenset({"CONFIGURING", "POWER_UP_NODE"})
_BASE_RUNNING = frozenset({"RUNNING", "SUSPENDED"})
RUNNING = _BASE_RUNNING | frozenset({"STOPPED", "SIGNALING", "RESIZING", "UPDATE_DB"})
CLEARING = frozenset({"COMPLETING", "STAGE_OUT"})
"""Flags of what Slurm does after a run is over: it cleans the nodes, or copies the burst buffer."""
_AMBIGUOUS = frozenset({"EXPEDITING", "REQUEUE_FED"})
"""Flags of pending jobs. For a moment a job that is over or runs may have them, too."""

LISTED = "BF,CA,CD,CF,CG,DL,F,NF,OOM,PR,R,RS,S,SE,SI,SO,ST,TO"
"""The states in the short listing: all but those of jobs that are pending here, or run in another cluster (REVOKED).

22.05 and later know them.
"""

CLOSED = "BF,CA,CD,DL,F,NF,OOM,PR,RQ,RS,RV,TO"
"""The states in which accounting closes a record: those of a run's end, and RESIZING."""

_warned: set[str] = set()


def read_states(words: Iterable[str]) -> tuple[Phase, EndState | None]:
    """Return the phase of a job with these state words, and how it ended if it did.

    (ENDED, None) means that only COMPLETING or STAGE_OUT is known. An unknown word is logged once. Alone it counts as a
    failed end, because a job that has nodes has a known word.
    """
    found = set(words)
    end_state = _end_state(found)
    if end_state:
        return Phase.ENDED, end_state
    if found & WAITING and not found & _BASE_RUNNING:
        return Phase.WAITING, None
    if found & CONFIGURING:
        return Phase.CONFIGURING, None
    if found & RUNNING:
        return Phase.RUNNING, None
    if found & CLEARING:
        return Phase.ENDED, None
    warn_once(" ".join(sorted(found)))
    return Phase.ENDED, EndState.FAILED


def _end_state(found: set[str]) -> EndState | None:
    tables = [ENDS] if found & (WAITING | _BASE_RUNNING) else [ENDS, FLAG_ENDS]
    return next((table[word] for table in tables for word in table if word in found), None)


def read_shown(word: str) -> tuple[Phase, EndState | None]:
    """Return the phase and end of a job from a single word, as in squeue's text and, up to 23.02, in its JSON.

    The word may hide others. (ENDED, None) means that it does not tell: it is unknown, or a flag of jobs that are
    pending, have nodes or are over.
    """
    is_certain = any(word in table for table in (ENDS, WAITING, CONFIGURING, RUNNING)) and word not in _AMBIGUOUS
    return read_states([word]) if is_certain else (Phase.ENDED, None)


def warn_once(words: str) -> None:
    """Log once for each unknown word that it counts as a failed end."""
    if words not in _warned:
        _warned.add(words)
        log.warning("Slurm reports the job state %r, which this version does not know: taken as failed", words)
