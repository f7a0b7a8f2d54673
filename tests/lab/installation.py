"""The shipped file installed on the lab's controller as docs/install.md says, and a stand-in cc-backend."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.practice.cc_backend import DEFAULT_CLUSTERS, DEFAULT_TOKEN, CcBackend, CcBackendServer, Clusters, JobRow

from .debian import tail
from .namespaces import PATIENCE, LabError, child_of, wait_for
from .slurm_conf import CLUSTER, CORES, SHIPPED_FILE, THREADS_PER_CORE
from .slurm_jobs import PCI_ADDRESSES, EndedJob

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .slurm_lab import SlurmLab

USER = "cc-slurm-adapter:slurm"
CONFIG = Path("/etc/cc-slurm-adapter/config.json")
STATE_FOLDER = Path("/var/lib/cc-slurm-adapter")
RUN_FOLDER = Path("/run/cc-slurm-adapter")
NUMBERING: dict[str, str | list[int]] = {
    "^node0[1567]$": "block",
    "^node02$": [0, 8, 2, 10, 4, 12, 6, 14, 1, 9, 3, 11, 5, 13, 7, 15],
    "^node03$": "interleaved",
    "^node04$": "cores",
}
"""The list is of a machine whose sockets are numbered in turn."""
POLL_SECONDS = 5
COMMAND = [str(SHIPPED_FILE), "-daemon", "-config", str(CONFIG), "-debug", "4"]


class Installation:
    """A configured daemon, not yet started, with an empty state folder and an empty cc-backend.

    Use it in a `with` block: at its end daemon and cc-backend are gone. Several may be on one cluster at the same
    time: all but one have a `name`, and folders of that name below those of the one without, which is made first.
    Slurm's hooks tell only that one.
    """

    def __init__(self, lab: SlurmLab, log: Path, name: str = "", clusters: Clusters = DEFAULT_CLUSTERS) -> None:
        self.lab = lab
        self.log = log
        self._config = CONFIG.parent / name / CONFIG.name
        self._state_folder, self._run_folder = STATE_FOLDER / name, RUN_FOLDER / name
        self._paths: dict[str, str] = {}
        if name:
            self._make_own_folders()
        self.backend = CcBackend(clusters, describes_hardware=False)
        self.server = CcBackendServer(self.backend)
        self.server.start()
        self._process: subprocess.Popen[bytes] | None = None
        for folder in (self._state_folder, self._run_folder):
            empty(lab.path(folder))
        self.configure()

    def __enter__(self) -> Installation:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.server.close()

    def _make_own_folders(self) -> None:
        folders = map(str, (self._config.parent, self._state_folder, self._run_folder))
        self.lab.output("install", "-d", "-o", "cc-slurm-adapter", "-g", "slurm", "-m", "750", *folders)
        self._paths = {
            "pidFilePath": str(self._run_folder / "daemon.pid"),
            "prepSockListenPath": str(self._run_folder / "daemon.sock"),
            "lastRunPath": str(self._state_folder / "lastrun"),
            "prepEventsPath": str(self._run_folder / "events"),
        }

    def configure(self, **settings: Any) -> None:
        """Writes config.json; `settings` are added to what every test here has."""
        config = {
            "ccRestUrl": self.server.url,
            "ccRestJwt": DEFAULT_TOKEN,
            "gpuPciAddrs": {"^node": PCI_ADDRESSES},
            "hwthreadNumbering": NUMBERING,
            "slurmPollInterval": POLL_SECONDS,
        }
        text = json.dumps({**config, **self._paths, **settings})
        self.lab.path(self._config).write_text(text, encoding="ascii")
        self.lab.output("chown", "cc-slurm-adapter", str(self._config))
        self.lab.output("chmod", "600", str(self._config))

    @property
    def pid(self) -> int:
        """The daemon's process id, as this process sees it."""
        if not self._process:
            raise LabError("the daemon was not started")
        return child_of(self._process.pid)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the daemon and waits until its socket is there."""
        command = [str(self._config) if word == str(CONFIG) else word for word in COMMAND]
        self._process = self.lab.popen(command, user=USER, log=self.log)
        listening = self.lab.path(self._run_folder / "daemon.sock")
        listening.unlink(missing_ok=True)
        try:
            wait_for("the daemon's socket", lambda: listening.exists() or not self.running, seconds=60)
        except LabError as error:
            raise LabError(f"{error}\n{tail(self.log)}") from None
        if not self.running:
            raise LabError(f"the daemon exited {self._process.returncode}:\n{tail(self.log)}")

    def kill(self) -> None:
        """kill -9, if it runs."""
        if self._process and self.running:
            os.kill(self.pid, signal.SIGKILL)
            self._process.wait(timeout=10)

    def stop(self, seconds: float = 10) -> tuple[float, int]:
        """SIGTERM; how many seconds it took, and the exit code."""
        assert self._process is not None
        began = time.monotonic()
        os.kill(self.pid, signal.SIGTERM)
        code = self._process.wait(timeout=seconds)
        return time.monotonic() - began, code

    def touch_last_run(self) -> None:
        """As if a daemon had polled just now and left, the existing adapter for example."""
        path = self._state_folder / "lastrun"
        self.lab.output("touch", str(path), user=USER)

    def wait_for_stops(self, job_ids: Iterable[int], seconds: float) -> None:
        """Waits until cc-backend knows of every job that it is over; fails if it does not come to that."""
        wanted = set(job_ids)
        self.backend.wait_for(lambda: wanted <= self.stopped(), PATIENCE * seconds)
        missing = wanted - self.stopped()
        assert not missing, f"no stop of jobs {sorted(missing)}, the daemon's words:\n{self.said_about(missing)}"

    def wait_for_starts(self, job_ids: Iterable[int], seconds: float) -> None:
        """Waits until cc-backend has a row of every job; fails if it does not come to that."""
        wanted = set(job_ids)
        self.backend.wait_for(lambda: wanted <= self.started(), PATIENCE * seconds)
        missing = wanted - self.started()
        assert not missing, f"no start of jobs {sorted(missing)}, the daemon's words:\n{self.said_about(missing)}"

    def started(self) -> set[int]:
        return {row.job_id for row in self.backend.rows}

    def stopped(self) -> set[int]:
        return {row.job_id for row in self.backend.rows if row.stop_time is not None}

    def only_row(self, job_id: int) -> JobRow:
        """The row of a job that must have exactly one."""
        rows = self.backend.rows_of(job_id)
        assert len(rows) == 1, f"{len(rows)} rows of job {job_id}, the daemon's words:\n{self.said_about([job_id])}"
        return rows[0]

    def lines_about(self, job_id: int, start_time: int) -> list[str]:
        """The lines of the daemon's log about one run."""
        name = f"job {job_id} of {CLUSTER} (start {start_time})"
        return [line for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines() if name in line]

    def said_about(self, job_ids: Iterable[int]) -> str:
        """The lines of the daemon's log that name one of these jobs, and its last ones."""
        names = tuple(f"job {job_id} " for job_id in job_ids)
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([line for line in lines if any(name in line for name in names)] + ["...", tail(self.log)])


def empty(folder: Path) -> None:
    """Removes what is in a folder, but not the folder."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            with contextlib.suppress(FileNotFoundError):
                entry.unlink()


def times_and_end(row: JobRow) -> tuple[int, int | None, str]:
    """Start, stop and state of a row, to be compared with `expected_times_and_end`."""
    return row.start_time, row.stop_time, row.state


def expected_times_and_end(job: EndedJob) -> tuple[int | None, int, str]:
    """The same from Slurm's accounting; the states have the same words, in capitals."""
    return job.start_time, job.end_time, job.state.lower()


def numbering_of(host: str) -> str | list[int]:
    """How the lab's configuration numbers the hardware threads of a node."""
    (numbering,) = (found for pattern, found in NUMBERING.items() if re.search(pattern, host))
    return numbering


def expected_hwthreads(host: str, cpu_ids: Sequence[int]) -> list[int]:
    """Slurm's CPU_IDs in the numbers of that node, ascending."""
    numbering = numbering_of(host)
    if isinstance(numbering, list):
        return sorted(numbering[cpu] for cpu in cpu_ids)
    if numbering == "interleaved":
        return sorted(cpu_ids)
    cores_and_threads = [divmod(cpu, THREADS_PER_CORE) for cpu in cpu_ids]
    if numbering == "cores":
        return sorted({core for core, _ in cores_and_threads})
    return sorted(core + thread * CORES for core, thread in cores_and_threads)


def listed_cpus(resource: dict[str, Any]) -> int:
    """How many of Slurm's CPUs, which are hardware threads, stand behind the hwthreads of one host."""
    listed = len(set(resource["hwthreads"]))
    return listed * THREADS_PER_CORE if numbering_of(resource["hostname"]) == "cores" else listed
