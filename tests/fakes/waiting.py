"""Waits for what another thread brings about, as long as a busy machine may need for it."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 60.0


def comes(condition: Callable[[], bool]) -> bool:
    """Wait until something holds, PATIENCE seconds at most, and return whether it does."""
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()
