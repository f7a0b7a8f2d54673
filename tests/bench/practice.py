"""A site that runs anywhere: the big stand-in cluster, the lean stand-in cc-backend, and the built file."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from examples.practice.adapter_daemon import AdapterDaemon
from tests.bench.backend import START, STOP, BenchBackend
from tests.bench.big_cluster import CLUSTER, BigCluster
from tests.bench.prefill import prefill
from tests.bench.processes import BenchError, Cost, spawn_time
from tests.bench.report import median
from tests.bench.site import EPILOG, NEVER, PROLOG, TOKEN, Alone, Bench, Call, Event, Site, read_calls, write_calls

BARE_HOOKS = 50
REPLAY = Path(__file__).with_name("replay.py")


class PracticeSite(Site):
    """In a temporary folder, with a cluster of its own.

    `known`: the running jobs are reported already, but for the starts of the last `pending` ones, by a daemon that was
    there until `away` seconds ago. `backend`: False for a cc-backend that is away until `start_backend` brings it.
    """

    daemon: AdapterDaemon

    def __init__(
        self,
        bench: Bench,
        *,
        nodes: int = 100,
        jobs: int = 100,
        scripts: int = 0,
        known: bool = True,
        pending: int = 0,
        away: int = 0,
        backend: bool = True,
        **config: Any,
    ) -> None:
        self.bench = bench
        self.adapter = bench.adapter
        self.events: list[Event] = []
        """All that there were so far."""
        self._hook_times: list[float] = []
        self._open = ExitStack()
        with self._open:
            self.folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="cc-slurm-adapter-")))
            self.cluster = BigCluster(self.folder / "slurm", bench.python, nodes=nodes, jobs=jobs, scripts=scripts)
            self.jobs = self.cluster.jobs
            self.backend = self._open.enter_context(BenchBackend(bench.python, CLUSTER))
            if not backend:
                self.backend.close()
            self.daemon = self._lay_out_daemon(config)
            if known:
                state = self.daemon.state_folder / "state.sqlite"
                prefill(state, CLUSTER, self.cluster.jobs, self.cluster.start, nodes, pending, away)
                if backend:
                    self.backend.know(self.cluster.jobs, self.cluster.start)
            self._open = self._open.pop_all()

    def _lay_out_daemon(self, config: dict[str, Any]) -> AdapterDaemon:
        settings = {
            "ccRestUrl": self.backend.url,
            "ccRestJwt": TOKEN,
            "slurmPollInterval": NEVER,
            "slurmQueryMaxSpan": 7200,
            **config,
        }
        environ = {**self.cluster.environ, "CC_SLURM_ADAPTER_PYTHON": self.bench.python}
        daemon = AdapterDaemon(self.bench.adapter, self.folder / "daemon", environ=environ, config=settings)
        self._open.callback(daemon.end)
        return daemon

    def close(self) -> None:
        """End everything and remove the folder."""
        self._open.close()

    def start_backend(self, pace: tuple[float, float] = (0.0, 0.0)) -> None:
        """cc-backend is there from now on, at the address that the daemon has. It knows nothing."""
        self.backend = self._open.enter_context(
            BenchBackend(self.bench.python, CLUSTER, port=self.backend.port, pace=pace)
        )

    def hook_environ(self, job_id: int, context: str) -> dict[str, str]:
        """What slurmctld gives a hook."""
        return {
            "SLURM_JOB_ID": str(job_id),
            "SLURM_CLUSTER_NAME": CLUSTER,
            "SLURM_SCRIPT_CONTEXT": context,
            "CC_SLURM_ADAPTER_EVENTS": str(self.daemon.events_folder),
            "CC_SLURM_ADAPTER_PYTHON": self.bench.python,
        }

    def _call_hook(self, kind: str, job_id: int) -> Event:
        called = time.time()
        context = PROLOG if kind == START else EPILOG
        self._hook_times.append(spawn_time([str(self.bench.adapter)], self.hook_environ(job_id, context)))
        return self._note([Event(kind, job_id, called)])[0]

    def _note(self, events: list[Event]) -> list[Event]:
        self.events += events
        return events

    def hook_times(self) -> list[float]:
        """As the caller has measured them."""
        return self._hook_times

    def bare_hook(self) -> float:
        """Seconds for a shell that does nothing, instead of a hook."""
        return median(spawn_time(["/bin/sh", "-c", ":"], {}) for _ in range(BARE_HOOKS))

    def start_job(self) -> Event:
        """A job that runs as soon as its hook is over."""
        (job_id,) = self.cluster.begin(1, configuring=True)
        event = self._call_hook(START, job_id)
        self.cluster.make_ready([job_id])
        return event

    def start_jobs(self, count: int) -> list[Event]:
        """Their nodes are ready at once."""
        return [self._call_hook(START, job_id) for job_id in self.cluster.begin(count)]

    def stop_jobs(self, job_ids: Iterable[int]) -> list[Event]:
        """All at the same moment."""
        ended = list(job_ids)
        self.cluster.end(ended)
        return [self._call_hook(STOP, job_id) for job_id in ended]

    def flood(self, count: int) -> list[Event]:
        """Their events are left as the hook leaves them: all within a moment, in which no hooks could be started."""
        return self._leave(START, self.cluster.begin(count))

    def leave_stops(self, job_ids: Iterable[int]) -> list[Event]:
        """The same for jobs that end."""
        ended = list(job_ids)
        self.cluster.end(ended)
        return self._leave(STOP, ended)

    def _leave(self, kind: str, job_ids: list[int]) -> list[Event]:
        context, now = PROLOG if kind == START else EPILOG, time.time()
        for job_id in job_ids:
            (self.daemon.events_folder / f"{job_id}.{context}.{CLUSTER}.1").touch()
        return self._note([Event(kind, job_id, now) for job_id in job_ids])

    def bare_requests(self, jobs: int, pace: tuple[float, float]) -> Cost:
        """A bare loop of their starts and stops, as large as those that came, to another cc-backend of that pace."""
        with BenchBackend(self.bench.python, CLUSTER, pace=pace) as other:
            other.log, other.bytes = self.backend.log, self.backend.bytes
            return other.bare_loop(jobs, jobs)

    def calls(self) -> list[Call]:
        """As the stand-in's commands have noted them."""
        return read_calls(self.cluster.folder)

    def alone(self, calls: Iterable[Call]) -> Alone:
        """The same commands, as children of a program that does nothing else."""
        path = self.folder / "calls.json"
        write_calls(path, calls)
        return Alone(*json.loads(self.run_program(REPLAY, str(path))))

    def run_program(self, program: Path, *arguments: str) -> str:
        """With the commands of the stand-in, whose notes of it are thrown away."""
        command = [self.bench.python, "-I", "-S", "-B", str(program), *arguments]
        done = subprocess.run(command, env=self.cluster.environ, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchError(f"{program.name}: {done.stderr[-500:]}")
        self.calls()
        return done.stdout
