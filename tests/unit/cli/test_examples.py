"""The examples that -install prints are those that sites copy."""

from __future__ import annotations

import pytest

import build
from cc_slurm_adapter.cli.examples import CLUSTER, HOOKS, TEMPLATE, TMPFILES, UNIT, read_example


@pytest.mark.parametrize("name", [UNIT, TEMPLATE, TMPFILES, CLUSTER, HOOKS])
def test_an_example_is_read_as_it_is(name: str) -> None:
    assert read_example(name) == (build.ROOT / "examples" / name).read_text(encoding="utf-8")


def test_the_build_ships_what_is_read() -> None:
    assert set(build.EXAMPLES_SHIPPED) == {UNIT, TEMPLATE, TMPFILES, CLUSTER, HOOKS}
