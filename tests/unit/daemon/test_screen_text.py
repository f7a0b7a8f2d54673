"""Texts in lines of a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.daemon.screen_text import LONGEST, clipped, columns, wrapped
from cc_slurm_adapter.lines import printable


def test_a_text_is_broken_between_words_and_by_what_a_terminal_shows() -> None:
    assert wrapped("one two three", 7, 2) == ["one two", "  three"]
    assert wrapped("abcdefghij", 4) == ["abcd", "efgh", "ij"]
    assert wrapped("漢字漢字 e\u0301e\u0301", 6) == ["漢字漢", "字 e\u0301e\u0301"]
    assert wrapped("", 10) == []
    assert wrapped("one\x1b[31m two-three", 12, 4) == ["one\\x1b[31m", "    two-thre", "    e"]


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("no room in /var/lib/cc-slurm-adapter now", 14, ["no room in", "  /var/lib/cc-slurm-adapter", "  now"]),
        ("try it: run chmod o-r /etc/x, then reload", 24, ["try it:", "  run chmod o-r /etc/x,", "  then reload"]),
        ("set both (chronyc tracking) now", 20, ["set both", "  (chronyc tracking)", "  now"]),
        ("give 'chown a b' to it", 18, ["give 'chown a b'", "  to it"]),
        ("then journalctl -u x -n 50", 24, ["then", "  journalctl -u x -n 50"]),
        ("it is (a long thing in brackets) here", 16, ["it is (a long", "  thing in", "  brackets) here"]),
        ("the daemon's user may not, cc-backend's may", 20, ["the daemon's user", "  may not,", "  cc-backend's may"]),
    ],
)
def test_what_may_be_pasted_is_not_broken(text: str, width: int, expected: list[str]) -> None:
    assert wrapped(text, width, 2, to_paste=True) == expected


@given(st.text(), st.integers(1, 40))
def test_no_word_is_lost_or_broken_where_paths_stay_whole(text: str, width: int) -> None:
    lines = wrapped(text, width, to_paste=True)
    assert " ".join(lines).split() == printable(text).split()
    assert all(columns(line) <= width or columns(line.split()[0]) > width for line in lines)


@pytest.mark.parametrize(
    ("text", "longest", "expected"),
    [
        ("short", 10, "short"),
        ("in two\n  lines", 20, "in two lines"),
        ("0123456789", 10, "0123456789"),
        ("0123456789a", 10, "012345 ..."),
        ("01234 6789a", 10, "01234 ..."),
        ("\x1b[31m", 20, "\\x1b[31m"),
        ("x" * 1000, LONGEST, "x" * 396 + " ..."),
    ],
)
def test_a_long_text_is_cut_and_says_so(text: str, longest: int, expected: str) -> None:
    assert clipped(text, longest) == expected
