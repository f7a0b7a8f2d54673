"""Whole answers of Slurm's commands: what was recorded of refusals, and words on standard error that refuse nothing."""

from __future__ import annotations

import pytest

from cc_slurm_adapter.errors import CommandFailed
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.output import read_text
from tests.fakes.programs import FakePrograms
from tests.recorded.fixture_files import FIXTURES

RECORDED = FIXTURES / "slurm-24.11.5" / "errors"


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("unknown-field.squeue", "Invalid job format specification"),
        ("bad-json-version.sacct", "application/json output not supported"),
    ],
)
def test_nothing_with_exit_code_0_is_a_failure_where_slurm_refuses_the_query(
    case: str, reason: str, commands: Commands, programs: FakePrograms
) -> None:
    programs.replay("squeue", RECORDED, case)
    with pytest.raises(CommandFailed, match=reason):
        read_text(commands, ["squeue", "-h"])


@pytest.mark.parametrize(
    "words",
    [
        "squeue: error: Ignoring obsolete CacheGroups option.",
        "squeue: error: Parsing error at unrecognized key: NewOption",
        "squeue: warning: can't honor this",
    ],
)
def test_an_empty_answer_with_other_words_is_an_empty_answer(
    words: str, commands: Commands, programs: FakePrograms
) -> None:
    programs.make("squeue", f'echo "{words}" >&2')
    assert read_text(commands, ["squeue", "-h"]) == ""
