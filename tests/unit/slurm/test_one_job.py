"""Jobs by the names that people use: ids, tasks of arrays, components of heterogeneous jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.errors import SlurmError, UsageError
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.one_job import (
    JobName,
    QueueLine,
    id_in_queue,
    parse_name,
    read_accounted_id,
    read_queue,
)
from tests.fakes.programs import FakePrograms
from tests.recorded.fixture_files import FIXTURES

ERRORS = FIXTURES / "slurm-24.11.5" / "errors"
TASK, REST = QueueLine(12, 10, "3", "RUNNING", "None"), QueueLine(10, 10, "5-9", "PENDING", "Resources")


@pytest.fixture
def programs(tmp_path: Path) -> FakePrograms:
    return FakePrograms(tmp_path / "bin")


@pytest.fixture
def commands(programs: FakePrograms, monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    monkeypatch.setenv("PATH", f"{programs.folder}:/usr/bin:/bin")
    made = Commands()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("4711", JobName(4711)),
        (" 4711 ", JobName(4711)),
        ("123_4", JobName(123, "_", 4)),
        ("123_0", JobName(123, "_", 0)),
        ("123+1", JobName(123, "+", 1)),
    ],
)
def test_what_people_type_is_a_name(text: str, name: JobName) -> None:
    assert parse_name(text) == name
    assert str(name) == text.strip()


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "job", "12.batch", "123_[1-4]", "123_", "123+1_2", "99999999999", "4711\n5", "٣", "1;rm"]
)
def test_what_is_no_job_is_refused_with_how_to_find_the_id(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no job: give its id, or 123_4 .*`sacct -a -X -o JobID,JobIDRaw`"):
        parse_name(text)


def test_squeue_s_lines_are_read_and_others_left_out(commands: Commands, programs: FakePrograms) -> None:
    programs.make("squeue", "printf '12|10|3|RUNNING|None\\n10|10|5-9|PENDING|Resources\\nnonsense\\n|||\\n'")
    assert read_queue(commands, JobName(10)) == [TASK, REST]


def test_a_job_that_slurmctld_does_not_know_is_no_line_and_a_slurmctld_that_is_away_a_failure(
    commands: Commands, programs: FakePrograms
) -> None:
    programs.replay("squeue", ERRORS, "unknown-id.squeue")
    assert read_queue(commands, JobName(10)) == []
    programs.replay("squeue", ERRORS, "slurmctld-down.squeue")
    with pytest.raises(SlurmError):
        read_queue(commands, JobName(10))


@pytest.mark.parametrize(
    ("name", "lines", "job_id"),
    [
        ("10", [], 10),
        ("10_3", [TASK, REST], 12),
        ("10_7", [TASK, REST], 10),  # tasks that wait together have the id of the array
        ("10_7", [TASK], None),
        ("10_7", [], None),
        ("20+1", [QueueLine(21, 21, "N/A", "RUNNING", "None")], 21),
        ("20+1", [], None),
    ],
)
def test_a_name_has_the_id_that_squeue_shows(name: str, lines: list[QueueLine], job_id: int | None) -> None:
    assert id_in_queue(parse_name(name), lines) == job_id


def test_accounting_has_the_id_of_a_task_that_is_over(commands: Commands, programs: FakePrograms) -> None:
    programs.make("sacct", "printf '11|10_2\\n12|10_3\\n12|10_3\\n'")
    assert read_accounted_id(commands, JobName(10, "_", 3)) == 12
    assert read_accounted_id(commands, JobName(10, "_", 4)) is None
    programs.replay("sacct", ERRORS, "slurmdbd-down.sacct")
    with pytest.raises(SlurmError):
        read_accounted_id(commands, JobName(10, "_", 3))
