"""One stand-in cc-backend: its clock, its rows, what it was asked, and what is made to go wrong."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Callable, NamedTuple, TypeVar

from examples.practice.cc_backend.api import NodeReport, Request, RestApi
from examples.practice.cc_backend.clusters import DEFAULT_CLUSTERS, Clusters, KnownClusters
from examples.practice.cc_backend.faults import Answer, Fault
from examples.practice.cc_backend.store import JobRow, JobTables

DEFAULT_TOKEN = "practice.api.token"  # noqa: S105 (it opens nothing but this stand-in)
LOG_LENGTH = 100_000

AnyFault = TypeVar("AnyFault", bound=Fault)


class Clock:
    """Unix seconds: the real time, or a time that stands still at `start`; `advance` moves either."""

    def __init__(self, start: float | None = None) -> None:
        self._start = start
        self._advanced = 0.0

    def now(self) -> float:
        """Unix seconds."""
        return (time.time() if self._start is None else self._start) + self._advanced

    def advance(self, seconds: float) -> None:
        """Move on by so many seconds."""
        self._advanced += seconds


class LoggedRequest(NamedTuple):
    """One request as it was dealt with."""

    time: float
    """Unix seconds of the backend's clock when it came."""
    method: str
    path: str
    """Without the query."""
    job: tuple[str, int] | None
    """Cluster and job id."""
    status: int | None
    """None if no whole HTTP answer was sent."""
    seconds: float
    """From the request's last byte to the answer, in real time."""


class CcBackend:
    """What cc-backend knows and how it answers. Safe for threads.

    `commit_interval` is in seconds of `clock`; the real cc-backend's is one to two minutes.
    `on_request` is called for each request when it is done with. Without `describes_hardware` its topologies are empty:
    for nodes that are not those of the practice cluster.
    """

    def __init__(  # noqa: PLR0913 - what it knows, and how it behaves
        self,
        clusters: Clusters = DEFAULT_CLUSTERS,
        token: str = DEFAULT_TOKEN,
        clock: Clock | None = None,
        commit_interval: float = 60.0,
        on_request: Callable[[LoggedRequest], None] | None = None,
        *,
        describes_hardware: bool = True,
    ) -> None:
        self.clock = clock or Clock()
        self.commit_interval = commit_interval
        known = KnownClusters(clusters, describes_hardware=describes_hardware)
        self._tables = JobTables(known)
        self._api = RestApi(self._tables, known, token)
        self._next_commit = self.clock.now() + commit_interval
        self._faults: list[Fault] = []
        self._log: deque[LoggedRequest] = deque(maxlen=LOG_LENGTH)
        self._on_request = on_request
        self._changed = threading.Condition()

    # What it knows

    @property
    def token(self) -> str:
        """The one that is taken; may be set."""
        return self._api.token

    @token.setter
    def token(self, token: str) -> None:
        self._api.token = token

    @property
    def rows(self) -> list[JobRow]:
        """All rows in the order in which they came: the rows themselves, they go on changing."""
        with self._changed:
            self._commit_if_due()
            return list(self._tables.rows)

    def rows_of(self, job_id: int) -> list[JobRow]:
        """The rows of one job id, of all clusters, in the order in which they came."""
        return [row for row in self.rows if row.job_id == job_id]

    @property
    def node_states(self) -> dict[tuple[str, str], NodeReport]:
        """The newest report by cluster and host."""
        with self._changed:
            return dict(self._api.node_states)

    @property
    def log(self) -> list[LoggedRequest]:
        """The last requests in the order in which they were done with, at most LOG_LENGTH."""
        with self._changed:
            return list(self._log)

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until a condition holds, at most so long; whether it does.

        It is looked at whenever a fault was consulted and when a request is done with.
        """
        with self._changed:
            return self._changed.wait_for(condition, seconds)

    # What can be done to it

    def commit(self) -> None:
        """Run the commit worker now."""
        with self._changed:
            self._tables.commit()
            self._next_commit = self.clock.now() + self.commit_interval

    def _commit_if_due(self) -> None:
        if self.clock.now() >= self._next_commit:
            self.commit()

    def forget(self) -> None:
        """The database is lost."""
        with self._changed:
            self._tables.forget()
            self._api.node_states.clear()

    def add_fault(self, fault: AnyFault) -> AnyFault:
        """From now on the fault is consulted for every request."""
        with self._changed:
            self._faults.append(fault)
        return fault

    def remove_fault(self, fault: Fault) -> None:
        """Take a fault out; requests that wait because of it go on."""
        with self._changed:
            self._faults.remove(fault)
            self._changed.notify_all()

    @contextlib.contextmanager
    def fault(self, fault: AnyFault) -> Iterator[AnyFault]:
        """A fault for the length of a block."""
        self.add_fault(fault)
        try:
            yield fault
        finally:
            self.remove_fault(fault)

    # What the server asks

    def answer(self, request: Request) -> Answer:
        """What cc-backend answers, faults aside."""
        with self._changed:
            self._commit_if_due()
            return self._api.answer(request, self.clock.now())

    def faults_for(self, request: Request) -> list[Fault]:
        """The faults that hit a request; each counts it."""
        with self._changed:
            if not self._faults:
                return []
            job_id = request.job[1] if request.job else None
            hitting = [fault for fault in self._faults if fault.hits(request.path, job_id)]
            self._changed.notify_all()
            return hitting

    def sit_out(self, fault: Fault, gone: Callable[[], bool]) -> None:
        """Wait as long as a fault says, or until it is taken out, or until `gone` holds (see `wake`)."""
        seconds = fault.waiting_time()
        with self._changed:
            self._changed.wait_for(
                lambda: gone() or fault not in self._faults,
                None if math.isinf(seconds) else seconds,
            )

    def wake(self) -> None:
        """Let waiting requests look again whether they should go on."""
        with self._changed:
            self._changed.notify_all()

    def record(self, request: LoggedRequest) -> None:
        """Put a request into the log that is done with."""
        with self._changed:
            self._log.append(request)
            self._changed.notify_all()
        if self._on_request:
            self._on_request(request)
