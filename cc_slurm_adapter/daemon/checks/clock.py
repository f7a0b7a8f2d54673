"""cc-backend's clock beside this host's, by the header Date of a response.

Date has whole seconds, and the server read its clock at any moment between the request and the response. So what is
judged is the least difference that this leaves open.
"""

from __future__ import annotations

import logging

from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.sinks.clusters import ServerClock

NOT_SYNCHRONISED = 5.0
"""Seconds from which on nothing sets one of the clocks: NTP keeps them within a fraction of a second."""
WRONG_METRICS = 60.0
"""Seconds from which on jobs are shown with wrong metrics: cc-backend usually has a value a minute."""

_NEXT_STEP = "see timedatectl or chronyc tracking on both hosts"


def find_clock(clock: ServerClock | None) -> Finding:
    """Compare the clocks."""
    if clock is None:
        return Finding(logging.INFO, "clock", "cc-backend's clock cannot be seen: its response has no usable Date")
    least, most = clock.ahead
    if least <= 0 <= most:
        text = f"cc-backend's clock agrees with this host's, as far as its response shows (to {most - least:.1f} s)"
        return Finding(logging.INFO, "clock", text)
    seconds, where = (least, "ahead of") if least > 0 else (-most, "behind")
    text = f"cc-backend's clock is at least {seconds:.1f} s {where} this host's"
    if seconds < NOT_SYNCHRONISED:
        return Finding(logging.INFO, "clock", text)
    return Finding(logging.ERROR if seconds >= WRONG_METRICS else logging.WARNING, "clock", text, _NEXT_STEP)
