"""Writes every line that this program prints or logs: one line, printable, with its priority if the journal reads it.

A line may contain texts from outside (a job's name, a destination's response, a file's name). These must not forge a
line, send commands to a terminal, or turn the reading direction. Hooks use this module, so it loads little.
"""

from __future__ import annotations

import os
import sys

from cc_slurm_adapter.errors import OutputError

MAX_LOGGED = 8000
"""The most characters of a line on standard error. The journal cuts lines at 48 KiB, which makes new lines."""
CRITICAL, ERROR, WARNING, NOTICE, INFO, DEBUG = 2, 3, 4, 5, 6, 7
"""Priorities of syslog, as sd-daemon(3) expects them at the beginning of a line."""


def printable(text: str) -> str:
    """Return the text in one line, with each character that is not printable replaced by its Python escape.

    Those are control characters (C0 and C1), line and paragraph separators, direction marks and other format
    characters, lone surrogates, and what Unicode has not assigned or leaves for private use.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def print_line(text: str) -> None:
    """Write a line to standard output. It is not an error if its reader ends early, as `head` does.

    Raises OutputError.
    """
    try:
        sys.stdout.write(f"{printable(text)}\n")
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())  # for what is in the buffer
        if not isinstance(error, BrokenPipeError):
            raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def log_line(text: str, priority: int) -> None:
    """Write a line to standard error, with the priority if that is the journal. If that fails, the line is lost."""
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
    """Return whether standard error is the journal, judging by the environment that systemd gives to what it starts."""
    return "JOURNAL_STREAM" in os.environ and not (sys.stderr is None or sys.stderr.closed or sys.stderr.isatty())
