"""A site on a real Slurm: the lean stand-in cc-backend, and the built file or another adapter on its controller."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from examples.practice.adapter_daemon import READY
from tests.bench.backend import START, STOP, BenchBackend
from tests.bench.big_lab import FOLDER, RELEASE, BigLab
from tests.bench.processes import BenchError, wait_until
from tests.bench.site import EPILOG, NEVER, PROLOG, TOKEN, Alone, Bench, Call, Event, Site, read_calls, write_calls
from tests.lab.debian import SUITES, make_chroot, tail
from tests.lab.installation import CONFIG, RUN_FOLDER, STATE_FOLDER, USER, empty
from tests.lab.namespaces import ENVIRONMENT, child_of
from tests.lab.slurm_conf import CLUSTER, SHIPPED_FILE

ANOTHER = SHIPPED_FILE.with_name("another")
REPLAY = Path(__file__).with_name("replay.py")
PATH = f"PATH={FOLDER}/bin:{ENVIRONMENT['PATH']}"
LIMIT = 600.0
AT_ONCE = 8
"""So many salloc and scancel at the same time."""


class LabSites:
    """Brings the Slurm up with its running jobs; each call makes a site on it. Use it in a `with` block."""

    def __init__(self, adapter: Path, folder: Path, jobs: int, scripts: int) -> None:
        suite = SUITES[RELEASE]
        self._lab = BigLab(suite, make_chroot(suite, folder))
        with ExitStack() as undo:
            undo.callback(self._lab.close)
            self._lab.start(adapter)
            self._jobs = self._lab.fill(jobs, scripts)
            self._lab.call_hooks()
            undo.pop_all()

    def __enter__(self) -> LabSites:
        return self

    def __exit__(self, *_: object) -> None:
        self._lab.close()

    def __call__(self, bench: Bench, *, known: bool = True, program: Path | None = None, **config: Any) -> LabSite:
        """`known`: the running jobs are reported before `start` returns. Numbers of jobs and nodes are as they are."""
        settings = {name: value for name, value in config.items() if name not in ("jobs", "nodes", "scripts")}
        return LabSite(bench, self._lab, self._jobs, known=known, program=program, **settings)


class LabDaemon:
    """A configured daemon inside the lab that is not yet started, with an empty state folder."""

    def __init__(self, lab: BigLab, log: Path, program: Path, config: dict[str, Any]) -> None:
        self.state_folder = lab.path(STATE_FOLDER)
        self._lab, self._log, self._program = lab, log, program
        self._process: subprocess.Popen[bytes] | None = None
        for folder in (STATE_FOLDER, RUN_FOLDER):
            empty(lab.path(folder))
        lab.path(CONFIG).write_text(json.dumps(config), encoding="ascii")
        lab.output("chown", "cc-slurm-adapter", str(CONFIG))
        lab.output("chmod", "600", str(CONFIG))

    @property
    def pid(self) -> int:
        """Its process id, as this process sees it."""
        if self._process is None:
            raise BenchError("the daemon was not started")
        return child_of(self._process.pid)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self, debug: int = 3) -> None:
        """Start it and do not wait. Its commands are noted."""
        argv = ["env", PATH, str(self._program), "-daemon", "-config", str(CONFIG), "-debug", str(debug)]
        self._process = self._lab.popen(argv, user=USER, log=self._log)

    def is_ready(self) -> bool:
        return READY in self.log()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def stop(self, seconds: float = 10) -> tuple[int, float]:
        """SIGTERM; the exit code, and how many seconds it took. After `seconds` it is killed: that is -9."""
        process, began = self._process, time.monotonic()
        if process is None:
            raise BenchError("the daemon was not started")
        self.signal(signal.SIGTERM)
        try:
            return process.wait(seconds), time.monotonic() - began
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            process.wait(seconds)
            return -9, time.monotonic() - began

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def last_words(self) -> str:
        return tail(self._log)


class LabSite(Site):
    """One daemon on the lab; `jobs` run all the time, others that began here are cancelled at the end."""

    adapter = SHIPPED_FILE
    at_once = AT_ONCE

    def __init__(
        self, bench: Bench, lab: BigLab, jobs: list[int], *, known: bool, program: Path | None, **config: Any
    ) -> None:
        self.jobs = jobs
        self._lab, self._known = lab, known
        self._begun: set[int] = set()
        self._open = ExitStack()
        with self._open:
            folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="cc-slurm-adapter-")))
            self.backend = self._open.enter_context(BenchBackend(bench.python, CLUSTER))
            if program:
                shutil.copy(program, lab.path(ANOTHER))
            settings = {
                "ccRestUrl": self.backend.url,
                "ccRestJwt": TOKEN,
                "slurmPollInterval": NEVER,
                "slurmQueryMaxSpan": 7200,
                **config,
            }
            self.daemon = LabDaemon(lab, folder / "log", ANOTHER if program else SHIPPED_FILE, settings)
            self.calls()
            self._open = self._open.pop_all()

    def close(self) -> None:
        """End the daemon and what began here."""
        with self._open:
            if self.daemon.running:
                self.daemon.stop()
            if self._begun:
                self._lab.cancel(sorted(self._begun))

    def start(self) -> None:
        """Start the daemon and wait for its first pass; `known`: until all running jobs are reported as well."""
        super().start()
        if self._known:
            self.backend.wait_for(START, self.jobs, LIMIT)

    def start_job(self) -> Event:
        """A job without processes."""
        return self.start_jobs(1)[0]

    def start_jobs(self, count: int) -> list[Event]:
        """Jobs without processes."""
        job_ids = self._lab.allocate(count)
        self._begun |= set(job_ids)
        return self._events(START, job_ids)

    def stop_jobs(self, job_ids: Iterable[int]) -> list[Event]:
        """They are cancelled."""
        ended = list(job_ids)
        self._lab.cancel(ended)
        self._begun -= set(ended)
        return self._events(STOP, ended)

    def flood(self, count: int) -> list[Event]:
        """As fast as salloc and slurmctld are."""
        return self.start_jobs(count)

    def hook_times(self) -> list[float]:
        """As the hook's caller has measured them."""
        return [call.ended - call.began for call in self._lab.hooked().values()]

    def _events(self, kind: str, job_ids: list[int]) -> list[Event]:
        """When slurmctld has called the hooks of all of them."""
        wanted = {(job_id, PROLOG if kind == START else EPILOG) for job_id in job_ids}
        wait_until(f"the {kind} hooks of {len(wanted)} jobs", lambda: wanted <= self._lab.hooked().keys(), LIMIT)
        calls = self._lab.hooked()
        return [Event(kind, job_id, calls[job_id, context].began) for job_id, context in sorted(wanted)]

    def calls(self) -> list[Call]:
        """As the programs before Slurm's in PATH have noted them."""
        return read_calls(self._lab.path(FOLDER))

    def alone(self, calls: Iterable[Call]) -> Alone:
        """The same commands by the same user, from a program that does nothing else."""
        noted = self._lab.path(FOLDER) / "calls.json"
        write_calls(noted, calls)
        noted.chmod(0o644)
        return Alone(*json.loads(self.run_program(REPLAY, f"{FOLDER}/calls.json")))

    def run_program(self, program: Path, *arguments: str) -> str:
        """Inside, with Slurm's own commands."""
        shutil.copy(program, self._lab.path(FOLDER) / program.name)
        argv = ["/usr/bin/python3", "-I", "-S", "-B", f"{FOLDER}/{program.name}", *arguments]
        return self._lab.output(*argv, user=USER, seconds=LIMIT)
