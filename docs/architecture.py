"""Draws docs/architecture.svg from the lists below: `python3 docs/architecture.py` writes it beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

WIDTH, HEIGHT = 166, 76
"""Of a box, in pixels, as all lengths here."""
ACROSS, DOWN = 246, 146
"""From one box to the next."""
MARGIN = 20
PICTURE = (5 * ACROSS + WIDTH + 2 * MARGIN, 2 * DOWN + HEIGHT + 2 * MARGIN)
OUTSIDE, ROOM, FILE = "outside", "room", "file"


class Box(NamedTuple):
    """A part, at a column and a row, with a line that says what it is and one that says which thread it runs in."""

    column: int
    row: int
    kind: str
    title: str
    what: str
    thread: str = ""

    @property
    def left(self) -> int:
        """Pixels from the left edge of the picture."""
        return MARGIN + self.column * ACROSS

    @property
    def top(self) -> int:
        """Pixels from the upper edge of the picture."""
        return MARGIN + self.row * DOWN


class Arrow(NamedTuple):
    """From one box to another in the same row or column, with what goes there; `back` also draws the other point."""

    start: str
    end: str
    label: str
    back: bool = False


BOXES = {
    "slurmctld": Box(0, 0, OUTSIDE, "slurmctld", "calls the hook"),
    "hooks": Box(1, 0, ROOM, "hooks/", "events folder, socket", "thread: intake"),
    "jobs": Box(2, 0, ROOM, "jobs/", "what began or ended?", "main thread"),
    "outbox": Box(3, 0, ROOM, "outbox/", "what is pending", "main thread, senders"),
    "sinks": Box(4, 0, ROOM, "sinks/", "REST and NATS", "threads of the senders"),
    "cc-backend": Box(5, 0, OUTSIDE, "cc-backend, NATS", "answer each message"),
    "timer": Box(1, 1, ROOM, "daemon/", "a poll each interval", "main thread"),
    "slurm": Box(2, 1, ROOM, "slurm/", "asks and reads", "main thread"),
    "state": Box(3, 1, FILE, "state.sqlite", "runs, messages, rows"),
    "admin": Box(0, 2, OUTSIDE, "administrator", "-status, page, Prometheus"),
    "status": Box(1, 2, ROOM, "daemon/", "says how all parts are", "thread: status"),
    "list": Box(5, 1, ROOM, "daemon/", "asks what runs there", "thread: running-list"),
    "commands": Box(2, 2, OUTSIDE, "Slurm's commands", "squeue sacct scontrol sinfo"),
}
ARROWS = [
    Arrow("slurmctld", "hooks", "job 4711"),
    Arrow("hooks", "jobs", "event"),
    Arrow("jobs", "outbox", "run, message"),
    Arrow("outbox", "sinks", "row"),
    Arrow("sinks", "cc-backend", "POST", back=True),
    Arrow("jobs", "slurm", "questions, runs", back=True),
    Arrow("slurm", "commands", "processes, JSON", back=True),
    Arrow("outbox", "state", "commit", back=True),
    Arrow("cc-backend", "list", "running jobs"),
    Arrow("admin", "status", "HTTP", back=True),
]
COMPARED = "compared with what is open"
STYLE = """\
text { font: 13px sans-serif; fill: #1c2733; text-anchor: middle }
.title { font-weight: bold; font-size: 14px }
.thread, .label { font-size: 11px; fill: #4a5a6a }
.room { fill: #e3eefb; stroke: #2f6db3 }
.outside { fill: #f3f3f3; stroke: #8a8a8a }
.file { fill: #fdf3d8; stroke: #b38a2f }
path { fill: none; stroke: #1c2733; stroke-width: 1.5 }
"""
HEAD = """\
<marker id="point" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse">
<polygon points="0,0 8,4 0,8" fill="#1c2733"/></marker>
"""


def draw() -> str:
    """The picture, the same for the same lists."""
    width, height = PICTURE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<style>\n{STYLE}</style>",
        f"<defs>\n{HEAD}</defs>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *(_draw_box(box) for box in BOXES.values()),
        *(_draw_arrow(arrow) for arrow in ARROWS),
        *_draw_elbows(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _text(x: int, y: int, text: str, name: str = "") -> str:
    attribute = f' class="{name}"' if name else ""
    return f'<text x="{x}" y="{y}"{attribute}>{text}</text>'


def _path(points: str, *, back: bool = False) -> str:
    start = ' marker-start="url(#point)"' if back else ""
    return f'<path d="{points}" marker-end="url(#point)"{start}/>'


def _draw_box(box: Box) -> str:
    middle = box.left + WIDTH // 2
    lines = [
        f'<rect x="{box.left}" y="{box.top}" width="{WIDTH}" height="{HEIGHT}" rx="6" class="{box.kind}"/>',
        _text(middle, box.top + 24, box.title, "title"),
        _text(middle, box.top + 44, box.what, "" if len(box.what) < 24 else "label"),
    ]
    if box.thread:
        lines.append(_text(middle, box.top + 63, box.thread, "thread"))
    return "\n".join(lines)


def _draw_arrow(arrow: Arrow) -> str:
    start, end = BOXES[arrow.start], BOXES[arrow.end]
    if start.row == end.row:
        y = start.top + HEIGHT // 2
        line = _path(f"M {start.left + WIDTH} {y} H {end.left}", back=arrow.back)
        return f"{line}\n{_text((start.left + WIDTH + end.left) // 2, y - 8, arrow.label, 'label')}"
    x, top = start.left + WIDTH // 2, start.top + HEIGHT
    line = _path(f"M {x} {top} V {end.top}", back=arrow.back)
    return f"{line}\n{_text(x + 52, (top + end.top) // 2 + 4, arrow.label, 'label')}"


def _draw_elbows() -> list[str]:
    """From the timer to the jobs, and from the list of running jobs below the state file back to them."""
    timer, jobs, listed = (BOXES[name] for name in ("timer", "jobs", "list"))
    y, middle = jobs.top + HEIGHT - 14, timer.top + HEIGHT // 2
    before, behind = jobs.left - 28, jobs.left + WIDTH + 36
    below, x = listed.top + HEIGHT + 30, listed.left + WIDTH // 2
    return [
        _path(f"M {timer.left + WIDTH} {middle} H {before} V {y} H {jobs.left}"),
        _path(f"M {x} {listed.top + HEIGHT} V {below} H {behind} V {y} H {jobs.left + WIDTH}"),
        _text((x + behind) // 2, below - 8, COMPARED, "label"),
    ]


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(), encoding="utf-8")
