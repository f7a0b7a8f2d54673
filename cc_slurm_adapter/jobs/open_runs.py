"""Finds the runs that are known to hold nodes: by run, by job and by node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from cc_slurm_adapter.jobs.quiet_lines import QuietLines
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox.outbox import OpenRun, Stage


class OpenRuns(Mapping[RunKey, OpenRun]):
    """A mapping of the runs that are not DONE. Putting in a DONE run removes it.

    Nearly every job has one, so runs are found by their jobs: a second index would take 6 MB for 50,000 of them.
    """

    def __init__(self, runs: Iterable[OpenRun] = ()) -> None:
        self._latest: dict[int, OpenRun] = {}
        """The run of each job that was put in last."""
        self._others: dict[int, tuple[OpenRun, ...]] = {}
        """Further runs of these jobs: after a requeue a job has two for a short time."""
        self._by_host: Counter[str] = Counter()
        self.quiet = QuietLines()
        """What the last listing said about them."""
        self.stages: dict[Stage, int] = dict.fromkeys(Stage, 0)
        """How many there are in each stage. Any thread may read it."""
        for run in runs:
            self.put(run)

    def __getitem__(self, key: RunKey) -> OpenRun:
        for run in self.of_job(key.job_id):
            if run.key == key:
                return run
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, RunKey) and self.get(key) is not None

    def __iter__(self) -> Iterator[RunKey]:
        for run in chain(self._latest.values(), *self._others.values()):
            yield run.key

    def get(self, key: RunKey, default: Any = None) -> Any:
        """Return a run, as every mapping does, but quickly."""
        run = self._latest.get(key.job_id)
        if run is None or run.key == key:
            return default if run is None else run
        return next((each for each in self._others.get(key.job_id, ()) if each.key == key), default)

    def __len__(self) -> int:
        return len(self._latest) + sum(map(len, self._others.values()))

    def put(self, run: OpenRun) -> None:
        """Store the new state of a run."""
        self.drop(run.key)
        if run.stage is not Stage.DONE:
            self._set_job(run.key.job_id, [run, *self.of_job(run.key.job_id)])
            self._by_host.update(run.hosts.split(","))
            self.stages[run.stage] += 1

    def drop(self, key: RunKey) -> None:
        """Forget a run."""
        run = self.get(key)
        if run is None:
            return
        self.quiet.forget(key)
        self._by_host.subtract(run.hosts.split(","))
        self.stages[run.stage] -= 1
        self._set_job(key.job_id, [each for each in self.of_job(key.job_id) if each.key != key])

    def _set_job(self, job_id: int, runs: Sequence[OpenRun]) -> None:
        """Replace the runs of a job."""
        self._latest.pop(job_id, None)
        self._others.pop(job_id, None)
        if runs:
            self._latest[job_id] = runs[0]
        if runs[1:]:
            self._others[job_id] = tuple(runs[1:])

    def of_job(self, job_id: int) -> list[OpenRun]:
        """Return the open runs of a job: one, or for a short time two after a requeue."""
        latest = self._latest.get(job_id)
        return [] if latest is None else [latest, *self._others.get(job_id, ())]

    def stage(self, key: RunKey) -> Stage | None:
        """Return the state of a run; None if it is not open."""
        known = self.get(key)
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
