"""Every line that this program prints or logs: one line, printable, and with its priority where the journal reads it.

Texts of others are in it (a job's name, a destination's response, a file's name): they must not forge a line, reach a
terminal's commands, or turn the direction in which it is read. Light, because hooks use it.
"""

from __future__ import annotations

import os
import sys

from cc_slurm_adapter.errors import OutputError

MAX_LOGGED = 8000
"""Characters of a line on standard error. The journal cuts lines at 48 KiB, and makes a new line of each remainder."""
CRITICAL, ERROR, WARNING, NOTICE, INFO, DEBUG = 2, 3, 4, 5, 6, 7
"""Priorities of syslog, as sd-daemon(3) has them at the beginning of a line."""


def printable(text: str) -> str:
    """Return the text in one line, with an escape as Python writes it for each character that is not to be seen.

    Those are control characters (C0 and C1), ends of lines and paragraphs, marks of direction and other formats, lone
    surrogates, and what Unicode has not assigned or leaves to others.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def print_line(text: str) -> None:
    """Write to standard output, whose reader may have enough before the end, as `head`. Raises OutputError."""
    try:
        sys.stdout.write(f"{printable(text)}\n")
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())  # for what is in the buffer
        if not isinstance(error, BrokenPipeError):
            raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def log_line(text: str, priority: int) -> None:
    """Write to standard error, with the priority where that is the journal. A line that cannot be written is lost."""
    stream = sys.stderr
    if stream is None:
        return
    line = printable(text)
    if len(line) > MAX_LOGGED:
        line = f"{line[:MAX_LOGGED]} ... ({len(line) - MAX_LOGGED} more characters)"
    try:  # not contextlib: hooks would have to load it
        stream.write(f"<{priority}>{line}\n" if goes_to_journal() else f"{line}\n")
        stream.flush()
    except (OSError, ValueError):
        pass


def goes_to_journal() -> bool:
    """Tell whether standard error is the journal, by the environment that systemd gives to what it starts."""
    return "JOURNAL_STREAM" in os.environ and not (sys.stderr is None or sys.stderr.closed or sys.stderr.isatty())
