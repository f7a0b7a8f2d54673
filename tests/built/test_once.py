"""`-once` of the built file on the practice cluster: one round, and the exit code says whether all is delivered."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from examples.practice.cc_backend import OtherAnswer, refused_jobs
from examples.practice.site import Site
from examples.practice.slurm.model import JobRequest, Settings

LONG = JobRequest("long", tasks=4, gpus_per_node=1, duration=600)
SHORT = JobRequest("short", duration=0.3)


def command(site: Site, *more: object) -> list[str]:
    words = map(str, more)
    return [str(site.daemon.adapter), "-once", *words, "-config", str(site.daemon.config_path)]


def once(site: Site, *more: object) -> subprocess.CompletedProcess[str]:
    words = command(site, *more)
    return subprocess.run(words, env=site.daemon.environ, capture_output=True, text=True, timeout=120, check=False)


def running(site: Site) -> int:
    return [run.end for run in site.cluster.truth()].count(None)


def test_a_round_delivers_everything_and_the_next_one_what_has_changed(adapter: Path) -> None:
    with Site(adapter, hook="") as site:
        long, *_ = site.cluster.submit_all([LONG, SHORT, LONG._replace(array_size=2)])
        site.wait_for("three to run", lambda: len(site.cluster.truth()) == 4 and running(site) == 3)
        first = once(site)
        assert first.returncode == 0, first.stderr
        assert "once: all was read and is delivered" in first.stderr
        assert len(site.backend.node_states) == 4
        assert site.differences() == []
        starts = [each for each in site.backend.log if "start_job" in each.path]
        assert len(starts) == 4
        site.cluster.cancel(long)
        site.wait_for("one to end", lambda: running(site) == 2)
        second = once(site, "-timeout", "1min")
        assert second.returncode == 0, second.stderr
        assert site.differences() == []
        assert len([each for each in site.backend.log if "start_job" in each.path]) == 4


def test_hook_events_that_wait_in_the_folder_are_taken(adapter: Path) -> None:
    with Site(adapter, cluster=Settings(min_job_age=600)) as site:
        assert once(site).returncode == 0  # from now on hooks leave events
        job = site.cluster.submit(LONG)
        site.wait_for("an event", lambda: any(site.daemon.events_folder.glob("[0-9]*")))
        assert once(site).returncode == 0
        assert site.has_started(job)
        assert not any(site.daemon.events_folder.glob("[0-9]*"))


def test_what_is_refused_and_what_waits_is_said_with_the_reason(adapter: Path) -> None:
    with Site(adapter, hook="") as site:
        good, bad = site.cluster.submit_all([LONG] * 2)
        site.wait_for("both to run", lambda: running(site) == 2)
        with site.backend.fault(refused_jobs([bad])):
            refused = once(site)
        assert refused.returncode == 1
        assert "once: parked: 1 for cc_rest, the first of job" in refused.stderr
        assert "-queue list" in refused.stderr
        assert site.has_started(good)
        assert not site.has_started(bad)
        assert once(site).returncode == 0  # a start tries again what was refused
        assert site.has_started(bad)


def test_without_cc_backend_it_ends_in_time_and_the_next_one_loses_and_doubles_nothing(adapter: Path) -> None:
    with Site(adapter, hook="") as site:
        site.cluster.submit_all([LONG, SHORT])
        site.wait_for("one to run", lambda: len(site.cluster.truth()) == 2 and running(site) == 1)
        site.server.stop()
        began = time.monotonic()
        away = once(site, "-timeout", "6s")
        assert 6 <= time.monotonic() - began < 40
        assert away.returncode == 1
        assert "not complete after 6 s (-timeout allows more)" in away.stderr
        assert "3 messages wait for cc-backend, which cannot be reached" in away.stderr
        site.server.start()
        site.backend.add_fault(OtherAnswer("/api/jobs/start_job", 1, status=500))
        back = once(site, "-timeout", "1min")
        assert back.returncode == 0, back.stderr
        assert site.differences() == []
        assert len(site.backend.rows) == 2


def test_a_slurmctld_that_is_away_is_waited_for_until_the_time_is_over(adapter: Path) -> None:
    with Site(adapter, hook="") as site:
        site.cluster.set_down("slurmctld", down=True)
        away = once(site, "-timeout", "4s")
        assert away.returncode == 1
        assert "once: nothing was read: waiting for Slurm, which does not answer" in away.stderr
        site.cluster.set_down("slurmctld", down=False)
        assert once(site).returncode == 0


def test_beside_a_daemon_it_is_refused_and_a_signal_ends_it(adapter: Path) -> None:
    with Site(adapter, hook="") as site:
        site.daemon.start()
        beside = once(site)
        assert beside.returncode == 1
        assert f"a daemon runs already with the pid {site.daemon.pid}" in beside.stderr
        site.daemon.stop()
        site.server.stop()
        site.cluster.submit(LONG)
        site.wait_for("it to run", lambda: running(site) == 1)
        process = subprocess.Popen(command(site), env=site.daemon.environ, stderr=subprocess.PIPE, text=True)
        site.wait_for("a message", lambda: site.daemon.waiting_messages() == 1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 1
        assert "stopped by a signal before its end; what waits is on disk" in said
        assert "1 message waits for cc-backend" in said


def test_wrong_flags_are_said_before_anything_is_asked(adapter: Path) -> None:
    with Site(adapter, hook="") as site:
        for more, text in ((["-timeout", "soon"], "is no span of time"), (["-since", "1h"], "-since goes with")):
            wrong = once(site, *more)
            assert wrong.returncode == 64
            assert text in wrong.stderr
