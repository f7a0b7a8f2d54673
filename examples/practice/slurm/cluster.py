"""The practice cluster for whoever submits to it: jobs, nodes, faults, and the truth of what ran."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from examples.practice.programs import write_program
from examples.practice.slurm.allocation import need_of
from examples.practice.slurm.call import group_name, user_name
from examples.practice.slurm.command import COMMANDS, FOLDER_VARIABLE
from examples.practice.slurm.hostlist import expand_hosts
from examples.practice.slurm.model import (
    ENDINGS,
    OPT_OUT,
    PARTITIONS,
    PENDING,
    REQUEUED,
    JobRequest,
    Record,
    Settings,
    TrueRun,
    shares,
)
from examples.practice.slurm.release import release_of
from examples.practice.slurm.store import Store
from examples.practice.slurm.view import accounting_state

ENTRY = Path(__file__).with_name("entry.py")
DAEMONS = ("slurmctld", "slurmdbd")
FIRST_MADE_UP_UID = 20_000
MADE_UP_UIDS = 10_000

SCRIPT = """\
#!/bin/sh
{variable}=${{{variable}:-{folder}}}
export {variable}
exec {python} -I -S -B {entry} {command} "$@"
"""


class PracticeCluster:
    """One cluster in a folder. Objects for the same folder, in any process, see the same cluster.

    `clock` gives Unix seconds. All methods may be called while a controller runs; what they ask of slurmctld
    (cancel, requeue, lose, drain) happens with the controller's next step.
    """

    def __init__(self, folder: str | Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = str(Path(folder).resolve())
        self.clock = clock

    @classmethod
    def create(
        cls,
        folder: str | Path,
        python: str = sys.executable,
        settings: Settings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> PracticeCluster:
        """Make a new cluster with idle nodes; the folder is made if need be and must hold no cluster.

        ValueError for a release that it cannot be.
        """
        settings = _with_me(settings or Settings())
        release_of(settings.release)
        cluster = cls(folder, clock)
        bin_folder = Path(cluster.folder) / "bin"
        bin_folder.mkdir(parents=True, exist_ok=True)
        for command in COMMANDS:
            text = SCRIPT.format(
                variable=FOLDER_VARIABLE,
                folder=shlex.quote(cluster.folder),
                python=shlex.quote(python),
                entry=shlex.quote(str(ENTRY)),
                command=command,
            )
            write_program(bin_folder / command, text)
        Store.create(cluster.folder, settings, expand_hosts(settings.nodes), clock())
        return cluster

    @property
    def bin(self) -> str:
        """The folder to put first in PATH."""
        return f"{self.folder}/bin"

    def environ(self, base: Mapping[str, str]) -> dict[str, str]:
        """An environment in which the commands are those of this cluster."""
        path = f"{self.bin}{os.pathsep}{base.get('PATH', os.defpath)}"
        return {**base, "PATH": path, FOLDER_VARIABLE: self.folder}

    def store(self) -> Store:
        """The open database, for writing. Close it."""
        return Store(self.folder, writable=True)

    def settings(self) -> Settings:
        with self.store() as store:
            return store.settings()

    def submit(self, request: JobRequest) -> int:
        """Submit a job and return its id; of an array the id that its last task will keep."""
        return self.submit_all([request])[0]

    def submit_all(self, requests: Iterable[JobRequest]) -> list[int]:
        """Submit many jobs at once. ValueError if one can never run here; then none is submitted."""
        with self.store() as store, store.transaction():
            settings = store.settings()
            nodes = len(store.nodes())
            wanted = [_checked(request, settings, nodes) for request in requests]
            first = store.take_job_ids(len(wanted))
            index = store.new_db_index()
            records = [
                _new_record(request, index + place, first + place, self.clock()) for place, request in enumerate(wanted)
            ]
            store.save(records)
            for record, request in zip(records, wanted):
                if request.script is not None:
                    store.save_script(record.job_id, request.script)
        return [record.job_id for record in records]

    def cancel(self, job_id: int, by: str = "") -> None:
        """Cancel a job or a whole array, as a user with this name or as whoever calls."""
        self._ask("cancel", str(job_id), by)

    def requeue(self, job_id: int) -> None:
        """End a running job's run and let it wait again."""
        self._ask("requeue", str(job_id))

    def lose(self, job_id: int) -> None:
        """Let slurmctld forget a running job without a word, as a crash does: accounting has it running for ever."""
        self._ask("lose", str(job_id))

    def drain(self, node: str) -> None:
        """Give a node no more jobs."""
        self._ask("drain", node)

    def resume(self, node: str) -> None:
        self._ask("resume", node)

    def _ask(self, kind: str, target: str, by: str = "") -> None:
        with self.store() as store:
            store.ask(kind, target, by or _my_name())

    def set_down(self, daemon: str, *, down: bool) -> None:
        """Let slurmctld or slurmdbd play dead, or live again. Without slurmctld nothing starts or ends."""
        if daemon not in DAEMONS:
            raise ValueError(f"no such daemon: {daemon}")
        with self.store() as store:
            store.write(f"down:{daemon}", str(int(down)))

    def ask_to_stop(self, *, asked: bool = True) -> None:
        """Whoever plays its slurmctld in a terminal is to end that, or was not asked to yet."""
        with self.store() as store:
            store.write("stop", str(int(asked)))

    def is_to_stop(self) -> bool:
        """Whether it was asked to."""
        with self.store() as store:
            return store.read("stop") == "1"

    def upgrade(self, release: str) -> None:
        """Make its commands those of another release, in either direction. ValueError for one that it cannot be."""
        release_of(release)
        with self.store() as store, store.transaction():
            store.write("settings", json.dumps(store.settings()._replace(release=release)._asdict()))

    def truth(self) -> list[TrueRun]:
        """Every run that ever had nodes, by start and job id."""
        with self.store() as store:
            runs = [_true_run(record) for record in store.accounted() if record.start_time is not None]
        return sorted(runs, key=lambda run: (run.start, run.job_id))

    def is_idle(self) -> bool:
        """Whether no job waits or holds nodes, and none is COMPLETING."""
        with self.store() as store:
            return not store.in_phases(("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"))


def _true_run(record: Record) -> TrueRun:
    return TrueRun(
        job_id=record.job_id,
        start=record.start_time or 0,
        end=record.end_time,
        state=accounting_state(record),
        hosts=shares(record),
        name=record.name,
        user=record.user,
        account=record.account,
        partition=record.partition,
        array_job_id=record.array_job_id or None,
        array_task_id=record.array_task_id,
        opted_out=OPT_OUT in record.admin_comment,
        is_idle=record.end_state == REQUEUED and record.run_time is None,
    )


def _my_name() -> str:
    return user_name(os.getuid())


def _with_me(settings: Settings) -> Settings:
    """Who makes the cluster is its SlurmUser and an administrator, unless the settings say otherwise."""
    me = settings.slurm_user or _my_name()
    levels = {me: "Administrator", **dict(settings.admin_levels)}
    return settings._replace(slurm_user=me, slurm_uid=ids_of(me)[0], admin_levels=tuple(sorted(levels.items())))


def ids_of(user: str) -> tuple[int, str, int]:
    """uid, group and gid; a user whom this machine does not know gets numbers made from the name."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        uid = FIRST_MADE_UP_UID + zlib.crc32(user.encode()) % MADE_UP_UIDS
        return uid, user, uid
    return entry.pw_uid, group_name(entry.pw_gid), entry.pw_gid


def _checked(request: JobRequest, settings: Settings, nodes: int) -> JobRequest:
    """Fill in what was left open. ValueError names what can never be satisfied."""
    user = request.user or _my_name()
    request = request._replace(
        user=user,
        account=request.account or user,
        tasks=request.tasks or request.nodes,
        exclusive=request.exclusive or request.partition == "excl",
    )
    for name in ("name", "user", "account", "comment", "admin_comment"):
        if "\0" in getattr(request, name):  # as in Slurm, whose texts end there; hooks get them in their environment
            raise ValueError(f"the {name} has a NUL in it")
    if request.partition not in PARTITIONS:
        raise ValueError(f"invalid partition specified: {request.partition}")
    if request.ending not in ENDINGS:
        raise ValueError(f"unknown ending {request.ending}; known: {', '.join(ENDINGS)}")
    if not 0 < request.nodes <= min(request.tasks, nodes):
        raise ValueError(f"{request.nodes} nodes for {request.tasks} tasks cannot be had")
    if need_of(request, settings).cores[0] > settings.cores_per_node:
        raise ValueError("more cores than a node has")
    if request.gpus_per_node > settings.gpus_per_node:
        raise ValueError("more GPUs than a node has")
    return request


def _new_record(request: JobRequest, db_index: int, job_id: int, now: float) -> Record:
    uid, group, gid = ids_of(request.user)
    in_array = request.array_size > 0
    return Record(
        db_index=db_index,
        job_id=job_id,
        array_job_id=job_id if in_array else 0,
        array_task_id=0 if request.array_size == 1 else None,
        array_first=0 if request.array_size > 1 else None,
        array_size=request.array_size,
        array_limit=request.array_limit,
        name=request.name,
        user=request.user,
        uid=uid,
        group_name=group,
        gid=gid,
        account=request.account,
        partition=request.partition,
        nodes=request.nodes,
        tasks=request.tasks,
        cpus_per_task=request.cpus_per_task,
        gpus_per_node=request.gpus_per_node,
        typed_gpus=request.typed_gpus,
        exclusive=request.exclusive,
        oversubscribe=request.oversubscribe,
        batch=request.script is not None,
        comment=request.comment,
        admin_comment=request.admin_comment,
        time_limit=request.time_limit,
        duration=request.duration,
        ending=request.ending,
        planned_exit_code=request.exit_code,
        cancel_pending=request.cancel_pending,
        phase=PENDING,
        end_state="",
        reason="Priority",
        exit_code=0,
        exit_signal=0,
        killed_by="",
        killed_by_uid=0,
        restarts=0,
        submit_time=int(now),
        begin_time=int(now + request.begin_delay) if request.begin_delay else 0,
        start_time=None,
        run_time=None,
        end_time=None,
        node_list="",
        hosts="[]",
        in_memory=True,
        due=now + request.duration if request.cancel_pending else None,
    )
