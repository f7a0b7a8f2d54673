"""Runs that Slurm has lost: said, asked for ever more seldom, and over only when accounting can have no end of them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cc_slurm_adapter.errors import CommandFailed, UnexpectedOutput
from cc_slurm_adapter.jobs.catch_up import LONGEST_WAIT, MAX_WITHOUT_END
from cc_slurm_adapter.jobs.lost_runs import PROOF
from cc_slurm_adapter.model import AccountedEnd, Details, End, EndState, Phase
from cc_slurm_adapter.sinks.base import RunningRow
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.parse.accounting import parse_backlog
from tests.fakes.programs import FakePrograms
from tests.fakes.slurm_and_sinks import NOW, make_run
from tests.unit.jobs.test_watch import Lab, believed, stop_times

POLL, HOUR, DAY = 600, 3600, 86400
RECORDED = sorted((Path(__file__).parents[2] / "recorded" / "slurm").glob("slurm-*/cluster/sdiag.txt"))


class LostLab(Lab):
    """Time passes in polls; `busy` says that other runs end all the time."""

    busy = True

    def go_on(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += POLL
            if self.busy and self.now % HOUR < POLL:
                self.end_another()
            self.poll()
            self.catch_up(int(self.now) - POLL)

    def end_another(self) -> None:
        """A run of another job ends just now, and accounting knows."""
        end = End(EndState.COMPLETED, int(self.now), "COMPLETED")
        self.slurm.close(make_run(int(self.now), int(self.now) - 30, Phase.ENDED, end=end))

    def lose(self, *job_ids: int) -> None:
        """slurmctld knows no such jobs any more, and accounting never gets an end of them."""
        for job_id in job_ids:
            del self.slurm.jobs[job_id]
        self.slurm.forgotten |= set(job_ids)

    def stops_of(self, *job_ids: int) -> dict[int, tuple[str, int]]:
        return {key.job_id: stop for key, stop in stop_times(self).items() if key.job_id in job_ids}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LostLab]:
    """One job has run until the last poll, which was NOW."""
    made = LostLab(tmp_path)
    made.slurm.put(make_run(1, NOW - 500))
    made.poll()
    made.catch_up(NOW - POLL)
    made.stops_of()
    yield made
    made.outbox.close()


def test_a_lost_run_is_over_a_day_later_at_the_time_at_which_it_was_seen_last(
    lab: LostLab, caplog: pytest.LogCaptureFixture
) -> None:
    lab.lose(1)
    lab.go_on(PROOF - HOUR)
    assert lab.stops_of(1) == {}
    (said,) = (line for line in caplog.messages if "Slurm has lost" in line)
    assert "lost 1 run:" in said
    assert "`sacctmgr show runawayjobs`" in said
    assert said.endswith("jobs 1")
    lab.go_on(2 * HOUR + LONGEST_WAIT)
    assert lab.stops_of(1) == {1: ("failed", NOW)}
    assert lab.watch.report.open == 0
    assert "1 run is reported as failed, with the time of the last sight" in caplog.text


def test_it_is_asked_for_ever_more_seldom(lab: LostLab) -> None:
    lab.busy = False
    lab.lose(1)
    lab.go_on(4 * HOUR)
    lab.slurm.asked.clear()
    lab.go_on(3 * DAY)
    asked = Counter(lab.slurm.asked)
    assert asked["ends_of"] <= 2 * 3 * DAY / LONGEST_WAIT
    assert asked["accounting_backlog"] <= 3 * DAY / LONGEST_WAIT
    assert asked["is_forgotten"] == 0
    assert lab.watch.report.open == 1  # no other run has ended: accounting may be behind


def test_what_is_lost_holds_no_nodes(lab: LostLab) -> None:
    assert [node.jobs_running for node in lab.watch.node_states()] == [1]
    lab.lose(1)
    lab.go_on(HOUR)
    assert [node.jobs_running for node in lab.watch.node_states()] == [0]


def known_again(lab: LostLab) -> None:
    lab.slurm.forgotten.clear()


def waiting_messages(lab: LostLab) -> None:
    lab.slurm.backlog = 3


def no_sdiag(lab: LostLab) -> None:
    def fail() -> int:
        raise CommandFailed("sdiag: not in PATH")

    lab.slurm.accounting_backlog = fail  # type: ignore[method-assign]


def no_other_ends(lab: LostLab) -> None:
    lab.busy = False


def ends_to_come(lab: LostLab) -> None:
    """Records from a clock that was ahead."""
    lab.busy = False
    end = End(EndState.COMPLETED, NOW + 365 * DAY, "COMPLETED")
    lab.slurm.close(make_run(5, NOW + 364 * DAY, Phase.ENDED, end=end))
    ended_between = lab.slurm.ended_between

    def with_what_is_to_come(since: int, until: int) -> Generator[list[AccountedEnd], None, None]:
        return ended_between(since, until + 366 * DAY)

    lab.slurm.ended_between = with_what_is_to_come  # type: ignore[method-assign]


@pytest.mark.parametrize("lacks", [known_again, waiting_messages, no_sdiag, no_other_ends, ends_to_come])
def test_without_any_part_of_the_evidence_it_is_not_over(lab: LostLab, lacks: object) -> None:
    lab.lose(1)
    assert callable(lacks)
    lacks(lab)
    lab.go_on(3 * DAY)
    assert lab.stops_of(1) == {}
    assert lab.watch.report.open == 1


def test_evidence_that_goes_away_before_the_end_ends_nothing(lab: LostLab) -> None:
    lab.lose(1)
    lab.go_on(HOUR)
    known_again(lab)
    lab.go_on(3 * DAY)
    assert lab.stops_of(1) == {}


def test_sdiag_that_fails_is_said_and_keeps_nothing_else_from_being_done(
    lab: LostLab, caplog: pytest.LogCaptureFixture
) -> None:
    lab.lose(1)
    no_sdiag(lab)
    lab.go_on(HOUR)
    assert "cannot be seen without sdiag, they stay open: sdiag: not in PATH" in caplog.text
    assert lab.outbox.checkpoint("lab") == lab.now


def test_an_end_that_accounting_tells_after_all_counts_more(lab: LostLab) -> None:
    lab.lose(1)
    lab.go_on(HOUR)
    lab.slurm.close(make_run(1, NOW - 500, Phase.ENDED, end=End(EndState.TIMEOUT, NOW + 30, "TIMEOUT")))
    lab.go_on(2 * LONGEST_WAIT)
    assert lab.stops_of(1) == {1: ("timeout", NOW + 30)}


def test_an_end_that_an_administrator_made_is_not_before_it_was_seen_last(lab: LostLab) -> None:
    """as_mysql_fix_runaway_jobs.c: time_end is GREATEST(time_start, time_eligible, time_submit), COMPLETED."""
    lab.lose(1)
    lab.go_on(HOUR)
    lab.slurm.close(make_run(1, NOW - 500, Phase.ENDED, end=End(EndState.COMPLETED, NOW - 500, "COMPLETED")))
    lab.go_on(2 * LONGEST_WAIT)
    assert lab.stops_of(1) == {1: ("failed", NOW)}


def test_a_run_that_slurmctld_knows_again_goes_on(lab: LostLab) -> None:
    """Its state was brought back from a copy."""
    lab.lose(1)
    lab.go_on(HOUR)
    known_again(lab)
    lab.slurm.put(make_run(1, NOW - 500))
    lab.go_on(2 * DAY)
    assert [node.jobs_running for node in lab.watch.node_states()] == [1]
    lab.slurm.put(make_run(1, NOW - 500, Phase.ENDED, end=End(EndState.COMPLETED, NOW + 2 * DAY, "COMPLETED")))
    lab.poll()
    assert lab.stops_of(1) == {1: ("completed", NOW + 2 * DAY)}


def test_restarts_change_neither_the_time_nor_the_proof(lab: LostLab) -> None:
    lab.lose(1)
    for _ in range(30):
        lab.go_on(HOUR)
        lab.restart()
    assert lab.stops_of(1) == {1: ("failed", NOW)}


def test_a_run_that_was_lost_while_no_daemon_ran_was_seen_at_the_last_checkpoint(lab: LostLab) -> None:
    lab.lose(1)
    lab.now += 3 * DAY
    lab.restart()
    lab.go_on(3 * HOUR)
    assert lab.stops_of(1) == {1: ("failed", NOW)}


def test_it_is_not_seen_last_later_than_now_nor_before_it_began(lab: LostLab) -> None:
    """The clock was set back by an hour, and it is lost before the next poll."""
    later = lab.slurm.put(make_run(2, NOW + 30))
    lab.watch.look_up([2])
    lab.now -= HOUR
    lab.lose(1, 2)
    lab.go_on(2 * DAY)
    stops = lab.stops_of(1, 2)
    assert NOW - HOUR < stops[1][1] <= NOW
    assert stops[2][1] == later.key.start_time


def test_all_jobs_of_a_cluster_are_lost_and_looked_at_in_turns(
    lab: LostLab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after `slurmctld -c`."""
    jobs = range(1, 3 * MAX_WITHOUT_END + 1)
    for job_id in jobs:
        lab.slurm.put(make_run(job_id, NOW - 500))
    lab.poll()
    lab.stops_of()
    asked: list[int] = []
    read_details = lab.slurm.read_details

    def counted(job_ids: Iterable[int]) -> Generator[Details, None, None]:
        asked.append(len(set(job_ids)))
        return read_details(job_ids)

    monkeypatch.setattr(lab.slurm, "read_details", counted)
    lab.lose(*jobs)
    lab.go_on(3 * POLL)
    assert max(asked) == MAX_WITHOUT_END
    lab.go_on(DAY + 2 * HOUR)
    assert lab.stops_of(*jobs) == dict.fromkeys(jobs, ("failed", NOW))
    assert "jobs 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 190 more" in caplog.text


def test_what_is_left_out_is_forgotten_without_a_stop(lab: LostLab) -> None:
    lab.slurm.put(make_run(2, NOW - 500, opted_out=True))
    lab.poll()
    lab.lose(2)
    lab.go_on(2 * DAY)
    assert lab.stops_of(2) == {}
    assert lab.watch.report.open == 1


def test_rows_of_which_nobody_tells_are_named_and_not_ended(lab: LostLab, caplog: pytest.LogCaptureFixture) -> None:
    """A row that this adapter never saw running may be of another cluster: `clusterName` may be wrong."""
    lab.slurm.forgotten |= {7, 8}
    rows = [RunningRow(job_id, NOW - 9000) for job_id in (7, 8)] + [RunningRow(1, NOW - 510)]
    for _ in range(5):
        lab.watch.reconcile(believed(*rows))
        lab.go_on(DAY)
    assert lab.stops_of(7, 8) == {}
    (line,) = {line for line in caplog.messages if "does not say whether they are over" in line}
    assert "has 2 running jobs" in line
    assert line.endswith("jobs 7, 8")


def test_the_time_at_which_it_was_seen_last_lies_in_the_state_file(lab: LostLab) -> None:
    """An older version of this program finds there what it knows."""
    lab.lose(1)
    lab.go_on(HOUR)
    with closing(sqlite3.connect(lab.folder / "state.sqlite")) as state:
        rows = state.execute("SELECT stage, hosts, changed FROM run WHERE job_id = 1").fetchall()
    assert rows == [("started", "", NOW)]


# --- sdiag


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda file: file.parts[-3])
@pytest.mark.parametrize("size", [0, 7, 10_000])
def test_what_waits_for_slurmdbd_is_read_from_sdiag(recorded: Path, size: int) -> None:
    """Recorded while nothing waited; src/sdiag/sdiag.c prints the number with %d."""
    text = recorded.read_text(encoding="utf-8")
    assert parse_backlog(text) == 0
    assert parse_backlog(text.replace("DBD Agent queue size: 0\n", f"DBD Agent queue size: {size}\n")) == size


@pytest.mark.parametrize(
    "text", ["", "No data available. Probably slurmctld is not working\n", "DBD Agent queue size:\n"]
)
def test_sdiag_without_the_number_is_no_answer(text: str) -> None:
    with pytest.raises(UnexpectedOutput, match="DBD Agent queue size"):
        parse_backlog(text)


def test_sdiag_is_asked(commands: Commands, programs: FakePrograms, tmp_path: Path) -> None:
    programs.make("sdiag", f"cat {RECORDED[0]}")
    client = SlurmClient(commands, "lab", str(tmp_path), 0)
    assert client.accounting_backlog() == 0
    programs.make("sdiag", "echo 'slurm_get_statistics: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(CommandFailed, match="Unable to contact"):
        client.accounting_backlog()
