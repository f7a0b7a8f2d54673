"""Draws the last hour of a destination as inline SVG: its lag as a line, below it deliveries a minute as bars.

The drawing is stretched to the width that the page has, so it contains no text: labels are HTML beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from cc_slurm_adapter.daemon.history import MINUTES, DestinationPoint
from cc_slurm_adapter.daemon.markup import Markup, element, joined
from cc_slurm_adapter.system.quantities import counted, duration

SLOT = 10
"""Units of the drawing for a minute."""
WIDTH = MINUTES * SLOT
LINE_HEIGHT, BAR_HEIGHT = 100, 60
SHORTEST_BAR = 2.0
"""So that one delivery is visible beside thousands."""
LAG_SCALES = (10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400)
"""Seconds at the top of the chart: the first that is enough, or whole days."""
DAY = 86400

Minutes = Sequence[Optional[DestinationPoint]]
"""The oldest first; None for a gap."""


class _Panel(NamedTuple):
    """One of the two drawings."""

    name: str
    """Of its class in the style sheet, and part of its ids."""
    title: str
    description: str
    height: int
    caption: Markup
    top: str
    """The label at the top of its axis."""
    drawing: Markup


def draw(label: str, number: int, minutes: Minutes) -> Markup:
    """Return the charts of a destination with their axes. `number` tells it from others on the page."""
    known = [each for each in minutes if each is not None]
    panels = (_lag(label, minutes, known), _deliveries(label, minutes, known))
    figures = (_figure(panel, f"{panel.name}-{number}", minutes) for panel in panels)
    note = [element("p", "Nothing is known of the shaded minutes.", class_="note")] if len(known) < MINUTES else []
    return joined(*figures, _time_axis(), *note)


def _lag(label: str, minutes: Minutes, known: Sequence[DestinationPoint]) -> _Panel:
    longest = max((each.lag for each in known), default=0.0)
    scale = lag_scale(longest)
    runs = list(runs_of([None if each is None else _height(each.lag, scale, LINE_HEIGHT) for each in minutes]))
    return _Panel(
        "lag",
        f"Lag of {label} in the last hour",
        f"Age of the oldest message still to be sent: at most {duration(longest)}. {_completeness(known)}",
        LINE_HEIGHT,
        joined(element("strong", "Lag"), f" of the oldest message, at most {duration(longest)}"),
        duration(scale),
        joined(
            *(
                element("path", class_="area", d=joined(_line(run), f" V{LINE_HEIGHT} H{run.first * SLOT} Z"))
                for run in runs
            ),
            *(element("path", class_="line", d=_line(run)) for run in runs),
        ),
    )


def _deliveries(label: str, minutes: Minutes, known: Sequence[DestinationPoint]) -> _Panel:
    scale = count_scale(max((each.delivered for each in known), default=0))
    total = counted(sum(each.delivered for each in known), "message")
    return _Panel(
        "deliveries",
        f"Deliveries to {label} a minute in the last hour",
        f"{total} delivered. {_completeness(known)}",
        BAR_HEIGHT,
        joined(element("strong", "Deliveries"), f" a minute, {sum(each.delivered for each in known):,} in all"),
        f"{scale:,}",
        joined(*(_bar(slot, each.delivered, scale) for slot, each in enumerate(minutes) if each and each.delivered)),
    )


def _completeness(known: Sequence[DestinationPoint]) -> str:
    missing = MINUTES - len(known)
    return f"Nothing is known of {counted(missing, 'minute')}." if missing else "All 60 minutes are known."


def _figure(panel: _Panel, name: str, minutes: Minutes) -> Markup:
    """Return a drawing with its title, and the labels of its axis beside it."""
    svg = element(
        "svg",
        element("title", panel.title, id=f"{name}-title"),
        element("desc", panel.description, id=f"{name}-desc"),
        *(_gap(first, length, panel.height) for first, length in gaps_of(minutes)),
        *_guides(panel.height),
        panel.drawing,
        *(_hint(slot, each, panel.height) for slot, each in enumerate(minutes)),
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        viewBox=f"0 0 {WIDTH} {panel.height}",
        preserveAspectRatio="none",
    )
    axis = element("div", element("span", panel.top), element("span", "0"), class_="axis", aria_hidden="true")
    return element("div", element("p", panel.caption), axis, svg, class_=f"panel {panel.name}")


def _time_axis() -> Markup:
    labels = (element("span", each) for each in ("1 h ago", "45", "30", "15", "now"))
    return element("div", *labels, class_="time", aria_hidden="true")


class Run(NamedTuple):
    """Minutes that follow each other without a gap: the number of the first one, and the height of each."""

    first: int
    heights: list[float]


def runs_of(heights: Sequence[float | None]) -> Iterator[Run]:
    """Yield the parts between gaps."""
    run = Run(0, [])
    for slot, height in enumerate(heights):
        if height is None:
            if run.heights:
                yield run
            run = Run(slot + 1, [])
        else:
            run.heights.append(height)
    if run.heights:
        yield run


def gaps_of(minutes: Minutes) -> Iterator[tuple[int, int]]:
    """Yield the first minute and the length of each gap."""
    gaps = runs_of([0.0 if each is None else None for each in minutes])
    yield from ((gap.first, len(gap.heights)) for gap in gaps)


def lag_scale(longest: float) -> int:
    """Return the seconds at the top of a chart that shows a lag."""
    enough = (scale for scale in LAG_SCALES if longest <= scale)
    return next(enough, math.ceil(longest / DAY) * DAY)


def count_scale(most: int) -> int:
    """Return the number at the top of a chart of numbers: 10, 20, 50, 100, 200 and so on."""
    scale = 10
    while scale < most:
        scale = scale * 5 // 2 if str(scale).startswith("2") else scale * 2
    return scale


def _height(value: float, scale: float, height: int) -> float:
    """Return the coordinate of a value, which counts from the top."""
    return height - min(value / scale, 1.0) * height


def _line(run: Run) -> Markup:
    """Return a path from the beginning of the first minute through the middle of each to the end of the last.

    It has more characters than a text of the page may have.
    """
    middles = [f"{(run.first + index) * SLOT + SLOT // 2} {height:.4g}" for index, height in enumerate(run.heights)]
    end = (run.first + len(run.heights)) * SLOT
    return Markup(f"M{run.first * SLOT} {run.heights[0]:.4g} L{' L'.join(middles)} L{end} {run.heights[-1]:.4g}")


def _bar(slot: int, delivered: int, scale: int) -> Markup:
    height = max(BAR_HEIGHT - _height(delivered, scale, BAR_HEIGHT), SHORTEST_BAR)
    return element(
        "rect", class_="bar", x=slot * SLOT + 1, y=f"{BAR_HEIGHT - height:.4g}", width=SLOT - 2, height=f"{height:.4g}"
    )


def _gap(first: int, length: int, height: int) -> Markup:
    return element("rect", class_="gap", x=first * SLOT, y=0, width=length * SLOT, height=height)


def _guides(height: int) -> Iterator[Markup]:
    """Yield lines at each quarter of an hour, at half of the scale and at its top, and the line at 0."""
    for x in range(WIDTH // 4, WIDTH, WIDTH // 4):
        yield element("line", class_="guide", x1=x, x2=x, y1=0, y2=height)
    for y, name in ((0, "guide"), (height // 2, "guide"), (height, "base")):
        yield element("line", class_=name, x1=0, x2=WIDTH, y1=y, y2=y)


def _hint(slot: int, point: DestinationPoint | None, height: int) -> Markup:
    """Return what a pointer over a minute shows."""
    since = counted(MINUTES - slot, "minute") + " ago"
    shown = "nothing is known" if point is None else _description(point)
    place = {"x": slot * SLOT, "y": 0, "width": SLOT, "height": height}
    return element("g", element("title", f"{since}: {shown}"), element("rect", class_="hint", **place))


def _description(point: DestinationPoint) -> str:
    return f"lag {duration(point.lag)}, {point.pending} still to be sent, {point.delivered} delivered"
