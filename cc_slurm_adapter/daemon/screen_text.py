"""Texts in lines of a terminal: made printable, cut to a length, broken between words. Nothing heavy is imported here.

Most texts come from Slurm, from a destination or from a job, and may contain anything.
"""

from __future__ import annotations

import os
import re

from cc_slurm_adapter.lines import printable, terminal_size

LONGEST = 400
"""The most characters of a text, unless another number is given: some lines of a screen."""
DEFAULT_WIDTH, DEFAULT_HEIGHT = 80, 24
"""Columns and rows where there is no terminal that tells its size."""
MOST_COLUMNS = 500
"""The most columns that are used: COLUMNS may be any number."""
_COMMANDS = (
    "run|cc-slurm-adapter(?= )|systemctl|journalctl|scontrol|sacctmgr|squeue|sinfo|sacct|sdiag|chmod|chown|chgrp|munge"
    "|chronyc|timedatectl|getent|nvidia-smi"
)
_UNBROKEN = rf"`[^`]*`\S*|'[^']*'\S*|\([^()]*\)\S*|(?:{_COMMANDS})\b[^;,:()<>]*[^;,:()<>\s]\S*|\S+"
"""A command, as far as it can be told from the words around it: quoted, in brackets, or from its name on. Or a word."""


def screen_size() -> tuple[int, int]:
    """Return the columns and rows of the terminal. The environment's COLUMNS counts more."""
    columns, rows = terminal_size()
    wanted = os.environ.get("COLUMNS", "")
    if wanted.isascii() and wanted.isdigit() and int(wanted[:9]):
        columns = int(wanted[:9])
    return min(columns or DEFAULT_WIDTH, MOST_COLUMNS), rows or DEFAULT_HEIGHT


def clipped(text: str, longest: int = LONGEST) -> str:
    """Return a text in one printable line of at most `longest` characters; what is cut is marked with dots."""
    line = printable(" ".join(text[: 2 * longest].split()))
    return line if len(line) <= longest and len(text) <= 2 * longest else f"{line[: longest - 4].rstrip()} ..."


def wrapped(text: str, width: int, indent: int = 0, *, to_paste: bool = False) -> list[str]:
    """Return a printable text in lines of at most `width` columns; those after the first are indented.

    It is broken between words, and within a word only if that is wider than a line. With `to_paste` what may be pasted
    stays whole: no word is ever broken, as it may be a path, and a command only if it is wider than a line.
    """
    found: list[str] = []
    line = ""
    for word in _unbroken(text, width - indent) if to_paste else printable(text).split():
        room = width - (indent if found else 0)
        if line and columns(line) + 1 + columns(word) > room:
            found.append(" " * (indent if found else 0) + line)
            line, room = "", width - indent
        line = f"{line} {word}" if line else word
        while columns(line) > room and not to_paste:
            part = _head(line, room)
            found.append(" " * (indent if found else 0) + part)
            line, room = line[len(part) :], width - indent
    if line:
        found.append(" " * (indent if found else 0) + line)
    return found


def _unbroken(text: str, width: int) -> list[str]:
    """Return the words of a text, with commands that fit into some columns in one piece each."""
    pieces = re.findall(_UNBROKEN, printable(text))
    return [word for piece in pieces for word in ([piece] if columns(piece) <= width else piece.split())]


def _head(word: str, width: int) -> str:
    """Return as much of a word as fits into some columns, one character at least."""
    used = 0
    for end, char in enumerate(word):
        used += columns(char)
        if used > width and end:
            return word[:end]
    return word


def columns(text: str) -> int:
    """Return how many columns of a terminal a printable text takes: Chinese characters take two, accents none."""
    if text.isascii():
        return len(text)
    import unicodedata  # noqa: PLC0415 - few statuses need it, and each call of -status would load it

    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.category(char) in ("Mn", "Me") for char in text)
