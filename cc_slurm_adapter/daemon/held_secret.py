"""A secret from a file, which stays as it was last read while its destination waits for a restart.

The file may have the secret of the new address by then, which must not be sent to the old one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Generic, TypeVar

Secret = TypeVar("Secret")


class HeldSecret(Generic[Secret]):
    """Reads a secret each time, except while it is held. Any thread may call it; the main thread holds it."""

    def __init__(self, read: Callable[[], Secret], word: str) -> None:
        """`word` is what the keys of its destination begin with."""
        self._read = read
        self._word = word
        self._is_held = False
        self._last: Secret | None = None

    def __call__(self) -> Secret:
        """Return the secret. Raises what `read` raises."""
        last = self._last
        if self._is_held and last is not None:
            return last
        found = self._last = self._read()
        return found

    def hold(self, waiting: Collection[str]) -> bool:
        """Hold the secret if one of the keys that wait for a restart is about its destination, and return whether."""
        self._is_held = any(key.startswith(self._word) for key in waiting)
        return self._is_held
