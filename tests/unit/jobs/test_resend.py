"""Which runs are sent anew, which are left alone and why, and what is said of the difference."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.errors import CommandFailed
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.jobs.resend import (
    FEW,
    LEFT,
    NO_TEXTS,
    NOT_LISTED,
    NOT_REMOVED,
    NOT_SHOWN,
    OVER,
    SAME,
    SENT,
    SLICE,
    Outcome,
    Plan,
    Resend,
    spans_of,
)
from cc_slurm_adapter.jobs.run_store import RunStore
from cc_slurm_adapter.model import End, EndState, Missing, Phase, Resource, Run, RunKey
from cc_slurm_adapter.outbox.late_runs import LateRuns
from cc_slurm_adapter.outbox.outbox import Batch, Outbox, Stage
from cc_slurm_adapter.outbox.resends import Wanted
from cc_slurm_adapter.sinks.allocation import Allocation, Share
from cc_slurm_adapter.sinks.base import CC_REST, Kind
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.sinks.rest import CcRest
from tests.fakes.slurm_and_sinks import NOW, FakeSlurm, make_run

WRONG, RIGHT = (CcMessages(((re.compile("node"), gpus),)) for gpus in (("wrong0", "wrong1"), ("right0", "right1")))
ALL = Wanted(since=1)
CORES = Resource("node01", (0, 1), (0, 1), node_cores=8)


def run_of(job_id: int = 1, **changes: object) -> Run:
    return replace(make_run(job_id, resources=(CORES,)), **changes)  # type: ignore[arg-type]


class Cluster:
    """A state file in which all runs were delivered with the wrong GPUs, and a Slurm that shows them."""

    def __init__(self, folder: Path) -> None:
        self.slurm = FakeSlurm()
        self.outbox = Outbox(str(folder / "state.sqlite"), {CC_REST: ""})
        self.store = RunStore(
            "lab", self.outbox, WRONG, [CcRest("http://x", str)], Counters(), lambda: None, LateRuns()
        )
        self.woken = 0
        self.ignore = IgnoreRules()
        self.deliver = True

    def wake(self) -> None:
        self.woken += 1

    @property
    def resend(self) -> Resend:
        return Resend(self.slurm, self.outbox, RIGHT, CC_REST, "lab", self.ignore, self.wake)

    def put(self, run: Run) -> Run:
        batch = Batch()
        self.store.enqueue_start(batch, run)
        if run.end:
            self.store.enqueue_stop(batch, run.key, run.end)
        self.store.set_state(batch, run, Stage.DONE if run.end else Stage.STARTED)
        self.store.commit(batch)
        if self.deliver:
            self.accept_all()
        return self.slurm.put(run)

    def accept_all(self) -> bool:
        """All that waits is sent and accepted."""
        deliveries = self.outbox.deliveries
        for some in iter(lambda: deliveries.due(CC_REST, 1e12, 99), []):
            deliveries.delivered(*deliveries.begin(some, 1.0))
        return True

    def refuse_starts(self) -> bool:
        """All removals are accepted, and all starts are refused."""
        deliveries = self.outbox.deliveries
        for (due,) in iter(lambda: deliveries.begin(deliveries.due(CC_REST, 1.0, 1), 1.0), []):
            if due.kind is Kind.START:
                deliveries.parked(due, "no subcluster for host nod01")
            else:
                deliveries.delivered(due)
        return True

    def refuse_removals(self) -> bool:
        """No row is removed, so cc-backend has the runs already when their starts come."""
        deliveries = self.outbox.deliveries
        for (due,) in iter(lambda: deliveries.begin(deliveries.due(CC_REST, 1.0, 1), 1.0), []):
            if due.kind is Kind.REMOVE:
                deliveries.not_removed(due)
            else:
                deliveries.delivered(due, had_before=[due.row_id])
        return True

    def stored(self, *runs: Run) -> dict[RunKey, Allocation]:
        """What cc-backend has of these runs."""
        return {run.key: WRONG.allocation_of(run) for run in runs}

    def all(
        self,
        stored: Mapping[RunKey, Allocation],
        wanted: Wanted = ALL,
        wait: Callable[[], bool] | None = None,
    ) -> list[Outcome]:
        plan = self.resend.find(wanted)
        for _ in self.resend.send(plan, stored, wait or self.accept_all):
            pass
        return sorted(plan.outcomes)

    def sent(self) -> list[str]:
        """The kinds of the messages that wait, in the order of the jobs."""
        return [
            kind
            for (kind,) in self.outbox._state.read(
                "SELECT kind FROM delivery WHERE state = 'pending' ORDER BY job_id, kind", ()
            )
        ]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.outbox.close()


def test_a_run_with_other_gpus_is_sent_anew_with_its_texts(cluster: Cluster) -> None:
    run = cluster.put(run_of())
    assert cluster.all(cluster.stored(run)) == [
        Outcome(1, run.key.start_time, SENT, "node01: accelerators wrong0 wrong1 -> right0 right1")
    ]
    assert cluster.sent() == ["remove", "start"]
    assert cluster.woken == 1
    (removal,) = cluster.outbox.deliveries.due(CC_REST, 1e12, 9)
    cluster.outbox.deliveries.delivered(removal)
    (start,) = cluster.outbox.deliveries.due(CC_REST, 1e12, 9)
    assert b'"accelerators":["right0","right1"]' in start.payload
    assert b'"slurmInfo":"JobId=1"' in start.payload
    assert b'"jobScript":"#!/bin/sh"' in start.payload


def test_a_run_that_is_over_gets_its_stop_again(cluster: Cluster) -> None:
    run = cluster.put(run_of(phase=Phase.ENDED, end=End(EndState.COMPLETED, NOW, "COMPLETED")))
    assert [each.result for each in cluster.all(cluster.stored(run))] == [SENT]
    assert cluster.sent() == ["remove", "start", "stop"]


def test_what_is_the_same_is_not_sent_and_its_texts_are_not_read(cluster: Cluster) -> None:
    run = cluster.put(run_of())
    assert cluster.all({run.key: RIGHT.allocation_of(run)}) == [Outcome(1, run.key.start_time, SAME)]
    assert cluster.sent() == []
    assert "with_texts" not in cluster.slurm.asked


def test_only_the_number_of_gpus_may_differ() -> None:
    before = Allocation({"node01": Share((0,), ("a",))}, 2)
    assert before._replace(num_accelerators=1).changes_from(before) == "numAcc 2 -> 1"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"phase": Phase.ENDED, "end": End(EndState.COMPLETED, NOW, "COMPLETING,COMPLETED")}, "taking its nodes away"),
        ({"resources": ()}, "taking its nodes away"),
        ({"awaits_layout": True}, "the layout of its nodes is not known now"),
        ({"resources": (replace(CORES, gpus=()),)}, "no longer tell what cc-backend has: accelerators of node01"),
        ({"resources": (replace(CORES, cores=()),)}, "no longer tell what cc-backend has: hwthreads of node01"),
        (
            {"resources": (Resource("node01"),), "missing": frozenset(Missing)},
            "no longer tell what cc-backend has: hwthreads and accelerators of node01",
        ),
        ({"key": RunKey("lab", 1, NOW - 50)}, NOT_SHOWN),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_a_run_of_which_slurm_now_shows_less_is_left_alone(
    cluster: Cluster, changes: dict[str, object], text: str
) -> None:
    run = cluster.put(run_of())
    cluster.slurm.put(replace(run, **changes))  # type: ignore[arg-type]
    (outcome,) = cluster.all(cluster.stored(run))
    assert (outcome.job_id, outcome.result) == (1, LEFT)
    assert text in outcome.text
    assert cluster.sent() == []


def test_a_run_that_only_accounting_knows_is_left_alone(cluster: Cluster) -> None:
    run = cluster.put(run_of(phase=Phase.ENDED, end=End(EndState.COMPLETED, NOW, "COMPLETED")))
    cluster.slurm.jobs.clear()
    cluster.slurm.close(run)
    assert cluster.all(cluster.stored(run)) == [Outcome(1, run.key.start_time, OVER, NOT_SHOWN)]
    assert cluster.slurm.asked == ["read_details"]


def test_a_run_that_slurm_shows_running_after_its_end_is_left_alone(cluster: Cluster) -> None:
    run = cluster.put(run_of(phase=Phase.ENDED, end=End(EndState.COMPLETED, NOW, "COMPLETED")))
    cluster.slurm.put(run_of())
    (outcome,) = cluster.all(cluster.stored(run))
    assert outcome.text == "it is over as far as was known here, but slurmctld shows it running"


def test_an_ended_run_of_which_nodes_are_gone_is_left_alone(cluster: Cluster) -> None:
    both = (CORES, replace(CORES, hostname="node02"))
    run = cluster.put(run_of(resources=both))
    cluster.slurm.put(run_of(phase=Phase.ENDED, end=End(EndState.FAILED, NOW, "NODE_FAIL")))
    (outcome,) = cluster.all(cluster.stored(run))
    assert "1 of its nodes" in outcome.text
    cluster.slurm.put(run_of())
    (outcome,) = cluster.all(cluster.stored(run))
    assert outcome.text.startswith("hosts node02 -> none; node01: accelerators"), "a run may be made smaller"


def test_what_cannot_be_read_is_left_alone_with_the_reason(cluster: Cluster) -> None:
    runs = [cluster.put(run_of(job)) for job in (1, 2)]
    cluster.slurm.broken[1] = "$.job_id: is no number"
    cluster.slurm.failed.add(2)
    first, second = cluster.all(cluster.stored(*runs))
    assert "$.job_id: is no number" in first.text
    assert "squeue: exit code -11" in second.text


def test_what_the_configuration_leaves_out_now_stays_as_it_is(cluster: Cluster) -> None:
    run = cluster.put(run_of())
    cluster.ignore = IgnoreRules(users=re.compile("alice"))
    (outcome,) = cluster.all(cluster.stored(run))
    assert outcome.text.startswith("the configuration leaves it out now (")


def test_what_cc_backend_does_not_list_is_left_alone(cluster: Cluster) -> None:
    run = cluster.put(run_of())
    assert cluster.all({}) == [Outcome(1, run.key.start_time, LEFT, NOT_LISTED)]


def test_a_refused_start_is_made_anew_without_a_row(cluster: Cluster) -> None:
    cluster.deliver = False
    run = cluster.put(run_of())
    (start,) = cluster.outbox.deliveries.due(CC_REST, 1e12, 9)
    cluster.outbox.deliveries.parked(start, "no such host")
    assert cluster.all({}) == [Outcome(1, run.key.start_time, SENT, "its start was refused, and is made anew")]


@pytest.mark.parametrize(("distance", "result"), [(-86400, SENT), (-86399, LEFT), (10, LEFT), (90000, LEFT)])
def test_beside_a_run_with_which_it_would_be_refused_it_is_left_alone(
    cluster: Cluster, distance: int, result: str
) -> None:
    """cc-backend refuses a start if a run of the job is stored that began less than a day before it, or after it."""
    run = cluster.put(run_of())
    other = run.key._replace(start_time=run.key.start_time + distance)
    outcomes = cluster.all({**cluster.stored(run), other: WRONG.allocation_of(run)}, Wanted(job_id=1))
    assert [each.result for each in outcomes] == [result]


def test_cc_backend_is_asked_for_all_runs_of_the_jobs_that_may_be_sent(cluster: Cluster) -> None:
    ended = End(EndState.CANCELLED, NOW - 4000, "REQUEUED")
    cluster.put(make_run(1, start=NOW - 5000, phase=Phase.ENDED, end=ended))
    cluster.put(run_of(1))
    plan = cluster.resend.find(Wanted(since=NOW - 200))
    assert list(plan.runs) == [RunKey("lab", 1, NOW - 100)]
    assert plan.asked == {RunKey("lab", 1, NOW - 100), RunKey("lab", 1, NOW - 5000)}
    assert plan.spans == [(NOW - 5000, NOW - 5000), (NOW - 100, NOW - 100)]


def test_nothing_is_asked_for_runs_that_cannot_be_sent(cluster: Cluster) -> None:
    cluster.deliver = False
    cluster.put(run_of())
    plan = cluster.resend.find(ALL)
    assert (plan.runs, plan.spans, cluster.slurm.asked) == ({}, [], [])
    assert plan.outcomes[0].text == "its start is still to be sent: ask again when cc-backend has it"


def test_many_runs_are_committed_in_slices_and_a_failure_keeps_what_was_done(cluster: Cluster) -> None:
    runs = [cluster.put(run_of(job)) for job in range(1, SLICE + 11)]
    plan = cluster.resend.find(ALL)
    steps = cluster.resend.send(plan, cluster.stored(*runs), cluster.accept_all)
    next(steps)
    assert cluster.sent().count("start") == 1, "the first alone"
    for _ in range(2):
        next(steps)
    assert len(plan.outcomes) == SLICE + 1
    assert cluster.sent().count("start") == SLICE, "not before the first is accepted"

    class Failing(FakeSlurm):
        def with_texts(self, runs: list[Run]) -> Iterator[Run]:  # type: ignore[override]
            yield from runs[:5]
            raise CommandFailed("scontrol fails")

    failing = Failing()
    failing.jobs = cluster.slurm.jobs
    cluster.slurm = failing
    plan = cluster.resend.find(ALL)
    with pytest.raises(CommandFailed):
        list(cluster.resend.send(plan, cluster.stored(*runs), cluster.accept_all))
    assert all(each.result == LEFT for each in plan.outcomes)
    assert cluster.sent().count("start") == SLICE


def test_when_the_first_new_start_is_refused_no_other_row_is_removed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cc_slurm_adapter.jobs.resend.RUNS_AT_ONCE", SLICE + 5)
    runs = [cluster.put(run_of(job)) for job in range(1, SLICE + 8)]
    same = runs[9]
    plan = cluster.resend.find(ALL)
    stored = {**cluster.stored(*runs), same.key: RIGHT.allocation_of(same)}
    assert plan.next is not None
    for _ in cluster.resend.send(plan, stored, cluster.refuse_starts):
        pass
    first, *others = sorted(plan.outcomes)
    assert (first.job_id, first.result) == (1, SENT)
    assert {each.text for each in others if each.job_id != 10} == {
        "cc-backend has refused the new start of job 1, so no more are sent anew: no subcluster for host nod01"
    }
    assert [each.job_id for each in others if each.result == SAME] == [10]
    assert plan.next is None, "nor in the next step"
    assert cluster.outbox.counts() == {"delivered": len(runs) - 1, "parked": 1}


def test_a_refusal_of_the_last_start_of_a_step_is_known_to_the_next_one(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cc_slurm_adapter.jobs.resend.RUNS_AT_ONCE", 1)
    runs = [cluster.put(run_of(job)) for job in range(1, 4)]
    for accepts, is_last in ((cluster.accept_all, False), (cluster.refuse_starts, True)):
        plan = cluster.resend.find(ALL)
        assert plan.next is not None
        for _ in cluster.resend.send(plan, cluster.stored(*runs), cluster.accept_all, accepts):
            pass
        assert (plan.next is None) is is_last


def test_when_a_row_is_not_removed_that_is_told_and_no_other_one_is_tried(cluster: Cluster) -> None:
    runs = [cluster.put(run_of(job)) for job in range(1, 4)]
    first, *others = cluster.all(cluster.stored(*runs), wait=cluster.refuse_removals)
    assert first == Outcome(1, runs[0].key.start_time, LEFT, NOT_REMOVED)
    assert [(each.result, each.text) for each in others] == [
        (LEFT, "cc-backend does not remove the row of job 1, so no more are sent anew")
    ] * 2
    assert cluster.sent() == []


def test_the_last_row_is_waited_for_to_tell_whether_it_was_removed(cluster: Cluster) -> None:
    run = cluster.put(run_of())
    plan = cluster.resend.find(ALL)
    for _ in cluster.resend.send(plan, cluster.stored(run), cluster.accept_all, cluster.refuse_removals):
        pass
    assert [(each.result, each.text) for each in plan.outcomes] == [(LEFT, NOT_REMOVED)]


def test_when_a_new_start_is_not_accepted_in_time_no_other_row_is_removed(cluster: Cluster) -> None:
    runs = [cluster.put(run_of(job)) for job in range(1, 4)]
    first, *others = cluster.all(cluster.stored(*runs), wait=lambda: False)
    assert first.result == SENT
    assert {each.text for each in others} == {
        "cc-backend has not accepted the new start of job 1 yet: ask again when it has"
    }
    assert cluster.sent() == ["remove", "start"]


def test_each_run_with_hosts_that_cc_backend_does_not_have_of_it_is_waited_for(cluster: Cluster) -> None:
    runs = [cluster.put(run_of(job)) for job in range(1, 7)]
    stored = cluster.stored(*runs)
    for run in runs[3:]:
        stored[run.key] = stored[run.key]._replace(shares={"old01": stored[run.key].shares["node01"]})
    waiting: list[int] = []

    def wait() -> bool:
        waiting.append(cluster.sent().count("start"))
        return cluster.accept_all()

    assert [each.result for each in cluster.all(stored, wait=wait)] == [SENT] * 6
    assert waiting == [1, 3, 1], "the first, then all up to the first with another host, then one by one"


def test_a_refused_start_that_is_made_anew_is_not_waited_for(cluster: Cluster) -> None:
    """Nothing is removed for it, and for five minutes its row may still come."""
    cluster.deliver = False
    for job in (1, 2):
        cluster.put(run_of(job))
    cluster.refuse_starts()
    outcomes = cluster.all({}, wait=lambda: pytest.fail("it waits"))
    assert [each.result for each in outcomes] == [SENT, SENT]


def test_after_a_reload_in_between_runs_are_compared_with_what_it_says(cluster: Cluster) -> None:
    runs = [cluster.put(run_of(job)) for job in range(1, 5)]
    resend = cluster.resend
    plan = resend.find(ALL)
    steps = resend.send(plan, cluster.stored(*runs), cluster.accept_all)
    next(steps)
    resend.use(CcMessages(()), IgnoreRules())
    list(steps)
    assert [each.result for each in sorted(plan.outcomes)] == [SENT, LEFT, LEFT, LEFT]
    assert "no longer tell what cc-backend has: accelerators" in plan.outcomes[-1].text
    assert cluster.sent() == []

    plan = resend.find(ALL)
    resend.use(RIGHT, IgnoreRules(users=re.compile("alice")))
    list(resend.send(plan, cluster.stored(*runs), cluster.accept_all))
    assert {each.text for each in plan.outcomes} == {"the configuration leaves it out now (ignoreUsers)"}


@pytest.mark.parametrize(("texts", "result"), [({"slurm_info": "JobId=1"}, LEFT), ({}, SENT)], ids=["texts", "none"])
def test_a_run_does_not_lose_its_texts(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, texts: dict[str, object], result: str
) -> None:
    """scontrol fails for one job, or accepts no commands at all. Where it never did, there are none to lose."""
    run, other = cluster.put(run_of(1, **texts)), cluster.put(run_of(2))
    fake = cluster.slurm.with_texts

    def without_those_of_the_first(runs: list[Run]) -> Iterator[Run]:
        for each in fake(runs):
            yield replace(each, job_script="", slurm_info="") if each.key == run.key else each

    monkeypatch.setattr(cluster.slurm, "with_texts", without_those_of_the_first)
    first, second = cluster.all(cluster.stored(run, other))
    assert (first.result, second.result) == (result, SENT)
    assert first.text == NO_TEXTS or result == SENT


def test_of_many_jobs_only_those_are_read_that_slurmctld_lists(cluster: Cluster) -> None:
    ended = End(EndState.COMPLETED, NOW, "COMPLETED")
    runs = [cluster.put(run_of(job, phase=Phase.ENDED, end=ended)) for job in range(1, FEW + 2)]
    cluster.slurm.jobs.clear()
    assert {each.text for each in cluster.all(cluster.stored(*runs))} == {NOT_SHOWN}
    assert cluster.slurm.asked == ["list_jobs"]
    cluster.slurm.put(runs[3])
    assert [each.job_id for each in cluster.all(cluster.stored(*runs)) if each.result == SENT] == [4]
    assert cluster.slurm.asked == ["list_jobs", "list_jobs", "read_details", "with_texts"]


def test_steps_follow_each_other(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cc_slurm_adapter.jobs.resend.RUNS_AT_ONCE", 2)
    for job in range(1, 6):
        cluster.put(run_of(job))
    seen: list[int] = []
    plan: Plan | None = None
    while plan is None or plan.next is not None:
        plan = cluster.resend.find(ALL, plan.next if plan and plan.next else (0, 0))
        seen += [key.job_id for key in plan.runs]
    assert seen == [1, 2, 3, 4, 5]


def test_a_step_ends_before_the_first_run_of_which_cc_backend_has_not_answered(cluster: Cluster) -> None:
    """Jobs 1, 3 and 5 began one after the other, job 4 long before, and job 2 cannot be read."""
    starts = {1: NOW - 4000, 2: NOW - 3900, 3: NOW - 2000, 4: NOW - 9000, 5: NOW - 100}
    for job, start in starts.items():
        cluster.put(replace(run_of(job), key=RunKey("lab", job, start)))
    cluster.slurm.broken[2] = "$.job_id: is no number"
    kept: list[object] = []
    for answered in range(5):
        plan = cluster.resend.find(ALL)
        assert plan.spans == [(starts[job], starts[job]) for job in (1, 3, 4, 5)], "those of the first jobs first"
        ok = plan.keep_answered(plan.spans[:answered])
        kept.append((ok, [key.job_id for key in plan.runs], [each.job_id for each in plan.outcomes], plan.next))
    assert kept == [
        (False, [], [], None),
        (True, [1], [2], (2, starts[2])),
        (True, [1, 3], [2], (3, starts[3])),
        (True, [1, 3, 4], [2], (4, starts[4])),
        (True, [1, 3, 4, 5], [2], None),
    ]


def test_a_run_waits_for_the_answers_of_all_runs_of_its_job(cluster: Cluster) -> None:
    ended = End(EndState.CANCELLED, NOW - 4000, "REQUEUED")
    cluster.put(make_run(1, start=NOW - 5000, phase=Phase.ENDED, end=ended))
    cluster.put(run_of(1))
    plan = cluster.resend.find(Wanted(since=NOW - 200))
    assert not plan.keep_answered(plan.spans[:1])


def test_spans_contain_all_moments_and_are_short() -> None:
    assert spans_of([]) == []
    assert spans_of([100, 700, 50, 1301]) == [(50, 700), (1301, 1301)]
    assert spans_of(range(0, 8000, 100)) == [(0, 3600), (3700, 7300), (7400, 7900)]
