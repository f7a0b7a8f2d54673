"""The forms of what `-install` prints: comments, files that are written by the shell, and lines that it ignores."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple

END = "END"
DIFFERENT = (
    "is there and differs from that of this version. This shows how; docs/install.md, Without a package, replaces it"
)
PUBLIC = "-m 0644"
_PLAIN = re.compile(r"[\w@%+=:,./$-]+", re.ASCII)
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
"""What systemd reads otherwise between double quotes, see systemd.syntax(7)."""


class Item(NamedTuple):
    """A part of a step: how it is, what to know about it, and what to paste if it is missing."""

    step: int
    name: str
    state: str
    notes: Sequence[str] = ()
    commands: Sequence[str] = ()

    def lines(self) -> list[str]:
        """Return it as text."""
        return ["", *comments(f"{self.step}. {self.name}: {self.state}", *self.notes), *self.commands]


def comments(*texts: str) -> list[str]:
    """Return texts as lines that the shell ignores."""
    return [f"# {text}".rstrip() for text in texts]


def folder(path: str) -> str:
    """Return a command that makes a folder. One that is there, perhaps of a person, keeps its mode."""
    return f"[ -d {shlex.quote(path)} ] || install -d -m 0755 {shlex.quote(path)}"


def written(path: str, lines: Sequence[str], options: str) -> list[str]:
    """Return a command that writes a file, with the options for install(1)."""
    return [f"install {options} /dev/stdin {shlex.quote(path)} <<'{END}'", *lines, END]


def unless_there(path: str, command: str, *rest: str) -> list[str]:
    """Return a command with its input so that it does nothing if the file is there when it is pasted."""
    return [f"[ -e {shlex.quote(path)} ] || {command}", *rest]


def compared(path: str, lines: Sequence[str]) -> list[str]:
    """Return a command that shows how a file differs from these lines."""
    return [f"diff -u {shlex.quote(path)} - <<'{END}'", *lines, END]


def unless_runs(pid: int, command: str) -> str:
    """Return a command so that it does nothing while a process is there when it is pasted."""
    return f"[ -e /proc/{pid} ] || {command}"


def systemd_word(text: str, *, of_command: bool = False) -> str:
    """Return a text as systemd reads it as one word of a unit: its rules are not those of the shell.

    A percent sign begins a specifier everywhere, so it is doubled. A dollar sign begins a variable in a command
    (`of_command`, as in ExecStart=) and nowhere else.
    """
    doubled = text.replace("%", "%%")
    if of_command:
        doubled = doubled.replace("$", "$$")
    if _PLAIN.fullmatch(doubled):
        return doubled
    return '"' + "".join(_ESCAPES.get(char, char) for char in doubled) + '"'


def ignored(*lines: str) -> list[str]:
    """Return lines for a file that a person edits. The shell ignores them."""
    return [f": <<'{END}'", *lines, END]
