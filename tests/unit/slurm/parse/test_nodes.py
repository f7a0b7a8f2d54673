"""sinfo's output, read again and again: lines that were read before are not read again, and nothing differs for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.slurm.parse import nodes
from cc_slurm_adapter.slurm.parse.nodes import SinfoParser
from tests.recorded.fixture_files import parse_sinfo, sinfo_row

ROWS = st.builds(
    lambda name, state, cpus, used: sinfo_row(NodeList=name, StateComplete=state, CPUsState=cpus, GresUsed=used),
    st.sampled_from(("a", "b")),
    st.sampled_from(("idle", "mixed+drain")),
    st.sampled_from(("4/12/0/16", "0/16/0/16", "nonsense")),
    st.sampled_from(("gpu:h100:2(IDX:0-1)", "gpu:h100:0")),
)


@given(st.lists(st.lists(ROWS, max_size=4), max_size=6))
def test_each_output_says_the_same_as_if_it_were_the_first(outputs: list[list[str]]) -> None:
    parser = SinfoParser()
    for rows in outputs:
        text = "\n".join(rows)
        assert parser.parse(text) == parse_sinfo(text)


def test_only_lines_that_are_new_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    whole = nodes._row
    monkeypatch.setattr(nodes, "_row", lambda line: read.append(line) or whole(line))  # type: ignore[func-returns-value]
    idle = [sinfo_row(NodeList=name, StateComplete="idle") for name in ("a", "b", "c")]
    busy = sinfo_row(NodeList="b", StateComplete="mixed")
    parser = SinfoParser()
    for lines, expected in (
        (idle, idle),
        (idle, []),
        ([idle[0], busy, idle[2]], [busy]),
        ([idle[0], idle[2]], []),
        (idle, [idle[1]]),
    ):
        read.clear()
        parser.parse("\n".join(lines))
        assert read == expected
