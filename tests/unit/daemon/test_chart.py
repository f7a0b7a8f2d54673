"""The chart of an hour: what is where."""

from __future__ import annotations

import re

import pytest

from cc_slurm_adapter.daemon.chart import Run, count_scale, draw, gaps_of, lag_scale, runs_of
from cc_slurm_adapter.daemon.history import DestinationPoint
from tests.unit.daemon.test_markup import Parsed

QUIET = DestinationPoint("cc_rest", 0.0, 0, 0)


def hour(**minutes: DestinationPoint | None) -> list[DestinationPoint | None]:
    """60 quiet minutes but for these, by their number: `minute_3=...`."""
    points: list[DestinationPoint | None] = [QUIET] * 60
    for name, point in minutes.items():
        points[int(name.rpartition("_")[2])] = point
    return points


def drawn(points: list[DestinationPoint | None], tag: str, class_: str) -> list[dict[str, str | None]]:
    found = Parsed(draw("cc-backend", 0, points)).tags
    return [attributes for name, attributes in found if (name, attributes.get("class")) == (tag, class_)]


@pytest.mark.parametrize(
    ("lag", "scale"), [(0.0, 10), (10.0, 10), (10.1, 30), (59.0, 60), (61.0, 120), (86400.0, 86400), (86401.0, 172800)]
)
def test_the_scale_of_a_lag(lag: float, scale: int) -> None:
    assert lag_scale(lag) == scale


@pytest.mark.parametrize(
    ("most", "scale"), [(0, 10), (10, 10), (11, 20), (21, 50), (51, 100), (101, 200), (201, 500), (4000, 5000)]
)
def test_the_scale_of_a_number(most: int, scale: int) -> None:
    assert count_scale(most) == scale


def test_runs_are_what_lies_between_gaps() -> None:
    assert list(runs_of([None, 1.0, 2.0, None, None, 3.0])) == [Run(1, [1.0, 2.0]), Run(5, [3.0])]
    assert list(runs_of([1.0])) == [Run(0, [1.0])]
    assert list(runs_of([None, None])) == []


def test_gaps_are_what_lies_between_runs() -> None:
    assert list(gaps_of([None, QUIET, QUIET, None, None, QUIET, None])) == [(0, 1), (3, 2), (6, 1)]


def test_a_line_is_broken_where_nothing_is_known() -> None:
    end = [QUIET._replace(lag=30.0), None, QUIET._replace(lag=15.0)]
    points = [*[None] * 57, *end]
    lines = [line["d"] for line in drawn(points, "path", "line")]
    # The scale is 30 s in 100 units that count from the top, a minute has ten units.
    assert lines == ["M570 0 L575 0 L580 0", "M590 50 L595 50 L600 50"]
    gaps = [(gap["x"], gap["width"]) for gap in drawn(points, "rect", "gap")]
    assert gaps == [("0", "570"), ("580", "10")] * 2  # in both drawings


def test_a_bar_is_as_high_as_its_number() -> None:
    points = hour(minute_0=QUIET._replace(delivered=5), minute_59=QUIET._replace(delivered=10))
    # The scale is 10 in 60 units, and between two bars are two units.
    assert drawn(points, "rect", "bar") == [
        {"class": "bar", "x": "1", "y": "30", "width": "8", "height": "30"},
        {"class": "bar", "x": "591", "y": "0", "width": "8", "height": "60"},
    ]


def test_one_delivery_is_visible_beside_thousands() -> None:
    points = hour(minute_3=QUIET._replace(delivered=1), minute_4=QUIET._replace(delivered=5000))
    assert [bar["height"] for bar in drawn(points, "rect", "bar")] == ["2", "60"]


def test_a_drawing_is_described_in_words() -> None:
    points = hour(minute_9=DestinationPoint("cc_rest", 750.0, 31, 0), minute_10=None, minute_11=None)
    points[12] = QUIET._replace(delivered=41)
    text = Parsed(draw("cc-backend", 0, points)).text
    assert "Lag of cc-backend in the last hour" in text
    assert "Age of the oldest message still to be sent: at most 12 min. Nothing is known of 2 minutes." in text
    assert "41 messages delivered. Nothing is known of 2 minutes." in text
    assert "51 minutes ago: lag 12 min, 31 still to be sent, 0 delivered" in text
    assert "50 minutes ago: nothing is known" in text
    assert "Nothing is known of the shaded minutes." in text


def test_an_hour_without_gaps_says_nothing_of_them() -> None:
    text = Parsed(draw("NATS", 0, hour())).text
    assert "All 60 minutes are known." in text
    assert "shaded" not in text


def test_the_title_and_the_description_are_those_of_the_drawing() -> None:
    text = draw("cc-backend", 0, hour()) + draw("NATS", 1, hour())
    labels = re.findall(r'aria-labelledby="([^"]+)"', text)
    assert labels == [
        f"{name}-{number}-title {name}-{number}-desc" for number in (0, 1) for name in ("lag", "deliveries")
    ]
    ids = re.findall(r' id="([^"]+)"', text)
    assert sorted(ids) == sorted(" ".join(labels).split())
