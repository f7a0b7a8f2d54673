"""One job for which Slurm's own commands crash: all others are reported, and it too when that is possible."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.model import Missing, Phase
from cc_slurm_adapter.slurm.postponed_jobs import FIRST_WAIT, NO_HOPE, Timing
from tests.fakes.programs import FakePrograms, conversation
from tests.fakes.slurm_and_sinks import NOW, make_run
from tests.parts.test_faults_of_slurm import START, Site, scontrol_says
from tests.recorded.fixture_files import FIXTURES
from tests.unit.jobs.test_watch import Lab

BAD = 107
JOBS = range(101, 401)
END = START + 60
CRASH = """
ids=,$(echo "$*" | sed -n 's/.*-j \\([0-9,]*\\).*/\\1/p'),
case "$*" in *"show job 107 "*) kill -SEGV $$;; esac
case $ids in *,107,*) kill -SEGV $$;; esac
REAL
"""


@pytest.fixture
def site(tmp_path: Path, programs: FakePrograms) -> Iterator[Site]:
    """Where it counts as nothing how long a query took, which on a busy machine is long."""
    made = Site(tmp_path, programs, waits=Timing(wait_per_second=0.0))
    yield made
    made.close()


def has_line(caplog: pytest.LogCaptureFixture, level: int) -> bool:
    return any(record.levelno == level for record in caplog.records)


def catch_up(site: Site) -> list[int]:
    return list(site.watch.catch_up(int(time.time()) - 60))


def close(site: Site, job_id: int) -> None:
    """The job is over, slurmctld lists it no more, and accounting knows it, as text and as JSON."""
    document = json.loads((FIXTURES / "slurm-24.11.5" / "jobs" / "one-core" / "ended.sacct.v0.0.40.json").read_text())
    document["jobs"][0]["job_id"] = job_id
    document["jobs"][0]["time"].update(start=START, end=END)
    (site.cluster.folder / "accounted").write_text(json.dumps(document, indent=2))
    (site.cluster.folder / "sacct").write_text(f"{job_id}|COMPLETED|{START - 1}|{START}|{END}|1\n")
    site.cluster.spoil("sacct", f'case "$*" in *--json*) cat {site.cluster.folder}/accounted;; *) REAL;; esac')


def test_of_three_hundred_jobs_one_for_which_squeue_crashes_costs_only_itself(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.cluster.runs(*JOBS)
    for name in ("squeue", "scontrol"):
        site.cluster.spoil(name, CRASH)
    site.poll()
    assert site.owed() == [("start", job_id) for job_id in JOBS if job_id != BAD]
    assert catch_up(site)
    assert not has_line(caplog, logging.ERROR)  # once may be chance
    for site.later in (FIRST_WAIT, 3 * FIRST_WAIT):
        site.poll()
    (line,) = (record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)
    assert line.startswith(f"job {BAD}: Slurm's own command fails for it")
    before = site.commands.started
    site.poll()
    assert site.commands.started - before == 2  # the nodes and the listing: it is not asked for
    site.cluster.repair()
    site.later += NO_HOPE
    site.poll()
    assert ("start", BAD) in site.owed()


def test_a_job_that_can_never_be_read_gets_start_and_stop_from_accounting(site: Site) -> None:
    site.cluster.runs(BAD)
    for name in ("squeue", "scontrol"):
        site.cluster.spoil(name, CRASH)
    site.poll()
    close(site, BAD)
    assert catch_up(site)
    assert site.owed() == []  # it may still be read, with its cores
    wait = FIRST_WAIT
    while wait < NO_HOPE:
        assert site.owed() == []
        site.later += wait
        assert catch_up(site)
        wait *= 2
    assert site.owed() == [("start", BAD), ("stop", BAD)]


def test_a_start_has_its_cores_although_slurmctld_was_away_when_it_was_first_asked_for(site: Site) -> None:
    """scontrol's JSON is the same then as for a job that slurmctld has forgotten."""
    site.cluster.runs()
    site.poll()
    site.cluster.runs(BAD)
    document = json.loads((site.cluster.folder / "details").read_text())
    (job,) = document["jobs"]
    job["job_state"], job["end_time"]["number"] = ["COMPLETED"], END
    (site.cluster.folder / "details").write_text(json.dumps(document, indent=2))
    close(site, BAD)
    scontrol_says(site.cluster, "slurmctld-down")
    with pytest.raises(Exception, match="Unable to contact slurm controller"):
        catch_up(site)
    assert site.owed() == []
    site.cluster.programs.make("scontrol", site.cluster._scripts["scontrol"])
    site.cluster.programs.make("squeue", site.cluster._scripts["squeue"])
    assert catch_up(site)
    assert site.owed() == [("start", BAD), ("stop", BAD)]
    assert b'"hwthreads":[' in site.starts()[0]


@pytest.mark.parametrize("crash", ["kill -SEGV $$", "exit 0"])
def test_a_job_whose_texts_cannot_be_had_is_reported_without_them(
    site: Site, caplog: pytest.LogCaptureFixture, crash: str
) -> None:
    talk = conversation(f'[ "$3" = 107 ] && {crash}; echo "JobId=$3 JobName=x"')
    site.cluster.spoil("scontrol", f'case "$*" in "") {talk};; *) REAL;; esac')
    site.cluster.runs(106, BAD, 108)
    site.poll()
    starts = {message["jobId"]: message["metaData"].get("slurmInfo") for message in map(json.loads, site.starts())}
    assert starts == {106: "JobId=106 JobName=x", BAD: None, 108: "JobId=108 JobName=x"}
    assert sum("is reported without slurmInfo and job script" in line for line in caplog.messages) == 1


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.outbox.close()


def test_what_may_still_be_read_is_not_reported_without_its_cores(lab: Lab) -> None:
    over = make_run(1, start=NOW - 200, phase=Phase.ENDED)
    lab.slurm.put(over)
    lab.slurm.close(over)
    lab.slurm.failed = {1}
    lab.catch_up(NOW - 300)
    assert not lab.starts()
    lab.watch.forget_broken()  # as SIGHUP does
    lab.catch_up(NOW - 300)
    (start,) = lab.starts()
    assert "incomplete" not in str(start["metaData"])
    assert Missing.CORES not in over.missing


def test_an_event_of_a_job_that_cannot_be_read_is_not_one_of_a_job_that_nobody_knows(lab: Lab) -> None:
    lab.slurm.failed = {1}
    assert lab.watch.look_up([1, 2]) == {1}


def test_without_accounting_a_run_that_cannot_be_read_is_not_taken_as_forgotten(tmp_path: Path) -> None:
    lone = Lab(tmp_path)
    lone.has_accounting = False
    lone.restart()
    run = lone.slurm.put(make_run(1, start=NOW - 200))
    lone.poll()
    lone.pop_pending()
    del lone.slurm.jobs[1]
    lone.slurm.failed = lone.slurm.forgotten = {1}
    lone.poll()
    lone.catch_up(NOW - 300)
    assert lone.pop_pending() == []
    lone.slurm.failed = set()
    lone.poll()
    lone.catch_up(NOW - 300)
    assert [key for _, key in lone.pop_pending()] == [run.key]
    lone.outbox.close()
