"""What accounting has closed is read and recorded some runs at a time: memory does not grow with an hour's runs."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.errors import CommandCancelled, CommandFailed, SlurmError, UnexpectedOutput
from cc_slurm_adapter.jobs.accounting_windows import AUDITS_AT_MOST
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.model import AccountedEnd, End, EndState, Phase, Run, RunKey
from cc_slurm_adapter.outbox.outbox import Batch, OpenRun, Outbox, Stage
from cc_slurm_adapter.sinks.base import Kind, RunningRow
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.slurm import output as answers_module
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.details import CHUNK
from cc_slurm_adapter.slurm.output import BATCH
from tests.fakes.programs import CountedCommands, FakePrograms
from tests.fakes.slurm_and_sinks import NOW, make_run
from tests.unit.jobs.test_watch import SINK, Lab, believed

KILOBYTE = 1024


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.outbox.close()


@pytest.fixture
def client(commands: Commands, tmp_path: Path) -> SlurmClient:
    return SlurmClient(commands, "lab", str(tmp_path), 1 << 20)


def row(job_id: int, state: str = "COMPLETED", submit: int = 5, start: int = 10, end: int = 20) -> str:
    """A line of sacct."""
    return f"{job_id}|{state}|{submit}|{start}|{end}|1\n"


def answers(programs: FakePrograms, rows: Sequence[str], then: str = "") -> None:
    """sacct prints this and then does something else."""
    path = programs.folder / "rows"
    path.write_text("".join(rows))
    programs.make("sacct", f"cat {path}; {then}")


def ended(pieces: Iterator[list[AccountedEnd]]) -> list[tuple[int, int, int]]:
    """Job, start and end of all of them."""
    return [(each.key.job_id, each.key.start_time, each.end.end_time) for piece in pieces for each in piece]


def test_many_known_runs_take_no_more_memory_than_few(
    commands: CountedCommands, client: SlurmClient, programs: FakePrograms, tmp_path: Path
) -> None:
    outbox = Outbox(str(tmp_path / "state.sqlite"))
    settings = WatchSettings("lab", IgnoreRules(), True, 3600, clock=lambda: NOW)
    watch = JobWatch(client, outbox, CcMessages(()), [SINK], Counters(), settings)

    def peak(runs: int) -> int:
        """Bytes at most while so many runs are read that are done already."""
        done = [OpenRun(RunKey("lab", job_id, 10), Stage.DONE, "", None) for job_id in range(1, runs + 1)]
        outbox.commit("lab", Batch(runs={run.key: run for run in done}))
        answers(programs, [row(run.key.job_id) for run in done])
        del done
        tracemalloc.start()
        list(watch.catch_up(NOW))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(500)  # what is imported and remembered at the first time only
    few, many = peak(2_000), peak(20_000)
    assert many < few + 1_000 * KILOBYTE  # 0.8 KB each would be 14 MB; how much a pipe gives at once varies
    assert outbox.waiting() == 0
    assert commands.started == 3 + 1  # with an audit
    outbox.close()


def audited(lab: Lab) -> None:
    """The first audit is over, the next one is an hour away."""
    while len(lab.slurm.asked) != 1:
        lab.slurm.asked.clear()
        lab.catch_up(NOW - 60)


def test_what_is_known_and_done_costs_no_question_to_slurm(lab: Lab) -> None:
    for job_id in range(1, 10):
        lab.slurm.close(make_run(job_id, start=NOW - 100, phase=Phase.ENDED))
    audited(lab)
    lab.slurm.asked.clear()
    lab.catch_up(NOW - 60)
    assert lab.slurm.asked == ["ended_between"]


def test_another_longest_span_is_in_force_for_the_next_catch_up(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    audited(lab)
    windows: list[int] = []
    read = lab.slurm.ended_between

    def note(since: int, until: int) -> Generator[list[AccountedEnd], None, None]:
        windows.append(since)
        return read(since, until)

    monkeypatch.setattr(lab.slurm, "ended_between", note)
    settings = lab.watch._settings
    now = settings.now()
    lab.catch_up(now - 1_000_000)
    assert min(windows) == now - settings.max_span
    settings.max_span = 2 * 3600
    windows.clear()
    lab.catch_up(now - 1_000_000)
    assert min(windows) == now - 2 * 3600


@pytest.mark.parametrize("restarted", [False, True])
def test_a_longer_span_reports_nothing_again_that_was_forgotten(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    """Over NATS nobody would recognise such a run."""
    day = 86400
    monkeypatch.setattr("cc_slurm_adapter.outbox.outbox.time.time", lambda: float(lab.now))
    lab.now = NOW - 3 * day
    lab.watch._settings.max_span = day
    run = lab.slurm.close(make_run(start=lab.now - 100, phase=Phase.ENDED))
    lab.catch_up(lab.now - 200)
    assert {key for _, key in lab.pop_pending()} == {run.key}
    lab.now = NOW
    lab.outbox.tidy(day)
    assert lab.outbox.unknown([run.key]) == [run.key]
    if restarted:
        lab.restart()
    lab.watch._settings.max_span = 7 * day
    lab.now += day + 60  # when all of it is read again
    for _ in range(7 * 24 // AUDITS_AT_MOST + 3):  # and a few for the audit of six hours
        lab.catch_up(lab.now - 60)
        lab.now += 60
    assert lab.pop_pending() == []


def test_the_runs_come_in_lists_of_a_bounded_size(client: SlurmClient, programs: FakePrograms) -> None:
    answers(programs, [row(job_id) for job_id in range(1, 3 * BATCH + 8)])
    pieces = list(client.ended_between(0, 100))
    assert [len(piece) for piece in pieces] == [BATCH, BATCH, BATCH, 7]
    assert ended(iter(pieces)) == [(job_id, 10, 20) for job_id in range(1, 3 * BATCH + 8)]
    by_job = client.ends_of(range(1, CHUNK + 2), 0, 100)
    assert len(list(by_job)) == 2


@pytest.mark.parametrize("size", [1, 2, 3, 500])
def test_a_run_that_was_resized_twice_is_one_run_however_its_records_are_handed_on(
    client: SlurmClient, programs: FakePrograms, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """sacct sorts by submit time, which for the later records is when the run was resized."""
    monkeypatch.setattr(answers_module, "BATCH", size)
    rows = [
        row(7, "RESIZING", submit=90, start=100, end=200),
        row(8, submit=95, start=100, end=200),
        row(7, "RESIZING", submit=200, start=200, end=300),
        row(9, submit=250, start=260, end=270),
        row(7, "TIMEOUT", submit=300, start=300, end=400),
    ]
    answers(programs, rows)
    pieces = list(client.ended_between(0, 1000))
    assert ended(iter(pieces)) == [(8, 100, 200), (9, 260, 270), (7, 100, 400)]
    assert not any(each.may_be_remainder for piece in pieces for each in piece)


def test_the_rest_of_a_run_that_was_resized_before_this_window_is_known_as_such(
    client: SlurmClient, programs: FakePrograms
) -> None:
    """However often: its first record here began when it was made."""
    later = [
        row(7, "RESIZING", submit=200, start=200, end=300),
        row(7, "RESIZING", submit=300, start=300, end=350),
        row(7, "COMPLETED", submit=350, start=350, end=400),
    ]
    for number in range(3):
        answers(programs, later[number:])
        ((found,),) = client.ended_between(0, 1000)
        assert (found.key.start_time, found.may_be_remainder) == ((200, 300, 350)[number], True)


def test_what_was_said_before_a_failure_is_handed_on_before_it(client: SlurmClient, programs: FakePrograms) -> None:
    answers(programs, [row(7), row(8)], "echo sacct: error: gone >&2; exit 1")
    pieces = client.ended_between(0, 100)
    assert [each.key.job_id for each in next(pieces)] == [7, 8]
    with pytest.raises(CommandFailed, match="gone"):
        next(pieces)


def test_a_line_that_was_cut_is_not_used_and_is_an_error(client: SlurmClient, programs: FakePrograms) -> None:
    answers(programs, [row(7), "8|COMPLETED|5|10|2"])
    pieces = client.ended_between(0, 100)
    assert [each.key.job_id for each in next(pieces)] == [7]
    with pytest.raises(UnexpectedOutput, match="the output is cut"):
        next(pieces)


def test_a_line_without_an_end_does_not_fill_the_memory(client: SlurmClient, programs: FakePrograms) -> None:
    programs.make("sacct", "exec cat /dev/zero")
    with pytest.raises(UnexpectedOutput, match="a line has more than"):
        list(client.ended_between(0, 100))


def test_a_stop_hands_nothing_on_any_more(commands: Commands, client: SlurmClient, programs: FakePrograms) -> None:
    answers(programs, [row(job_id) for job_id in range(1, BATCH + 3)], "echo > $0.printed; exec sleep 60")
    printed = programs.folder / "sacct.printed"

    def stop() -> None:
        while not printed.exists():
            time.sleep(0.01)
        commands.cancel()

    with ThreadPoolExecutor() as threads, pytest.raises(CommandCancelled):
        threads.submit(stop)
        next(client.ended_between(0, 100))


def test_no_other_query_is_asked_before_sacct_has_ended(
    commands: Commands, client: SlurmClient, programs: FakePrograms
) -> None:
    """So much that it does not fit into a pipe: sacct would wait until it is read."""
    answers(programs, [row(job_id) for job_id in range(1, 5001)], "echo > $0.ended")
    pieces = client.ended_between(0, 100)
    assert len(next(pieces)) == BATCH
    assert (programs.folder / "sacct.ended").exists()
    assert BATCH + sum(len(piece) for piece in pieces) == 5000


def test_other_questions_between_two_pieces_are_not_held_against_the_time_limit(
    commands: Commands, programs: FakePrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("cc_slurm_adapter.slurm.commands.time.monotonic", lambda: now)
    programs.make("sacct", "printf one; read -r _ < $0.go; printf two")
    programs.make("squeue", "echo other")
    go = programs.folder / "sacct.go"
    commands.run(["mkfifo", str(go)])
    pieces = commands.pieces(["sacct"])
    assert next(pieces) == b"one"
    assert commands.run(["squeue"]).output == b"other\n"
    now += 2 * commands.timing.time_limit
    go.write_text("\n")
    assert next(pieces) == b"two"
    with pytest.raises(StopIteration) as end:
        next(pieces)
    assert end.value.value.exit_code == 0


def test_a_command_whose_output_is_not_wanted_any_more_is_ended(commands: Commands, programs: FakePrograms) -> None:
    programs.make("sacct", "echo $$; exec sleep 60")
    pieces = commands.pieces(["sacct"])
    pid = int(next(pieces))
    pieces.close()
    assert not Path(f"/proc/{pid}").exists()


def test_an_end_that_was_told_before_a_failure_counts_and_the_checkpoint_stays(lab: Lab) -> None:
    lab.catch_up(NOW - 60)
    run = lab.slurm.close(make_run(start=NOW - 100, phase=Phase.ENDED))
    lab.now += 60
    lab.slurm.late_failure = CommandFailed("slurmdbd was ended")
    with pytest.raises(SlurmError):
        lab.catch_up(NOW)
    assert lab.pop_pending() == [(Kind.START, run.key), (Kind.STOP, run.key)]
    assert lab.outbox.checkpoint("lab") == NOW
    lab.slurm.late_failure = None
    lab.catch_up(NOW)
    assert lab.pop_pending() == []
    assert lab.outbox.checkpoint("lab") == NOW + 60


def test_between_two_pieces_it_has_come_no_further(lab: Lab) -> None:
    """What a daemon that is stopped there has not read is read by the next one."""
    audited(lab)
    for job_id in (1, 2, 3):
        lab.slurm.close(make_run(job_id, start=NOW - 100, phase=Phase.ENDED))
    steps = lab.watch.catch_up(NOW - 5000)
    reached = [(step, lab.outbox.checkpoint("lab")) for step in steps]
    (before, _), *others, last = reached[-5:]
    assert before < NOW - 50
    assert others == [(before, before)] * 3
    assert last == (NOW, NOW)


def test_a_rest_that_comes_before_the_first_record_of_its_run_is_no_run_of_its_own(lab: Lab) -> None:
    run = make_run(start=NOW - 900, phase=Phase.ENDED, end=End(EndState.COMPLETED, NOW - 60, "COMPLETED"))
    rest = RunKey("lab", run.key.job_id, NOW - 500)
    lab.slurm.close(run)

    assert run.end
    both = [AccountedEnd(rest, run.end, may_be_remainder=True), AccountedEnd(run.key, run.end)]
    lab.slurm.ended_between = lambda *_: pieces_of(both)  # type: ignore[method-assign]
    lab.catch_up(NOW - 600)
    assert pending_runs(lab) == {run.key}


def test_a_run_of_which_accounting_says_nothing_when_it_is_asked_again_is_not_lost(lab: Lab) -> None:
    """sacct can say nothing with exit code 0: that alone does not make it the rest of another run."""
    run = lab.slurm.close(make_run(start=NOW - 90, phase=Phase.ENDED, submit_time=NOW - 90))
    end = End(EndState.COMPLETED, NOW - 40, "COMPLETED")
    ends_of = lab.slurm.ends_of
    lab.slurm.ended_between = lambda *_: pieces_of([AccountedEnd(run.key, end, may_be_remainder=True)])  # type: ignore[method-assign]
    lab.slurm.ends_of = lambda *_: iter(())  # type: ignore[method-assign]
    lab.catch_up(NOW - 60)
    assert lab.pop_pending() == []
    lab.slurm.ends_of = ends_of  # type: ignore[method-assign]
    lab.catch_up(NOW)
    assert lab.pop_pending() == [(Kind.START, run.key), (Kind.STOP, run.key)]


def test_many_runs_that_cc_backend_believes_in_are_asked_for_some_at_a_time(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ends_of = lab.slurm.ends_of

    def counted(job_ids: set[int], since: int, until: int) -> Iterator[list[AccountedEnd]]:
        asked.append(len(job_ids))
        return ends_of(job_ids, since, until)

    monkeypatch.setattr(lab.slurm, "ends_of", counted)
    over = [lab.slurm.close(over_long_ago(job_id)) for job_id in range(1, 451)]
    lab.watch.reconcile(believed(*(RunningRow(run.key.job_id, run.key.start_time) for run in over)))
    assert asked == [200, 200, 50]
    assert pending_runs(lab) == {run.key for run in over}


def pieces_of(ended: list[AccountedEnd]) -> Generator[list[AccountedEnd], None, None]:
    """One at a time."""
    for each in ended:
        yield [each]


def over_long_ago(job_id: int) -> Run:
    return make_run(job_id, start=NOW - 9000, phase=Phase.ENDED)


def pending_runs(lab: Lab) -> set[RunKey]:
    return {key for _, key in lab.pop_pending()}
