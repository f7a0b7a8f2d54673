"""A single round of the main loop: it ends when everything was done once and is delivered, and not before."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.daemon.main_loop import OF_A_ROUND, MainLoop
from cc_slurm_adapter.errors import CommandFailed
from cc_slurm_adapter.hooks.pending_events import PendingEvents
from cc_slurm_adapter.model import HookEvent, Phase
from tests.fakes.slurm_and_sinks import make_run
from tests.fakes.waiting import PATIENCE, comes
from tests.unit.daemon.test_main_loop import QUICK, Site


class Round(Site):
    """A main loop in a thread that does one round."""

    is_delivered = True

    def begin(self) -> None:
        """Begin the round, after what the test has prepared."""
        self.round = threading.Thread(target=self.loop.run_round, args=[lambda: self.is_delivered], daemon=True)
        self.round.start()

    def is_over(self) -> bool:
        return not self.round.is_alive()

    def close(self) -> None:
        self.loop.stop()
        self.round.join(PATIENCE)
        self.outbox.close()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Round]:
    monkeypatch.setattr(MainLoop, "run", lambda self: None)  # Site starts it, and here only the round is run
    round_ = Round(tmp_path, timing=QUICK)
    yield round_
    round_.close()


def test_a_round_reads_everything_once_and_ends(made: Round) -> None:
    now = int(time.time())
    made.slurm.put(make_run(1, start=now - 100))
    made.slurm.close(make_run(2, start=now - 200, phase=Phase.ENDED))
    made.begin()
    assert comes(made.is_over)
    assert made.owed() == {("start", 1), ("start", 2), ("stop", 2)}
    assert made.sender.told == 1
    assert made.loop.undone() == ()
    assert (made.last_run.read() or 0) >= now
    assert made.slurm.asked.count("list_jobs") == 1


FAILURES = {"poll": "list_jobs", "nodes": "node_states", "accounting": "ended_between"}


@pytest.mark.parametrize("step", OF_A_ROUND)
def test_what_fails_is_tried_again_and_the_round_is_not_over_before(made: Round, step: str) -> None:
    made.slurm.failing = {FAILURES[step]}
    made.begin()
    assert comes(lambda: made.slurm.asked.count(FAILURES[step]) > 2)
    assert not made.is_over()
    assert made.loop.undone() == (step,)
    made.slurm.failing = set()
    made.loop.activities.polls.next_due = 0.0  # the next one is a minute away
    assert comes(made.is_over)
    assert made.loop.undone() == ()


def test_it_waits_until_all_is_delivered_and_does_nothing_new_meanwhile(made: Round) -> None:
    made.is_delivered = False
    made.begin()
    assert comes(lambda: made.loop.undone() == ())
    asked, fed = len(made.slurm.asked), len(made.fed)
    made.loop.activities.polls.next_due = 0.0
    assert comes(lambda: len(made.fed) > fed + 2)
    assert not made.is_over()
    assert len(made.slurm.asked) == asked
    made.is_delivered = True
    assert comes(made.is_over)


def test_it_looks_up_the_jobs_of_hook_events_that_wait(made: Round) -> None:
    made.slurm.put(make_run(5))
    made.slurm.broken = {}
    made.inbox.put(HookEvent(5, "prolog_slurmctld", 0))
    made.begin()
    assert comes(made.is_over)
    assert ("start", 5) in made.owed()
    assert made.loop.activities.hooks.next_due() is None


def test_hook_events_without_end_do_not_keep_it_from_ending(made: Round, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PendingEvents, "next_due", lambda self: time.monotonic() + 60)
    began = time.monotonic()
    made.begin()
    assert comes(made.is_over)
    assert time.monotonic() - began >= 5


@pytest.mark.parametrize("prepare", [lambda made: None, lambda made: setattr(made, "is_delivered", False)])
def test_a_stop_ends_it_at_once(made: Round, prepare: Callable[[Round], None]) -> None:
    prepare(made)
    made.slurm.failure = None if made.is_delivered is False else CommandFailed("slurmctld is down")
    made.begin()
    assert comes(lambda: "list_jobs" in made.slurm.asked)
    made.loop.stop()
    assert comes(made.is_over)
