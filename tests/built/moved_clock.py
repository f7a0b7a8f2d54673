"""A program: runs the built file or a command of the practice cluster under a clock that is wrong.

    python -I -S -B moved_clock.py FILE PROGRAM ARGUMENT ...

FILE holds by how many seconds; it is read again at every look at the clock, so that the clock can be set while the
program runs. Monotonic time and the times of files stay true, as they do when an administrator sets a clock.
"""

from __future__ import annotations

import itertools
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path


class MovedClock:
    """The clock of all that runs with the same file."""

    def __init__(self, path: Path, true_time: Callable[[], float] = time.time) -> None:
        self._path = path
        self._true_time = true_time

    def now(self) -> float:
        """Unix seconds."""
        return self._true_time() + float(self._path.read_text(encoding="ascii"))

    def set_by(self, seconds: float) -> None:
        """Move it by so many seconds from where it stands."""
        new = self._path.with_name("new-offset")
        new.write_text(repr(self.now() - self._true_time() + seconds), encoding="ascii")
        new.replace(self._path)


def main(words: list[str]) -> None:
    """Becomes the program."""
    time.time = MovedClock(Path(words[0])).now
    sys.argv = words[1:]
    if Path(words[1]).suffix != ".py":
        sys.path[0] = words[1]  # where the archive looks for its parts
    runpy.run_path(words[1], run_name="__main__")


def without_options(words: list[str]) -> list[str]:
    """The cluster's scripts put an interpreter's options before the program."""
    file, *rest = words
    return [file, *itertools.dropwhile(lambda word: word.startswith("-"), rest)]


if __name__ == "__main__":
    main(without_options(sys.argv[1:]))
