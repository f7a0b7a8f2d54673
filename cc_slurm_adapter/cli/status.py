"""`-status`: shows how the daemon is, on one screen, as JSON, or again and again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cc_slurm_adapter.cli.stopped import SERVICE, Stopped, lines_of, read_stopped
from cc_slurm_adapter.config.paths import Paths
from cc_slurm_adapter.daemon.report import RUNNING, StatusReport, from_json
from cc_slurm_adapter.daemon.screen_text import clipped, screen_size
from cc_slurm_adapter.daemon.status_text import Line, colored, screen
from cc_slurm_adapter.errors import ConfigError, NotAllowed, NotRunning, StateError
from cc_slurm_adapter.lines import is_terminal, print_line, write_screen
from cc_slurm_adapter.system.quantities import counted

WELL, FAULTS, NOT_RUNNING = 0, 1, 2
"""The exit codes of -status."""
REDRAW, PRINT_AGAIN = 2.0, 10.0
"""Seconds between two statuses of -watch, on a terminal and elsewhere."""
OK = 200
HOME, CLEAR, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[2J", "\x1b[2K", "\x1b[J"
"""What moves the cursor to the first row and column, and what erases (ECMA-48: CUP, ED, EL)."""

Ask = Callable[[], "tuple[int, bytes]"]
"""Asks the daemon for its status. Returns HTTP's status and body; raises NotRunning if nothing listens, and StateError
if the daemon does not answer."""


class Found(NamedTuple):
    """The status of a daemon, or what is known of one that does not answer."""

    status: StatusReport | Stopped
    json: str

    @property
    def code(self) -> int:
        """Return the exit code for it: who may not ask does not know whether the daemon runs.

        While the daemon starts, nothing is reported yet, so all is not well.
        """
        if isinstance(self.status, Stopped):
            return FAULTS if self.status.is_forbidden else NOT_RUNNING
        return FAULTS if self.status.faults or self.status.program.phase != RUNNING else WELL

    def require_config(self, path: str) -> None:
        """Raise ConfigError if it is of a daemon that reads another configuration, as that of another cluster."""
        if isinstance(self.status, StatusReport):
            own = self.status.program.config_path
            if os.path.realpath(own) != os.path.realpath(path):
                raise ConfigError([f"the daemon that answers there reads {own}: correct {path}, then ask again"])

    def lines(self, width: int) -> list[Line]:
        """Return it as lines of at most `width` columns."""
        if isinstance(self.status, Stopped):
            return list(lines_of(self.status, width))
        return screen(self.status, width)


def find_status(ask: Ask, paths: Paths, service: Callable[[], str] = lambda: SERVICE) -> Found:
    """Ask the daemon for its status, or read its files if it does not answer.

    `service` returns its unit, as systemctl takes it. It is called only if the daemon does not answer.
    """
    try:
        status, body = ask()
        if status != OK:
            raise StateError(f"it answers with HTTP {status}: {clipped(body.decode(errors='replace'))}")
        report = from_json(body.decode(errors="replace"))
        return Found(report, report.as_json())
    except StateError as error:
        is_gone, is_forbidden = isinstance(error, NotRunning), isinstance(error, NotAllowed)
        stopped = read_stopped(paths, str(error), is_gone=is_gone, is_forbidden=is_forbidden, service=service())
    except ValueError as error:
        stopped = read_stopped(paths, f"{error}; if it was updated: restart it", is_gone=False, service=service())
    return Found(stopped, stopped.as_json())


def print_status(find: Callable[[], Found], *, as_json: bool = False) -> int:
    """Print the status once. Return the exit code."""
    try:
        found = find()
    except KeyboardInterrupt:
        return NOT_RUNNING
    if as_json:
        print_line(found.json)
    else:
        write_screen(_text(found.lines(screen_size()[0]), has_colors=is_terminal() and wants_colors(os.environ)))
    return found.code


def watch_status(
    find: Callable[[], Found], *, as_json: bool = False, wait: Callable[[float], None] = time.sleep
) -> int:
    """Show the status again and again until Ctrl-C or until nobody reads it. Return the exit code of the last one.

    On a terminal it is drawn in the same place. That needs no mode of the terminal, so nothing is left to be restored,
    however this process ends.
    """
    draw = _Screen().draw if is_terminal() and not as_json else None
    code = NOT_RUNNING
    try:
        while True:
            found = find()
            code = found.code
            if not (draw(found) if draw else write_screen(_block(found, as_json=as_json))):
                return code
            wait(REDRAW if draw else PRINT_AGAIN)
    except KeyboardInterrupt:
        if draw:
            write_screen("\n")
        return code


def _block(found: Found, *, as_json: bool) -> str:
    """Return a status for a reader that is no terminal: a line of JSON, or lines and an empty one."""
    return f"{found.json}\n" if as_json else f"{_text(found.lines(screen_size()[0]), has_colors=False)}\n"


class _Screen:
    """Draws one status over the one before."""

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None

    def draw(self, found: Found) -> bool:
        """Draw a status. Return False if nobody sees it.

        What was on the screen before is moved up, so that it can be scrolled back to.
        """
        size = screen_size()
        width, height = size
        begin = "" if self._size else "\n" * height
        begin += "" if size == self._size else HOME + CLEAR
        self._size = size
        note = Line(f"{time.strftime('%H:%M:%S')}, every {REDRAW:g} s; Ctrl-C ends"[:width])
        shown = [note, *found.lines(width)]
        if len(shown) >= height:
            more = len(shown) - height + 2
            shown = [*shown[: max(height - 2, 1)], Line(f"... {counted(more, 'more line')} in a larger window"[:width])]
        rows = _text(shown, has_colors=wants_colors(os.environ)).splitlines(keepends=True)
        return write_screen(f"{begin}{HOME}{''.join(CLEAR_LINE + row for row in rows)}{CLEAR_BELOW}")


def _text(lines: list[Line], *, has_colors: bool) -> str:
    return "".join(f"{colored(line) if has_colors else line.text}\n" for line in lines)


def wants_colors(environ: Mapping[str, str]) -> bool:
    """Return whether the user of a terminal wants colours (https://no-color.org)."""
    return not environ.get("NO_COLOR") and environ.get("TERM", "") not in ("", "dumb")
