"""The lean stand-in cc-backend as the measurements see it, and a bare loop of the same requests."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.processes import Cost, wait_until

HERE = Path(__file__).parent
START, STOP, NODES = "start", "stop", "nodes"
REAL_PACE = (1 / 1900, 1 / 240)
"""Seconds that a real cc-backend 1.5.4 takes for a start and for a stop."""


class Told(NamedTuple):
    """A request that was taken: when (Unix time), START, STOP or NODES, and which job."""

    time: float
    kind: str
    job_id: int


class BenchBackend:
    """Runs from its making to `close`. `pace` is how long a start and a stop take; (0, 0) is as fast as can be.

    Port 0 chooses a free one.
    """

    def __init__(self, python: str, cluster: str, *, port: int = 0, pace: tuple[float, float] = (0.0, 0.0)) -> None:
        self._python = python
        command = [python, str(HERE / "backend_program.py"), cluster, str(port), *map(str, pace)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.log: list[Told] = []
        """All that came until the last `look`."""
        self.bytes: dict[str, int] = {}
        """How many bytes the requests of each kind had, all together."""
        self._first: dict[tuple[str, int], float] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> BenchBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; does no harm when it has ended."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def look(self) -> list[Told]:
        """Everything that came so far."""
        answer = self._ask(f"/bench/log?since={len(self.log)}")
        self.bytes = answer["bytes"]
        new = [Told(*entry) for entry in answer["log"]]
        for told in new:
            self._first.setdefault((told.kind, told.job_id), told.time)
        self.log += new
        return self.log

    def know(self, jobs: range, start: int) -> None:
        """From now on these jobs are running as far as it knows."""
        self._ask(f"/bench/know?first={jobs.start}&count={len(jobs)}&start={start}")

    def _ask(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def count(self, kind: str) -> int:
        """How many requests of a kind came so far."""
        return sum(told.kind == kind for told in self.look())

    def wait_for(self, kind: str, job_ids: Iterable[int], seconds: float) -> dict[int, float]:
        """Wait until all these jobs were told; when each was told first (Unix time)."""
        wanted = list(job_ids)
        wait_until(f"{len(wanted)} {kind} requests", lambda: self._has_all(kind, wanted), seconds)
        return {job_id: self._first[kind, job_id] for job_id in wanted}

    def _has_all(self, kind: str, job_ids: list[int]) -> bool:
        self.look()
        return all((kind, job_id) in self._first for job_id in job_ids)

    def bare_loop(self, starts: int, stops: int) -> Cost:
        """What a bare loop over four connections costs for so many requests of the mean size of those that came."""
        count = {kind: max(sum(told.kind == kind for told in self.log), 1) for kind in (START, STOP)}
        sizes = [self.bytes.get(kind, 0) // count[kind] for kind in (START, STOP)]
        command = [self._python, str(HERE / "bare_requests.py"), str(self.port), str(starts), str(stops)]
        done = subprocess.run([*command, *map(str, sizes)], capture_output=True, check=True, timeout=600)
        return Cost(*json.loads(done.stdout))
