"""A bar on a terminal, and elsewhere lines that come less and less often."""

from __future__ import annotations

import io
import sys

import pytest

from cc_slurm_adapter import lines
from cc_slurm_adapter.cli.progress import Bar, Shown, Waiting
from cc_slurm_adapter.lines import NOTICE, WARNING
from tests.fakes.clock import Clock


class Screen:
    """A bar whose clock is passed in, and what it has shown when."""

    def __init__(self, *, is_drawn: bool) -> None:
        self.clock = Clock()
        self.shown: list[tuple[float, str]] = []
        self.bar = Bar("sync", clock=self.clock, is_drawn=is_drawn, draw=self._note, say=self._say)
        self._began = self.clock.now

    def _note(self, text: str) -> None:
        self.shown.append((self.clock.now - self._began, text))

    def _say(self, text: str, priority: int) -> None:
        assert priority == (WARNING if "it waits" in text else NOTICE)
        self._note(text)

    def run(self, seconds: int, steps_a_second: int, total: int) -> None:
        """Work that is half an hour long, say, seen again and again."""
        for step in range(seconds * steps_a_second):
            self.clock.now = self._began + step / steps_a_second
            done = total * step / (seconds * steps_a_second)
            self.bar.show(Shown("hours", done / total, int(done), "runs"))


def test_a_bar_is_drawn_at_most_four_times_a_second() -> None:
    screen = Screen(is_drawn=True)
    screen.run(10, 20, 1000)
    times = [when for when, _ in screen.shown]
    assert min(after - before for before, after in zip(times, times[1:])) >= 0.25
    assert len(times) == 40


def test_a_bar_has_share_count_rate_and_the_time_left() -> None:
    screen = Screen(is_drawn=True)
    screen.run(100, 4, 100_000)
    texts = dict(screen.shown)
    assert texts[0] == "hours [....................] 0 % 0 runs"
    assert texts[25] == "hours [#####...............] 25 % 25,000 runs, 1,000/s, 1 min left"
    assert texts[75] == "hours [###############.....] 75 % 75,000 runs, 1,000/s, 25 s left"
    screen.bar.close()
    assert screen.shown[-1][1] == ""


def test_what_was_done_before_does_not_count_for_the_rate() -> None:
    screen = Screen(is_drawn=True)
    screen.bar.show(Shown("hours", 0.5, 5000, "runs"))
    screen.clock.now += 10
    screen.bar.show(Shown("hours", 0.6, 5100, "runs"))
    assert screen.shown[-1][1] == "hours [############........] 60 % 5,100 runs, 10/s, 40 s left"


def test_a_bar_fits_into_80_columns_whatever_it_says() -> None:
    screen = Screen(is_drawn=True)
    screen.bar.show(Shown("w" * 60, 7.0, 10**12, "runs"))
    screen.bar.show(Shown("other work", -1.0, 0, "runs"))
    assert all(len(text) < 80 for _, text in screen.shown)
    assert "[....................] 0 % 0 runs" in screen.shown[-1][1]


def test_lines_come_less_and_less_often() -> None:
    screen = Screen(is_drawn=False)
    screen.run(700, 1, 70_000)
    assert [when for when, _ in screen.shown] == [10, 30, 70, 150, 310, 630]
    assert screen.shown[0][1] == "cc-slurm-adapter: sync: hours: 1 %, 1,000 runs, 100/s, 11 min left"
    screen.bar.close()
    assert len(screen.shown) == 6


@pytest.mark.parametrize("is_drawn", [True, False])
def test_why_it_does_not_go_on_is_a_line_once(is_drawn: bool) -> None:
    screen = Screen(is_drawn=is_drawn)
    for note in ("", "it waits", "", "it waits", "it waits: longer"):
        screen.clock.now += 1
        screen.bar.show(Shown("hours", 0.5, 5, "runs", note))
    assert [text for _, text in screen.shown if "waits" in text] == [
        "cc-slurm-adapter: sync: it waits",
        "cc-slurm-adapter: sync: it waits: longer",
    ]


def test_work_with_the_name_of_the_command_is_named_once() -> None:
    screen = Screen(is_drawn=False)
    screen.bar.show(Shown("sync", 0.5, 5, "runs"))
    screen.clock.now += 10
    screen.bar.show(Shown("sync", 0.5, 5, "runs"))
    assert screen.shown[0][1] == "cc-slurm-adapter: sync: 50 %, 5 runs"


def test_short_work_prints_no_line() -> None:
    screen = Screen(is_drawn=False)
    screen.run(9, 10, 100)
    assert screen.shown == []


def test_a_line_of_the_log_leaves_the_bar_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    lines.draw_bar("hours [##] 10 %")
    lines.log_line("something else", NOTICE)
    lines.draw_bar("")
    lines.log_line("the last", NOTICE)
    erase = "\r\x1b[K"
    assert stream.getvalue() == (f"{erase}hours [##] 10 %{erase}something else\nhours [##] 10 %{erase}the last\n")


def test_what_is_waited_for_is_said_less_and_less_often_until_there_is_an_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    began = clock.now
    waiting = Waiting("-dry-run", clock)
    waiting.begin("slurmctld")
    said: list[tuple[int, str]] = []
    for second in range(31):
        clock.now = began + second
        waiting.still_waits()
        if second == 21:
            waiting.answered()
        said += [(second, line) for line in capsys.readouterr().err.splitlines()]
    text = "cc-slurm-adapter: -dry-run: slurmctld: waiting for {} s"
    assert said == [(5, text.format(5)), (10, text.format(10)), (20, text.format(20)), (26, text.format(5))]
