"""The one word that cc-backend understands of a node's states.

Slurm gives a node one base state and any number of flags. cc-backend knows five words, chooses one
of those it is given (allocated before reserved, idle, down, mixed) and ignores all others. So it is
given exactly one: idle beside drain would show a drained node as idle.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

log = logging.getLogger(__name__)

ALLOCATED, MIXED, IDLE, RESERVED, DOWN = CC_BACKEND_WORDS = ("allocated", "mixed", "idle", "reserved", "down")

UNUSABLE = frozenset(
    {
        # base states
        *("down", "error", "future", "unknown"),
        # Flags of nodes that get no jobs until somebody or something brings them back.
        *("drain", "fail", "invalid_reg", "not_responding", "reboot_issued"),
    }
)
SET_ASIDE = frozenset({"blocked", "maintenance", "reserved"})
"""The node works, but not for everybody: it is in a reservation, or a job on its neighbours has it to itself."""
HARMLESS = frozenset(
    {
        # A node that is off, or on its way there, can be given jobs: Slurm powers it up for them.
        *("power_down", "power_up", "powered_down", "powering_down", "powering_up"),
        *("cloud", "completing", "dynamic_future", "dynamic_norm", "external", "perfctrs", "planned"),
        *("reboot_requested", "resume"),
    }
)
KNOWN = frozenset(CC_BACKEND_WORDS) | UNUSABLE | SET_ASIDE | HARMLESS

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
    if IDLE not in words or unknown or words & UNUSABLE:
        return DOWN
    return RESERVED if words & SET_ASIDE else IDLE


def _warn_once(unknown: frozenset[str]) -> None:
    for word in sorted(unknown - _warned):
        _warned.add(word)
        log.warning(
            "Slurm reports the node state %r, which this version does not know: free nodes with it are down", word
        )
