"""The one word that cc-backend understands of a node's states.

Slurm gives a node one base state and any number of flags. cc-backend knows five words, chooses one
of those it is given (allocated before reserved, idle, down, mixed) and ignores all others. So it is
given exactly one: idle beside drain would show a drained node as idle. A free node is idle when Slurm
would give it a job, and down when it would not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

log = logging.getLogger(__name__)

ALLOCATED, MIXED, IDLE, RESERVED, DOWN = CC_BACKEND_WORDS = ("allocated", "mixed", "idle", "reserved", "down")

WITHOUT_JOBS = frozenset({"down", "error", "future", "unknown"})
"""Base states of nodes that get no jobs."""
UNAVAILABLE = frozenset(
    {
        *("drain", "fail", "invalid_reg", "reboot_issued"),
        # On its way to being off. Once it is off it can be given jobs again.
        *("power_down", "powering_down"),
    }
)
"""Flags that keep a free node out of slurmctld's avail_node_bitmap, whatever else is said of it."""
SILENT = "not_responding"
SILENT_BY_PLAN = frozenset({"powered_down", "powering_up"})
"""Slurm expects no answer of a node that is off or boots, and gives it jobs all the same."""
SET_ASIDE = frozenset({"blocked", "maintenance", "reserved"})
"""The node works, but not for everybody: it is in a reservation, or a job on its neighbours has it to itself."""
HARMLESS = frozenset(
    {
        *SILENT_BY_PLAN,
        *("cloud", "completing", "dynamic_future", "dynamic_norm", "external", "perfctrs", "planned"),
        *("power_up", "reboot_requested", "resume"),
    }
)
KNOWN = frozenset(CC_BACKEND_WORDS) | WITHOUT_JOBS | UNAVAILABLE | SET_ASIDE | HARMLESS | {SILENT}

_warned: set[str] = set()


def node_words(states: Iterable[str]) -> list[str]:
    """One of cc-backend's words, then what else Slurm says of the node, for people.

    A node with jobs is allocated or mixed whatever its flags say: they count once the jobs are gone.
    A word that nobody knows is logged once; an idle node with it is down, since it may not be usable.
    """
    words = list(dict.fromkeys(word.lower() for word in states))
    return [_choose(frozenset(words)), *(word for word in words if word not in CC_BACKEND_WORDS)]


def _choose(words: frozenset[str]) -> str:
    unknown = words - KNOWN
    _warn_once(unknown)
    for with_jobs in (ALLOCATED, MIXED):
        if with_jobs in words:
            return with_jobs
    if unknown or not _can_be_given_jobs(words):
        return DOWN
    return RESERVED if words & SET_ASIDE else IDLE


def _can_be_given_jobs(words: frozenset[str]) -> bool:
    """Whether slurmctld counts a free node with these words as available; the flags are judged together.

    Its rules are the same from 22.05 to 26.05 (avail_node_bitmap in node_mgr.c and power_save.c).
    """
    is_silent = SILENT in words and not words & SILENT_BY_PLAN
    return IDLE in words and not is_silent and not words & (WITHOUT_JOBS | UNAVAILABLE)


def _warn_once(unknown: frozenset[str]) -> None:
    for word in sorted(unknown - _warned):
        _warned.add(word)
        log.warning(
            "Slurm reports the node state %r, which this version does not know: free nodes with it are down", word
        )
