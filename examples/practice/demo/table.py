"""Shows the demo: a table that is redrawn in place, or plain lines where there is no terminal."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple, Protocol, TextIO

from examples.practice.cc_backend import JobRow

UP, AWAY = "up", "AWAY"
BOLD, RED, GREEN, PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[0m"
HIDE_CURSOR, SHOW_CURSOR, CLEAR_LINE, CLEAR_BELOW = "\x1b[?25l", "\x1b[?25h", "\x1b[2K", "\x1b[J"

COLUMNS = (
    ("JOB", 7),
    ("USER", 8),
    ("NAME", 16),
    ("SLURM", 13),
    ("START SENT", 10),
    ("STOP SENT", 10),
    ("THREADS/GPUS", 12),
)
HEADER_LINES = 6
FLEXIBLE = 2
"""The column that gets the room of a wide terminal."""


class JobLine(NamedTuple):
    """One job as it stands. What is not known yet is ''."""

    job_id: int
    user: str
    name: str
    state: str
    start_sent: str
    stop_sent: str
    holds: str
    """Hardware threads and GPUs."""


class Picture(NamedTuple):
    """All that is shown at one moment."""

    title: str
    seconds: float
    """Since the demo began."""
    activity: str
    """What is going on, or waited for."""
    progress: str
    """How far that has come."""
    running: int
    pending: int
    over: int
    starts: int
    stops: int
    waiting: int
    """Messages in the outbox."""
    backend: str
    """UP or AWAY."""
    jobs: Sequence[JobLine]
    """The newest last."""


class Display(Protocol):
    """Something that shows pictures."""

    def show(self, picture: Picture) -> None: ...

    def close(self) -> None:
        """Leave the terminal in order."""


def holds(row: JobRow) -> str:
    """How many hardware threads and GPUs a row names, as 16/2."""
    resources = row.start["resources"]
    threads = sum(len(resource.get("hwthreads") or ()) for resource in resources)
    gpus = sum(len(resource.get("accelerators") or ()) for resource in resources)
    return f"{threads}/{gpus}"


def make_display(stream: TextIO) -> Display:
    """A live table on a terminal, plain lines otherwise."""
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveTable(stream, colours="NO_COLOR" not in os.environ)
    return PlainLines(stream)


class LiveTable:
    """Redraws in place with ANSI sequences."""

    def __init__(self, stream: TextIO, *, colours: bool = True) -> None:
        self._stream = stream
        self._colours = colours
        self._drawn = 0
        self._size = os.terminal_size((0, 0))

    def show(self, picture: Picture) -> None:
        size = shutil.get_terminal_size((80, 24))
        lines = draw(picture, size.columns, size.lines)
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        if self._drawn and size != self._size:
            up = "\x1b[H"  # the terminal has moved the old lines about
        self._size, self._drawn = size, len(lines)
        body = "".join(f"{CLEAR_LINE}{self._colour(line, number, picture)}\n" for number, line in enumerate(lines))
        self._write(f"{HIDE_CURSOR}{up}\r{body}{CLEAR_BELOW}")

    def close(self) -> None:
        self._write(SHOW_CURSOR)

    def _colour(self, line: str, number: int, picture: Picture) -> str:
        if not self._colours:
            return line
        if number in (0, HEADER_LINES - 1):
            return f"{BOLD}{line}{PLAIN}"
        colour = GREEN if picture.backend == UP else RED
        mark = f"cc-backend: {picture.backend}"
        return line.replace(mark, f"{colour}{mark}{PLAIN}") if number < HEADER_LINES else line

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def draw(picture: Picture, width: int, height: int) -> list[str]:
    """The picture as lines that fit a terminal; the last line of the terminal stays free."""
    waiting = f"waiting in the outbox: {picture.waiting}"
    lines = [
        _ends(picture.title, f"{picture.seconds:.0f} s", width),
        f"Slurm: {picture.pending} pending, {picture.running} running, {picture.over} over",
        f"cc-backend: {picture.backend}   sent: {picture.starts} starts, {picture.stops} stops   {waiting}",
        f"now: {picture.activity}{' ' if picture.progress else ''}{picture.progress}",
        "",
        _row([name for name, _ in COLUMNS], width),
    ]
    room = max(height - 1 - len(lines), 0)
    chosen = choose(picture.jobs, room)
    lines += [_row(_cells(job), width) for job in chosen]
    return [fit(line, width - 1).rstrip() for line in lines][: max(height - 1, 1)]


def choose(jobs: Sequence[JobLine], room: int) -> list[JobLine]:
    """As many jobs as there is room for, in their order: the newest, and a third of the room for finished ones."""
    finished = [job for job in jobs if job.stop_sent]
    unfinished = [job for job in jobs if not job.stop_sent]
    for_finished = min(len(finished), max(room // 3, room - len(unfinished)))
    kept = {*newest(finished, for_finished), *newest(unfinished, room - for_finished)}
    return [job for job in jobs if job in kept]


def newest(jobs: Sequence[JobLine], count: int) -> Sequence[JobLine]:
    """The last ones."""
    return jobs[max(len(jobs) - count, 0) :]


def _cells(job: JobLine) -> list[str]:
    return [str(job.job_id), job.user, job.name, job.state, job.start_sent, job.stop_sent, job.holds]


def _row(cells: Sequence[str], width: int) -> str:
    widths = [width for _, width in COLUMNS]
    widths[FLEXIBLE] += max(width - 1 - sum(widths) - len(widths) + 1, -8)
    return " ".join(fit(cell, width) for cell, width in zip(cells, widths))


def _ends(left: str, right: str, width: int) -> str:
    room = max(width - 1 - len(right), 0)
    return fit(left, room) + right


def fit(text: str, width: int) -> str:
    """The text in so many columns of a terminal, cut or filled up; what a terminal would obey is '?'."""
    taken = ""
    used = 0
    for character in text:
        shown = character if character.isprintable() else "?"
        columns = _columns_of(shown)
        if used + columns > width:
            break
        taken += shown
        used += columns
    return taken + " " * (width - used)


def _columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


class PlainLines:
    """Prints a line for each thing that has changed since the last picture."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._jobs: dict[int, JobLine] = {}
        self._activity = ""
        self._backend = UP

    def show(self, picture: Picture) -> None:
        if picture.activity != self._activity:
            self._say(picture, picture.activity)
        if picture.backend != self._backend:
            self._say(picture, f"cc-backend is {picture.backend}, {picture.waiting} messages wait in the outbox")
        for job in picture.jobs:
            for text in job_news(self._jobs.get(job.job_id), job):
                self._say(picture, text)
        self._activity, self._backend = picture.activity, picture.backend
        self._jobs = {job.job_id: job for job in picture.jobs}

    def close(self) -> None:
        """There is nothing to be put in order."""

    def _say(self, picture: Picture, text: str) -> None:
        print(f"{picture.seconds:6.1f} s  {text}", file=self._stream, flush=True)


def job_news(before: JobLine | None, now: JobLine) -> list[str]:
    """What has happened to a job between two pictures, a line each."""
    name = f"job {now.job_id}"
    news = []
    if before is None:
        news.append(
            f"{name} ({fit(now.name, 40).rstrip() or 'its name is not asked for'}, of {now.user}) {_is(now.state)}"
        )
    elif before.state != now.state:
        news.append(f"{name} {_is(now.state)}")
    if now.start_sent and not (before and before.start_sent):
        news.append(f"{name}: start sent ({now.start_sent}), threads/GPUs {now.holds}")
    if now.stop_sent and not (before and before.stop_sent):
        news.append(f"{name}: stop sent ({now.stop_sent})")
    return news


def _is(state: str) -> str:
    return f"is {state}" if state else "is over, and forgotten by slurmctld"
