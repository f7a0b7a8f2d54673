"""The tables of the stand-in cc-backend and the rules by which rows come, end and are listed.

As in the real one a start goes to the job cache first. The commit worker moves the cache to the
main table from time to time. Listings show the main table only, repeats are looked for in the main
table only, and a stop looks into the cache first.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from examples.practice.cc_backend.clusters import NO_FOOTPRINT, KnownClusters
from examples.practice.cc_backend.json import quoted

DAY = 86400
STATES = frozenset(
    {
        "boot_fail",
        "cancelled",
        "completed",
        "deadline",
        "failed",
        "node_fail",
        "out_of_memory",
        "pending",
        "preempted",
        "running",
        "suspended",
        "timeout",
    }
)
"""The states that a stop may name. cc-backend takes those of jobs that are not over as well."""


class Refused(Exception):
    """cc-backend does not do what was asked; `status` is the HTTP status of its answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class RowKey(NamedTuple):
    """What tells rows apart. `start_time` is in Unix seconds, 0 where the request had none."""

    cluster: str
    job_id: int
    start_time: int


@dataclass(eq=False)
class JobRow:
    """One run as it is stored."""

    id: int
    """Row number in its table: it changes when the row leaves the cache."""
    key: RowKey
    start: dict[str, Any]
    """The start request, keys spelled as cc-backend does."""
    sub_cluster: str
    in_cache: bool = True
    state: str = "running"
    stop_time: int | None = None
    """Unix seconds, None until a stop was accepted."""
    starts: int = 1
    """Start requests that named this very run, refused repeats included."""
    stops: int = 0
    """Stop requests that found this row, refused repeats included."""
    footprint: dict[str, int] | None = field(default=None, repr=False)

    @property
    def cluster(self) -> str:
        return self.key.cluster

    @property
    def job_id(self) -> int:
        return self.key.job_id

    @property
    def start_time(self) -> int:
        return self.key.start_time

    def matches(self, cluster: str | None, start_time: int | None) -> bool:
        """Whether the row fits what a stop names; None fits all."""
        return cluster in (None, self.cluster) and start_time in (None, self.start_time)


class JobFilter(NamedTuple):
    """What a listing is limited to; None and the empty tuple do not limit."""

    states: tuple[str, ...] = ()
    cluster: str | None = None
    project: str | None = None
    start_range: tuple[int, int] | None = None
    """Unix seconds, both ends included."""

    def allows(self, row: JobRow) -> bool:
        """Whether the row is to be listed."""
        first, last = self.start_range or (row.start_time, row.start_time)
        return (
            (not self.states or row.state in self.states)
            and self.cluster in (None, row.cluster)
            and self.project in (None, row.start.get("project", ""))
            and first <= row.start_time <= last
        )


class JobTables:
    """Job cache and main table. Not safe for threads: its owner locks."""

    def __init__(self, clusters: KnownClusters) -> None:
        self._clusters = clusters
        self.rows: list[JobRow] = []
        """All rows in the order in which they came."""
        self._cache: dict[int, list[JobRow]] = {}
        self._main: dict[int, list[JobRow]] = {}
        self._cache_by_id: dict[int, JobRow] = {}
        self.forget()

    def forget(self) -> None:
        """Lose everything."""
        self.rows = []
        self._cache = defaultdict(list)
        self._main = defaultdict(list)
        self._cache_by_id = {}
        self._main_ids = itertools.count(1)

    def start(self, request: dict[str, Any]) -> None:
        """Take a start request. Raises Refused."""
        key = RowKey(request.get("cluster", ""), request.get("jobId", 0), request.get("startTime", 0))
        sub_cluster = self._check_sanity(key.cluster, request)
        self._refuse_repeat(key)
        self._check_constraints(request)
        row = JobRow(0, key, request, sub_cluster)
        if request.get("tags"):
            # A start with tags skips the cache.
            self._add_to_main(row)
        else:
            self._refuse_cached(key)
            self._add_to_cache(row)
        self.rows.append(row)

    def _add_to_cache(self, row: JobRow) -> None:
        # SQLite's choice: one more than the highest number that is in the table now.
        row.id = 1 + next(reversed(self._cache_by_id), 0)
        self._cache_by_id[row.id] = row
        self._cache[row.job_id].append(row)

    def _add_to_main(self, row: JobRow) -> None:
        row.id, row.in_cache = next(self._main_ids), False
        self._main[row.job_id].append(row)

    def _check_sanity(self, cluster: str, request: dict[str, Any]) -> str:
        if cluster not in self._clusters:
            raise Refused(400, f"no such cluster: {cluster}")
        sub_cluster = self._sub_cluster(cluster, request)
        resources, num_nodes = request.get("resources"), request.get("numNodes", 0)
        if not resources or not request.get("user"):
            raise Refused(400, "'resources' and 'user' should not be empty")
        if num_nodes < 1 or request.get("numAcc", 0) < 0 or request.get("numHwthreads", 0) < 0:
            raise Refused(400, "'numNodes', 'numAcc' or 'numHWThreads' invalid")
        if len(resources) != num_nodes:
            raise Refused(400, f"len(resources) does not equal numNodes ({len(resources)} vs {num_nodes})")
        return sub_cluster

    def _sub_cluster(self, cluster: str, request: dict[str, Any]) -> str:
        """The one that the request names, else that of its first host."""
        prefix = "ARCHIVE/CLUSTERCONFIG > "
        named: str = request.get("subCluster", "")
        if named:
            if named not in self._clusters.sub_clusters(cluster):
                # The spelling is cc-backend's.
                raise Refused(400, f"{prefix}already assigned subcluster {named} unkown (cluster: {cluster})")
            return named
        if not request.get("resources"):
            raise Refused(400, f"{prefix}job without any resources/hosts")
        host = request["resources"][0].get("hostname", "")
        found = self._clusters.sub_cluster_of(cluster, host)
        if found is None:
            raise Refused(400, f"{prefix}no subcluster found for cluster {cluster} and host {host}")
        return found

    def _refuse_repeat(self, key: RowKey) -> None:
        for row in self._main.get(key.job_id, ()):
            # The difference has a sign: every earlier start counts as a repeat too.
            if row.cluster == key.cluster and key.start_time - row.start_time < DAY:
                if row.key == key:
                    row.starts += 1
                raise Refused(
                    422,
                    f"a job with that jobId, cluster and startTime already exists: dbid: {row.id}, jobid: {row.job_id}",
                )

    def _refuse_cached(self, key: RowKey) -> None:
        for row in self._cache.get(key.job_id, ()):
            if row.key == key:
                row.starts += 1
                columns = "job_cache.job_id, job_cache.cluster, job_cache.start_time"
                raise _insert_failed(f"UNIQUE constraint failed: {columns}")

    @staticmethod
    def _check_constraints(request: dict[str, Any]) -> None:
        if request.get("smt", 0) not in (0, 1):
            raise _insert_failed("CHECK constraint failed: smt IN (0, 1)")
        if request.get("shared", "none") not in ("none", "single_user", "multi_user"):
            rule = 'shared IN ("none", "single_user", "multi_user")'
            raise _insert_failed(f"CHECK constraint failed: {rule}")
        if request.get("monitoringStatus", 1) not in (0, 1, 2, 3):
            raise _insert_failed("CHECK constraint failed: monitoring_status IN (0, 1, 2, 3)")

    def stop(self, request: dict[str, Any]) -> JobRow:
        """Take a stop request; the row that it ended. Raises Refused."""
        if "jobId" not in request:
            raise Refused(400, "the field 'jobId' is required")
        row = self._find(request)
        row.stops += 1
        name = f"jobId {row.job_id} (id {row.id}) on {row.cluster} : "
        if row.state != "running":
            raise Refused(422, f"{name}job has already been stopped (state is: {row.state})")
        stop_time = request.get("stopTime", 0)
        if stop_time < row.start_time:
            bounds = f"stopTime {stop_time} must be larger/equal than startTime {row.start_time}"
            raise Refused(400, name + bounds)
        state = request.get("jobState") or "completed"
        if state not in STATES:
            raise Refused(400, f"{name}invalid requested job state: {quoted(state)}")
        if row.in_cache:
            self._to_main(row)
        row.state, row.stop_time = state, stop_time
        return row

    def _find(self, request: dict[str, Any]) -> JobRow:
        """The newest row that the stop fits, in the cache first."""
        for table in (self._cache, self._main):
            rows = table.get(request["jobId"], ())
            fitting = [row for row in rows if row.matches(request.get("cluster"), request.get("startTime"))]
            if fitting:
                return max(fitting, key=lambda row: row.id)
        raise Refused(404, "finding job failed: sql: no rows in result set")

    def delete(self, request: dict[str, Any]) -> JobRow:
        """Remove a row of the main table; one in the cache is not found. Raises Refused."""
        if "jobId" not in request:
            raise Refused(400, "the field 'jobId' is required")
        rows = self._main.get(request["jobId"], ())
        fitting = [row for row in rows if row.matches(request.get("cluster"), request.get("startTime"))]
        if not fitting:
            raise Refused(422, "finding job failed: sql: no rows in result set")
        row = max(fitting, key=lambda row: row.id)
        self._main[row.job_id].remove(row)
        self.rows.remove(row)
        return row

    def _to_main(self, row: JobRow) -> None:
        del self._cache_by_id[row.id]
        cached = self._cache[row.job_id]
        cached.remove(row)
        if not cached:
            del self._cache[row.job_id]
        self._add_to_main(row)

    def archive(self, row: JobRow) -> None:
        """What the real one does with the metrics of a job after its stop was answered."""
        row.footprint = NO_FOOTPRINT

    def commit(self) -> None:
        """What the commit worker does, and the footprint worker right after it."""
        for row in list(self._cache_by_id.values()):
            self._to_main(row)
        for row in self.rows:
            row.footprint = NO_FOOTPRINT

    def list(self, wanted: JobFilter, page: int, items_per_page: int) -> list[JobRow]:
        """One page of the main table's rows, newest start first."""
        rows = [row for row in self.rows if not row.in_cache and wanted.allows(row)]
        rows.sort(key=lambda row: (row.start_time, row.id), reverse=True)
        first = (page - 1) * items_per_page
        return rows[first : first + items_per_page]


def _insert_failed(text: str) -> Refused:
    return Refused(500, f"insert into database failed: {text}")


def row_json(row: JobRow, now: float, with_metadata: bool = False) -> dict[str, Any]:
    """A row as cc-backend prints it. `now` in Unix seconds: how long a running job runs."""
    start = row.start
    end = now if row.stop_time is None or row.state == "running" else row.stop_time
    job = {
        "cluster": row.cluster,
        "subCluster": row.sub_cluster,
        "partition": start.get("partition"),
        "project": start.get("project", ""),
        "user": start.get("user", ""),
        "shared": start.get("shared", "none"),
        "jobState": row.state,
        "tags": start.get("tags"),
        "resources": [_resource_json(resource) for resource in start["resources"]],
        "energyFootprint": None,
        "footprint": row.footprint,
        "metaData": start.get("metaData") if with_metadata else None,
        "concurrentJobs": {"items": None, "count": 0},
        "energy": 0,
        "arrayJobId": start.get("arrayJobId"),
        "walltime": start.get("walltime"),
        "jobId": row.job_id,
        "duration": int(end - row.start_time),
        "smt": start.get("smt"),
        "monitoringStatus": start.get("monitoringStatus", 1),
        "numAcc": start.get("numAcc"),
        "numHwthreads": start.get("numHwthreads"),
        "numNodes": start["numNodes"],
        "statistics": None,
        "id": row.id,
        "startTime": row.start_time,
    }
    return _without_empty(job)


_LEFT_OUT_WHEN_EMPTY = frozenset(
    {
        "partition",
        "tags",
        "arrayJobId",
        "walltime",
        "smt",
        "monitoringStatus",
        "numAcc",
        "numHwthreads",
        "configuration",
        "hwthreads",
        "accelerators",
    }
)


def _without_empty(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value or key not in _LEFT_OUT_WHEN_EMPTY}


def _resource_json(resource: dict[str, Any]) -> dict[str, Any]:
    names = ("hostname", "configuration", "hwthreads", "accelerators")
    return _without_empty({"hostname": ""} | {name: resource.get(name) for name in names})
