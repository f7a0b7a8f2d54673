"""The names of files in the events folder: event files and the marker.

The marker's time limits how long hooks leave event files. Each hook call that needs Python loads this module, so it
imports nothing that is slow to load.
"""

from __future__ import annotations

import os

LONGEST_WORD = 64
"""Most characters of a context or a cluster in an event file's name."""
DIGITS = "0123456789"
_SMALL = "abcdefghijklmnopqrstuvwxyz"
CONTEXT = _SMALL + "_"
"""What a context consists of."""
_CLUSTER = _SMALL + _SMALL.upper() + DIGITS + "_-"
_MARK = ".open"


def consists_of(text: str, characters: str) -> bool:
    """Return whether a text has no other characters. It may be empty."""
    return not text.strip(characters)


def nameable(cluster: str) -> str:
    """Return the cluster's name as a part of a file's name; '' if it cannot be one."""
    return cluster if len(cluster) <= LONGEST_WORD and consists_of(cluster, _CLUSTER) else ""


def split_event_name(name: str) -> tuple[str, str, str] | None:
    """Return job id, context and cluster of what can be an event file's name, None for any other name.

    The job may be an impossible one (a hook called by hand), and the words of any length.
    """
    parts = name.split(".")
    if len(parts) != 4:
        return None
    job_id, context, cluster, pid = parts
    if not (0 < len(job_id) <= 20 and 0 < len(pid) <= 19 and consists_of(job_id + pid, DIGITS)):
        return None
    return (job_id, context, cluster) if consists_of(context, CONTEXT) and consists_of(cluster, _CLUSTER) else None


def looks_like_event(name: str) -> bool:
    """Return whether this can be an event file's name, even one of an impossible job (a hook called by hand)."""
    return split_event_name(name) is not None


def marker_name(cluster: str) -> str:
    """Return the name of the marker: hooks of this cluster leave events until the time of that file.

    The daemon repeatedly sets it to some minutes from now. That limits how many events are left while no daemon runs.
    The shell part can only compare the times of two files. So the folder's own time stands for the present, because
    each event updates it.
    """
    return f".{nameable(cluster)}{_MARK}"


def is_marker_name(name: str) -> bool:
    """Return whether this is the name of a marker, of any cluster."""
    has_ends = len(name) > len(_MARK) and name.startswith(".") and name.endswith(_MARK)
    return has_ends and consists_of(name[1 : -len(_MARK)], _CLUSTER)


def is_closed(folder: str, marker: str) -> bool:
    """Return whether hooks no longer leave events, because the marker's time has passed."""
    try:
        return os.stat(folder).st_mtime > os.stat(os.path.join(folder, marker)).st_mtime
    except OSError:
        return False
