"""The status page: what it shows, that it needs nothing from anywhere, and that no text gets out of its place."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cc_slurm_adapter.daemon.history import DestinationPoint, Point, Points
from cc_slurm_adapter.daemon.markup import LONGEST_TEXT, WITHOUT_END
from cc_slurm_adapter.daemon.page_style import STYLE
from cc_slurm_adapter.daemon.report import (
    DestinationReport,
    StatusReport,
    from_json,
)
from cc_slurm_adapter.daemon.status_page import page
from cc_slurm_adapter.model import Finding, RunKey
from cc_slurm_adapter.outbox.report import Parked, QueueReport, SinkReport
from cc_slurm_adapter.system.backoff import StepReport
from tests.fakes.statuses import JUST_STARTED, REPORT

NOTHING: Points = (None,) * 60
NOW = REPORT.time
WELL = replace(
    REPORT,
    steps={"poll": StepReport("asking slurmctld for all jobs", NOW - 20, 0.4)},
    destinations=(
        DestinationReport(SinkReport("cc_rest", "cc-backend", NOW - 3), QueueReport("cc_rest", 2, 0, 0, NOW - 5)),
        DestinationReport(SinkReport("cc_nats", "NATS", NOW - 2), QueueReport("cc_nats")),
    ),
    parked=(),
    faults=(),
)


def hour(*sinks: str, delivered: int = 3) -> Points:
    return tuple(Point(tuple(DestinationPoint(sink, 4.0, 1, delivered) for sink in sinks), 2) for _ in range(60))


class PageParser(HTMLParser):
    """Reads a page, and fails where tags are not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.structure: list[tuple[str, tuple[str, ...]]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[tuple[str, str]] = []
        """The texts with their elements."""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.structure.append((tag, tuple(name for name, _ in attrs)))
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in WITHOUT_END
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.words.append((self.open[-1], data))

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(words for tag, words in self.words if tag != "style").split())

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


def read(report: StatusReport, points: Points = NOTHING) -> PageParser:
    return PageParser(page(report, points))


# --- what it shows


def test_what_is_wrong_comes_first_with_its_next_step() -> None:
    faults = (
        Finding(logging.ERROR, "cc-backend", "cc-backend cannot be reached", "start it", NOW - 1020),
        Finding(logging.WARNING, "hooks", "no hook is set", "set PrologSlurmctld"),
    )
    text = read(replace(REPORT, faults=faults)).text
    assert "2 faults" in text
    assert "All is well" not in text
    assert re.search(r"Error cc-backend · since \S+ \(17 min\) cc-backend cannot be reached Next step: +start it", text)
    assert re.search(r"Warning hooks no hook is set Next step: +set PrologSlurmctld", text)
    assert text.index("no hook is set") < text.index("hook events a minute")


def test_the_title_is_the_first_line_of_the_status() -> None:
    assert "<title>reports alex to cc-backend and NATS: 817 open runs, 2 pending; all is well</title>" in page(
        WELL, NOTHING
    )


def test_all_is_well() -> None:
    found = read(WELL, hour("cc_rest", "cc_nats"))
    assert "All is well Reports the jobs of alex to cc-backend and NATS, since " in found.text
    assert "What to look at" not in found.text
    assert "Refused messages" not in found.text
    assert found.text.count("Delivered in the last hour 180") == 2


@pytest.mark.parametrize(
    ("sink", "badge"),
    [
        (SinkReport("cc_rest", "cc-backend"), "no answer yet"),
        (SinkReport("cc_rest", "cc-backend", NOW - 3), "answers"),
        (
            SinkReport("cc_rest", "cc-backend", NOW - 90, NOW - 60, why="refused"),
            "cannot be reached For 1 min: refused",
        ),
        (
            SinkReport("cc_rest", "cc-backend", NOW - 90, NOW - 60, refuses_all=True, why="HTTP 401"),
            "refuses everything For 1 min: HTTP",
        ),
        (
            SinkReport("cc_rest", "cc-backend", NOW - 90, nodes_why="HTTP 404"),
            "does not take node states Node states: HTTP 404",
        ),
    ],
)
def test_the_state_of_a_destination(sink: SinkReport, badge: str) -> None:
    report = replace(WELL, destinations=(DestinationReport(sink, QueueReport("cc_rest", 7)),))
    assert f"cc-backend {badge}" in read(report).text


def test_each_destination_has_a_chart_of_its_own() -> None:
    found = read(WELL, hour("cc_rest", "cc_nats"))
    assert Counter(tag for tag, _ in found.structure)["svg"] == 2 * 2 + 1  # and one for the size of the state file
    assert "Lag of cc-backend in the last hour" in found.text
    assert "Deliveries to NATS a minute in the last hour" in found.text


def test_refused_messages_are_counted_by_kind_of_reason() -> None:
    key = RunKey("alex", 987654, 1)
    parked = (
        Parked("cc_rest", 3, key, "HTTP 400: no such cluster: one"),
        Parked("cc_rest", 8, key, 'HTTP 422: the job "ab" is wrong'),
        Parked("cc_rest", 40, key, "HTTP 400: no such cluster: two"),
    )
    text = read(replace(WELL, parked=parked)).text
    assert "HTTP 400: no such cluster cc-backend 43 HTTP 422 cc-backend 8" in text
    assert "987654" not in text


def test_a_step_that_fails_says_why_and_for_how_long() -> None:
    text = read(REPORT).text
    assert "reading accounting 2 h ago 2 s fails Fails for 2 h, 7 times in a row: sacct: Connection refused" in text
    assert "asking slurmctld for all jobs 10 s ago 0.4 s works" in text


def test_a_page_without_data_says_so() -> None:
    found = read(JUST_STARTED)
    assert "Starting waiting for slurmctld" in found.text
    assert "None is known yet." in found.text
    assert "Nothing was done yet" in found.text
    assert "open runs" not in found.text
    assert "Nothing was counted yet." in found.text


def test_a_destination_without_points_says_when_there_will_be_some() -> None:
    assert read(WELL).text.count("The chart of the last hour begins a minute after the start.") == 2


def test_large_numbers_have_commas() -> None:
    queue = QueueReport("cc_rest", 1234567, 12345)
    text = read(replace(WELL, destinations=(WELL.destinations[0]._replace(queue=queue),))).text
    assert "messages to send 1,234,567" in text
    assert "Refused 12,345" in text


def test_a_path_is_not_cut() -> None:
    """That of an hour with many digits is longer than a text may be."""
    points = tuple(Point((DestinationPoint("cc_rest", 1 / 3 + number, 1, 1),), 2) for number in range(60))
    paths = [value for value in read(WELL, points).values("d") if len(value) > LONGEST_TEXT]
    assert len(paths) == 2, "the line and what lies below it"
    assert [path for path in paths if re.search(r"[^MLVHZ0-9. ]|\.\.", path)] == []


def test_very_much_is_shortened() -> None:
    parked = tuple(Parked("cc_rest", 1, RunKey("alex", 1, 1), f"HTTP {number}") for number in range(400, 900))
    faults = tuple(Finding(logging.WARNING, "x", f"fault {number}") for number in range(500))
    text = page(replace(WELL, parked=parked, faults=faults), hour("cc_rest", "cc_nats"))
    assert len(text) < 200_000
    assert "480 more reasons" in text
    assert "And 450 more." in text


# --- what it never has

OUTSIDE = {"src", "href", "action", "data", "srcset", "poster", "background", "style", "xlink:href", "formaction"}


@pytest.mark.parametrize("report", [REPORT, WELL, JUST_STARTED])
def test_it_needs_nothing_from_anywhere(report: StatusReport) -> None:
    found = read(report, hour("cc_rest", "cc_nats"))
    assert not {tag for tag, _ in found.structure} & {"script", "link", "img", "iframe", "object", "form", "base", "a"}
    names = {name for _, attributes in found.structure for name in attributes}
    assert not names & OUTSIDE
    assert not {name for name in names if name.startswith("on")}
    assert not any("://" in value for _, _, value in found.attributes)
    assert [words for tag, words in found.words if tag == "style"] == [STYLE]


@pytest.mark.parametrize("report", [REPORT, WELL, JUST_STARTED])
def test_it_is_made_for_readers_of_all_kinds(report: StatusReport) -> None:
    text = page(report, hour("cc_rest", "cc_nats"))
    found = PageParser(text)
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    ids = found.values("id")
    assert len(ids) == len(set(ids))
    assert set(" ".join(found.values("aria-labelledby")).split()) <= set(ids)
    tags = Counter(tag for tag, _ in found.structure)
    assert (tags["h1"], tags["main"], tags["title"] >= 1) == (1, 1, True)
    assert len(found.values("scope")) == tags["th"]
    assert all("role" in attributes for tag, attributes in found.structure if tag == "svg")
    assert ("meta", "http-equiv", "refresh") in found.attributes


# --- hostile texts

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "]]></svg></style><script>",
    "</title><!-- ",
    "\x00\x1b[2J\x07\r\n\u2028",
    "\u202e\u2066\u200f",
    "&lt;b&gt; &#0;",
    "<" * 10_240,
    "\udfff\ud800",
)
texts = st.sampled_from(HOSTILE) | st.text(alphabet="<>&'\"]=/!- \\\x00\x1b\u202e\n{}abc", min_size=1, max_size=40)


def with_text(value: Any, text: str) -> Any:
    """The same as plain JSON, with this text wherever there is a text, and for the words of nodes too."""
    if isinstance(value, str):
        return text
    if isinstance(value, list):
        return [with_text(each, text) for each in value]
    if isinstance(value, dict):
        return {name: with_text(each, text) for name, each in value.items()}
    return value


def full_of(text: str) -> StatusReport:
    plain = with_text(json.loads(REPORT.as_json()), text)
    return replace(from_json(json.dumps(plain)), nodes={text: 3})


STRUCTURE = PageParser(page(full_of("x"), hour("x"))).structure


@settings(deadline=None)
@given(texts)
def test_a_hostile_text_in_every_field_stays_a_text(text: str) -> None:
    shown = page(full_of(text), hour(text))
    assert all(char.isprintable() or char == "\n" for char in shown)
    found = PageParser(shown)
    assert found.structure == STRUCTURE
    assert len(shown.encode()) < 300_000
    classes = {word for value in found.values("class") for word in value.split()}
    assert all(re.fullmatch("[a-z-]+", word) for word in classes)


SECRETS = ("alice", "protein_folding")


@pytest.mark.parametrize(
    "reason",
    [
        "HTTP 400: user alice may not run protein_folding",
        'HTTP 422: unknown field "protein_folding" of alice',
        "HTTP 500: \nalice",
        "the destination does not take \"alice\" and 'protein_folding'",
        'cut: "alice and protein_folding',
    ],
)
def test_no_name_of_a_user_or_a_job_is_on_it(reason: str) -> None:
    sink = SinkReport("cc_rest", "cc-backend", NOW, NOW - 5, refuses_all=True, why=reason, nodes_why=reason)
    report = replace(
        REPORT,
        program=REPORT.program._replace(phase=reason, user="alice"),
        steps={name: step._replace(failing_since=NOW - 9, why=reason) for name, step in REPORT.steps.items()},
        destinations=(DestinationReport(sink, QueueReport("cc_rest", 1, 1)),),
        parked=(Parked("cc_rest", 1, RunKey("alex", 1, 1), reason),),
        findings=(Finding(logging.WARNING, "x", reason),),
        faults=(Finding(logging.WARNING, "cc-backend", f"1 message is refused: {reason}", "act"),),
    )
    for each in (report, replace(report, program=REPORT.program)):
        shown = page(each, hour("cc_rest"))
        assert not [secret for secret in SECRETS if secret in shown]
