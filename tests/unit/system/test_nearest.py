"""Which known name somebody meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.system.nearest import hint, nearest

NAMES = ("ccRestUrl", "ccRestJwt", "ccRestJwtFile", "natsServer")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("ccResturl", "ccRestUrl"),
        ("ccRestUri", "ccRestUrl"),
        ("CCRESTJWTFIL", "ccRestJwtFile"),
        ("natsServers", "natsServer"),
        ("colour", ""),
        ("", ""),
    ],
)
def test_the_nearest_name_is_found_in_any_case(word: str, expected: str) -> None:
    assert nearest(word, NAMES) == expected


@given(st.text(max_size=50))
def test_for_any_word_it_is_a_known_name_or_none(word: str) -> None:
    assert nearest(word, NAMES) in ("", *NAMES)


def test_without_a_near_name_the_other_text_is_the_hint() -> None:
    assert hint("staus", ("status", "state"), "see -help", prefix="-") == "did you mean -status?"
    assert hint("xyzzy", ("status", "state"), "see -help", prefix="-") == "see -help"
