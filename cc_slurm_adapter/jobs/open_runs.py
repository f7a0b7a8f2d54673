"""Finds the runs that are known to hold nodes: by run, by job and by node."""

from __future__ import annotations

from collections import Counter
from collections.abc import ItemsView, Iterable, Iterator, Mapping
from typing import Any

from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox.outbox import OpenRun, Stage


class OpenRuns(Mapping[RunKey, OpenRun]):
    """A mapping of the runs that are not DONE. Putting in a DONE run removes it."""

    def __init__(self, runs: Iterable[OpenRun] = ()) -> None:
        self._runs: dict[RunKey, OpenRun] = {}
        self._by_job: dict[int, set[RunKey]] = {}
        self._by_host: Counter[str] = Counter()
        self.stages: dict[Stage, int] = dict.fromkeys(Stage, 0)
        """How many there are in each stage. Any thread may read it."""
        for run in runs:
            self.put(run)

    def __getitem__(self, key: RunKey) -> OpenRun:
        return self._runs[key]

    def __iter__(self) -> Iterator[RunKey]:
        return iter(self._runs)

    def get(self, key: RunKey, default: Any = None) -> Any:
        """Return a run, as every mapping does, but quickly: a poll asks for each running job."""
        return self._runs.get(key, default)

    def items(self) -> ItemsView[RunKey, OpenRun]:
        """Return all items, as every mapping does, but quickly."""
        return self._runs.items()

    def __len__(self) -> int:
        return len(self._runs)

    def put(self, run: OpenRun) -> None:
        """Store the new state of a run."""
        self.drop(run.key)
        if run.stage is not Stage.DONE:
            self._runs[run.key] = run
            self._by_job.setdefault(run.key.job_id, set()).add(run.key)
            self._by_host.update(run.hosts.split(","))
            self.stages[run.stage] += 1

    def drop(self, key: RunKey) -> None:
        """Forget a run."""
        run = self._runs.pop(key, None)
        if run is not None:
            self._by_host.subtract(run.hosts.split(","))
            self.stages[run.stage] -= 1
            keys = self._by_job[key.job_id]
            keys.discard(key)
            if not keys:
                del self._by_job[key.job_id]

    def of_job(self, job_id: int) -> list[OpenRun]:
        """Return the open runs of a job: one, or for a short time two after a requeue."""
        return [self._runs[key] for key in self._by_job.get(job_id, ())]

    def stage(self, key: RunKey) -> Stage | None:
        """Return the state of a run; None if it is not open."""
        known = self._runs.get(key)
        return known.stage if known else None

    def is_preparing(self, key: RunKey) -> bool:
        """Return whether a run is open and its start may still move."""
        return self.stage(key) is Stage.PREPARING

    def has_begun(self, key: RunKey) -> bool:
        """Return whether a run is open and its start is certain: it is STARTED or IGNORED."""
        return self.stage(key) in (Stage.STARTED, Stage.IGNORED)

    def jobs_on(self, hostname: str) -> int:
        """Return how many runs hold a node."""
        return self._by_host[hostname]
