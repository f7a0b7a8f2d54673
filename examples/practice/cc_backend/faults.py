"""What can go wrong between the adapter and cc-backend, to be switched on in the stand-in.

A fault is put into `CcBackend.faults` with `add_fault` and is consulted for every request until
it is taken out again. All faults know which requests they hit: see `Fault`.
"""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

START_PATH = "/api/jobs/start_job/"


class Delivery(enum.Enum):
    """How much of an answer goes over the wire. All but WHOLE close the connection."""

    WHOLE = "whole"
    CUT = "cut"
    """The first half."""
    LOST = "lost"
    """Nothing."""
    BARE = "bare"
    """The body alone, without HTTP around it."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer. Without `content_type` that header is left out."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(eq=False)
class Fault:
    """The base of all faults: by itself it only says which requests are hit."""

    path: str = ""
    """Only requests whose path begins so."""
    count: int | None = None
    """So many requests are still hit, None for all."""
    fraction: float = 1.0
    """This share of the requests is hit, chosen at random."""
    seed: int = 0
    job_ids: Collection[int] = ()
    """Only requests for these jobs; empty for all."""
    delivery: ClassVar[Delivery] = Delivery.WHOLE

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def hits(self, path: str, job_id: int | None) -> bool:
        """Whether a request is hit; if so, it is counted."""
        if not path.startswith(self.path) or (self.job_ids and job_id not in self.job_ids):
            return False
        if self.count == 0 or self._random.random() >= self.fraction:
            return False
        if self.count is not None:
            self.count -= 1
        return True

    def waiting_time(self) -> float:
        """Seconds that pass before the request is looked at."""
        return 0.0

    def own_answer(self) -> Answer | None:
        """The answer in place of cc-backend's, which then does not see the request."""
        return None


@dataclass(eq=False)
class NoAnswer(Fault):
    """The request is taken and nothing comes back, until the fault is taken out or the server stops."""

    def waiting_time(self) -> float:
        return math.inf


@dataclass(eq=False)
class Delay(Fault):
    """Every answer comes later."""

    seconds: float = 1.0

    def waiting_time(self) -> float:
        return self.seconds


@dataclass(eq=False)
class LostAnswer(Fault):
    """The request is stored, then the connection is closed without an answer."""

    delivery: ClassVar[Delivery] = Delivery.LOST


@dataclass(eq=False)
class CutAnswer(Fault):
    """The request is stored, then the connection is closed in the middle of the answer."""

    delivery: ClassVar[Delivery] = Delivery.CUT


@dataclass(eq=False)
class Dropped(Fault):
    """The connection is closed without an answer and the request is not stored."""

    delivery: ClassVar[Delivery] = Delivery.LOST

    def own_answer(self) -> Answer | None:
        return Answer(0)


@dataclass(eq=False)
class Rubbish(Fault):
    """Something that is not HTTP comes back."""

    delivery: ClassVar[Delivery] = Delivery.BARE

    def own_answer(self) -> Answer | None:
        return Answer(0, b"\x15\x03\x01\x00\x02\x02\x50 this is not HTTP\r\n\r\n")


@dataclass(eq=False)
class OtherAnswer(Fault):
    """A fixed answer, as of a proxy in between."""

    status: int = 500
    body: bytes = b""
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def own_answer(self) -> Answer | None:
        return Answer(self.status, self.body, self.content_type, self.headers)


def html_page(status: int = 200, path: str = "", count: int | None = None) -> OtherAnswer:
    """A proxy's page where JSON was expected."""
    page = b"<html><head><title>Maintenance</title></head><body>Back soon.</body></html>\n"
    return OtherAnswer(path, count, status=status, body=page, content_type="text/html")


def too_many_requests(seconds: int, path: str = "", count: int | None = None) -> OtherAnswer:
    """429 that asks for a pause."""
    return OtherAnswer(path, count, status=429, headers={"Retry-After": str(seconds)})


def refused_jobs(job_ids: Collection[int], status: int = 400) -> OtherAnswer:
    """Some jobs are refused for ever, as by a cc-backend that does not know their hosts."""
    body = b'{"status":"Bad Request","error":"refused for practice"}\n'
    return OtherAnswer(job_ids=job_ids, status=status, body=body, content_type="application/json")


def rest_start_off(status: int = 404) -> OtherAnswer:
    """Starts are not taken over REST, as by a cc-backend that listens to NATS. Not found, or 405."""
    if status == 405:
        return OtherAnswer(START_PATH, status=405)
    body = b'{"error":"the requested endpoint does not exist","status":"Resource not found"}\n'
    return OtherAnswer(START_PATH, status=status, body=body, content_type="application/json")
