"""A program: the built file's daemon, which kills itself amid the change of its state file to the present format.

    python -I -S -B killed_migration.py ADAPTER WORDS -- ARGUMENT ...

It sends itself SIGKILL when SQLite begins with the statement that contains WORDS, or when a file is about to be linked,
or renamed, to a name that contains them.
"""

from __future__ import annotations

import functools
import os
import signal
import sqlite3
import sys
from typing import Any


def kill_at(words: str) -> None:
    """Only once the migration has begun, which is when the new file is made."""

    def look(statement: str) -> None:
        if words in statement:
            os.kill(os.getpid(), signal.SIGKILL)

    class Watched(sqlite3.Connection):
        def __init__(self, path: str, *arguments: Any, **options: Any) -> None:
            super().__init__(path, *arguments, **options)
            if path.endswith(".new"):
                self.set_trace_callback(look)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.link", "os.rename") and words in f"{event} {arguments[1]}":
            os.kill(os.getpid(), signal.SIGKILL)

    sqlite3.connect = functools.partial(sqlite3.connect, factory=Watched)  # type: ignore[assignment]
    sys.addaudithook(hook)


def main(arguments: list[str]) -> int:
    """Runs until it kills itself; what the daemon returns when that never comes."""
    adapter, words, _, *rest = arguments
    kill_at(words)
    sys.path.insert(0, f"{adapter}/site-packages")
    from cc_slurm_adapter.__main__ import main as run  # noqa: PLC0415 - only now is its folder known

    return run(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
