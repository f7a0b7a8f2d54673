"""What counts as wrong now, how bad it is, and what is said to be done about it."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.daemon.faults import advice, find_faults
from cc_slurm_adapter.daemon.report import StatusReport
from cc_slurm_adapter.jobs.report import RunsReport
from cc_slurm_adapter.model import Finding, RunKey
from cc_slurm_adapter.outbox.report import Parked, QueueReport
from cc_slurm_adapter.system.backoff import StepReport
from tests.fakes.statuses import NOW, WELL, with_rest, with_step

JOB = RunKey("alex", 5, 1_799_000_100)


def only_fault(report: StatusReport) -> Finding:
    (fault,) = find_faults(report)
    return fault


def test_a_daemon_that_is_well_has_no_faults() -> None:
    assert find_faults(WELL) == ()


@pytest.mark.parametrize(
    ("step", "subject", "text", "next_step"),
    [
        ("poll", "slurmctld", "slurmctld cannot be asked: timed out", "scontrol ping"),
        ("lookup", "slurmctld", "slurmctld cannot be asked: timed out", "scontrol ping"),
        ("nodes", "slurmctld", "slurmctld cannot be asked: timed out", "scontrol ping"),
        ("accounting", "slurmdbd", "accounting cannot be read: timed out", "check slurmdbd"),
        ("comparison", "comparison", "running jobs cannot be compared with cc-backend's: timed out", "journalctl"),
        ("upkeep", "state file", "the state file cannot be tidied: timed out", "journalctl"),
    ],
)
def test_a_step_that_fails_is_a_fault(step: str, subject: str, text: str, next_step: str) -> None:
    fault = only_fault(with_step(step, failing_since=NOW - 90, failures=3, why="timed out"))
    assert (fault.level, fault.subject, fault.text) == (logging.ERROR, subject, text)
    assert next_step in fault.next_step
    assert fault.since == NOW - 90


def test_a_step_that_is_not_known_is_a_fault_with_its_own_name() -> None:
    steps = {**WELL.steps, "reload": StepReport("reloading", failing_since=NOW - 5, failures=1, why="no")}
    assert only_fault(replace(WELL, steps=steps)).text == "reloading fails: no"


def test_steps_that_fail_for_one_cause_are_one_fault() -> None:
    failing = {
        "poll": StepReport("poll", 0, 0, NOW - 60, 2, "squeue: exit status 1: Unable to contact slurm controller"),
        "lookup": StepReport("lookup", 0, 0, NOW - 300, 9, "scontrol: Unable to contact slurm controller"),
        "nodes": StepReport("nodes", 0, 0, NOW - 60, 2, "sinfo: exit status 1: Unable to contact slurm controller"),
        "accounting": StepReport("accounting", 0, 0, NOW - 20, 1, "sacct: Connection refused"),
    }
    first, second = find_faults(replace(WELL, steps={**WELL.steps, **failing}))
    assert first.text == (
        "slurmctld cannot be asked (poll, lookup, nodes): squeue: exit status 1: Unable to contact slurm controller"
    )
    assert first.since == NOW - 300
    assert second.subject == "slurmdbd"


def test_a_comparison_that_fails_because_cc_backend_is_away_is_no_fault_of_its_own() -> None:
    report = with_rest(failing_since=NOW - 20, why="refused")
    step = StepReport("comparing", 0, 0, NOW - 20, 1, "cc-backend: refused")
    assert only_fault(replace(report, steps={**WELL.steps, "comparison": step})).subject == "cc-backend"


def test_a_main_thread_without_progress_is_the_worst() -> None:
    stuck = WELL.program._replace(progress_at=NOW - 61)
    report = replace(with_step("poll", failing_since=NOW - 90, why="x"), program=stuck)
    first, second = find_faults(report)
    assert (first.level, first.subject, first.since) == (logging.ERROR, "daemon", NOW - 61)
    assert "systemctl restart" in first.next_step
    assert second.subject == "slurmctld"
    assert find_faults(replace(WELL, program=WELL.program._replace(progress_at=NOW - 60))) == ()


def test_a_start_is_a_fault_only_if_it_takes_long() -> None:
    phase = "waiting for Slurm, which does not answer: scontrol is not in PATH"
    starting = WELL.program._replace(phase=phase, started=NOW - 60)
    assert find_faults(replace(WELL, program=starting)) == ()
    fault = only_fault(replace(WELL, program=starting._replace(started=NOW - 61)))
    assert fault.text == f"nothing is reported yet: {phase}"
    assert fault.next_step == "set PATH in the unit, so that Slurm's commands are found"


def test_polls_that_do_not_come_are_a_fault() -> None:
    assert find_faults(with_step("poll", last_success=NOW - 599)) == ()
    fault = only_fault(with_step("poll", last_success=NOW - 700))
    assert (fault.level, fault.text) == (logging.WARNING, "no poll has ended for longer than 10 min")
    slow = replace(with_step("poll", last_success=NOW - 3000), slurm=WELL.slurm._replace(poll_interval=600))
    assert find_faults(slow) == ()  # 5 intervals are 50 min
    never = with_step("poll", last_success=0.0)
    assert only_fault(never).since == WELL.program.started
    assert find_faults(replace(never, program=WELL.program._replace(started=NOW - 7100))) == ()


def test_a_state_that_cannot_be_written_is_an_error() -> None:
    report = replace(
        with_step("upkeep", failing_since=NOW - 9, why="disk full"), state=WELL.state._replace(is_durable=False)
    )
    fault = only_fault(report)
    assert (fault.level, fault.subject) == (logging.ERROR, "state file")
    assert "kept in memory" in fault.text
    assert "make room" in fault.next_step


def test_a_state_file_near_its_limit_is_a_fault() -> None:
    nearly = WELL.state._replace(bytes=231, max_bytes=256)
    fault = only_fault(replace(WELL, state=nearly))
    assert "231 bytes of 256 bytes (stateMaxBytes)" in fault.text
    assert find_faults(replace(WELL, state=nearly._replace(bytes=230))) == ()
    assert find_faults(replace(WELL, state=nearly._replace(max_bytes=0))) == ()


def test_old_numbers_are_a_fault_unless_it_starts() -> None:
    old = replace(WELL, state=WELL.state._replace(taken_at=NOW - 61))
    assert only_fault(old).since == NOW - 61
    starting = WELL.program._replace(phase="opening the state file", started=NOW - 50)
    assert find_faults(replace(old, program=starting)) == ()


@pytest.mark.parametrize(
    ("seconds", "refuses_all", "level", "text"),
    [
        (600, False, logging.WARNING, "cc-backend cannot be reached: why"),
        (601, False, logging.ERROR, "cc-backend cannot be reached: why"),
        (1, True, logging.ERROR, "cc-backend refuses everything: why"),
    ],
)
def test_a_destination_that_does_not_answer(seconds: float, refuses_all: bool, level: int, text: str) -> None:
    queue = QueueReport("cc_rest", 12, oldest_pending=NOW - 2000)
    report = with_rest(queue, failing_since=NOW - seconds, refuses_all=refuses_all, why="why", nodes_why="why")
    fault = only_fault(report)
    assert (fault.level, fault.text, fault.since) == (level, text, NOW - seconds)
    assert fault.next_step


def test_node_states_that_are_not_taken() -> None:
    fault = only_fault(with_rest(nodes_why="HTTP 500: no"))
    assert fault.text == "cc-backend does not take the node states: HTTP 500: no"
    assert fault.next_step == "see cc-backend's log"


def test_messages_that_wait_although_the_destination_answers() -> None:
    assert find_faults(with_rest(QueueReport("cc_rest", 1, oldest_pending=NOW - 600))) == ()
    fault = only_fault(with_rest(QueueReport("cc_rest", 1, oldest_pending=NOW - 601)))
    assert fault.text == "1 message for cc-backend pending, the oldest for too long, as it answers"
    assert fault.since == NOW - 601


def test_parked_messages_are_told_with_the_most_frequent_reason() -> None:
    parked = (
        Parked("cc_nats", 9, JOB, "other sink"),
        Parked("cc_rest", 2, JOB, "HTTP 400: no such cluster: alex"),
        Parked("cc_rest", 1, JOB, "HTTP 500: x"),
    )
    fault = only_fault(replace(with_rest(QueueReport("cc_rest", parked=3)), parked=parked))
    assert fault.text == "3 messages are refused by cc-backend; 2 of them: HTTP 400: no such cluster: alex"
    assert fault.next_step == (
        "if its name is another one there, set clusterName, restart, and drop what waits, as that keeps the old name"
        " (-queue drop); else add it in cc-backend, then systemctl reload cc-slurm-adapter, which tries them again"
    )
    assert "-queue list" in only_fault(with_rest(QueueReport("cc_rest", parked=3))).next_step


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("HTTP 400: ARCHIVE/CLUSTERCONFIG > no subcluster found for cluster lab and host zz9", "add these hosts"),
        ("HTTP 422: no such host", "or check hostnameRewrite"),
        ("HTTP 400: ARCHIVE/CLUSTERCONFIG > already assigned subcluster nope unkown (cluster: lab)", "correct the sub"),
        ('HTTP 400: parsing request body failed: json: unknown field "foo"', "update cc-backend"),
        ("cc-backend refuses the token (ccRestJwt or ccRestJwtFile): HTTP 401: no user", "put a valid token"),
        ("ccRestUrl is redirected to 'https://x', set it to the address that answers: HTTP 301: ", "correct ccRestUrl"),
        ("this is not cc-backend's answer, is ccRestUrl right? HTTP 400: ", "correct ccRestUrl"),
        (
            "the proxy requires a user and a password: set them in ccRestProxy: HTTP 407: ",
            "put the right user",
        ),
        ("HTTP 413: Request Entity Too Large", "nginx: client_max_body_size"),
        ("it has 2000000 bytes, more than the server's max_payload", "raise max_payload"),
        ("the server does not permit this user to publish to the subject jobs", "allow natsSubject"),
        ("no stream has the subject jobs: create one with nats stream add", "make a stream"),
        ("not delivered for too long", "see that the destination answers"),
        ("HTTP 500: insert into database failed", "see cc-backend's log"),
    ],
)
def test_reasons_that_are_known_have_their_next_step(reason: str, expected: str) -> None:
    assert expected in advice(reason)


def test_another_reason_has_the_step_that_is_given() -> None:
    assert advice("something new", "look") == "look"


def test_conflicts_jobs_that_are_not_understood_and_runs_that_wait_for_their_nodes() -> None:
    assert find_faults(with_rest(QueueReport("cc_rest", conflicts=2))) == ()
    conflict = only_fault(with_rest(QueueReport("cc_rest", conflicts=2), withdraws=True))
    assert conflict.text == "2 runs are not stored in cc-backend, because it has another run of the job"
    assert "-queue list -state conflict" in conflict.next_step
    jobs, nodes = find_faults(replace(WELL, runs=RunsReport(not_understood=1, awaiting_layout=2)))
    assert jobs.text == "1 job is not reported, as Slurm's output is not understood"
    assert nodes.text == "2 runs wait until sinfo lists the nodes"


def test_findings_of_the_start_follow_what_is_wrong_now_and_notes_are_none() -> None:
    hooks = Finding(logging.WARNING, "hooks", "no hook is set", "set PrologSlurmctld")
    note = Finding(logging.INFO, "hooks", "well", "")
    privileges = Finding(logging.ERROR, "privileges", "AdminLevel None", "grant it")
    report = replace(with_rest(nodes_why="no"), findings=(hooks, note, privileges))
    assert [fault.subject for fault in find_faults(report)] == ["privileges", "cc-backend", "hooks"]


@given(st.text(max_size=2000), st.floats(0, 2e9), st.integers(0, 10**9))
def test_every_fault_has_a_short_text_and_a_next_step(why: str, when: float, number: int) -> None:
    queue = QueueReport("cc_rest", number, number, number, when)
    report = replace(
        with_rest(queue, failing_since=when, why=why * 10, nodes_why=why),
        steps={name: StepReport(name, when, 1.0, when, number, why) for name in WELL.steps},
        parked=(Parked("cc_rest", number, JOB, why),),
        runs=RunsReport(0, 0, 0, number, number),
        state=WELL.state._replace(is_durable=False, bytes=number, taken_at=when),
    )
    for fault in find_faults(report):
        assert fault.level in (logging.WARNING, logging.ERROR)
        assert fault.next_step
        assert len(fault.text) < 600


def test_a_lookup_that_failed_before_a_poll_succeeded_is_no_fault() -> None:
    """It is not repeated if no other hook event comes."""
    polled = WELL.steps["poll"].last_success
    failed = StepReport("lookup", 0, 0, polled - 60, 1, "squeue: refused", polled - 60)
    assert find_faults(replace(WELL, steps={**WELL.steps, "lookup": failed})) == ()
    later = failed._replace(failed_at=polled + 1)
    assert only_fault(replace(WELL, steps={**WELL.steps, "lookup": later})).subject == "slurmctld"
