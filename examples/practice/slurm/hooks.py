"""Calls the hook as slurmctld does: PrologSlurmctld and EpilogSlurmctld, with almost no environment."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import deque
from collections.abc import Mapping
from typing import Protocol

from examples.practice.slurm.model import Record, Settings, shares
from examples.practice.slurm.view import limit_seconds, work_dir

PROLOG, EPILOG = "prolog_slurmctld", "epilog_slurmctld"
LOG_NAME = "hook.log"
AT_ONCE = 32
"""How many hooks run at the same time; others wait for their turn."""

NOT_STARTED = 127
"""Status of a hook that could not be started, as of a shell."""


class HookCall(Protocol):
    """One call. Its status is None until it has ended."""

    @property
    def status(self) -> int | None: ...


class Hooks(Protocol):
    """Something that calls hooks."""

    def call(self, path: str, environ: Mapping[str, str]) -> HookCall:
        """Call the hook now or as soon as there is room."""

    def poll(self) -> None:
        """Notice what has ended."""

    def stop(self) -> None:
        """End what still runs."""


class ProcessCall:
    """A hook as a process."""

    def __init__(self, path: str, environ: Mapping[str, str], folder: str) -> None:
        self.status: int | None = None
        self._path = path
        self._environ = environ
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; one that cannot be started counts as failed."""
        with open(f"{self._folder}/{LOG_NAME}", "ab") as log:
            try:
                self._process = subprocess.Popen(
                    [self._path],
                    env=dict(self._environ),
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                log.write(f"{self._path}: {error.strerror}\n".encode())
                self.status = NOT_STARTED

    def poll(self) -> None:
        if self._process is not None:
            self.status = self._process.poll()

    def kill(self) -> None:
        """End it with all that it started."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class HookProcesses:
    """Calls hooks as processes, a limited number at a time; what they print goes to hook.log."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._waiting: deque[ProcessCall] = deque()
        self._running: list[ProcessCall] = []

    def call(self, path: str, environ: Mapping[str, str]) -> ProcessCall:
        call = ProcessCall(path, environ, self._folder)
        self._waiting.append(call)
        self._fill()
        return call

    def poll(self) -> None:
        for call in self._running:
            call.poll()
        self._running = [call for call in self._running if call.status is None]
        self._fill()

    def stop(self) -> None:
        self._waiting.clear()
        for call in self._running:
            call.kill()
        self._running = []

    def _fill(self) -> None:
        while self._waiting and len(self._running) < AT_ONCE:
            call = self._waiting.popleft()
            call.start()
            self._running.append(call)


def hook_environment(record: Record, settings: Settings, context: str) -> dict[str, str]:
    """The whole environment of a hook: no PATH, no HOME."""
    ended = record.end_time is not None
    end = record.end_time if ended else (record.start_time or 0) + limit_seconds(record)
    environ = {
        "SLURM_CLUSTER_NAME": settings.cluster,
        "SLURM_JOBID": record.job_id,
        "SLURM_JOB_ACCOUNT": record.account,
        "SLURM_JOB_CPUS_PER_NODE": _cpus_per_node(record, settings),
        "SLURM_JOB_END_TIME": end,
        "SLURM_JOB_GID": record.gid,
        "SLURM_JOB_GROUP": record.group_name,
        "SLURM_JOB_ID": record.job_id,
        "SLURM_JOB_NAME": record.name,
        "SLURM_JOB_NODELIST": record.node_list,
        "SLURM_JOB_NUM_NODES": record.nodes,
        "SLURM_JOB_OVERSUBSCRIBE": "NO" if record.exclusive else "YES" if record.oversubscribe else "OK",
        "SLURM_JOB_PARTITION": record.partition,
        "SLURM_JOB_RESTART_COUNT": record.restarts + (record.end_state == "REQUEUED"),
        "SLURM_JOB_START_TIME": record.start_time,
        "SLURM_JOB_UID": record.uid,
        "SLURM_JOB_USER": record.user,
        "SLURM_JOB_WORK_DIR": work_dir(record),
        "SLURM_SCRIPT_CONTEXT": context,
        **({"SLURM_JOB_COMMENT": record.comment} if record.comment else {}),
        **({"SLURM_JOB_STDIN": "/dev/null", "SLURM_JOB_STDOUT": "/dev/null"} if record.batch else {}),
        **(_array_environment(record) if record.array_job_id else {}),
        **(_exit_environment(record) if ended else {}),
    }
    return {name: str(value) for name, value in environ.items()}


def _array_environment(record: Record) -> dict[str, int | None]:
    return {
        "SLURM_ARRAY_JOB_ID": record.array_job_id,
        "SLURM_ARRAY_TASK_COUNT": record.array_size,
        "SLURM_ARRAY_TASK_ID": record.array_task_id,
        "SLURM_ARRAY_TASK_MAX": record.array_size - 1,
        "SLURM_ARRAY_TASK_MIN": 0,
        "SLURM_ARRAY_TASK_STEP": 1,
    }


def _exit_environment(record: Record) -> dict[str, int | str]:
    return {
        "SLURM_JOB_DERIVED_EC": 0,
        "SLURM_JOB_EXIT_CODE": record.exit_code << 8 | record.exit_signal,
        "SLURM_JOB_EXIT_CODE2": f"{record.exit_code}:{record.exit_signal}",
    }


def _cpus_per_node(record: Record, settings: Settings) -> str:
    """2(x2),4: CPUs of each node, equal neighbours counted."""
    groups: list[list[int]] = []
    for share in shares(record):
        cpus = len(share.cores) * settings.threads_per_core
        if groups and groups[-1][0] == cpus:
            groups[-1][1] += 1
        else:
            groups.append([cpus, 1])
    return ",".join(f"{cpus}(x{count})" if count > 1 else str(cpus) for cpus, count in groups)
