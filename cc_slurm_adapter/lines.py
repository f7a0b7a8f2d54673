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
    write_screen(f"{printable(text)}\n")


def write_screen(text: str) -> bool:
    """Write a text to standard output as it is. Return False if its reader has ended.

    The text may have lines and escape sequences of this program; what comes from outside must be made printable before.
    Raises OutputError.
    """
    if sys.stdout is None:  # the caller has closed it
        raise OutputError("standard output is closed: nothing can be printed")
    try:
        sys.stdout.write(_encodable(text))
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())  # for what is in the buffer
        if not isinstance(error, BrokenPipeError):
            raise OutputError(f"standard output cannot be written: {error.strerror}") from error
        return False
    return True


def is_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def terminal_size() -> tuple[int, int]:
    """Return the columns and rows of the terminal that standard output is; 0 and 0 if they are not known."""
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):  # AttributeError if the caller has closed it
        return 0, 0
    return size.columns, size.lines


def _encodable(text: str) -> str:
    """Return the text with escapes for the characters that standard output's encoding does not have."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def log_line(text: str, priority: int) -> None:
    """Write a line to standard error, with the priority if that is the journal. If that fails, the line is lost.

    A bar that was drawn stays below it.
    """
    line = printable(text)
    if len(line) > MAX_LOGGED:
        line = f"{line[:MAX_LOGGED]} ... ({len(line) - MAX_LOGGED} more characters)"
    line = f"<{priority}>{line}\n" if goes_to_journal() else f"{line}\n"
    _write_error(f"{ERASE_LINE}{line}{_bar[0]}" if _bar[0] else line)


ERASE_LINE = "\r\x1b[K"
"""Goes to the first column and erases what follows (ECMA-48: EL)."""
_bar = [""]
"""The bar that is drawn in the last line of standard error."""


def draw_bar(text: str) -> None:
    """Draw a bar in the last line of the terminal that standard error is, in the place of the last one; '' erases it.

    It must fit into a line.
    """
    _bar[0] = printable(text)
    _write_error(ERASE_LINE + _bar[0])


def draws_bars() -> bool:
    """Return whether standard error is a terminal."""
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


def _write_error(text: str) -> None:
    stream = sys.stderr
    if stream is None:
        return
    try:  # not contextlib: hooks would have to load it
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        pass


def output_priority(priority: int) -> str:
    """Return what a line on standard output begins with: its priority if that is the journal itself, else ''.

    systemd names the journal's stream by its device and inode, see systemd.exec(5).
    """
    named = os.environ.get("JOURNAL_STREAM", "")
    if not named:
        return ""
    try:
        status = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return ""
    return f"<{priority}>" if named == f"{status.st_dev}:{status.st_ino}" else ""


def goes_to_journal() -> bool:
    """Return whether standard error is the journal, judging by the environment that systemd gives to what it starts."""
    return "JOURNAL_STREAM" in os.environ and not (sys.stderr is None or sys.stderr.closed or sys.stderr.isatty())
