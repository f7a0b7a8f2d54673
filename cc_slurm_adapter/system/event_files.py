"""The names of files in the events folder: event files, and one that says until when hooks may leave them.

Each hook call that needs Python loads this module, so it imports nothing that is slow to load.
"""

from __future__ import annotations

import os
import re

_EVENT_LIKE = r"[0-9]{1,20}\.[a-z_]*\.[A-Za-z0-9_-]*\.[0-9]{1,19}"
CLUSTER = r"[A-Za-z0-9_-]{0,64}"
"""A cluster whose name is otherwise cannot stand in a file's name."""
_MARKER = r"\.[A-Za-z0-9_-]*\.open"


def nameable(cluster: str) -> str:
    """The cluster's name as part of a file's name; '' where it cannot stand there."""
    return cluster if re.fullmatch(CLUSTER, cluster) else ""


def looks_like_event(name: str) -> bool:
    """Whether this can be the name of an event file, also of a job that there cannot be (a hook called by hand)."""
    return re.fullmatch(_EVENT_LIKE, name) is not None


def marker_name(cluster: str) -> str:
    """The file whose time says until when hooks of this cluster may leave events: it lies among them.

    Set to some minutes from now again and again, it bounds what is left while no daemon runs. The shell part can
    only compare the times of two files. So the folder stands for the present: each event moves its time.
    """
    return f".{nameable(cluster)}.open"


def is_marker_name(name: str) -> bool:
    """Whether this is the name of such a file, of whatever cluster."""
    return re.fullmatch(_MARKER, name) is not None


def is_closed(folder: str, marker: str) -> bool:
    """Whether hooks leave no events any more, because the time in the marker has passed."""
    try:
        return os.stat(folder).st_mtime > os.stat(os.path.join(folder, marker)).st_mtime
    except OSError:
        return False
