"""The demo on an installed Slurm: what the adapter would report, sent to the stand-in cc-backend.

It asks Slurm and changes nothing: no hook is needed, and all files lie in a private temporary folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from examples.practice.adapter_daemon import AdapterDaemon, SiteError
from examples.practice.cc_backend import CcBackend, JobRow, LoggedRequest, serving
from examples.practice.comparison import STATES
from examples.practice.demo.table import UP, JobLine, Picture, holds

COMMANDS = ("squeue", "sacct", "scontrol", "sinfo")
ASK_SECONDS = 2.0
"""How often the display asks Slurm what there is."""
TIME_LIMIT = 60.0
"""Seconds that one command may take."""
LOOK_BACK = 3600
"""Seconds: jobs that ended so long before the demo are read as well."""
POLL_SECONDS = 3
SETTLE_SECONDS = 20.0
"""Differences count when they are still there after so long: Slurm goes on while both are compared."""
YOUNG = 2 * POLL_SECONDS
"""Seconds in which an end need not be reported yet."""
GPUS = {".": [f"GPU{index}" for index in range(64)]}
"""gpuPciAddrs: what stands for the addresses, which are not known here."""
LEFT_OUT = re.compile(r"job (\d+) of \S+ \(start (\d+)\) is left out: its AdminComment")
"""What the daemon says of a run that opted out."""
HOLDING = ("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
FINAL = "BF,CA,CD,DL,F,NF,OOM,PR,TO"

START, STOP = "/api/jobs/start_job/", "/api/jobs/stop_job/"

Sent = tuple[int, str]
"""Job id and path of a request."""
Run = tuple[int, int]
"""Job id and start time in Unix seconds."""


class ListedJob(NamedTuple):
    """A line of squeue."""

    job_id: int
    state: str
    start: int | None
    user: str


class EndedRun(NamedTuple):
    """A line of sacct, in cc-backend's words."""

    state: str
    stop: int
    user: str
    account: str
    partition: str
    num_nodes: int


def check_commands() -> None:
    """SiteError when Slurm's commands are missing."""
    missing = [name for name in COMMANDS if not shutil.which(name)]
    if missing:
        raise SiteError(
            f"not in PATH: {', '.join(missing)}. Install Slurm's client commands (Debian: apt-get install"
            " slurm-client) and its configuration, or run the demo without --slurm"
        )


def ask(*argv: str) -> list[str]:
    """The lines that a Slurm command prints; times are Unix seconds. SiteError when it fails."""
    environ = {**os.environ, "LC_ALL": "C", "SLURM_TIME_FORMAT": "%s"}
    try:
        done = subprocess.run(
            argv, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIME_LIMIT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SiteError(f"{argv[0]} gives no answer: {error}") from None
    if done.returncode != 0:
        complaint = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise SiteError(f"{argv[0]} gives no answer: {complaint}")
    return done.stdout.decode(errors="replace").splitlines()


def cluster_name() -> str:
    """Slurm's ClusterName. SiteError when it has none."""
    for line in ask("scontrol", "show", "config"):
        found = re.match(r"ClusterName\s+= (\S+)", line)
        if found:
            return found[1]
    raise SiteError("scontrol show config names no ClusterName")


def hosts() -> list[str]:
    """All nodes; sinfo names those of several partitions several times."""
    return list(dict.fromkeys(line.strip() for line in ask("sinfo", "-a", "-N", "-h", "-O", "NodeList:255")))


@contextmanager
def site_on_slurm(adapter: Path) -> Iterator[SlurmSite]:
    """A daemon that is not started yet and a cc-backend for the installed Slurm. SiteError without one."""
    check_commands()
    cluster = cluster_name()
    sent: dict[Sent, float] = {}
    backend = CcBackend({cluster: hosts()}, on_request=lambda request: note(sent, request), describes_hardware=False)
    with tempfile.TemporaryDirectory(prefix="cc-slurm-adapter-") as folder, serving(backend) as url:
        config = {
            "ccRestUrl": url,
            "ccRestJwt": backend.token,
            "gpuPciAddrs": GPUS,
            "slurmPollInterval": POLL_SECONDS,
            "slurmQueryMaxSpan": LOOK_BACK,
        }
        daemon = AdapterDaemon(adapter, Path(folder) / "daemon", environ=os.environ, config=config)
        try:
            yield SlurmSite(cluster, backend, daemon, sent)
        finally:
            daemon.end()


class SlurmSite(NamedTuple):
    """What the demo needs beside Slurm itself."""

    cluster: str
    backend: CcBackend
    daemon: AdapterDaemon
    sent: dict[Sent, float]
    """When cc-backend had accepted what."""


def note(sent: dict[Sent, float], request: LoggedRequest) -> None:
    """Remember an accepted request."""
    if request.job and request.status in (200, 201):
        sent[request.job[1], request.path] = request.time + request.seconds


class SlurmDemo:
    """Watches what Slurm does and what the daemon makes of it, for some seconds."""

    def __init__(self, site: SlurmSite, seconds: float) -> None:
        self._site = site
        self._seconds = seconds
        self._began = time.time()
        self._next_question = 0.0
        self._listed: list[ListedJob] = []

    def turn(self) -> None:
        """Ask Slurm, now and then. SiteError on trouble."""
        if not self._site.daemon.running:
            raise SiteError(f"the daemon has ended:\n{self._site.daemon.last_words()}")
        if time.monotonic() >= self._next_question:
            self._listed = listed_jobs()
            self._next_question = time.monotonic() + ASK_SECONDS

    def finished(self) -> bool:
        """Whether the time is over."""
        return time.time() - self._began >= self._seconds

    def picture(self) -> Picture:
        """How it stands."""
        rows = {row.job_id: row for row in self._site.backend.rows}
        listed = {job.job_id: job for job in self._listed}
        shown = sorted(rows.keys() | {job.job_id for job in self._listed if job.state in HOLDING})
        running = sum(job.state in HOLDING for job in self._listed)
        pending = sum(job.state == "PENDING" for job in self._listed)
        return Picture(
            title=f"cc-slurm-adapter demo: cluster {self._site.cluster}, stand-in cc-backend",
            seconds=time.time() - self._began,
            activity=f"Slurm is watched, polled every {POLL_SECONDS} s",
            progress=f"({max(self._seconds - (time.time() - self._began), 0):.0f} s left, Ctrl-C ends it)",
            pending=pending,
            running=running,
            over=len(self._listed) - pending - running,
            starts=len(rows),
            stops=sum(row.stop_time is not None for row in rows.values()),
            waiting=self._site.daemon.waiting_messages(),
            backend=UP,
            jobs=[self._line(job_id, listed.get(job_id), rows.get(job_id)) for job_id in shown],
        )

    def _line(self, job_id: int, listed: ListedJob | None, row: JobRow | None) -> JobLine:
        """A job as it stands; without a row it is known by squeue only."""
        stopped = row is not None and row.stop_time is not None
        return JobLine(
            job_id=job_id,
            user=str(row.start["user"]) if row else listed.user if listed else "",
            name=str(row.start["metaData"].get("jobName", "")) if row else "",
            state=listed.state if listed else "",
            start_sent=self._time_of(job_id, START) if row else "",
            stop_sent=self._time_of(job_id, STOP) if stopped else "",
            holds=holds(row) if row else "",
        )

    def _time_of(self, job_id: int, path: str) -> str:
        """The local time at which a request was accepted."""
        return time.strftime("%H:%M:%S", time.localtime(self._site.sent.get((job_id, path))))

    def summary(self) -> list[str]:
        """What was sent, and what the daemon had to complain about, a line each."""
        rows = self._site.backend.rows
        stops = sum(row.stop_time is not None for row in rows)
        nodes = sum(r.path == "/api/nodestate/" and r.status == 200 for r in self._site.backend.log)
        incomplete = sum("incomplete" in row.start.get("metaData", {}) for row in rows)
        return [
            f"{len(rows)} starts, {stops} stops and {nodes} reports of {len(self._site.backend.node_states)} nodes"
            " were sent",
            f"{incomplete} of the jobs were over before the demo could see what they held",
            f"{len(left_out(self._site.daemon.log()))} jobs opted out and are not reported",
            *(f"the daemon says: {line}" for line in complaints(self._site.daemon.log())),
        ]

    def differences(self) -> list[str]:
        """What cc-backend has and Slurm does not say, and the other way round; one line each."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            found = self._differences()
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(1)

    def _differences(self) -> list[str]:
        rows = {(row.job_id, row.start_time): row for row in self._site.backend.rows}
        listed = {(job.job_id, job.start or 0): job.state for job in listed_jobs()}
        ended = ended_runs(self._began, time.time() - YOUNG)
        opted_out = left_out(self._site.daemon.log()) - rows.keys()
        found = [
            f"job {run[0]} runs and has no row that says so"
            for run, state in listed.items()
            if state == "RUNNING" and run not in opted_out and (run not in rows or rows[run].stop_time is not None)
        ]
        found += [
            f"job {run[0]} is reported as running and squeue says {listed.get(run, 'nothing')}"
            for run, row in rows.items()
            if row.stop_time is None and listed.get(run) not in HOLDING
        ]
        for run, truth in ended.items():
            told = told_of(rows.get(run))
            if told != truth and run not in opted_out:
                found.append(f"job {run[0]} was reported as {told or 'nothing'} and was {truth}")
        return found


def listed_jobs() -> list[ListedJob]:
    """What slurmctld knows. None of the columns can be written by a user."""
    jobs = []
    for line in ask("squeue", "-h", "-a", "-t", "all", "-o", "%A|%T|%S|%u"):
        job_id, state, start, user = line.split("|")
        jobs.append(ListedJob(int(job_id), state, int(start) if start.isdigit() else None, user))
    return jobs


def ended_runs(since: float, until: float) -> dict[Run, EndedRun]:
    """Runs that accounting has closed between two moments in Unix seconds; those that never ran are left out."""
    if until <= since:
        return {}
    window = ["-S", f"uts{int(since)}", "-E", f"uts{int(until)}", "-s", FINAL]
    columns = "JobIDRaw,State,Start,End,User,Account,Partition,NNodes"
    ended = {}
    for line in ask("sacct", "-X", "-a", "-D", "-n", "-P", *window, f"--format={columns}"):
        job_id, state, start, end, user, account, partition, num_nodes = line.split("|")
        if start.isdigit() and end.isdigit() and since <= int(end) <= until and num_nodes != "0":
            word = state.split()[0]
            ended[int(job_id), int(start)] = EndedRun(
                STATES.get(word, word.lower()), int(end), user, account, partition, int(num_nodes)
            )
    return ended


def told_of(row: JobRow | None) -> EndedRun | None:
    """The same of a row; None when there is none, or no stop."""
    if row is None or row.stop_time is None:
        return None
    start = row.start
    return EndedRun(
        row.state, row.stop_time, start["user"], start["project"], start["partition"], int(start["numNodes"])
    )


def left_out(log: str) -> set[Run]:
    """The runs that opted out, as the daemon says."""
    return {(int(job_id), int(start)) for job_id, start in LEFT_OUT.findall(log)}


def complaints(log: str) -> list[str]:
    """Warnings and errors of the daemon."""
    return [
        re.sub(r"^.*? (WARNING|ERROR) ", "", line) for line in log.splitlines() if re.search(r" (WARNING|ERROR) ", line)
    ]
