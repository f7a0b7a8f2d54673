"""What a NATS server answers about a user and its streams, without a message on any subject of ours.

Servers from 2.10 on tell a user its permissions. A server with JetStream tells which streams take a subject. Either
question may be forbidden, as may listening to the replies.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from cc_slurm_adapter.sinks.base import Answer

USER_INFO = "$SYS.REQ.USER.INFO"
STREAM_NAMES = "$JS.API.STREAM.NAMES"


class NoReply(enum.Enum):
    """Why a question has no reply."""

    NOBODY = "nobody answers it"
    """This server has no such service, or not for this account."""
    NOT_PERMITTED = "this user is not permitted to ask that"
    CANNOT_LISTEN = "this user is not permitted to subscribe to _INBOX.>, where replies come"
    FAILED = "it has no answer"
    """The connection was lost, or nothing came in time."""


class Reply(NamedTuple):
    """The reply to a question."""

    failure: NoReply | None = None
    """None if there is a reply."""
    reason: str = ""
    data: bytes = b""

    @property
    def why(self) -> str:
        """Return why there is no reply."""
        return self.reason or (self.failure.value if self.failure else "")


class Questions(Protocol):
    """A client of a server that is only asked."""

    def check(self) -> Answer:
        """Connect if there is no connection. Return an answer that tells whether the server accepts us."""
        ...

    def ask(self, subject: str, question: bytes = b"") -> Reply:
        """Ask a service of the server itself."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Permissions(NamedTuple):
    """The subjects that a user may publish to. Each may have wildcards."""

    allow: tuple[str, ...] = ()
    """() allows every subject."""
    deny: tuple[str, ...] = ()

    def permit(self, subject: str) -> bool:
        """Return whether the user may publish to a subject."""
        is_allowed = not self.allow or _any_covers(self.allow, subject)
        return is_allowed and not _any_covers(self.deny, subject)


def stream_question(subject: str) -> bytes:
    """Return the question which streams take a subject."""
    return json.dumps({"subject": subject}).encode()


def parse_stream_names(data: bytes) -> list[str] | None:
    """Return the streams that a reply names; None if it is another answer, such as an error."""
    try:
        names = json.loads(data)["streams"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else [] if names is None else None


def parse_user_info(data: bytes) -> Permissions | None:
    """Return what a user may publish to; None if the reply does not tell."""
    try:
        user = json.loads(data)["data"]
        return read_permissions(user.get("permissions", {}).get("publish", {}))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def read_permissions(found: Mapping[str, Any]) -> Permissions:
    """Return the permissions in a server's answer or in a user's JWT, where the same words have them."""
    return Permissions(_texts(found.get("allow")), _texts(found.get("deny")))


def _texts(found: object) -> tuple[str, ...]:
    return tuple(each for each in found if isinstance(each, str)) if isinstance(found, list) else ()


def _any_covers(patterns: Iterable[str], subject: str) -> bool:
    return any(_covers(pattern.split("."), subject.split(".")) for pattern in patterns)


def _covers(pattern: list[str], subject: list[str]) -> bool:
    """Return whether a subject with wildcards covers another: `*` is one token, `>` at the end one or more."""
    if pattern[-1] == ">":
        head = pattern[:-1]
        return len(subject) > len(head) and _covers(head, subject[: len(head)]) if head else bool(subject)
    return len(pattern) == len(subject) and all(mine in ("*", theirs) for mine, theirs in zip(pattern, subject))
