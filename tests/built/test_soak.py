"""Jobs of all kinds and faults of all kinds at once; at the end cc-backend has exactly what happened.

CC_SLURM_ADAPTER_SOAK_MINUTES makes it long, CC_SLURM_ADAPTER_SOAK_SEED makes it another one, or repeats one as far as
the times allow. Nothing here depends on how fast the machine is: a run may be incomplete if the daemon had no time to
look while it held its nodes, which its passes tell.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from examples.practice.adapter_daemon import SiteError
from examples.practice.site import Site
from examples.practice.slurm.model import Settings, TrueRun
from tests.built.soak import Load, Looks, Memory, Usage, is_drained, run_load, usage_of
from tests.built.soak_faults import Faults, Planned, Span, plan_faults
from tests.built.soak_model import all_differences, clear_looks, expected_runs, incomplete, was_looked_at

SECONDS, FAULT_EVERY, OPEN_JOBS, SEED = 60.0, 1.8, 30, 5
"""Of the short one, in which each fault comes at least once."""
LONG_FAULT_EVERY, LONG_OPEN_JOBS = 2.5, 100
JOBS_OF_LONG = 20_000
DRAIN_LIMIT = 180.0
CLUSTER = Settings(nodes="node[01-64]", min_job_age=40, requeue_delay=2)
MEMORY_LIMIT, GROWTH_LIMIT = 50 * 1024, 4 * 1024
"""KB. Growth is looked for in the long one only: a process of half a minute has not met everything yet."""
CONNECTIONS = 5
"""To cc-backend: four for jobs, one for the comparison."""
COMMIT_INTERVALS = (0.0, 5.0)
"""Seconds. With 0 no second run of a job is ever taken. With more it may be, and repeats get another answer."""
SHOWN = 40


class Soak:
    """One run. `report` says how it went, in lines."""

    def __init__(self, site: Site, seed: int, minutes: float) -> None:
        self.site = site
        self.seed = seed
        chance = random.Random(seed)
        self._seconds = minutes * 60 or SECONDS
        self._jobs = JOBS_OF_LONG if minutes >= 10 else 0
        self.planned: list[Planned] = plan_faults(chance, self._seconds, LONG_FAULT_EVERY if minutes else FAULT_EVERY)
        site.backend.commit_interval = chance.choice(COMMIT_INTERVALS)
        site.backend.commit()
        self._faults = Faults(site, self.planned, random.Random(seed + 1))
        self._load = Load(site, random.Random(seed + 2), LONG_OPEN_JOBS if minutes else OPEN_JOBS)
        self.memory = Memory(site.daemon)
        self._looks = Looks(site.daemon)
        self.middle = self.end = 0
        self.problems: list[str] = []

    def run(self) -> None:
        """Everything, until all is drained or it takes too long."""
        try:
            self.middle = run_load(self._load, self._faults, self.memory, self._looks, self._seconds, self._jobs)
        except SiteError as error:
            self.problems.append(str(error))
        self._load.stop()
        self._faults.stop()
        self._drain()

    def _drain(self) -> None:
        try:
            self.site.wait_for("the daemon", self.site.daemon.is_ready)
            # What was parked in the meantime would be tried again in an hour.
            self.site.daemon.signal(signal.SIGHUP)
            self.site.wait_for("all to be reported", lambda: is_drained(self.site), DRAIN_LIMIT)
        except SiteError as error:
            self.problems.append(str(error))
        self.end = self.memory.look()

    def differences(self) -> list[str]:
        """Between what happened and what cc-backend was told."""
        rows, expected = self.site.backend.rows, self._expected()
        return all_differences(rows, expected, CLUSTER, self._clear_looks())

    def looked_at(self) -> int:
        """How many runs the daemon had to see with all that they have, because it made a whole pass meanwhile."""
        looks = self._clear_looks()
        return sum(was_looked_at(run, looks) for run in self._expected().values())

    def _expected(self) -> dict[tuple[int, int], TrueRun]:
        commits_at_once = not self.site.backend.commit_interval
        return expected_runs(self.site.backend.rows, self.site.cluster.truth(), commits_at_once=commits_at_once)

    def _clear_looks(self) -> list[Span]:
        return clear_looks(self._looks.spans, self._faults.spans)

    def report(self) -> list[str]:
        rows = self.site.backend.rows
        peaks = [f"{peak / 1024:.1f}" for peak in self.memory.peaks.values()]
        return [
            f"seed {self.seed}: {self._load.submitted} jobs in {self._seconds:.0f} s, {len(self._faults.spans)} faults,"
            f" {len(rows)} rows, {incomplete(rows)} of them incomplete; {len(self._looks.spans)} whole passes,"
            f" {self.looked_at()} runs had to be seen",
            f"memory of each daemon in MB: {', '.join(peaks)}; of the last one at two thirds: {self.middle / 1024:.1f}",
        ]

    def faults(self) -> list[str]:
        """What went wrong when, on purpose."""
        began = [(span.begin, f"{span.name} until {span.end:.1f}") for span in self._faults.spans]
        return [f"{begin:.1f} {words}" for begin, words in sorted(began)]


def seed_and_minutes() -> tuple[int, float]:
    seed = os.environ.get("CC_SLURM_ADAPTER_SOAK_SEED", "")
    minutes = os.environ.get("CC_SLURM_ADAPTER_SOAK_MINUTES", "")
    drawn = random.SystemRandom().randrange(10_000) if minutes else SEED
    return int(seed) if seed else drawn, float(minutes or 0)


def quiet_usage(site: Site) -> Usage:
    """Of the daemon, when it runs no command."""
    found: list[Usage] = []

    def looked() -> bool:
        found.append(usage_of(site.daemon.pid))
        return found[-1].children == 0

    site.wait_for("a moment without a command", looked)
    return found[-1]


def test_every_fault_at_random_loses_and_doubles_nothing(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed, minutes = seed_and_minutes()
    with capsys.disabled():
        print(f"\nsoak test with CC_SLURM_ADAPTER_SOAK_SEED={seed}", flush=True)
    with Site(adapter, cluster=CLUSTER, slurmPollInterval=2) as site:
        site.daemon.start()
        site.wait_for("the first pass", (site.daemon.state_folder / "lastrun").exists)
        time.sleep(1)
        before = quiet_usage(site)
        soak = Soak(site, seed, minutes)
        soak.run()
        with capsys.disabled():
            print("\n" + "\n".join(soak.report()))
        differences = soak.differences()
        if soak.problems + differences:
            shutil.copy(site.daemon.log_path, tmp_path)
            shutil.copytree(site.daemon.state_folder, tmp_path / "state")
        assert not soak.problems + differences, explain(soak, differences, tmp_path)
        assert soak.looked_at()
        site.wait_for("threads and files as before", lambda: is_as_before(usage_of(site.daemon.pid), before))
    assert max(soak.memory.peaks.values()) <= MEMORY_LIMIT
    if minutes:
        assert soak.end - soak.middle <= GROWTH_LIMIT


def is_as_before(now: Usage, before: Usage) -> bool:
    return now[:3] == before[:3] and now.connections <= CONNECTIONS


def explain(soak: Soak, differences: list[str], log_folder: Path) -> str:
    """All that helps to find the cause."""
    shown = [*differences[:SHOWN], *([f"and {len(differences) - SHOWN} more"] if len(differences) > SHOWN else [])]
    return "\n".join([*soak.report(), *soak.problems, *shown, "faults:", *soak.faults(), f"log: {log_folder}"])
