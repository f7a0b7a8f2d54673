"""`-resend` of the built file on the practice cluster: what cc-backend has of jobs is corrected, whatever happens."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from examples.practice.site import GPU_PCI_ADDRESSES, Site
from examples.practice.slurm.model import JobRequest
from tests.built.asking import Terminal, command
from tests.built.dying import write_dying

WRONG = {
    "gpuPciAddrs": {"^node": [f"00000000:{number:02X}:00.0" for number in (0xA1, 0xA2, 0xA3, 0xA4)]},
    "hwthreadNumbering": "interleaved",
}
RIGHT = {"gpuPciAddrs": GPU_PCI_ADDRESSES, "hwthreadNumbering": "block"}
LONG = JobRequest("long", tasks=2, gpus_per_node=1, duration=600)
CPUS = JobRequest("cpus", tasks=2, duration=600)
SHORT = JobRequest("short", tasks=2, duration=1)
GPUS_GONE = JobRequest("gone", gpus_per_node=1, duration=1)
"""When a job is over, slurmctld still shows its cores, but not the indices of its GPUs."""
JOBS = [LONG, CPUS, SHORT]
AT_ONCE = 6
DELETE_PATH = "/api/jobs/delete_job/"


class Point(NamedTuple):
    """The daemon dies at a passage of a step while a job is sent anew; cc-backend's commit worker may run then."""

    step: str
    number: int = 1
    since: str = ""
    committed: bool = False

    def __str__(self) -> str:
        return f"{self.step} {self.number} {self.since}{' committed' * self.committed}"


REMOVED = "withdrawal answered"
POINTS = [
    *(Point(f"withdrawal {step}") for step in ("leaves", "left", "answered")),
    *(Point("transaction full", number, REMOVED) for number in (1, 2, 3)),
    *(Point("transaction closed", number, REMOVED) for number in (1, 2, 3)),
    *(Point(f"start {step}", 1, REMOVED) for step in ("leaves", "left", "answered")),
    *(Point(f"start {step}", 1, REMOVED, committed=True) for step in ("left", "answered")),
    *(Point(f"stop {step}", 1, REMOVED) for step in ("leaves", "left", "answered")),
]


def configure(site: Site, settings: Mapping[str, object]) -> None:
    config = json.loads(site.daemon.config_path.read_text())
    site.daemon.config_path.write_text(json.dumps({**config, **settings}))


def restart(site: Site) -> None:
    """As an administrator who has corrected the configuration."""
    site.daemon.stop()
    configure(site, RIGHT)
    site.daemon.start()
    site.wait_for("its answer", lambda: "reports lab" in command(site, "-status").stdout)


def reload(site: Site) -> None:
    """As an administrator who has corrected the configuration, and need not restart for it."""
    configure(site, RIGHT)
    site.daemon.signal(signal.SIGHUP)
    site.wait_for("the reload", lambda: "in force now: gpuPciAddrs, hwthreadNumbering" in site.daemon.log())


def report_wrong_jobs(site: Site, requests: list[JobRequest]) -> list[int]:
    """Jobs of which cc-backend has the wrong GPUs and hardware threads. The short ones are over."""
    configure(site, WRONG)
    site.daemon.start()
    jobs = site.cluster.submit_all(requests)
    site.wait_for("the starts", lambda: site.has_started(*jobs))
    site.wait_for("the stops", lambda: site.has_stopped(*jobs[2:]))
    site.wait_for("an empty outbox", lambda: site.daemon.waiting_messages() == 0)
    site.backend.commit()
    return jobs


def settled(site: Site) -> bool:
    return site.daemon.waiting_messages() == 0


def test_jobs_with_wrong_gpus_get_the_right_ones(adapter: Path) -> None:
    with Site(adapter, hook="", slurmPollInterval=2) as site:
        long, cpus, short, gone = report_wrong_jobs(site, [*JOBS, GPUS_GONE])
        reload(site)
        called = command(site, "-resend", "-since", "1h", "-yes")
        assert called.returncode == 1, called.stderr
        *lines, left, last = called.stdout.splitlines()
        assert [line.split(",")[0] for line in lines] == [f"job {long}", f"job {cpus}", f"job {short}"]
        assert ", accelerators 00000000:A1:00.0 -> 00000000:" in lines[0]
        assert all(": hwthreads " in line for line in lines)
        assert left.startswith(
            f"left alone: job {gone}: Slurm and the configuration no longer tell what cc-backend has"
        )
        assert last.startswith("3 runs sent anew, 0 stored as they are, 1 left alone")
        site.wait_for("an empty outbox", lambda: settled(site))
        site.backend.commit()
        assert {difference.split(" of ")[0] for difference in site.differences()} == {f"job {gone}"}
        assert sorted(row.job_id for row in site.backend.rows) == [long, cpus, short, gone]
        again = command(site, "-resend", str(long), "-yes")
        assert again.stdout.splitlines() == ["0 runs sent anew, 1 stored as they are, 0 left alone"]
        for job_id in (long, cpus):
            site.cluster.cancel(job_id)
        site.wait_for("all to be reported", site.is_reported)
        assert {difference.split(" of ")[0] for difference in site.differences()} == {f"job {gone}"}


def test_it_asks_before_and_says_why_it_leaves_a_job_alone(adapter: Path) -> None:
    with Site(adapter, hook="", slurmPollInterval=2) as site:
        refused = command(site, "-resend", "1", "-yes")
        assert refused.returncode == 1
        assert "Runs are sent anew by the running daemon" in refused.stderr
        long, _, _ = report_wrong_jobs(site, JOBS)
        restart(site)
        assert command(site, "-resend", str(long)).returncode == 64
        with Terminal(site, "-resend", str(long)) as terminal:
            terminal.wait_for("[y/N]")
            terminal.type("n\n")
            assert terminal.wait_for_end() == 1
        assert DELETE_PATH not in {each.path for each in site.backend.log}
        assert command(site, "-resend", "999999", "-yes").returncode == 1
        assert command(site, "-resend").returncode == 64
        with Terminal(site, "-resend", str(long)) as terminal:
            terminal.wait_for("compare 1 run of 1 job with Slurm")
            terminal.type("y\n")
            assert terminal.wait_for_end() == 0
        site.wait_for("an empty outbox", lambda: settled(site))
        young = command(site, "-resend", str(long), "-yes")
        assert young.returncode == 1
        assert f"left alone: job {long}: cc-backend does not list it" in young.stdout


class Outcome(NamedTuple):
    """What came of a kill."""

    exit_code: int
    differences: list[str]
    rows: list[list[Any]]
    """When the next daemon has gone on, and after the rest was sent anew."""


def run(adapter: Path, point: Point) -> Outcome:
    """All jobs are sent anew by a daemon that dies there. The next one goes on, and is asked again for the rest."""
    with Site(adapter, hook="", slurmPollInterval=2) as site:
        long, *_ = report_wrong_jobs(site, JOBS)
        site.daemon.stop()
        configure(site, RIGHT)
        site.daemon.adapter = write_dying(site.folder, adapter, point.step, point.number, point.since)
        site.daemon.launch()
        site.wait_for("its answer", lambda: "reports lab" in command_of(site, adapter, "-status").stdout)
        command_of(site, adapter, "-resend", "-since", "1h", "-yes")
        exit_code = site.daemon.wait(40)
        if point.committed:
            site.backend.commit()
        site.daemon.adapter = adapter
        site.daemon.start()
        site.wait_for("an empty outbox", lambda: settled(site))
        site.backend.commit()
        rows = [sorted(row.job_id - long for row in site.backend.rows)]
        command(site, "-resend", "-since", "1h", "-yes")
        site.wait_for("an empty outbox again", lambda: settled(site))
        site.backend.commit()
        rows.append(sorted(row.job_id - long for row in site.backend.rows))
        return Outcome(exit_code, site.differences(), rows)


def command_of(site: Site, adapter: Path, *words: str) -> Any:
    """Calls the file itself, not the one in its place that dies."""
    before, site.daemon.adapter = site.daemon.adapter, adapter
    try:
        return command(site, *words)
    finally:
        site.daemon.adapter = before


@pytest.fixture(scope="module")
def outcomes(adapter: Path) -> Iterator[dict[Point, Future[Outcome]]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {point: pool.submit(run, adapter, point) for point in POINTS}


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_a_kill_leaves_each_job_with_one_right_row(outcomes: dict[Point, Future[Outcome]], point: Point) -> None:
    outcome = outcomes[point].result()
    assert outcome.exit_code == -signal.SIGKILL, "it never came to this point"
    assert outcome.differences == []
    assert outcome.rows == [[0, 1, 2]] * 2
