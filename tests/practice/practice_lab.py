"""A practice cluster with a clock that tests move, and how two JSON values differ in shape."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from examples.practice.slurm.cluster import PracticeCluster
from examples.practice.slurm.command import Answer, run_command
from examples.practice.slurm.controller import Controller
from examples.practice.slurm.model import JobRequest, Settings

BIRTH = 1_795_000_000.0
EPOCH = {"SLURM_TIME_FORMAT": "%s"}


class FakeCall:
    """A hook that has been called and ends when a test says so."""

    def __init__(self, environ: Mapping[str, str], status: int | None) -> None:
        self.environ = dict(environ)
        self.status = status


class FakeHooks:
    """Remembers the calls. `status` is what the next ones end with at once; None lets them run."""

    def __init__(self) -> None:
        self.calls: list[FakeCall] = []
        self.status: int | None = 0

    def call(self, path: str, environ: Mapping[str, str]) -> FakeCall:
        assert path
        self.calls.append(FakeCall(environ, self.status))
        return self.calls[-1]

    def poll(self) -> None:
        """Nothing happens by itself."""

    def stop(self) -> None:
        """Nothing runs."""


class Lab:
    """A cluster with a clock that stands still until somebody moves it."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.now = BIRTH
        self.hooks = FakeHooks()
        self.cluster = PracticeCluster.create(folder, settings=settings, clock=lambda: self.now)
        self.controller = Controller(self.cluster, self.hooks)

    def close(self) -> None:
        self.controller.stop()

    def restart_controller(self) -> None:
        self.controller.stop()
        self.controller = Controller(self.cluster, self.hooks)

    def step(self, seconds: float = 0.0, times: int = 1) -> None:
        """Let time pass and slurmctld act, `times` times."""
        for _ in range(times):
            self.now += seconds
            self.controller.step()

    def submit(self, **wanted: Any) -> int:
        return self.cluster.submit(JobRequest(**wanted))

    def run(self, name: str, *arguments: str, stdin: str = "") -> Answer:
        return run_command(self.cluster.folder, name, *arguments, environ=EPOCH, now=self.now, stdin=stdin)

    def states(self, *options: str) -> dict[int, str]:
        """What squeue lists, as job id -> state."""
        answer = self.run("squeue", "-h", "-a", *(options or ("-t", "all")), "-o", "%A|%T")
        pairs = (line.split("|") for line in answer.out.splitlines())
        return {int(job): state for job, state in pairs}

    def job(self, job_id: int, version: str = "v0.0.40") -> dict[str, Any]:
        """The JSON of one job in slurmctld's memory."""
        answer = self.run("squeue", "-a", "-t", "all", "-j", str(job_id), f"--json={version}")
        (job,) = [job for job in json.loads(answer.out)["jobs"] if job["job_id"] == job_id]
        found: dict[str, Any] = job
        return found

    def accounted(self, job_id: int, *options: str) -> list[list[str]]:
        columns = "--format=JobIDRaw,State,Start,End,NNodes"
        answer = self.run("sacct", "-X", "-a", "-n", "-P", "-j", str(job_id), columns, *options)
        return [line.split("|") for line in answer.out.splitlines()]


def until(lab: Lab, reached: Callable[[], bool]) -> None:
    """Let time pass until it is so."""
    for _ in range(100):
        if reached():
            return
        lab.step(1)
    raise AssertionError("never reached")


def shape_differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Where two JSON values differ in keys or types. Numbered keys and elements all look alike."""
    if type(ours) is not type(theirs):
        yield f"{path}: {ours!r} instead of {theirs!r}"
    elif isinstance(theirs, list):
        yield from list_differences(ours, theirs, path)
    elif isinstance(theirs, dict) and all(key.isdigit() for key in (*ours, *theirs)):
        yield from list_differences(list(ours.values()), list(theirs.values()), path)
    elif isinstance(theirs, dict) and list(ours) != list(theirs):
        yield f"{path}: keys {set(ours) ^ set(theirs) or 'in another order'}"
    elif isinstance(theirs, dict):
        # Jobs here have no steps; -X would leave them out anyhow.
        for key in theirs.keys() - {"steps"}:
            yield from shape_differences(ours[key], theirs[key], f"{path}.{key}")


def list_differences(ours: list[Any], theirs: list[Any], path: str) -> Iterator[str]:
    if bool(ours) != bool(theirs):
        yield f"{path}: {ours!r} instead of {theirs!r}"
    for place, value in enumerate(ours if theirs else ()):
        yield from shape_differences(value, theirs[min(place, len(theirs) - 1)], f"{path}[]")
