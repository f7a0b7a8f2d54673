"""A program: the built file's daemon on a machine, or with a mistake, that nothing survives.

    python -I -S -B broken_daemon.py ADAPTER FAULT ARGUMENT ...

With the FAULT `accept` the thread that takes hook events ends with the first connection: nothing survives SystemExit,
so it stands for a mistake that nobody thought of. With `names` no name server answers.
"""

from __future__ import annotations

import socket
import sys
import time


class Broken(socket.socket):
    """A socket that takes no connection."""

    def accept(self) -> tuple[socket.socket, object]:
        raise SystemExit


def never(*_: object, **__: object) -> None:
    """No answer comes."""
    time.sleep(600)


def main(words: list[str]) -> int:
    """What the daemon returns."""
    adapter, fault, *rest = words
    sys.path.insert(0, f"{adapter}/site-packages")
    if fault == "accept":
        socket.socket = Broken  # type: ignore[misc]
    else:
        socket.getaddrinfo = never  # type: ignore[assignment]
    from cc_slurm_adapter.__main__ import main as run  # noqa: PLC0415 - only now is its folder known

    return run(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
