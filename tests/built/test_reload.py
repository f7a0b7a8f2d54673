"""A daemon that reads its configuration again: what is in force then, and that nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.practice.cc_backend import refused_jobs
from examples.practice.site import Site
from examples.practice.slurm.model import JobRequest, Settings
from tests.built.asking import ask, command, control_socket

LONG = JobRequest(gpus_per_node=1, duration=600)


@pytest.fixture
def site(adapter: Path) -> Iterator[Site]:
    """A site with a daemon that has started."""
    with Site(adapter) as new:
        new.daemon.start()
        new.wait_for("its control socket", control_socket(new).exists)
        yield new


def reload(site: Site, **settings: Any) -> None:
    """Change the configuration, and wait until it was read again."""
    done = "parked messages again"
    before = site.daemon.log().count(done)
    site.daemon.configure(**settings)
    site.daemon.signal(signal.SIGHUP)
    site.wait_for("the reload", lambda: site.daemon.log().count(done) > before)


def post_reload(site: Site) -> tuple[int, dict[str, Any]]:
    answer = ask(control_socket(site), "/reload", "POST")
    return answer.status, json.loads(answer.body)


def start_of(site: Site, job: int) -> dict[str, Any]:
    """What cc-backend has of a job."""
    site.wait_for("its start", lambda: site.has_started(job))
    return site.backend.rows_of(job)[0].start


def test_changed_keys_are_in_force_for_the_next_job(site: Site) -> None:
    first = start_of(site, site.cluster.submit(LONG))
    assert first["resources"][0]["accelerators"] != ["00000000:AA:00.0"]
    assert "jobScript" in first["metaData"]
    pid = site.daemon.pid
    reload(site, gpuPciAddrs={"^node": ["00000000:AA:00.0"] * 4}, jobScriptMaxBytes=0)
    second = start_of(site, site.cluster.submit(LONG))
    assert second["resources"][0]["accelerators"] == ["00000000:AA:00.0"]
    assert "jobScript" not in second["metaData"]
    reload(site, ignoreUsers=["alice"])
    left_out, seen = site.cluster.submit(LONG._replace(user="alice")), site.cluster.submit(LONG._replace(user="bob"))
    start_of(site, seen)
    assert not site.has_started(left_out)
    assert site.daemon.pid == pid
    assert "in force now: gpuPciAddrs, jobScriptMaxBytes; secrets are read again" in site.daemon.log()
    assert site.daemon.running


def test_of_a_job_the_parked_start_goes_before_that_of_its_next_run(adapter: Path) -> None:
    with Site(adapter, cluster=Settings(requeue_delay=1), slurmPollInterval=1) as site:
        site.daemon.start()
        refusal = site.backend.add_fault(refused_jobs([1]))
        job = site.cluster.submit(LONG)
        site.wait_for("the refusal", lambda: "refused and parked" in site.daemon.log())
        site.cluster.requeue(job)
        site.wait_for("its next run", lambda: len(site.cluster.truth()) == 2)
        site.wait_for("both runs", lambda: len(rows(site)) == 3)
        site.backend.remove_fault(refusal)
        reload(site, slurmPollInterval=2)
        site.wait_for("what was parked", lambda: site.has_stopped(job))
        (row,) = site.backend.rows_of(job)
        assert (row.start_time, row.state) == (site.cluster.truth()[0].start, "cancelled")


def rows(site: Site) -> list[dict[str, Any]]:
    """The messages that are not delivered."""
    return list(json.loads(ask(control_socket(site), "/queue").body)["rows"])


def test_a_broken_configuration_is_refused_and_the_one_before_goes_on(site: Site) -> None:
    refused = site.backend.add_fault(refused_jobs([1]))
    site.cluster.submit(LONG)
    site.wait_for("the refusal", lambda: "refused and parked" in site.daemon.log())
    site.backend.remove_fault(refused)
    reload(site, slurmPollInterval="often", ignoreUsers="(")
    for key in ("slurmPollInterval", "ignoreUsers"):
        line = f"the configuration is refused, the one before stays in force: {site.daemon.config_path}: {key}: "
        assert line in site.daemon.log()
    site.wait_for("what was parked", lambda: site.has_started(1))
    shown = command(site, "-status")
    assert shown.returncode == 1
    assert "the configuration is refused" in " ".join(shown.stdout.split())
    status, answer = post_reload(site)
    assert status == 400
    assert [problem.split(": ")[1] for problem in answer["problems"]] == ["slurmPollInterval", "ignoreUsers"]
    start_of(site, site.cluster.submit(LONG))
    del site.daemon.config["ignoreUsers"]
    reload(site, slurmPollInterval=60)
    site.wait_for("no fault", lambda: "configuration" not in [each["subject"] for each in faults(site)])


def faults(site: Site) -> list[dict[str, Any]]:
    return list(json.loads(ask(control_socket(site), "/status").body)["faults"])


def test_what_needs_a_restart_is_named_until_then(site: Site) -> None:
    site.daemon.configure(ccPollInterval=60, clusterName="other")
    status, answer = post_reload(site)
    assert (status, answer["in_force"], answer["need_restart"]) == (202, ["ccPollInterval"], ["clusterName"])
    text = f"clusterName has changed in {site.daemon.config_path} and will be in force after a restart"
    site.wait_for("the fault", lambda: text in [each["text"] for each in faults(site)])
    assert f"POST /reload of uid {os.getuid()}: read {site.daemon.config_path} again" in site.daemon.log()
    assert start_of(site, site.cluster.submit(LONG))["cluster"] == "lab"


def test_the_next_request_has_the_new_token_so_none_is_refused(site: Site) -> None:
    start_of(site, site.cluster.submit(LONG))
    site.backend.token = "new-token"
    refusals = len([request for request in site.backend.log if request.status == 401])
    reload(site, ccRestJwt="new-token")
    start_of(site, site.cluster.submit(LONG))
    assert len([request for request in site.backend.log if request.status == 401]) == refusals
    assert "new-token" not in site.daemon.log()


def test_files_that_went_with_changes_that_need_a_restart_are_not_missed(adapter: Path) -> None:
    with Site(adapter) as site:
        site.backend.token = "a token and secret of more than 16 characters".replace(" ", "-")
        files = {key: site.folder / key for key in ("ccRestJwtFile", "prepSecretFile")}
        for file in files.values():
            file.write_text(site.backend.token)
            file.chmod(0o600)
        site.daemon.configure(ccRestJwt="", **{key: str(file) for key, file in files.items()})
        site.daemon.start()
        start_of(site, site.cluster.submit(LONG))
        moved = {key: file.rename(file.with_name(f"new-{file.name}")) for key, file in files.items()}
        reload(site, ccRestProxy="none", **{key: str(file) for key, file in moved.items()})
        assert "prepSecretFile, ccRestJwtFile, ccRestProxy have changed" in site.daemon.log()
        start_of(site, site.cluster.submit(LONG))


def test_systemd_sees_the_beginning_and_the_end_of_a_reload(adapter: Path) -> None:
    with Site(adapter) as site, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        address = site.folder / "notify"
        systemd.bind(str(address))
        address.chmod(0o777)
        systemd.settimeout(60)
        site.daemon.environ["NOTIFY_SOCKET"] = str(address)
        site.daemon.start()
        site.daemon.signal(signal.SIGHUP)
        told: list[str] = []
        while not (told and told[-1] == "READY=1" and len(told) > 2):
            state = systemd.recv(4096).decode().splitlines()[0]
            if not state.startswith(("STATUS=", "WATCHDOG=")):
                told.append(state)
        assert told == ["READY=1", "RELOADING=1", "READY=1"]
