"""Every verdict about a job, from facts written by hand, with the next step that belongs to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cc_slurm_adapter.cli.explanation import WIDTH, as_object, explain, render
from cc_slurm_adapter.cli.job_facts import (
    NOT_RUNNING,
    BackendFacts,
    ConfigFacts,
    JobFacts,
    SlurmFacts,
    SlurmRun,
    runs_of,
)
from cc_slurm_adapter.cli.verdicts import FINE, LOOK, NO_SUCH_JOB, Verdict
from cc_slurm_adapter.daemon.job_state import DaemonFacts, Failing
from cc_slurm_adapter.jobs import notes
from cc_slurm_adapter.jobs.ignore_rules import OPTED_OUT
from cc_slurm_adapter.outbox.dropped_runs import note_for
from cc_slurm_adapter.outbox.job_rows import JobRows, MessageRow, RunRow
from cc_slurm_adapter.sinks.base import CC_NATS, CC_REST, StoredRun
from cc_slurm_adapter.slurm.one_job import QueueLine
from cc_slurm_adapter.system.quantities import at, moment
from tests.fakes.job_rows import make_row

NOW = 1_800_000_000
HOUR, DAY = 3600, 86400
START = NOW - HOUR
URL = "https://cc.example.org"
CONFIG = ConfigFacts("/etc/config.json", "lab", "/var/lib/state.sqlite", NOW - 30 * DAY)
DAEMON = DaemonFacts("lab", "adapter", "running", NOW - DAY, NOW - 30 * DAY, NOW, (), "", ())
AWAY = Failing("cc_rest", "cc-backend", NOW - 600, "connection refused")
WAITING_LINE = QueueLine(7, 7, "N/A", "PENDING", "Resources")


def slurm_run(start: int = START, **changes: Any) -> SlurmRun:
    run = SlurmRun("slurmctld", start, "running", submit=start - 10, user="alice", partition="main", hosts=("n1",))
    return run._replace(**changes)


def ended(start: int = START, end: int = START + 60, **changes: Any) -> SlurmRun:
    return slurm_run(start, phase="ended", end=end, state="COMPLETED", **changes)


def known(start: int = START, stage: str = "started", **changes: Any) -> RunRow:
    return RunRow("lab", start, stage, "n1", start + 5, "")._replace(**changes)


def row(kind: str = "start", state: str = "delivered", start: int = START, **changes: Any) -> MessageRow:
    return make_row(start, kind, state, first_sent=start + 6)._replace(**changes)


def stored(start: int = START, state: str = "running") -> StoredRun:
    return StoredRun(7, start, state, 60, "alice", 1)


def facts(
    slurm: Any = (),
    runs: Any = (),
    rows: Any = (),
    backend: Any = (),
    *,
    daemon: DaemonFacts | None = DAEMON,
    config: ConfigFacts = CONFIG,
    **changes: Any,
) -> JobFacts:
    """Facts about job 7: what Slurm shows, the runs and rows in the state file, and what cc-backend has."""
    slurm = slurm if isinstance(slurm, SlurmFacts) else SlurmFacts("root", "lab", "24.11.5", "none", runs=tuple(slurm))
    backend = backend if isinstance(backend, BackendFacts) else BackendFacts(URL, tuple(backend), "", ((0, NOW),))
    state = JobRows(tuple(runs), tuple(rows), {"lab": NOW - 30})
    made = JobFacts("7", 7, NOW, config, slurm, state, daemon, backend)
    return made._replace(**changes)


def conclusion(given: JobFacts) -> Verdict:
    return explain(given).conclusion


def no_slurm(**changes: Any) -> SlurmFacts:
    return SlurmFacts("root", "lab", "24.11.5", "none", is_forgotten=True)._replace(**changes)


OVER = [known(stage="done", changed=NOW - 2 * HOUR)]
CASES: dict[str, tuple[JobFacts, str, int, str]] = {
    # what is so: the facts, the word, the exit code, a part of the next step
    "it runs and is there": (facts([slurm_run()], [known()], [row()], [stored()]), "there", FINE, "as it should be"),
    "it is over and there": (facts([ended()], OVER, [], [stored(state="completed")]), "there", FINE, "as it should"),
    "another program has reported it": (
        facts([ended()], backend=[stored(START + 2, "completed")]),
        "there",
        FINE,
        "as it should be",
    ),
    "it runs, and no daemon": (
        facts([slurm_run()], [known()], [row()], [stored()], daemon=None),
        "there",
        LOOK,
        "systemctl start cc-slurm-adapter",
    ),
    "only cc-backend has it": (facts(no_slurm(), backend=[stored()]), "only there", FINE, "another program"),
    "it was sent just now": (
        facts([slurm_run()], [known()], [row(delivered=NOW - 20)]),
        "young",
        FINE,
        "Ask again in 5 min",
    ),
    "cc-backend has lost a run that runs": (
        facts([slurm_run()], [known()], [row()]),
        "not listed",
        LOOK,
        "within ccPollInterval (6 h), or now: systemctl restart cc-slurm-adapter",
    ),
    "cc-backend has lost a run that is over": (facts([ended()], OVER), "not listed", LOOK, "is not sent again"),
    "cc-backend cannot be asked": (
        facts([ended()], OVER, backend=BackendFacts(URL, failure="connection refused")),
        "delivered",
        LOOK,
        "Make cc-backend answer",
    ),
    "there is no cc-backend to ask": (
        facts([ended()], OVER, backend=BackendFacts(), config=CONFIG._replace(leading=CC_NATS)),
        "delivered",
        FINE,
        "no ccRestUrl is set",
    ),
    "cc-backend is away": (
        facts([slurm_run()], [known()], [row(state="pending")], daemon=DAEMON._replace(failing=(AWAY,))),
        "destination away",
        LOOK,
        "Make cc-backend answer",
    ),
    "cc-backend refuses the token": (
        facts(
            [slurm_run()],
            [known()],
            [row(state="pending")],
            daemon=DAEMON._replace(failing=(AWAY._replace(refuses_all=True),)),
        ),
        "refused",
        LOOK,
        "Correct the token",
    ),
    "it waits and no daemon runs": (
        facts([slurm_run()], [known()], [row(state="pending")], daemon=None),
        "daemon away",
        LOOK,
        "systemctl start",
    ),
    "it has just begun to wait": (
        facts([slurm_run()], [known()], [row(state="pending", created=NOW - 5)]),
        "waits",
        FINE,
        "Ask again in a minute",
    ),
    "it waits for long, and nothing fails": (
        facts([slurm_run()], [known()], [row(state="pending")]),
        "waits",
        LOOK,
        "-status shows",
    ),
    "it is tried again later": (
        facts([slurm_run()], [known()], [row(state="pending", next_try=NOW + 90, reason="HTTP 500: oops")]),
        "waits",
        LOOK,
        "-queue retry 7",
    ),
    "its start was refused": (
        facts([slurm_run()], [known()], [row(state="parked", next_try=NOW + HOUR, reason="HTTP 400: no such host")]),
        "parked",
        LOOK,
        "Add the host to cc-backend's cluster.json, or check hostnameRewrite, then send it again: cc-slurm-adapter"
        " -queue retry 7",
    ),
    "its start was refused, and no daemon runs": (
        facts([slurm_run()], [known()], [row(state="parked", reason="HTTP 400: x")], daemon=None),
        "parked",
        LOOK,
        "Correct the cause in cc-backend. Start the daemon: systemctl start cc-slurm-adapter, then send it again:",
    ),
    "its stop was refused": (
        facts([ended()], OVER, [row(), row("stop", "parked", next_try=None, reason="HTTP 400: x")], [stored()]),
        "parked",
        LOOK,
        "-queue retry 7",
    ),
    "an earlier run is stored": (
        facts(
            [slurm_run()],
            [known()],
            [row(state="conflict")],
            [stored(START - 2 * HOUR, "cancelled")],
        ),
        "conflict",
        LOOK,
        "set requeuedRuns to last",
    ),
    "another run is stored, and the last one is kept": (
        facts([slurm_run()], [known()], [row(state="conflict")], config=CONFIG._replace(requeued_runs="last")),
        "conflict",
        LOOK,
        "not sent by this program, or it began later",
    ),
    "an administrator has dropped it": (facts([slurm_run()], [known()], [row(state="dropped")]), "dropped", FINE, ""),
    "it was dropped, and is over": (
        facts([ended()], [known(stage="done", changed=NOW - 20, note=note_for(CC_REST))]),
        "dropped",
        FINE,
        "that was wanted",
    ),
    "it was dropped, but cc-backend has it": (
        facts([ended()], [known(stage="done", note=note_for(CC_REST))], backend=[stored(state="completed")]),
        "there",
        FINE,
        "as it should be",
    ),
    "it was dropped for NATS only": (
        facts([ended()], [known(stage="done", changed=NOW - 20, note=note_for(CC_NATS))]),
        "young",
        FINE,
        "Ask again in 5 min",
    ),
    "a rule leaves it out": (
        facts([slurm_run()], [known(stage="ignored", note=f"{notes.LEFT_OUT}ignorePartitions")]),
        "left out",
        FINE,
        "change ignorePartitions in /etc/config.json",
    ),
    "a rule has left it out": (
        facts(no_slurm(), [known(stage="done", note=f"{notes.LEFT_OUT}ignoreUsers")]),
        "left out",
        FINE,
        "change ignoreUsers",
    ),
    "an administrator has opted it out": (
        facts([slurm_run()], [known(stage="ignored", note=f"{notes.LEFT_OUT}{OPTED_OUT}")]),
        "left out",
        FINE,
        "an administrator wanted that",
    ),
    "a rule would leave it out": (
        facts([slurm_run(left_out="ignoreHosts")]),
        "left out",
        FINE,
        "change ignoreHosts",
    ),
    "its nodes are made ready": (
        facts([slurm_run(phase="configuring")], [known(stage="preparing")]),
        "preparing",
        FINE,
        "when it runs",
    ),
    "it launched nothing": (
        facts(no_slurm(), [known(stage="done", note=notes.IDLE)]),
        "launched nothing",
        FINE,
        "the real run",
    ),
    "it launched nothing, and is not known here": (
        facts([ended(has_launched=False)]),
        "launched nothing",
        FINE,
        "the real run",
    ),
    "it is a part of another run": (
        facts(no_slurm(), [known(stage="done", note=notes.REMAINDER)]),
        "part of a run",
        FINE,
        "that began before it",
    ),
    "it was seen too late": (
        facts(
            [ended()],
            [known(stage="done", note=f"{notes.INCOMPLETE}cores and gpus: {notes.TOO_LATE}")],
            backend=[stored(state="completed")],
        ),
        "incomplete",
        LOOK,
        "Check the hooks",
    ),
    "Slurm does not say which GPUs": (
        facts(
            [slurm_run()],
            [known(note=f"{notes.INCOMPLETE}gpus: {notes.NOT_SHOWN}")],
            [row()],
            [stored()],
        ),
        "incomplete",
        LOOK,
        "Slurm does not tell more",
    ),
    "its end was not seen yet": (
        facts([ended(end=NOW - 30)], [known()], [row()], [stored()]),
        "end missing",
        FINE,
        "after the next poll (slurmPollInterval, 1 min)",
    ),
    "its end is not seen for long": (
        facts([ended(end=NOW - HOUR)], [known()], [row()], [stored()]),
        "end missing",
        LOOK,
        "after the next poll",
    ),
    "its end cannot be seen": (
        facts(
            [ended(end=NOW - HOUR)],
            [known()],
            [row()],
            [stored()],
            daemon=DAEMON._replace(failing=(Failing("accounting", "catching up", NOW - 90, "sacct fails"),)),
        ),
        "end missing",
        LOOK,
        "Make Slurm answer",
    ),
    "its end is not seen as no daemon runs": (
        facts([ended()], [known()], [row()], [stored()], daemon=None),
        "end missing",
        LOOK,
        "systemctl start",
    ),
    "cc-backend has missed its end": (
        facts([ended()], OVER, backend=[stored()]),
        "end missing",
        LOOK,
        "The comparison sends its end within ccPollInterval (6 h)",
    ),
    "it ended before the first moment": (
        facts([ended(NOW - 41 * DAY, NOW - 40 * DAY)]),
        "before the first moment",
        LOOK,
        "Another program had to report it",
    ),
    "it ended too long ago": (
        facts([ended(NOW - 11 * DAY, NOW - 10 * DAY)]),
        "too old",
        LOOK,
        "cannot be reported afterwards",
    ),
    "no daemon runs that could see it": (facts([slurm_run()], daemon=None), "daemon away", LOOK, "slurmQueryMaxSpan"),
    "the daemon waits for Slurm": (
        facts([slurm_run()], daemon=DAEMON._replace(phase="waiting for Slurm's answer")),
        "daemon starts",
        LOOK,
        "See its log",
    ),
    "its cores cannot be numbered": (
        facts([slurm_run()], daemon=DAEMON._replace(awaiting_layout=(START,))),
        "waits for a layout",
        LOOK,
        "why sinfo fails",
    ),
    "the daemon's user may not see it": (
        facts(
            SlurmFacts(
                "root", "lab", private_data="jobs,users", runs=(slurm_run(),), privileges=("run sacctmgr -i modify",)
            )
        ),
        "no permission",
        LOOK,
        "Run sacctmgr -i modify",
    ),
    "the daemon cannot ask slurmctld": (
        facts([slurm_run()], daemon=DAEMON._replace(failing=(Failing("poll", "the poll", NOW - 90, "squeue fails"),))),
        "Slurm fails",
        LOOK,
        "Make Slurm answer",
    ),
    "accounting is not read so far yet": (
        facts([ended(end=NOW - HOUR)], daemon=DAEMON._replace(accounting_read_until=NOW - 2 * HOUR)),
        "catching up",
        LOOK,
        "accounting is read on",
    ),
    "it has just begun": (facts([slurm_run(NOW - 30)]), "not seen yet", FINE, "after the next poll"),
    "nothing explains it": (facts([slurm_run()]), "not found", LOOK, "Search the log for job 7"),
    "it cannot be understood": (
        facts(no_slurm(is_forgotten=False, not_understood="jobs[7].nodes: it is missing")),
        "not understood",
        LOOK,
        "Update this program",
    ),
    "the daemon did not understand it": (
        facts([ended()], daemon=DAEMON._replace(not_understood="jobs[7].nodes: it is missing")),
        "not understood",
        LOOK,
        "report this line",
    ),
    "it waits in Slurm": (
        facts(SlurmFacts("root", "lab", queue=(WAITING_LINE,), runs=(slurm_run(0, phase="waiting"),))),
        "not begun",
        FINE,
        "when it begins",
    ),
    "it was cancelled while it waited": (
        facts([ended(start=START, end=START, never_ran=True, hosts=())]),
        "never ran",
        FINE,
        "nothing to report",
    ),
    "it was cancelled, and is known": (
        facts(no_slurm(), [known(stage="done", note=notes.NEVER_RAN)]),
        "never ran",
        FINE,
        "nothing to report",
    ),
    "it is another cluster's": (
        facts(no_slurm(), [known(cluster="other")]),
        "other cluster",
        LOOK,
        "the daemon of that cluster",
    ),
    "Slurm is away": (
        facts(no_slurm(is_forgotten=False, slurmctld_failure="connect failure")),
        "cannot tell",
        LOOK,
        "Make Slurm answer",
    ),
    "accounting is away": (facts(no_slurm(accounting_failure="refused")), "cannot tell", LOOK, "Make Slurm answer"),
    "nobody knows it": (facts(no_slurm()), "no such job", NO_SUCH_JOB, "Check the id"),
    "nobody knows it, or tells": (
        facts(no_slurm(private_data="jobs", asked_as="alice")),
        "no such job",
        NO_SUCH_JOB,
        "ask as root (PrivateData=jobs may hide it from alice)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_case_has_its_verdict_and_next_step(case: str) -> None:
    given, word, code, step = CASES[case]
    found = conclusion(given)
    assert (found.word, found.code) == (word, code)
    assert step in found.next_step
    assert found.next_step.endswith((".", "7"))  # a command has no full stop, so that it can be copied
    assert "  " not in found.text + found.next_step


@pytest.mark.parametrize("case", CASES)
def test_what_is_printed_fits_a_terminal_and_ends_with_the_next_step(case: str) -> None:
    explanation = explain(CASES[case][0])
    lines = list(render(explanation, "7"))
    assert max(map(len, lines)) <= WIDTH
    last = " ".join(lines).rpartition("Next: ")[2]
    assert " ".join(last.split()) == explanation.conclusion.next_step


@pytest.mark.parametrize("case", CASES)
def test_the_facts_and_the_conclusion_are_one_object(case: str) -> None:
    given, word, code, _ = CASES[case]
    found = json.loads(json.dumps(as_object(explain(given), given)))
    assert (found["version"], found["job_id"]) == (1, 7)
    assert (found["conclusion"]["word"], found["conclusion"]["code"]) == (word, code)
    assert found["facts"]["config"]["cluster"] == "lab"
    assert len(found["facts"]["slurm"]["runs"]) == len(given.slurm.runs)


def test_every_verdict_is_in_the_documents() -> None:
    text = Path(__file__).parents[3].joinpath("docs", "troubleshooting.md").read_text(encoding="utf-8")
    assert {word for _, word, _, _ in CASES.values() if f"\n| `{word}` |" not in text} == set()


def test_a_run_that_needs_a_look_counts_more_than_a_later_one_that_does_not() -> None:
    earlier = START - 2 * DAY
    given = facts(
        [slurm_run(), ended(earlier, earlier + 60)],
        [known(), known(earlier, "done")],
        [row(), row("start", "parked", earlier, reason="HTTP 400: x")],
        [stored()],
    )
    found = explain(given)
    assert [verdict.word for _, verdict in found.runs] == ["there", "parked"]
    assert found.conclusion.word == "parked"


def test_a_run_is_one_although_cc_backend_has_it_some_seconds_later() -> None:
    given = facts([slurm_run()], [known()], [row()], [stored(START + 3), stored(START - HOUR, "cancelled")])
    assert [(run.start, run.stored and run.stored.start_time) for run in runs_of(given)] == [
        (START, START + 3),
        (START - HOUR, START - HOUR),
    ]


def test_runs_of_another_cluster_are_not_mixed_in() -> None:
    given = facts([slurm_run()], [known(), known(START - HOUR, cluster="other")], [row(), row(cluster="other")])
    (run,) = runs_of(given)
    assert run.known == known()
    assert run.rows == (row(),)


def test_a_conflict_names_the_run_that_is_stored() -> None:
    given = CASES["an earlier run is stored"][0]
    assert f"the run that began {at(START - 2 * HOUR, NOW)}, cancelled there" in conclusion(given).text
    assert "unless the other run is deleted in cc-backend: then cc-slurm-adapter -queue retry 7" in (
        conclusion(given).next_step
    )


def test_a_conflict_names_a_run_that_began_a_few_seconds_before() -> None:
    """A job that is requeued right after its start begins again at once."""
    first = [known(START - 2, "done")], [row(start=START - 2, state="retained")]
    given = facts(
        [slurm_run(), ended(START - 2, START - 1)],
        [known(), *first[0]],
        [row(state="conflict"), *first[1]],
        [stored(START - 2, "cancelled")],
    )
    assert f"the run that began {at(START - 2, NOW)}, cancelled there" in conclusion(given).text


def test_a_delivery_has_its_own_time_and_not_that_of_a_refused_try() -> None:
    sent, then = NOW - HOUR, NOW - 60
    late = conclusion(facts([slurm_run()], [known()], [row(first_sent=sent, delivered=then)]))
    assert (late.word, f"accepted it {at(then, NOW)}" in late.text) == ("young", True)
    over = conclusion(facts([ended()], [known(stage="done", changed=then)], [row(state="done", first_sent=sent)]))
    assert (over.word, f"accepted it {at(then, NOW)}" in over.text) == ("young", True)
    unknown = conclusion(facts([slurm_run()], [known()], [row(first_sent=sent)]))
    assert unknown.text == "it was delivered to cc-backend, but cc-backend does not list it"


def test_no_rows_alone_do_not_mean_that_a_run_was_delivered() -> None:
    assert conclusion(facts([ended()], OVER)).text.startswith("no message of it is left: it was delivered, or given up")
    text = " ".join("\n".join(render(explain(facts([ended()], OVER)), "7")).split())
    assert "no message of it is left: they were delivered, or given up" in text


def test_a_job_that_was_cancelled_while_it_waited_is_not_said_to_have_begun() -> None:
    given = facts([ended(start=START, end=START, never_ran=True, hosts=(), source="accounting")])
    noted = facts(no_slurm(), [known(stage="done", note=notes.NEVER_RAN)])
    assert conclusion(given).text == conclusion(noted).text == f"cancelled at {at(START, NOW)} before it began"
    lines = list(render(explain(given), "7"))
    assert f"  accounting: cancelled at {moment(START, NOW)} before it began, submitted" in " ".join(lines)
    for each in (given, noted):
        text = "\n".join(render(explain(each), "7"))
        assert "Run that began" not in text
        assert f"Cancelled before it began, {moment(START, NOW)}" in text


def test_accounting_shows_no_other_run_only_of_a_job_that_slurm_knows() -> None:
    assert "accounting: does not know the job" in "\n".join(render(explain(facts(no_slurm())), "7"))
    current = "\n".join(render(explain(facts([slurm_run()])), "7"))
    assert "accounting: shows no other run of the job" in current


def test_a_cluster_that_cc_backend_does_not_know_has_two_ways_out() -> None:
    reason = "HTTP 400: no such cluster: lab"
    step = conclusion(facts([slurm_run()], [known()], [row(state="parked", reason=reason)])).next_step
    assert "set clusterName, restart, and drop what waits, as that keeps the old name (-queue drop);" in step
    assert "else add it in cc-backend, then send it again: cc-slurm-adapter -queue retry 7" in step


def test_a_refusal_has_the_next_step_that_belongs_to_its_reason() -> None:
    reason = "HTTP 400: ARCHIVE/CLUSTERCONFIG > no subcluster found for cluster lab and host n1"
    given = facts([slurm_run()], [known()], [row(state="parked", reason=reason)])
    step = conclusion(given).next_step
    assert step.startswith("Add these hosts to a subcluster in cc-backend's cluster.json")
    assert step.endswith("cc-slurm-adapter -queue retry 7")


@pytest.mark.parametrize(
    "given",
    [
        facts([slurm_run()], daemon=None),
        facts([slurm_run()], [known()], [row(state="pending")], daemon=None),
        facts([slurm_run()], [known()], [row()], [stored()], daemon=None),
        facts([ended()], OVER, backend=[stored()], daemon=None),
    ],
    ids=["not known", "waits", "runs", "is over"],
)
def test_a_daemon_that_does_not_answer_is_not_called_stopped(given: JobFacts) -> None:
    assert "no daemon runs" in conclusion(given._replace(daemon_failure=NOT_RUNNING)).text
    silent = conclusion(given._replace(daemon_failure="runs, but cannot be asked: it does not answer within 5 s"))
    assert "the daemon cannot be asked" in silent.text
    assert silent.next_step == "Make the daemon answer (above is why it does not), then ask again."


@pytest.mark.parametrize(("user", "is_told"), [("root", False), ("slurm", False), ("alice", True)])
def test_private_data_is_told_to_those_from_whom_slurm_may_hide_jobs(user: str, is_told: bool) -> None:
    """It hides nothing from root and SlurmUser."""
    given = facts(no_slurm(private_data="jobs", asked_as=user, slurm_user="slurm"))
    assert ("PrivateData" in "\n".join(render(explain(given), "7"))) is is_told


def test_what_was_sent_and_answered_is_told() -> None:
    given = facts(
        [slurm_run()],
        [known()],
        [row(state="parked", next_try=NOW + HOUR, reason="HTTP 400: 'n1'\nis unknown", refusals=3, cuts=1)],
    )
    text = " ".join(" ".join(render(explain(given), "7")).split())
    assert f"start to cc-backend: refused and parked; queued {at(START + 5, NOW)};" in text
    assert f"first sent {at(START + 6, NOW)}; refused 3 times; 1 of its texts left out" in text
    assert f"next try {at(NOW + HOUR, NOW)}" in text
    assert "answer: HTTP 400: 'n1'\\nis unknown" in text


def test_what_others_write_cannot_turn_the_terminal() -> None:
    evil = "\x1b[2J\u202e"
    given = facts([slurm_run(user=evil)], [known()], [row(state="parked", reason=evil)], [stored()])
    assert all(line.isprintable() for line in render(explain(given), "7"))


def test_tasks_of_an_array_are_named_as_the_id_is_that_of_all() -> None:
    tasks = tuple(QueueLine(7 + task, 7, str(task), "RUNNING", "None") for task in range(1, 9))
    given = facts(SlurmFacts("root", "lab", queue=(*tasks, WAITING_LINE), runs=(slurm_run(0, phase="waiting"),)))
    text = " ".join(" ".join(render(explain(given), "7")).split())
    assert "7_1 is 8, 7_2 is 9, 7_3 is 10, 7_4 is 11, 7_5 is 12 and 3 more" in text


def test_a_daemon_that_cannot_be_asked_and_what_fails_are_lines() -> None:
    given = facts([slurm_run()], daemon=None, daemon_failure="runs, but is stuck", state_failure="it is locked")
    text = "\n".join(render(explain(given), "7"))
    assert "daemon: runs, but is stuck" in text
    assert "state file: it is locked" in text
    failing = facts([slurm_run()], daemon=DAEMON._replace(failing=(AWAY,)))
    assert "cc-backend fails since" in "\n".join(render(explain(failing), "7"))
