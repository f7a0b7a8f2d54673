"""`-job` of the built file on the practice cluster: why a job is missing, and what to do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from examples.practice.cc_backend import refused_jobs
from examples.practice.site import Site
from examples.practice.slurm.model import JobRequest, Settings

LONG = JobRequest("long", duration=600)
SHORT = JobRequest("short", duration=0.3)
OPTED_OUT = LONG._replace(admin_comment='{"disable_cc_submission": true}')


def explain(site: Site, job: object, *more: str) -> subprocess.CompletedProcess[str]:
    words = [str(site.daemon.adapter), "-job", str(job), "-config", str(site.daemon.config_path), *more]
    return subprocess.run(words, env=site.daemon.environ, capture_output=True, text=True, timeout=120, check=False)


def conclusion(site: Site, job: object) -> dict[str, Any]:
    """The word and the next step for a job."""
    called = explain(site, job, "-json")
    assert called.stderr == ""
    found: dict[str, Any] = json.loads(called.stdout)
    assert found["conclusion"]["code"] == called.returncode
    return dict(found["conclusion"])


def test_each_reason_has_its_word_and_next_step(adapter: Path) -> None:
    with Site(adapter, cluster=Settings(requeue_delay=1), hook="", slurmPollInterval=1) as site:
        running, short, refused, requeued, opted_out = site.cluster.submit_all([LONG, SHORT, LONG, LONG, OPTED_OUT])
        site.wait_for("the jobs to run", lambda: len(site.cluster.truth()) == 5)
        with site.backend.fault(refused_jobs([refused])):
            site.daemon.start()
            site.wait_for("the starts", lambda: site.has_started(running, requeued) and site.has_stopped(short))
            site.wait_for("the refusal", lambda: "parked" in site.daemon.log())
            site.backend.commit()  # from then on another run of a job is refused
            site.cluster.requeue(requeued)
            site.wait_for("the conflict", lambda: "not stored, another run of this job is" in site.daemon.log())
        site.backend.commit()
        assert conclusion(site, running)["word"] == "there"
        assert conclusion(site, short)["code"] == 0
        assert conclusion(site, opted_out)["word"] == "left out"
        assert conclusion(site, 999_999)["word"] == "no such job"
        parked, conflict = conclusion(site, refused), conclusion(site, requeued)
        assert parked["word"] == "parked"
        assert parked["next_step"].endswith(f"-queue retry {refused}")
        assert conflict["word"] == "conflict"
        assert "cancelled there" in conflict["text"]
        assert "requeuedRuns" in conflict["next_step"]
        lines = explain(site, refused).stdout.splitlines()
        assert max(map(len, lines)) < 100
        site.daemon.stop()
        missed = site.cluster.submit(LONG)
        site.wait_for("the job to run", lambda: len(site.cluster.truth()) == 7)
        assert conclusion(site, missed)["word"] == "daemon away"


def test_tasks_of_arrays_are_found_by_their_names(adapter: Path) -> None:
    with Site(adapter, hook="", slurmPollInterval=1) as site:
        array = site.cluster.submit(LONG._replace(array_size=2))
        site.wait_for("the tasks to run", lambda: len(site.cluster.truth()) == 2)
        site.daemon.start()
        tasks = {run.array_task_id: run.job_id for run in site.cluster.truth()}
        site.wait_for("the starts", lambda: site.has_started(*tasks.values()))
        for task, job_id in tasks.items():
            assert json.loads(explain(site, f"{array}_{task}", "-json").stdout)["job_id"] == job_id
        nothing = explain(site, f"{array}_77")
        assert nothing.returncode == 2
        assert "sacct -a -X -o JobID,JobIDRaw" in nothing.stderr
