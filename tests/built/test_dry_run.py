"""`-dry-run` of the built file on the practice cluster: it prints what the daemon then sends, and changes nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from examples.practice.cc_backend import CcBackend, JobRow
from examples.practice.cc_backend.api import Request
from examples.practice.comparison import differences
from examples.practice.site import GPU_PCI_ADDRESSES, Site
from examples.practice.slurm.hostlist import expand_hosts
from examples.practice.slurm.model import JobRequest, Settings

LONG = JobRequest("long", tasks=4, gpus_per_node=1, duration=600)
SHORT = JobRequest("short", duration=0.3)
OPTED_OUT = LONG._replace(admin_comment='{"disable_cc_submission": true}')


def dry_run(site: Site, *more: object) -> subprocess.CompletedProcess[str]:
    words = [str(site.daemon.adapter), "-dry-run", *map(str, more), "-config", str(site.daemon.config_path)]
    return subprocess.run(words, env=site.daemon.environ, capture_output=True, text=True, timeout=120, check=False)


def requests(called: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert called.returncode == 0, called.stderr
    return [json.loads(line) for line in called.stdout.splitlines()]


def posted(site: Site, printed: list[dict[str, Any]]) -> list[JobRow]:
    """The rows of another cc-backend, as strict as a real one, that gets exactly what was printed."""
    other = CcBackend({site.settings.cluster: expand_hosts(site.settings.nodes)})
    for each in printed:
        path = each["url"][len(site.server.url) :]
        request = Request(each["method"], path, token=other.token, body=json.dumps(each["body"]).encode())
        assert other.answer(request).status in (200, 201), each
    assert len(other.node_states) == 4
    return other.rows


def facts(rows: list[JobRow]) -> dict[int, tuple[object, ...]]:
    """What was told of each job; scontrol's text counts how long the job has been running."""
    starts = [re.sub(r"RunTime=[0-9:-]+", "", json.dumps(row.start)) for row in rows]
    return {row.job_id: (start, row.state, row.stop_time) for row, start in zip(rows, starts)}


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """All files below a folder with size and time of the last change."""
    found = [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
    return {str(each): (each.stat().st_size, each.stat().st_mtime_ns) for each in found}


def test_it_prints_what_the_daemon_then_sends_and_changes_nothing(adapter: Path) -> None:
    with Site(adapter, hook="", slurmPollInterval=1) as site:
        site.cluster.submit_all([LONG, SHORT, LONG._replace(array_size=2), OPTED_OUT])
        site.wait_for(
            "four to run and one to be over", lambda: [run.end for run in site.cluster.truth()].count(None) == 4
        )
        before = files(site.daemon.folder)
        called = dry_run(site, "-since", "1h")
        rows = posted(site, requests(called))
        assert files(site.daemon.folder) == before
        assert not site.backend.log
        assert differences(rows, site.cluster.truth(), site.settings, GPU_PCI_ADDRESSES) == []
        assert "dry run: 4 starts for cc-backend, 1 stop for cc-backend, the states of 4 nodes" in called.stderr
        assert "1 run is left out by the configuration" in called.stderr
        site.daemon.start()
        site.wait_for("all to be sent", lambda: facts(site.backend.rows) == facts(rows))
        asked = len(site.backend.log)
        beside = posted(site, requests(dry_run(site, "-since", "1h")))
        assert facts(beside) == facts(rows)
        assert {each.path for each in site.backend.log[asked:]} <= {"/api/nodestate/", "/api/jobs/"}


def test_of_one_job_only_its_own_requests_are_printed(adapter: Path) -> None:
    with Site(adapter, cluster=Settings(min_job_age=1), hook="", slurmPollInterval=1) as site:
        running, short = site.cluster.submit_all([LONG, SHORT])
        site.wait_for("the short one to be over", lambda: [run.end for run in site.cluster.truth()].count(None) == 1)
        time.sleep(2)  # slurmctld forgets it after a second
        of_running, of_short = requests(dry_run(site, "-job", running)), requests(dry_run(site, "-job", short))
        assert [each["body"]["jobId"] for each in of_running] == [running]
        assert [each["url"].rsplit("/", 2)[1] for each in of_short] == ["start_job", "stop_job"]
        assert {each["body"]["jobId"] for each in of_short} == {short}
        unknown = dry_run(site, "-job", 999_999)
        assert unknown.returncode == 2
        assert unknown.stdout == ""
        assert "Slurm knows no job 999999" in unknown.stderr
        assert dry_run(site, "-since", "soon").returncode == 64
