"""`-sync` of the built file on the practice cluster: with a daemon and without, and interrupted in every way."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from cc_slurm_adapter.cli.control_client import get, post
from examples.practice.cc_backend import Delay
from examples.practice.site import Site
from examples.practice.slurm.model import JobRequest, Record, Settings
from tests.built.test_moved_clock import told, true

SHORT = JobRequest("short", duration=0.1)
LONG = JobRequest("long", tasks=4, gpus_per_node=1, duration=600)
FORGETFUL = Settings(min_job_age=1)
DAY = 86400


def command(site: Site, *more: object) -> list[str]:
    return [str(site.daemon.adapter), "-sync", *map(str, more), "-config", str(site.daemon.config_path)]


def sync(site: Site, *more: object) -> subprocess.CompletedProcess[str]:
    words = command(site, *more)
    return subprocess.run(words, env=site.daemon.environ, capture_output=True, text=True, timeout=200, check=False)


def socket_path(site: Site) -> str:
    return str(site.daemon.run_folder / "control.sock")


def status(site: Site) -> dict[str, Any]:
    code, body = get("/status", socket_path(site))
    assert code == 200
    found: dict[str, Any] = json.loads(body)
    return found


def run_old_jobs(site: Site, number: int, days: float = 2) -> list[int]:
    """Run jobs and let accounting say that this was days ago, some hours apart; slurmctld has forgotten them."""
    jobs = site.cluster.submit_all([SHORT] * number)
    site.wait_for("the old jobs", site.cluster.is_idle)
    time.sleep(2)
    with site.cluster.store() as store, store.transaction():
        records = [each for each in store.accounted() if each.job_id in set(jobs)]
        store.save(_earlier(record, int(days * DAY) - place * 1200) for place, record in enumerate(records))
    return jobs


def _earlier(record: Record, seconds: int) -> Record:
    """The same record with all its times earlier."""
    times = {name: value - seconds for name, value in record._asdict().items() if _is_time(value)}
    return record._replace(**times)


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and value > 1e9


def first_moment_is_now(site: Site) -> None:
    """As after the existing adapter: what has ended before is not reported."""
    last_run = site.daemon.state_folder / "lastrun"
    last_run.touch()


def starts(site: Site) -> Counter[int]:
    """How often each job was started with an answer that says that it is new."""
    posts = [each for each in site.backend.log if "start_job" in each.path and each.status == 201]
    return Counter(each.job[1] for each in posts if each.job)


def assert_reported_once(site: Site) -> None:
    """Every run is told with its own times, and once. The cores of the old ones cannot be known."""
    assert sorted(map(told, site.backend.rows)) == sorted(map(true, site.cluster.truth()))
    assert set(starts(site).values()) == {1}


def test_a_running_daemon_brings_what_is_older_than_its_first_moment(adapter: Path) -> None:
    with Site(adapter, cluster=FORGETFUL, hook="", slurmPollInterval=1) as site:
        old = run_old_jobs(site, 30)
        first_moment_is_now(site)
        running = site.cluster.submit(LONG)
        site.daemon.start()
        site.wait_for("the running job", lambda: site.has_started(running))
        assert not site.has_started(old[0])
        partly = sync(site, "-since", "3d", "-until", f"{int(time.time() - 2 * DAY + 3600)}")
        assert partly.returncode == 0, partly.stderr
        whole = sync(site, "-since", "3d")
        assert whole.returncode == 0, whole.stderr
        assert re.search(r"sync complete: what ended from .*: 3\d runs, \d+ not known before", whole.stderr)
        site.wait_for("all old ones", lambda: site.has_stopped(*old))
        assert_reported_once(site)
        again = sync(site, "-since", "3d")
        assert "0 not known before" in again.stderr
        assert site.daemon.log().count("sync begins, for ") == 3


def test_one_job_is_brought_by_the_daemon_and_an_unknown_one_is_said(adapter: Path) -> None:
    with Site(adapter, cluster=FORGETFUL, hook="", slurmPollInterval=1) as site:
        old = run_old_jobs(site, 3)
        first_moment_is_now(site)
        site.daemon.start()
        one = sync(site, "-job", old[1])
        assert one.returncode == 0, one.stderr
        site.wait_for("it", lambda: site.has_stopped(old[1]))
        assert [row.job_id for row in site.backend.rows] == [old[1]]
        unknown = sync(site, "-job", 999_999)
        assert unknown.returncode == 2
        assert "Slurm knows no such job" in unknown.stderr


def test_without_a_daemon_it_does_it_itself_and_delivers(adapter: Path) -> None:
    with Site(adapter, cluster=FORGETFUL, hook="") as site:
        old = run_old_jobs(site, 12)
        recent = run_old_jobs(site, 2, days=0.5)
        first_moment_is_now(site)
        alone = sync(site, "-since", "3d", "-until", "1d")
        assert alone.returncode == 0, alone.stderr
        assert "12 runs, 12 not known before" in alone.stderr
        assert site.has_stopped(*old)
        assert not site.has_started(*recent)
        assert sync(site, "-since", "3d").returncode == 0
        assert site.has_stopped(*recent)
        assert_reported_once(site)
        site.daemon.start()  # what was synced is no concern of the daemon
        site.wait_for("a poll", lambda: "poll" in status(site)["steps"])
        assert_reported_once(site)


def known(site: Site) -> int:
    """How many runs the state file knows."""
    with closing(sqlite3.connect(f"{(site.daemon.state_folder / 'state.sqlite').as_uri()}?mode=ro", uri=True)) as file:
        return int(file.execute("SELECT count(*) FROM run").fetchone()[0])


def test_a_daemon_that_is_killed_in_the_middle_loses_and_doubles_nothing(adapter: Path) -> None:
    with Site(adapter, cluster=FORGETFUL, hook="", slurmPollInterval=1) as site:
        old = run_old_jobs(site, 60)
        first_moment_is_now(site)
        site.daemon.start()
        site.backend.add_fault(Delay("/api/jobs/start_job", seconds=0.05))
        following = subprocess.Popen(
            command(site, "-since", "3d"), env=site.daemon.environ, stderr=subprocess.PIPE, text=True
        )
        site.wait_for("some of them", lambda: 5 <= known(site) < len(old))
        site.daemon.kill()
        _, said = following.communicate(timeout=60)
        assert following.returncode == 1
        assert "sync: not complete" in said
        assert "the same command goes on from there" in said
        assert known(site) < len(old)
        site.daemon.start()
        taken_up = sync(site, "-since", "3d")
        assert taken_up.returncode == 0, taken_up.stderr
        site.wait_for("all of them", lambda: site.has_stopped(*old))
        assert_reported_once(site)
        assert f"{len(old)} runs" in taken_up.stderr


def test_ctrl_c_stops_the_sync_of_the_daemon_and_not_the_daemon(adapter: Path) -> None:
    with Site(adapter, cluster=FORGETFUL, hook="", slurmPollInterval=1) as site:
        old = run_old_jobs(site, 10)
        first_moment_is_now(site)
        site.daemon.start()
        following = subprocess.Popen(
            command(site, "-since", "300d"), env=site.daemon.environ, stderr=subprocess.PIPE, text=True
        )
        site.wait_for("its beginning", lambda: bool(status(site)["sync"]["began"]))
        code, body = post("/sync", {"job": old[0]}, socket_path(site))
        assert code == 409
        assert "a sync is under way" in json.loads(body)["error"]
        screen = subprocess.run(
            [str(adapter), "-status", "-config", str(site.daemon.config_path)],
            env=site.daemon.environ, capture_output=True, text=True, timeout=60, check=False,
        ).stdout  # fmt: skip
        assert "\nsync         what ended from" in screen
        time.sleep(1)  # until Python has its handler for SIGINT
        following.send_signal(signal.SIGINT)
        _, said = following.communicate(timeout=60)
        assert following.returncode == 1
        assert "stopped, what ended from" in said
        site.wait_for("its end", lambda: status(site)["sync"]["result"] == "stopped")
        assert site.daemon.running
        assert sync(site, "-since", "3d").returncode == 0
        site.wait_for("the old ones", lambda: site.has_stopped(*old))


def test_a_bar_is_drawn_on_a_terminal(adapter: Path) -> None:
    with Site(adapter, cluster=FORGETFUL, hook="") as site:
        run_old_jobs(site, 3)
        first_moment_is_now(site)
        controller, terminal = os.openpty()
        process = subprocess.Popen(command(site, "-since", "4d"), env=site.daemon.environ, stderr=terminal)
        os.close(terminal)
        shown = b""
        try:
            while piece := os.read(controller, 65536):
                shown += piece
        except OSError:
            pass  # the other end is closed
        finally:
            os.close(controller)
        assert process.wait(60) == 0
        bars = re.findall(r"\r\x1b\[K(sync \[[#.]{20}\] \d+ % [^\r\n]*)", shown.decode())
        assert len(bars) > 3
        assert all(len(bar) < 80 for bar in bars)
        assert any(re.search(r"/s, .* left", bar) for bar in bars)
