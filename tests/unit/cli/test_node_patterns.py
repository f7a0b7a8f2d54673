"""Regular expressions on the names of nodes match exactly those that they are made for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.cli.node_patterns import pattern_for
from cc_slurm_adapter.config.host_pattern import compile_host_pattern

NAMES = st.text("ab019.-", min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("names", "others", "pattern"),
    [
        (["gpu01", "gpu02", "gpu17"], ["cn001", "login1"], "^gpu[0-9]+$"),
        (["r1n01", "r12n04"], ["r1m01"], "^r[0-9]+n[0-9]+$"),
        (["a1", "b1"], ["c1"], "^(a[0-9]+|b[0-9]+)$"),
        (["fat"], ["fat1"], "^fat$"),
        (["n01", "n02", "n03", "n10"], ["n04"], "^(n0[1-3]|n10)$"),
        (["n1", "n3"], ["n2"], "^n[13]$"),
        (["n1.x"], ["n2.x"], r"^n1\.x$"),
        (["gpu1", "gpu"], ["gpu2"], "^(gpu|gpu1)$"),
    ],
)
def test_numbers_stand_for_all_unless_another_node_has_one_of_them(
    names: list[str], others: list[str], pattern: str
) -> None:
    assert pattern_for(names, others) == pattern


@given(st.sets(NAMES, min_size=1, max_size=30), st.sets(NAMES, max_size=30))
def test_it_matches_all_of_the_names_and_none_of_the_others(names: set[str], others: set[str]) -> None:
    others -= names
    found = compile_host_pattern(pattern_for(names, others))
    assert {name for name in names | others if found.search(name)} == names


def test_thousands_of_nodes_that_alternate_have_a_short_pattern() -> None:
    even = [f"n{number:04}" for number in range(0, 5000, 2)]
    odd = [f"n{number:04}" for number in range(1, 5000, 2)]
    assert len(pattern_for(even, odd)) < 10_000
