"""The tables of states and verdicts name all that there are."""

from __future__ import annotations

import re
from types import ModuleType

import pytest

from cc_slurm_adapter.outbox import schema, settle
from cc_slurm_adapter.outbox.outbox import Stage
from cc_slurm_adapter.outbox.schema import RowState
from cc_slurm_adapter.sinks.base import Verdict


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (schema, {each.value for each in Stage} | {each.value for each in RowState}),
        (settle, {each.name for each in Verdict}),
    ],
)
def test_each_has_a_row_in_the_table_of_its_module(module: ModuleType, names: set[str]) -> None:
    rows = set(re.findall(r"^([a-zA-Z_]+) {2,}\S", module.__doc__ or "", re.MULTILINE))
    assert rows - {"Stage", "State", "Verdict"} == names
