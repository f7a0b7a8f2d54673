"""A practice site: the practice cluster, the stand-in cc-backend, and the built file as daemon and hook.

    with Site(adapter) as site:
        site.daemon.start()
        site.cluster.submit(JobRequest(tasks=4, duration=2))
        site.wait_for("all to be reported", site.is_reported)

Everything lies in one temporary folder, and nothing is left when the block ends.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from examples.practice.adapter_daemon import AdapterDaemon, SiteError
from examples.practice.cc_backend import CcBackend, CcBackendServer
from examples.practice.comparison import differences
from examples.practice.programs import write_program
from examples.practice.slurm.cluster import PracticeCluster
from examples.practice.slurm.controller import Controller
from examples.practice.slurm.hooks import HookCall, HookProcesses
from examples.practice.slurm.hostlist import expand_hosts
from examples.practice.slurm.model import Settings

GPU_PCI_ADDRESSES = {
    "^node0[12]$": ["00000000:07:00.0", "00000000:0F:00.0", "00000000:47:00.0", "00000000:4E:00.0"],
    "^node": ["00000000:17:00.0", "00000000:2A:00.0", "00000000:3D:00.0", "00000000:5B:00.0"],
}
"""gpuPciAddrs: two kinds of nodes; the first match counts."""

HOOK = """\
#!/bin/sh
CC_SLURM_ADAPTER_EVENTS={events} exec {adapter}
"""
"""The built file as a hook where its events folder is not the default one."""

CHECK_SECONDS = 0.05
PATIENCE = 90.0
"""Seconds that a site is waited for; only a failure takes them, and a busy machine may need most of them."""
LOOK_BACK = 7200
"""Seconds: the cluster is new, so that a first start need not read a week of accounting."""


class TimedHooks:
    """Calls hooks as processes, and notes when slurmctld wanted each call."""

    def __init__(self, folder: str) -> None:
        self.times: dict[tuple[int, str], list[float]] = defaultdict(list)
        """Unix seconds by job id and SLURM_SCRIPT_CONTEXT, one for each run of the job."""
        self._processes = HookProcesses(folder)

    def call(self, path: str, environ: Mapping[str, str]) -> HookCall:
        self.times[int(environ["SLURM_JOB_ID"]), environ["SLURM_SCRIPT_CONTEXT"]].append(time.time())
        return self._processes.call(path, environ)

    def poll(self) -> None:
        self._processes.poll()

    def stop(self) -> None:
        self._processes.stop()


class Site:
    """One site in a temporary folder. The cluster runs at once; the daemon is started by `daemon.start`.

    `hook` is what slurmctld calls: the built file by default, '' for none, or any other program.
    `user` is whom the daemon runs as, when that is not the caller; `python` runs the commands of the cluster.
    `config` changes the daemon's settings.
    """

    def __init__(
        self,
        adapter: Path,
        *,
        cluster: Settings | None = None,
        hook: str | None = None,
        user: str = "",
        python: str = sys.executable,
        **config: Any,
    ) -> None:
        self._open = ExitStack()
        with self._open:
            self.folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="cc-slurm-adapter-")))
            self.folder.chmod(0o755)
            self._start_cluster(adapter, cluster or Settings(), hook, python)
            self._start_backend()
            self._lay_out_daemon(adapter, user, config)
            self._open = self._open.pop_all()

    def _start_cluster(self, adapter: Path, settings: Settings, hook: str | None, python: str) -> None:
        folder = self.folder / "slurm"
        if hook is None:
            hook = str(self._write_hook(adapter))
        self.settings = settings._replace(hook=hook)
        self.cluster = PracticeCluster.create(folder, python, self.settings)
        self.hooks = TimedHooks(str(folder))
        self.controller = Controller(self.cluster, self.hooks)
        self._open.callback(self.controller.stop)
        self.controller.start()

    def _write_hook(self, adapter: Path) -> Path:
        events = shlex.quote(str(self.folder / "daemon" / "hooks" / "events"))
        return write_program(self.folder / "hook", HOOK.format(events=events, adapter=shlex.quote(str(adapter))))

    def _start_backend(self) -> None:
        self.backend = CcBackend({self.settings.cluster: expand_hosts(self.settings.nodes)}, describes_hardware=False)
        self.server = CcBackendServer(self.backend)
        self._open.callback(self.server.close)
        self.server.start()

    def _lay_out_daemon(self, adapter: Path, user: str, config: dict[str, Any]) -> None:
        environ = self.cluster.environ({"PATH": os.environ.get("PATH", os.defpath)})
        defaults = {
            "ccRestUrl": self.server.url,
            "ccRestJwt": self.backend.token,
            "gpuPciAddrs": GPU_PCI_ADDRESSES,
            "slurmPollInterval": 5,
            "slurmQueryMaxSpan": LOOK_BACK,
        }
        self.daemon = AdapterDaemon(
            adapter, self.folder / "daemon", environ=environ, config={**defaults, **config}, user=user
        )
        self._open.callback(self.daemon.end)

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything and remove the folder."""
        self._open.close()

    def wait_for(self, what: str, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait until a condition holds. SiteError with the daemon's last words when it takes longer."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.controller.check()
            if time.monotonic() > deadline:
                raise SiteError(
                    f"waited {seconds:g} s for {what}; the daemon's last words:\n{self.daemon.last_words()}"
                )
            time.sleep(CHECK_SECONDS)

    def is_reported(self) -> bool:
        """Whether no job waits or runs any more, and cc-backend knows every run that it is to know, with its end."""
        if not self.cluster.is_idle():
            return False
        stopped = {(row.job_id, row.start_time) for row in self.backend.rows if row.stop_time is not None}
        return all((run.job_id, run.start) in stopped for run in self.cluster.truth() if not run.is_secret)

    def differences(self) -> list[str]:
        """What cc-backend was told and did not happen, and the other way round; one line each."""
        return differences(self.backend.rows, self.cluster.truth(), self.settings, GPU_PCI_ADDRESSES)

    def has_started(self, *job_ids: int) -> bool:
        """Whether cc-backend knows the start of all these jobs."""
        return set(job_ids) <= {row.job_id for row in self.backend.rows}

    def has_stopped(self, *job_ids: int) -> bool:
        """Whether cc-backend knows the end of all these jobs."""
        return set(job_ids) <= {row.job_id for row in self.backend.rows if row.stop_time is not None}
