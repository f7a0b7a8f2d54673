"""When Slurm is asked because of hook events, and for which jobs: decided by times that are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import pytest

from cc_slurm_adapter.hooks.pending_events import LONGEST_REPEAT, MAX_BATCH, MAX_WAITING, PendingEvents
from cc_slurm_adapter.model import HookEvent


class Lookup(NamedTuple):
    """A lookup: when it began and for which jobs."""

    began: float
    jobs: list[int]


class Controller:
    """Plays events against a queue on a clock of its own. A lookup takes `takes` seconds."""

    def __init__(self, hooks: PendingEvents, takes: float = 0.0) -> None:
        self.hooks = hooks
        self.takes = takes
        self.is_known: Callable[[HookEvent], bool] = lambda event: False
        self.is_settled: Callable[[HookEvent], bool] = lambda event: True
        self.fails = False
        self.lookups: list[Lookup] = []

    def play(self, events: Iterable[HookEvent], until: float = float("inf")) -> list[Lookup]:
        """What is asked if the events come when they say that they were received."""
        coming = sorted(events, key=lambda event: event.received)
        now = 0.0
        while True:
            moments = [event.received for event in coming[:1]]
            due = self.hooks.next_due()
            moments += [] if due is None else [due]
            now = max(now, min(moments, default=until))
            if now >= until or not moments:
                return self.lookups
            while coming and coming[0].received <= now:
                self.hooks.add(coming.pop(0), now)
            now = self._ask(now)

    def _ask(self, now: float) -> float:
        jobs = self.hooks.due(now, self.is_known)
        if not jobs:
            return now
        self.lookups.append(Lookup(now, jobs))
        end = now + self.takes
        if self.fails:
            self.hooks.failed(jobs, now, end)
        else:
            self.hooks.looked_up(jobs, now, end, self.is_settled, set(jobs))
        return end

    def shares(self) -> list[float]:
        """Of each lookup and the rest after it, the part that is the lookup."""
        return [self.takes / (after.began - lookup.began) for lookup, after in zip(self.lookups, self.lookups[1:])]


def prolog(job_id: int = 1, at: float = 0.0, by: str = "slurmctld") -> HookEvent:
    return HookEvent(job_id, f"prolog_{by}", at)


def epilog(job_id: int = 1, at: float = 0.0, by: str = "slurmctld") -> HookEvent:
    return HookEvent(job_id, f"epilog_{by}", at)


def a_job_a(seconds: float, until: float) -> list[HookEvent]:
    """Epilogs that come so often."""
    return [epilog(number + 1, number * seconds) for number in range(int(until / seconds))]


def test_an_event_is_asked_for_again_a_little_later_each_time() -> None:
    slurm = Controller(PendingEvents(10, 1.0))
    slurm.is_settled = lambda event: len(slurm.lookups) == 6
    asked = [round(lookup.began - 100, 2) for lookup in slurm.play([prolog(at=100.0)])]
    assert asked == [0.05, 0.25, 0.75, 1.75, 3.75, 5.75]


def test_an_event_that_never_fits_is_given_up() -> None:
    slurm = Controller(PendingEvents(2, 1.0))
    slurm.is_settled = lambda event: False
    assert len(slurm.play([prolog()])) == 2


def test_other_limits_are_in_force_for_what_waits_already() -> None:
    hooks = PendingEvents(10, 1.0)
    hooks.add(prolog(), 0.0)
    hooks.change_limits(1, 1.0)
    assert hooks.due(1.0, lambda _: False) == [1]
    hooks.looked_up([1], 1.0, 1.0, lambda _: False, {1})
    assert hooks.next_due() is None


def test_prolog_and_epilog_of_a_job_wait_each_for_itself_and_are_asked_together() -> None:
    slurm = Controller(PendingEvents(10, 1.0))
    slurm.is_settled = lambda event: len(slurm.lookups) == 3 if event.is_end else len(slurm.lookups) == 2
    assert slurm.play([prolog(), epilog()]) == [Lookup(0.0, [1]), Lookup(0.05, [1]), Lookup(0.2, [1])]


def test_a_job_that_slurm_does_not_know_is_soon_given_up() -> None:
    hooks = PendingEvents(10, 1.0)
    hooks.add(epilog(), 0.0)
    hooks.looked_up([1], 0.0, 0.0, lambda _: False, set())
    hooks.looked_up([1], 1.0, 1.0, lambda _: False, set())
    assert hooks.next_due() is None


def test_a_flood_of_events_is_left_to_the_polls() -> None:
    hooks = PendingEvents(10, 1.0)
    taken = [hooks.add(epilog(job_id), 0.0) for job_id in range(MAX_WAITING + 1)]
    assert taken == [True] * MAX_WAITING + [False]
    assert hooks.due(0.0, lambda _: False) == list(range(MAX_BATCH))


def test_an_event_that_fails_alone_while_others_are_answered_is_given_up() -> None:
    hooks = PendingEvents(3, 1.0)
    for job_id in range(1, 9):
        hooks.add(epilog(job_id), 0.0)
    now = 1.0
    asked: list[list[int]] = []
    while hooks.next_due() is not None and now < 100:
        job_ids = hooks.due(now, lambda _: False)
        asked.append(job_ids)
        if 1 in job_ids:
            hooks.failed(job_ids, now, now)
        else:
            hooks.looked_up(job_ids, now, now, lambda _: len(asked) > 20, {*job_ids})
        now += 1
    assert asked[:5] == [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4], [1, 2], [1], [2]]
    assert now < 100
    assert hooks.next_due() is None


def test_no_event_is_given_up_while_nothing_is_answered() -> None:
    hooks = PendingEvents(3, 1.0)
    hooks.add(epilog(), 0.0)
    for now in range(100):
        hooks.failed([1], float(now), float(now))
    assert hooks.next_due() is not None


def test_what_came_while_a_lookup_ran_is_looked_up_by_itself() -> None:
    """The answer may be older than the event: at its prolog a job still has its run before."""
    slurm = Controller(PendingEvents(10, 1.0), takes=0.5)
    assert slurm.play([epilog(), prolog(at=0.0)]) == [Lookup(0.0, [1]), Lookup(0.7, [1])]


@pytest.mark.parametrize("takes", [0.3, 2.0, 20.0])
@pytest.mark.parametrize("fails", [False, True])
def test_lookups_that_read_all_jobs_take_half_of_the_time_at_most(takes: float, fails: bool) -> None:
    slurm = Controller(PendingEvents(10**6, 1.0, reads_all=lambda count: True), takes)
    slurm.fails = fails
    slurm.play(a_job_a(0.2, until=400), until=400)
    assert len(slurm.lookups) >= 10
    assert max(slurm.shares()) <= 0.5001


def test_one_lookup_that_reads_all_jobs_serves_all_that_wait() -> None:
    slurm = Controller(PendingEvents(10, 1.0, reads_all=lambda count: True), takes=2.0)
    events = [epilog(), *(epilog(job_id, at=1.0) for job_id in range(2, 2002))]
    assert slurm.play(events) == [Lookup(0.0, [1]), Lookup(4.0, list(range(2, 2002)))]


def test_other_lookups_rest_as_long_as_they_took() -> None:
    slurm = Controller(PendingEvents(10, 1.0), takes=0.1)
    slurm.play(a_job_a(0.05, until=10))
    assert max(slurm.shares()) <= 0.51
    waits = [lookup.began - (job_id - 1) * 0.05 for lookup in slurm.lookups for job_id in lookup.jobs]
    assert max(waits) <= 0.21


@pytest.mark.parametrize(("longest_wait", "rest"), [(1.0, 0.2), (5.0, 1.0), (100.0, 10.0)])
def test_the_query_delay_says_how_long_events_are_gathered(longest_wait: float, rest: float) -> None:
    slurm = Controller(PendingEvents(10, longest_wait), takes=10.0)
    lookups = slurm.play([epilog(), epilog(2, at=5.0), epilog(3, at=10.1)])
    assert lookups == [Lookup(0.0, [1]), Lookup(10.0 + rest, [2, 3])]


def test_there_is_no_rest_after_a_burst() -> None:
    slurm = Controller(PendingEvents(10, 1.0), takes=0.5)
    burst = [epilog(job_id) for job_id in range(1, 101)]
    assert slurm.play([*burst, epilog(101, at=0.2)])[1] == Lookup(0.5, [101])


class Running:
    """What is known of one job, whose prologs come from all its nodes: it runs from the lookup after `ready` on."""

    def __init__(self, slurm: Controller, ready: float) -> None:
        slurm.is_known = lambda event: self.is_known
        slurm.is_settled = lambda event: self.is_known
        self._slurm = slurm
        self._ready = ready

    @property
    def is_known(self) -> bool:
        return any(lookup.began >= self._ready for lookup in self._slurm.lookups)


@pytest.mark.parametrize("ready", [0.0, 8.0])
def test_the_prologs_of_a_thousand_nodes_ask_a_few_times(ready: float) -> None:
    slurm = Controller(PendingEvents(10**6, 1.0), takes=0.03)
    Running(slurm, ready)
    lookups = slurm.play([prolog(at=number * 0.01, by="slurmd") for number in range(1000)])
    assert len(lookups) <= 15
    assert all(lookup.began >= ready for lookup in lookups[-1:])


def test_the_epilogs_of_a_thousand_nodes_ask_a_few_times() -> None:
    slurm = Controller(PendingEvents(10, 1.0), takes=0.03)
    Running(slurm, 0.0)
    lookups = slurm.play([epilog(at=number * 0.01, by="slurmd") for number in range(1000)])
    assert lookups[0].began == 0.0
    assert len(lookups) <= 6


def test_a_node_that_repeats_what_is_known_is_asked_about_ever_more_seldom() -> None:
    slurm = Controller(PendingEvents(10, 1.0), takes=0.0)
    slurm.is_known = lambda event: True
    lookups = slurm.play([prolog(at=float(at), by="slurmd") for at in range(1000)])
    rests = [round(after.began - before.began) for before, after in zip(lookups, lookups[1:])]
    assert rests == sorted(rests)
    assert LONGEST_REPEAT <= max(rests) <= LONGEST_REPEAT + 2


def test_the_next_run_of_a_job_is_asked_about_at_once_where_slurmctld_calls_the_hook() -> None:
    slurm = Controller(PendingEvents(10, 1.0))
    slurm.is_known = lambda event: True  # the run before is taken for it
    nodes = [prolog(at=at / 10, by="slurmd") for at in range(100)]
    lookups = slurm.play([*nodes, prolog(at=12.0)])
    assert lookups[-1] == Lookup(12.05, [1])


def test_the_next_run_of_a_job_is_asked_about_soon_where_only_nodes_call_the_hook() -> None:
    """Nothing but a question tells it from the run before: it is asked within slurmQueryDelay."""
    slurm = Controller(PendingEvents(10, 1.0))
    slurm.is_known = lambda event: True
    nodes = [prolog(at=at / 10, by="slurmd") for at in range(20)]
    lookups = slurm.play([*nodes, prolog(at=100.0, by="slurmd")])
    assert 100.0 < lookups[-1].began <= 101.1


@pytest.mark.parametrize(
    ("context", "once"),
    [
        ("prolog_slurmctld", True),
        ("epilog_slurmctld", True),
        ("", True),
        ("prolog_slurmd", False),
        ("epilog_slurmd", False),
        ("prolog_task", False),
        ("epilog_task", False),
    ],
)
def test_slurmctlds_own_hooks_are_called_once(context: str, once: bool) -> None:
    assert HookEvent(1, context, 0.0).comes_once is once
