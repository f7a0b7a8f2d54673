"""A node's state as cc-backend understands it.

Slurm gives a node one base state and any number of flags. cc-backend knows five states. It chooses one of those that it
is sent (allocated before reserved, idle, down, mixed) and ignores all other words. So exactly one of the five is sent:
with both idle and drain it would show a drained node as idle. A free node is idle if Slurm would give it a job, and
down if not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

log = logging.getLogger(__name__)

ALLOCATED, MIXED, IDLE, RESERVED, DOWN = CC_BACKEND_STATES = ("allocated", "mixed", "idle", "reserved", "down")

WITHOUT_JOBS = frozenset({"down", "error", "future", "unknown"})
"""Base states of nodes that get no jobs."""
UNAVAILABLE = frozenset(
    {
        *("drain", "fail", "invalid_reg", "reboot_issued"),
        # The node is being powered down. Once it is off, it can be given jobs again.
        *("power_down", "powering_down"),
    }
)
"""Flags that keep a free node out of slurmctld's avail_node_bitmap, whatever other flags it has."""
SILENT = "not_responding"
SILENT_BY_PLAN = frozenset({"powered_down", "powering_up"})
"""Slurm expects no response from a node that is off or booting, and still gives it jobs."""
RESTRICTED = frozenset({"blocked", "maintenance", "reserved"})
"""The node works, but not for everybody: it is reserved, or a job on neighbouring nodes has exclusive use of it
(blocked)."""
HARMLESS = frozenset(
    {
        *SILENT_BY_PLAN,
        *("cloud", "completing", "dynamic_future", "dynamic_norm", "external", "perfctrs", "planned"),
        *("power_up", "reboot_requested", "resume"),
    }
)
KNOWN = frozenset(CC_BACKEND_STATES) | WITHOUT_JOBS | UNAVAILABLE | RESTRICTED | HARMLESS | {SILENT}

_warned: set[str] = set()


def states_for_cc_backend(states: Iterable[str]) -> list[str]:
    """Return one of cc-backend's states, then Slurm's other words for the node, which cc-backend shows to people.

    A node with jobs is allocated or mixed, whatever its flags are: they count when the jobs are gone. An unknown word
    is logged once. An idle node that has one counts as down, because it may not be usable.
    """
    words = list(dict.fromkeys(word.lower() for word in states))
    return [_choose(frozenset(words)), *(word for word in words if word not in CC_BACKEND_STATES)]


def _choose(words: frozenset[str]) -> str:
    unknown = words - KNOWN
    _warn_once(unknown)
    for with_jobs in (ALLOCATED, MIXED):
        if with_jobs in words:
            return with_jobs
    if unknown or not _can_be_given_jobs(words):
        return DOWN
    return RESERVED if words & RESTRICTED else IDLE


def _can_be_given_jobs(words: frozenset[str]) -> bool:
    """Return whether slurmctld counts a free node with these words as available. All flags count together.

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
