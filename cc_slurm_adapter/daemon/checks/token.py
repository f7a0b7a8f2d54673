"""The token for cc-backend: its roles and when it expires, as it says itself. No part of it is ever shown."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.system.quantities import DAY, at

SUBJECT = "token"
EXPIRES_SOON = 30 * DAY
"""Seconds before its end from which on a token is to be replaced: somebody may be on holiday."""
NEVER = 253402300800
"""The Unix time after which there is no calendar: the year 10000."""


class Claims(NamedTuple):
    """What a token says of itself."""

    roles: tuple[str, ...]
    expires: float | None
    """Unix seconds; None if it never expires."""


def key_of(config: Config) -> str:
    """Return the key of the configuration that has the token."""
    return "ccRestJwtFile" if config.cc_rest_jwt_file else "ccRestJwt"


def read_jwt(token: str) -> dict[str, Any] | None:
    """Return the claims of a JWT without checking its signature; None if it is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def read_claims(token: str) -> Claims | None:
    """Return what a token for cc-backend says of itself; None if it cannot be read."""
    claims = read_jwt(token)
    if claims is None:
        return None
    roles, expires = claims.get("roles"), claims.get("exp")
    is_time = isinstance(expires, (int, float)) and not isinstance(expires, bool) and -NEVER < expires < NEVER
    return Claims(
        tuple(each for each in roles if isinstance(each, str)) if isinstance(roles, list) else (),
        expires if is_time else None,
    )


def find_token(token: str, key: str, now: float, *, is_accepted: bool) -> Iterator[Finding]:
    """Find out whether a token has the right role and when it expires.

    `key` is the key of the configuration that has it, `now` is in Unix seconds. `is_accepted` tells whether cc-backend
    has accepted it: then its roles do not matter.
    """
    claims = read_claims(token)
    if claims is None:
        level = logging.INFO if is_accepted else logging.WARNING
        text = f"{key}: the token is no JWT, so its role and its expiry cannot be seen"
        yield Finding(level, SUBJECT, text, "" if is_accepted else new_token(key))
        return
    yield _of_roles(claims.roles, key, is_accepted=is_accepted)
    yield _of_expiry(claims.expires, key, now)


def find_refused(token: str, key: str, now: float, why: str) -> Finding:
    """Return the failure of a token that cc-backend refuses, with what the token itself tells about the reason.

    `key` and `now` are those of `find_token`, and `why` is what cc-backend said.
    """
    claims = read_claims(token)
    if claims is None:
        text = f"{key}: the token is no JWT, as those of cc-backend are: {why}"
        return Finding(logging.ERROR, SUBJECT, text, f"copy the whole token of cc-backend into {key}, {_then(key)}")
    is_over = claims.expires is not None and claims.expires <= now
    wrong = [] if _is_right(claims.roles) else [_wrong_roles(claims.roles)]
    wrong += [_over(claims.expires, now)] if is_over and claims.expires is not None else []
    if not wrong:
        text = f"{key}: {why}, although its role and its end are right: it is of another cc-backend, or of another user"
        return Finding(logging.ERROR, SUBJECT, text, new_token(key))
    return Finding(logging.ERROR, SUBJECT, f"{key}: the token {', and '.join(wrong)}: {why}", new_token(key))


def find_expiry(token: str, key: str, now: float) -> Finding | None:
    """Return a warning if a token expires soon; None if it does not, or has expired already."""
    claims = read_claims(token)
    found = _of_expiry(claims.expires, key, now) if claims else None
    return found if found and found.level == logging.WARNING else None


def _of_roles(roles: tuple[str, ...], key: str, *, is_accepted: bool) -> Finding:
    """Judge the roles as cc-backend does: api must be the only one, unless admin is among them, too."""
    if _is_right(roles):
        return Finding(logging.INFO, SUBJECT, f"{key}: the token has {_named(roles)}")
    if is_accepted:
        return Finding(logging.INFO, SUBJECT, f"{key}: the token has {_named(roles)}, but cc-backend accepts it")
    return Finding(logging.ERROR, SUBJECT, f"{key}: the token {_wrong_roles(roles)}", new_token(key))


def _is_right(roles: tuple[str, ...]) -> bool:
    return roles == ("api",) or {"admin", "api"} <= set(roles)


def _named(roles: tuple[str, ...]) -> str:
    return f"the role {roles[0]}" if len(roles) == 1 else f"the roles {', '.join(roles)}" if roles else "no role"


def _wrong_roles(roles: tuple[str, ...]) -> str:
    return f"has {_named(roles)}, but cc-backend accepts jobs only with the role api alone, or with admin and api"


def _over(expires: float, now: float) -> str:
    return f"has expired, at {at(expires, now)}"


def _of_expiry(expires: float | None, key: str, now: float) -> Finding:
    if expires is None:
        return Finding(logging.INFO, SUBJECT, f"{key}: the token never expires")
    if expires <= now:
        return Finding(logging.ERROR, SUBJECT, f"{key}: the token {_over(expires, now)}", new_token(key))
    text = f"{key}: the token expires at {at(expires, now)}"
    if expires - now < EXPIRES_SOON:
        return Finding(logging.WARNING, SUBJECT, text, new_token(key))
    return Finding(logging.INFO, SUBJECT, text)


def new_token(key: str) -> str:
    """Return what to do about a token of that key which cc-backend does not accept, or soon will not."""
    return f"put a new token with the role api into {key}, {_then(key)}"


def _then(key: str) -> str:
    """Return what puts the new value of a key in force."""
    return "and restart if it is a systemd credential" if key == "ccRestJwtFile" else "then reload"
