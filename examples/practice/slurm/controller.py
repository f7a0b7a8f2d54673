"""Plays slurmctld: starts jobs, ends them, forgets them, and calls the hook on the way.

PENDING -> CONFIGURING (prolog runs) -> RUNNING -> COMPLETING (epilog runs) -> its end state -> forgotten.
Jobs start in the order of their ids; one that does not fit makes all behind it wait.
"""

from __future__ import annotations

import json
import threading
from collections import Counter

from examples.practice.slurm.allocation import Pool, need_of
from examples.practice.slurm.cluster import PracticeCluster, ids_of
from examples.practice.slurm.hooks import EPILOG, PROLOG, HookCall, HookProcesses, Hooks, hook_environment
from examples.practice.slurm.hostlist import compress_hosts, format_numbers
from examples.practice.slurm.model import (
    COMPLETING,
    CONFIGURING,
    ENDED,
    ENDINGS,
    PENDING,
    REQUEUED,
    RUNNING,
    HostShare,
    Record,
    Settings,
    shares,
)
from examples.practice.slurm.store import Request, Store
from examples.practice.slurm.view import holds_nodes, reason

TICK = 0.05
STARTS_AT_ONCE = 1000
"""Jobs that one step starts at most, so that no step takes long."""

PAGE = 100


class Controller:
    """slurmctld of one cluster; there may be only one at a time.

    `start` runs it in a thread until `stop`; tests call `step` by hand with a clock of their own. A step
    moves a job on by one state at most, so that each state can be seen.
    """

    def __init__(self, cluster: PracticeCluster, hooks: Hooks | None = None) -> None:
        self._cluster = cluster
        self._hooks: Hooks = HookProcesses(cluster.folder) if hooks is None else hooks
        self._store: Store = cluster.store()
        self._settings: Settings = self._store.settings()
        self._pool = Pool(self._settings, self._store.nodes())
        self._tasks_running: Counter[int] = Counter()
        self._calls: dict[int, HookCall] = {}
        self._owed_calls: list[tuple[Record, str]] = []
        self._touched: set[str] = set()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        for record in self._store.in_phases((CONFIGURING, RUNNING)):
            self._pool.hold(shares(record))
            self._tasks_running[record.array_job_id] += 1

    def start(self) -> None:
        """Run in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="slurmctld", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop, and end the hooks that still run. Raises what ended the thread, if something did."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._hooks.stop()
        self._store.close()
        self.check()

    def check(self) -> None:
        """Raise what ended the thread, if something did."""
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while not self._stopping.wait(TICK):
            try:
                self.step()
            except BaseException as failure:  # noqa: BLE001 - `stop` raises it where somebody sees it
                self._failure = failure
                return

    def step(self) -> None:
        """Do all that is due now."""
        self._hooks.poll()
        if self._store.is_down("slurmctld"):
            return
        now = self._cluster.clock()
        with self._store.transaction():
            self._settings = self._store.settings()
            for record in self._store.due(now):
                self._advance(record, now)
            for request in self._store.take_requests():
                self._answer(request, now)
            self._start_jobs(now)
            self._save_nodes()
        self._call_hooks()

    # What is asked

    def _answer(self, request: Request, now: float) -> None:
        if request.kind in ("drain", "resume"):
            self._pool.set_drained(request.target, drained=request.kind == "drain")
            self._store.set_drained(request.target, drained=request.kind == "drain")
            return
        for record in self._store.in_memory_by_id(int(request.target)):
            if request.kind == "cancel":
                self._cancel(record, request.by, now)
            elif holds_nodes(record) and request.kind == "lose":
                self._lose(record)
            elif holds_nodes(record):
                self._finish(record._replace(end_state=REQUEUED, reason="None"), now)

    def _cancel(self, record: Record, by: str, now: float) -> None:
        killed = record._replace(killed_by=by, killed_by_uid=ids_of(by)[0])
        if holds_nodes(record):
            self._end_as(killed, "cancelled", now)
        elif record.phase == PENDING:
            over = killed._replace(end_state="CANCELLED", end_time=int(now), reason=reason(record, now))
            self._store.save([self._over(over, now)])

    # What happens with time

    def _advance(self, record: Record, now: float) -> None:
        if record.phase == PENDING:
            self._cancel(record, record.user, now)
        elif record.phase == CONFIGURING:
            self._configured(record, now)
        elif record.phase == RUNNING:
            self._end_as(record, _ending_of(record), now)
        elif record.phase == COMPLETING:
            self._completed(record, now)
        else:
            self._store.save([record._replace(in_memory=False, due=None)])

    def _configured(self, record: Record, now: float) -> None:
        """The prolog has ended: the job runs, or waits again if the prolog failed."""
        status = self._hook_status(record)
        if status is None:
            return
        if status:
            self._finish(record._replace(end_state=REQUEUED, reason="None"), now)
            return
        length = record.duration if record.time_limit is None else min(record.duration, record.time_limit * 60)
        self._store.save([record._replace(phase=RUNNING, run_time=int(now), due=now + length)])

    def _end_as(self, record: Record, ending_name: str, now: float) -> None:
        ending = ENDINGS[ending_name]
        exit_code = record.planned_exit_code if ending_name == "failed" else ending.exit_code
        # Only a batch script can be seen to end by a signal.
        exit_signal = ending.signal if record.batch else 0
        ended = record._replace(end_state=ending.state, exit_code=exit_code, exit_signal=exit_signal)
        self._finish(ended._replace(reason=ending.reason), now)

    def _finish(self, record: Record, now: float) -> None:
        """Give back what a job holds; it is COMPLETING now."""
        self._give_back(record)
        record = record._replace(phase=COMPLETING, end_time=int(now), due=now + self._settings.completing_seconds)
        self._store.save([record])
        self._owed_calls.append((record, EPILOG))

    def _give_back(self, record: Record) -> None:
        held = shares(record)
        self._pool.give_back(held)
        self._tasks_running[record.array_job_id] -= 1
        self._touched.update(share.host for share in held)

    def _lose(self, record: Record) -> None:
        """What it holds is free, and nobody is told."""
        self._give_back(record)
        self._store.save([record._replace(in_memory=False, due=None)])

    def _completed(self, record: Record, now: float) -> None:
        if self._hook_status(record) is None:
            return
        if record.end_state != REQUEUED:
            self._store.save([self._over(record, now)])
            return
        # The run is closed; the same job waits as a new one.
        closed = record._replace(phase=ENDED, in_memory=False, due=None)
        self._store.save([closed, self._next_run(record)])

    def _over(self, record: Record, now: float) -> Record:
        return record._replace(phase=ENDED, due=(record.end_time or now) + self._settings.min_job_age)

    def _next_run(self, record: Record) -> Record:
        requeued = record.end_time or 0
        return record._replace(
            db_index=self._store.new_db_index(),
            phase=PENDING,
            end_state="",
            restarts=record.restarts + 1,
            submit_time=requeued,
            begin_time=int(requeued + self._settings.requeue_delay),
            start_time=None,
            run_time=None,
            end_time=None,
            node_list="",
            hosts="[]",
            due=None,
        )

    # Starting

    def _start_jobs(self, now: float) -> None:
        started = after = 0
        while started < STARTS_AT_ONCE:
            page = self._store.waiting(after, PAGE)
            for record in page:
                count, blocked = self._start_record(record, now)
                started += count
                if blocked:
                    return
            if len(page) < PAGE:
                return
            after = page[-1].job_id

    def _start_record(self, record: Record, now: float) -> tuple[int, bool]:
        """Start a job, or as many waiting tasks as may run; also whether it blocks those behind it."""
        started = 0
        while record.begin_time <= now and not record.cancel_pending:
            if record.array_limit and self._tasks_running[record.array_job_id] >= record.array_limit:
                self._explain(record, "JobArrayTaskLimit")
                return started, False
            held = self._pool.take(need_of(record, self._settings))
            if held is None:
                self._explain(record, "Resources")
                return started, True
            started += 1
            task, rest = self._split(record)
            self._begin(task, held, now)
            if rest is None:
                break
            record = rest
        return started, False

    def _explain(self, record: Record, why: str) -> None:
        if record.reason != why:
            self._store.save([record._replace(reason=why)])

    def _split(self, record: Record) -> tuple[Record, Record | None]:
        """Take the first task out of those that wait together; it gets a new job id, the last keeps the old."""
        if record.array_first is None:
            return record, None
        task = record._replace(
            db_index=self._store.new_db_index(),
            job_id=self._store.take_job_ids(1),
            array_task_id=record.array_first,
            array_first=None,
        )
        last = record.array_size - 1
        following = record.array_first + 1
        rest = (
            record._replace(array_first=None, array_task_id=last)
            if following == last
            else record._replace(array_first=following)
        )
        self._store.save([task, rest])
        return task, rest

    def _begin(self, record: Record, held: list[HostShare], now: float) -> None:
        hosts = [(share.host, format_numbers(share.cores), format_numbers(share.gpus)) for share in held]
        record = record._replace(
            phase=CONFIGURING,
            reason="None",
            start_time=int(now),
            node_list=compress_hosts([share.host for share in held]),
            hosts=json.dumps(hosts),
            due=now + self._settings.configure_seconds,
        )
        self._store.save([record])
        self._tasks_running[record.array_job_id] += 1
        self._touched.update(share.host for share in held)
        self._owed_calls.append((record, PROLOG))

    # Nodes and hooks

    def _save_nodes(self) -> None:
        rows = []
        for name in self._touched:
            cores, gpus = self._pool.in_use(name)
            rows.append((cores * self._settings.threads_per_core, format_numbers(gpus), name))
        self._store.save_nodes(rows)
        self._touched.clear()

    def _call_hooks(self) -> None:
        """Only after the commit: the hook must see the state that it is told of."""
        owed, self._owed_calls = self._owed_calls, []
        for record, context in owed if self._settings.hook else ():
            environ = hook_environment(record, self._settings, context)
            self._calls[record.db_index] = self._hooks.call(self._settings.hook, environ)

    def _hook_status(self, record: Record) -> int | None:
        """The exit status of the hook called for a record; 0 if there was none, None while it runs."""
        call = self._calls.get(record.db_index)
        if call is None:
            return 0
        if call.status is not None:
            del self._calls[record.db_index]
        return call.status


def _ending_of(record: Record) -> str:
    """A job that would have gone on is ended by its time limit."""
    limited = record.time_limit is not None and record.duration > record.time_limit * 60
    return "timeout" if limited else record.ending
