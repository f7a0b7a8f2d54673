"""The names of files in the events folder: event files, and the marker whose time limits how long hooks leave them.

Each hook call that needs Python loads this module, so it imports nothing that is slow to load.
"""

from __future__ import annotations

import os
import re

_EVENT_LIKE = r"[0-9]{1,20}\.[a-z_]*\.[A-Za-z0-9_-]*\.[0-9]{1,19}"
CLUSTER = r"[A-Za-z0-9_-]{0,64}"
"""A cluster with any other name cannot be named in a file's name."""
_MARKER = r"\.[A-Za-z0-9_-]*\.open"


def nameable(cluster: str) -> str:
    """Return the cluster's name as part of a file's name; '' where it cannot be one."""
    return cluster if re.fullmatch(CLUSTER, cluster) else ""


def looks_like_event(name: str) -> bool:
    """Tell whether this can be the name of an event file, also of an impossible job (a hook called by hand)."""
    return re.fullmatch(_EVENT_LIKE, name) is not None


def marker_name(cluster: str) -> str:
    """Return the name of the marker: the file whose time is the moment until which hooks of this cluster leave events.

    The daemon sets it to some minutes from now again and again. That bounds how many events are left while no daemon
    runs. The shell part can only compare the times of two files. So the folder's own time stands for the present,
    because each event updates it.
    """
    return f".{nameable(cluster)}.open"


def is_marker_name(name: str) -> bool:
    """Tell whether this is the name of a marker, of any cluster."""
    return re.fullmatch(_MARKER, name) is not None


def is_closed(folder: str, marker: str) -> bool:
    """Tell whether hooks leave no events any more, because the marker's time has passed."""
    try:
        return os.stat(folder).st_mtime > os.stat(os.path.join(folder, marker)).st_mtime
    except OSError:
        return False
