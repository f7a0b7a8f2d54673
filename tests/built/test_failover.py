"""Slurm's backup daemons: slurmctld goes on from an older state, slurmdbd is away for hours. Nothing is lost, nothing
is double.
"""

from __future__ import annotations

import shlex
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from examples.practice.programs import write_program
from examples.practice.site import Site
from examples.practice.slurm.cluster import PracticeCluster
from examples.practice.slurm.command import FOLDER_VARIABLE
from examples.practice.slurm.model import JobRequest, Settings
from examples.practice.slurm.store import FILE_NAME
from tests.built.soak_faults import OWN_COPY, keep_commands
from tests.built.test_moved_clock import (
    FORGETFUL,
    LONG,
    SHORT,
    ClockedSite,
    cancel,
    play,
    run_and_forget,
    told,
    true,
    wait_until_forgotten,
)

HOUR = 3600
ONE_NODE = Settings(nodes="node01", requeue_delay=600)
GPU = JobRequest("gpu", gpus_per_node=1, duration=600)
ASK_BACKUP = """\
#!/bin/sh
{variable}={folder} exec {command} "$@"
"""
HIDE = """\
#!/bin/sh
{command} "$@" | sed '/^{job_id}|/d'
"""
POLLS = 2


class Backup:
    """A backup slurmctld: the commands that ask slurmctld are answered from a state that was saved before."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._folder = site.folder / "backup"
        self._folder.mkdir()
        keep_commands(site)

    def save_state(self) -> None:
        """What the backup will know."""
        source, target = (Path(folder) / FILE_NAME for folder in (self._site.cluster.folder, self._folder))
        with closing(sqlite3.connect(source)) as present, closing(sqlite3.connect(target)) as saved:
            present.backup(saved)

    @contextmanager
    def answering(self) -> Generator[None, None, None]:
        """The backup has taken over; at the end it knows all again."""
        commands = [Path(self._site.cluster.bin) / name for name in ("squeue", "scontrol", "sinfo")]
        for path in commands:
            folder, command = (shlex.quote(str(each)) for each in (self._folder, f"{path}{OWN_COPY}"))
            write_program(path, ASK_BACKUP.format(variable=FOLDER_VARIABLE, folder=folder, command=command))
        yield
        for path in commands:
            write_program(path, Path(f"{path}{OWN_COPY}").read_text())

    def listed(self) -> dict[int, str]:
        """The phases of the jobs as the backup knows them."""
        with PracticeCluster(self._folder).store() as store:
            return {record.job_id: record.phase for record in store.in_memory()}


def wait_for_polls(site: Site, number: int) -> None:
    """So many whole passes more, each of which moves the time of the last run."""
    last_run = site.daemon.state_folder / "lastrun"
    seen: set[int] = set()

    def are_over() -> bool:
        seen.add(last_run.stat().st_mtime_ns if last_run.exists() else 0)
        return len(seen) > number

    site.wait_for("some passes", are_over)


def assert_each_was_told_once(site: Site) -> None:
    """No start and no stop was accepted twice."""
    taken = Counter(
        (request.path, request.job) for request in site.backend.log if request.job and request.status in (200, 201)
    )
    assert set(taken.values()) == {1}


def backup_slurmctld_with_an_older_state(adapter: Path, _folder: Path) -> None:
    """Jobs that it does not know, that wait again and that run again: accounting tells how it really is."""
    with Site(adapter, cluster=ONE_NODE, hook="", slurmPollInterval=1) as site:
        backup = Backup(site)
        site.daemon.start()
        running, over, *fillers = site.cluster.submit_all([GPU] * 4)
        (waiting,) = site.cluster.submit_all([GPU])
        site.wait_for("the starts", lambda: site.has_started(running, over, *fillers))
        backup.save_state()
        cancel(site, over, fillers[0])
        unknown, unknown_over = site.cluster.submit_all([GPU._replace(gpus_per_node=0)] * 2)
        site.wait_for("what happens next", lambda: site.has_started(waiting, unknown, unknown_over))
        site.wait_for("two stops", lambda: site.has_stopped(over, fillers[0]))
        site.cluster.set_down("slurmctld", down=True)
        site.wait_for("a failed question", lambda: "Unable to contact slurm controller" in site.daemon.log())
        site.cluster.set_down("slurmctld", down=False)
        with backup.answering():
            known = backup.listed()
            assert (known[over], known[waiting]) == ("RUNNING", "PENDING")
            assert not {unknown, unknown_over} & known.keys()
            wait_for_polls(site, POLLS)
            assert not site.has_stopped(waiting)
            assert not site.has_stopped(unknown)
            cancel(site, unknown_over)
            site.wait_for("an end that only accounting knows", lambda: site.has_stopped(unknown_over))
            site.daemon.kill()
            site.daemon.start()
            wait_for_polls(site, POLLS)
        wait_for_polls(site, 1)
        assert not site.has_stopped(running)
        cancel(site, running, waiting, unknown, *fillers[1:])
        site.wait_for("all to be reported", site.is_reported)
        assert site.differences() == []
        assert len(site.backend.rows) == 7
        assert_each_was_told_once(site)


def hide_record(site: Site, job_id: int) -> Path:
    """slurmdbd answers, but slurmctld has not sent it this record yet. Returns sacct's path."""
    sacct = Path(site.cluster.bin) / "sacct"
    write_program(sacct, HIDE.format(command=shlex.quote(f"{sacct}{OWN_COPY}"), job_id=job_id))
    return sacct


def slurmdbd_is_away_for_hours(adapter: Path, folder: Path) -> None:
    """slurmctld forgets what ends meanwhile; two jobs come and go unseen, and of one the record comes late."""
    settings = {"slurmPollInterval": 1, "slurmQueryMaxSpan": 6 * HOUR}
    with ClockedSite(adapter, folder, cluster=FORGETFUL, hook="", **settings) as site:
        keep_commands(site)
        site.daemon.start()
        jobs = site.cluster.submit_all([LONG] * 2)
        site.wait_for("the starts", lambda: site.has_started(*jobs))
        wait_for_polls(site, 1)
        site.cluster.set_down("slurmdbd", down=True)
        site.wait_for("a failed question", lambda: "reading accounting failed" in site.daemon.log())
        site.clock.set_by(HOUR)
        with frozen(site):
            cancel(site, jobs[0])
            unseen, late = run_and_forget(site, SHORT, SHORT)
            wait_until_forgotten(site, jobs[0])
        site.clock.set_by(2 * HOUR)
        jobs += site.cluster.submit_all([LONG])
        site.wait_for("a start", lambda: site.has_started(jobs[2]))
        assert len(site.backend.rows) == 3
        assert not site.has_stopped(jobs[0])
        sacct = hide_record(site, late)
        site.cluster.set_down("slurmdbd", down=False)
        site.wait_for("what accounting tells first", lambda: site.has_stopped(jobs[0], unseen))
        wait_for_polls(site, POLLS)  # the first pass may have begun before the outage
        assert not site.has_started(late)
        write_program(sacct, Path(f"{sacct}{OWN_COPY}").read_text())
        site.clock.set_by(HOUR + 60)
        cancel(site, *jobs[1:])
        site.wait_for("all to be reported", site.is_reported)
        assert sorted(map(told, site.backend.rows)) == sorted(map(true, site.cluster.truth()))
        assert len(site.backend.rows) == 5
        assert_each_was_told_once(site)


@contextmanager
def frozen(site: Site) -> Generator[None, None, None]:
    """The daemon sees nothing of what happens meanwhile."""
    site.daemon.signal(signal.SIGSTOP)
    yield
    site.daemon.signal(signal.SIGCONT)


SCENARIOS: dict[str, Callable[[Path, Path], None]] = {
    "a backup slurmctld goes on from an older state": backup_slurmctld_with_an_older_state,
    "slurmdbd is away for hours": slurmdbd_is_away_for_hours,
}


@pytest.fixture(scope="module")
def played(adapter: Path) -> Iterator[dict[str, Future[None]]]:
    """Side by side, as each waits most of the time."""
    with ThreadPoolExecutor(len(SCENARIOS)) as pool:
        yield {name: pool.submit(play, scenario, adapter) for name, scenario in SCENARIOS.items()}


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_lost_and_nothing_double(played: dict[str, Future[None]], name: str) -> None:
    played[name].result()
