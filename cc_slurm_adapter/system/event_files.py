"""The names of files in the events folder: event files and the marker.

The marker's time limits how long hooks leave event files. Each hook call that needs Python loads this module, so it
imports nothing that is slow to load.
"""

from __future__ import annotations

import os
import re

_EVENT_LIKE = r"[0-9]{1,20}\.[a-z_]*\.[A-Za-z0-9_-]*\.[0-9]{1,19}"
CLUSTER = r"[A-Za-z0-9_-]{0,64}"
"""A cluster with any other name cannot be part of a file's name."""
_MARKER = r"\.[A-Za-z0-9_-]*\.open"


def nameable(cluster: str) -> str:
    """Return the cluster's name as a part of a file's name; '' if it cannot be one."""
    return cluster if re.fullmatch(CLUSTER, cluster) else ""


def looks_like_event(name: str) -> bool:
    """Return whether this can be an event file's name, even one of an impossible job (a hook called by hand)."""
    return re.fullmatch(_EVENT_LIKE, name) is not None


def marker_name(cluster: str) -> str:
    """Return the name of the marker: hooks of this cluster leave events until the time of that file.

    The daemon repeatedly sets it to some minutes from now. That limits how many events are left while no daemon runs.
    The shell part can only compare the times of two files. So the folder's own time stands for the present, because
    each event updates it.
    """
    return f".{nameable(cluster)}.open"


def is_marker_name(name: str) -> bool:
    """Return whether this is the name of a marker, of any cluster."""
    return re.fullmatch(_MARKER, name) is not None


def is_closed(folder: str, marker: str) -> bool:
    """Return whether hooks no longer leave events, because the marker's time has passed."""
    try:
        return os.stat(folder).st_mtime > os.stat(os.path.join(folder, marker)).st_mtime
    except OSError:
        return False
