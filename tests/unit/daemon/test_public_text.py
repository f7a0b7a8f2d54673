"""Reasons as they are shown to anybody: what a job or its user is called is not in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.daemon.public_text import public

SECRET = "alice"


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("HTTP 400: no such cluster: nope", "HTTP 400: no such cluster"),
        ('HTTP 422: parsing request body failed: json: unknown field "alice"', "HTTP 422: unknown field"),
        ("HTTP 400: user alice has no account", "HTTP 400"),
        ("HTTP 500", "HTTP 500"),
        ("HTTP 502: \n<html>alice</html>", "HTTP 502"),
        (
            "3 messages are refused by cc-backend, 2 of them: HTTP 400: alice",
            "3 messages are refused by cc-backend, 2 of them: HTTP 400",
        ),
        (
            "cc-backend refuses the token (ccRestJwt): HTTP 401: alice's token is expired",
            "cc-backend refuses the token (ccRestJwt): HTTP 401: token is expired",
        ),
        (
            "ccRestUrl is redirected to '/login?alice', set it: HTTP 302: x",
            "ccRestUrl is redirected to …, set it: HTTP 302",
        ),
        ("sacct: error: Connection refused", "sacct: error: Connection refused"),
        ("[Errno 111] Connection refused", "[Errno 111] Connection refused"),
        ("not delivered for too long", "not delivered for too long"),
        ("the daemon's main thread and the host's clock", "the daemon's main thread and the host's clock"),
    ],
)
def test_what_is_shown_of_a_reason(reason: str, shown: str) -> None:
    assert public(reason) == shown


@pytest.mark.parametrize(
    "reason",
    [
        'job "alice" is refused',
        "job 'alice' is refused",
        "job `alice` is refused",
        'job "al\\"alice" is refused',
        "job 'it\\'s alice' is refused",
        "job \"it's alice",
        "cut in the middle: 'alice and",
        "cut in the middle: `alice",
        'cut in the middle: "alice\\',
        "the user's name is 'alice'",
        "'x' and \"alice\"",
        "refused (HTTP 400: 'alice')",
    ],
)
def test_quoted_texts_are_left_out_also_when_they_are_cut(reason: str) -> None:
    assert SECRET not in public(reason)


@given(st.text(), st.text())
def test_what_a_destination_wrote_never_appears(before: str, after: str) -> None:
    assert "\U0001f9ea" not in public(f"{before}HTTP 400: {after}\U0001f9ea{after}")
