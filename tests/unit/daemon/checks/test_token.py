"""What a token says of itself, judged as cc-backend judges it."""

from __future__ import annotations

import base64
import json
import logging
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.daemon.checks.token import Claims, find_expiry, find_token, read_claims
from cc_slurm_adapter.model import Finding

NOW = 1_800_000_000.0
DAY = 86400
KEY = "ccRestJwtFile"


def make_token(claims: Any, *, padded: bool = False) -> str:
    """A token with these claims, and with a signature that nobody has checked."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in ({"alg": "EdDSA"}, claims)]
    return ".".join([*(part if padded else part.rstrip("=") for part in parts), "c2lnbmF0dXJl"])


def judged(claims: Any, *, is_accepted: bool = False) -> list[Finding]:
    return list(find_token(make_token(claims), KEY, NOW, is_accepted=is_accepted))


def of_roles(roles: Any, *, is_accepted: bool = False) -> Finding:
    return judged({"roles": roles}, is_accepted=is_accepted)[0]


def of_expiry(expires: Any) -> Finding:
    return judged({"roles": ["api"], "exp": expires})[1]


@pytest.mark.parametrize("padded", [False, True])
def test_a_token_as_cc_backend_makes_it(padded: bool) -> None:
    token = make_token({"sub": "slurm", "roles": ["api"], "iat": 1, "exp": 1_900_000_000}, padded=padded)
    assert read_claims(token) == Claims(("api",), 1_900_000_000)


@pytest.mark.parametrize("roles", [["api"], ["admin", "api"], ["api", "user", "admin"]])
def test_roles_that_cc_backend_accepts(roles: list[str]) -> None:
    assert of_roles(roles).level == logging.INFO


@pytest.mark.parametrize(
    ("roles", "named"),
    [
        (["user"], "the role user"),
        (["admin"], "the role admin"),
        (["user", "api"], "the roles user, api"),
        ([], "no role"),
        (None, "no role"),
        ("api", "no role"),
        ([1], "no role"),
    ],
)
def test_roles_that_cc_backend_refuses(roles: Any, named: str) -> None:
    found = of_roles(roles)
    assert found.level == logging.ERROR
    assert str(found).startswith(f"ccRestJwtFile: the token has {named}, but cc-backend accepts jobs only with ")
    assert str(found).endswith(
        ": put a new token with the role api into ccRestJwtFile, and restart if it is a systemd credential"
    )


def test_roles_do_not_matter_when_cc_backend_takes_them_from_its_own_users() -> None:
    found = of_roles(["user"], is_accepted=True)
    assert (found.level, found.next_step) == (logging.INFO, "")


@pytest.mark.parametrize(
    ("seconds", "level"),
    [
        (-1, logging.ERROR),
        (0, logging.ERROR),
        (1, logging.WARNING),
        (30 * DAY - 1, logging.WARNING),
        (30 * DAY, logging.INFO),
        (400 * DAY, logging.INFO),
    ],
)
def test_when_a_token_expires(seconds: int, level: int) -> None:
    assert of_expiry(NOW + seconds).level == level


def test_the_day_and_how_many_are_left() -> None:
    found = of_expiry(NOW + 12.5 * DAY)
    day = time.strftime("%Y-%m-%d", time.localtime(NOW + 12.5 * DAY))
    assert f"the token expires at {day} " in found.text
    assert "(in 12 d)" in found.text
    assert "(3 d ago)" in of_expiry(NOW - 3.5 * DAY).text


@pytest.mark.parametrize("expires", [None, "soon", True, 1e300, float("inf"), float("nan"), 10**30, []])
def test_a_token_without_an_end(expires: Any) -> None:
    assert of_expiry(expires) == Finding(logging.INFO, "token", "ccRestJwtFile: the token never expires")


def test_a_warning_before_the_end_and_none_after_it() -> None:
    """Then cc-backend refuses it, and that is said by whoever sends it."""
    soon, later, over = (make_token({"roles": ["api"], "exp": NOW + days * DAY}) for days in (3, 40, -3))
    found = find_expiry(soon, "ccRestJwt", NOW)
    assert found is not None
    assert found.level == logging.WARNING
    assert found.next_step == "put a new token with the role api into ccRestJwt, then reload"
    assert [find_expiry(token, "ccRestJwt", NOW) for token in (later, over, "no.jwt", "")] == [None] * 4


NO_JWT = [
    "",
    "abc",
    "a.b",
    "a.b.c",
    "..",
    "a.b.c.d",
    "é.é.é",
    f"a.{base64.b64encode(b'[1]').decode()}.c",
    "practice.api.token",
]


@pytest.mark.parametrize("token", NO_JWT)
def test_what_is_no_jwt(token: str) -> None:
    (refused,), (accepted,) = (list(find_token(token, KEY, NOW, is_accepted=each)) for each in (False, True))
    assert (refused.level, accepted.level) == (logging.WARNING, logging.INFO)
    assert "is no JWT" in refused.text


@given(st.text(), st.booleans())
def test_any_text_is_judged_and_never_shown(text: str, is_accepted: bool) -> None:
    token = f"{text}-9f3c1b"
    found = list(find_token(token, KEY, NOW, is_accepted=is_accepted))
    assert found
    assert not any("9f3c1b" in str(each) for each in found)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner)))
def test_any_claims_are_judged(value: Any) -> None:
    for claims in ({"roles": value, "exp": value}, value):
        assert list(find_token(make_token(claims), KEY, NOW, is_accepted=False))


def test_no_part_of_a_token_is_shown() -> None:
    token = make_token({"sub": "somebody", "roles": ["user"], "exp": NOW + DAY, "jti": "9f3c1b"})
    shown = " ".join(map(str, find_token(token, KEY, NOW, is_accepted=False)))
    assert not any(part in shown for part in [*token.split("."), "9f3c1b", "somebody"])
