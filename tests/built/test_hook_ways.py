"""The built file as a hook reaches the built file as a daemon, on every way there is."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.practice.site import Site
from examples.practice.slurm.hooks import EPILOG, PROLOG
from examples.practice.slurm.model import JobRequest
from tests.built.installed import call

SECRET = "the-shared-secret-of-hooks-and-daemon"

EXISTING_ADAPTER = (
    *("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_CLUSTER_NAME", "SLURM_JOB_COMMENT", "SLURM_JOB_END_TIME"),
    *("SLURM_JOB_EXIT_CODE", "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_NODELIST", "SLURM_JOB_PARTITION"),
    *("SLURM_JOB_RESTART_COUNT", "SLURM_JOB_START_TIME", "SLURM_JOB_USER", "SLURM_SCRIPT_CONTEXT"),
    "CUDA_VISIBLE_DEVICES",
)
"""Keys of its hook's message; there are more of the kind."""


def environment(job_id: int, context: str) -> dict[str, str]:
    """All that Slurm's hooks need to know; neither PATH nor HOME."""
    return {"SLURM_JOB_ID": str(job_id), "SLURM_SCRIPT_CONTEXT": context, "SLURM_CLUSTER_NAME": "lab"}


def call_hook(site: Site, job_id: int, context: str, config: Path | None = None) -> None:
    """As a site does whose hooks name the configuration."""
    command = [site.daemon.adapter, "-config", config or site.daemon.config_path]
    done = call(command, environment(job_id, context))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def site(adapter: Path) -> Iterator[Site]:
    """Slurm calls no hook here, and the daemon polls only once: whatever is reported later came by a hook."""
    with Site(adapter, hook="", slurmPollInterval=3600) as new:
        yield new


def start(site: Site, **config: Any) -> None:
    """Start the daemon and let its only poll be over, with the accounting that follows it."""
    site.daemon.configure(**config)
    site.daemon.start()
    site.wait_for("the first pass", (site.daemon.state_folder / "lastrun").exists)


def run_job(site: Site) -> int:
    """A job that runs, and that nobody has told the daemon of."""
    job = site.cluster.submit(JobRequest(gpus_per_node=1, duration=600))
    site.wait_for("the job to run", lambda: any(run.job_id == job for run in site.cluster.truth()))
    assert not site.has_started(job)
    return job


def assert_hooks_arrive(site: Site, tell: Callable[[int, str], None]) -> None:
    """The prolog's event leads to the start, the epilog's to the stop."""
    job = run_job(site)
    tell(job, PROLOG)
    site.wait_for("the start", lambda: site.has_started(job))
    site.cluster.cancel(job)
    site.wait_for("the job to be over", site.cluster.is_idle)
    assert not site.has_stopped(job)
    tell(job, EPILOG)
    site.wait_for("the stop", lambda: site.has_stopped(job))
    assert [text for text in site.differences() if text.startswith(f"job {job} ")] == []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_by_the_unix_socket(site: Site) -> None:
    start(site, prepSockListenPath=f"unix:{site.daemon.socket_path}")
    assert_hooks_arrive(site, lambda job, context: call_hook(site, job, context))


@pytest.mark.parametrize("host", ["127.0.0.1", "", "localhost"])
def test_by_tcp_on_this_host(site: Site, host: str) -> None:
    address = f"tcp:{host}:{free_port()}"
    start(site, prepSockListenPath=address, prepSockConnectPath=address)
    assert_hooks_arrive(site, lambda job, context: call_hook(site, job, context))


def test_by_tcp_with_the_right_and_the_wrong_secret(site: Site) -> None:
    address = f"tcp:127.0.0.1:{free_port()}"
    secret, wrong = site.folder / "secret", site.folder / "wrong-secret"
    secret.write_text(SECRET)
    wrong.write_text(SECRET[::-1])
    for file in (secret, wrong):
        file.chmod(0o600)
    start(site, prepSockListenPath=address, prepSockConnectPath=address, prepSecretFile=str(secret))
    other_config = site.folder / "other.json"
    other_config.write_text(json.dumps({**site.daemon.config, "prepSecretFile": str(wrong)}))
    job = run_job(site)
    call_hook(site, job, PROLOG, other_config)
    site.wait_for("the refusal", lambda: "the signature is wrong" in site.daemon.log())
    assert SECRET not in site.daemon.log()
    site.cluster.cancel(job)
    site.wait_for("the job to be over", site.cluster.is_idle)
    assert_hooks_arrive(site, lambda job, context: call_hook(site, job, context))
    assert not site.has_started(job)


def test_by_the_message_of_the_existing_adapter(site: Site) -> None:
    start(site)

    def tell(job: int, context: str) -> None:
        values = {**dict.fromkeys(EXISTING_ADAPTER, ""), **environment(job, context), "SLURM_JOB_USER": "root"}
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(site.daemon.socket_path))
            connection.sendall(json.dumps(values).encode())

    assert_hooks_arrive(site, tell)


def test_by_the_events_folder(site: Site) -> None:
    start(site)
    events = {"CC_SLURM_ADAPTER_EVENTS": str(site.daemon.events_folder)}

    def tell(job: int, context: str) -> None:
        done = call([site.daemon.adapter], {**environment(job, context), **events})
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    assert_hooks_arrive(site, tell)


@pytest.mark.parametrize("bare", [True, False], ids=["bare", "with -config"])
def test_an_event_waits_for_the_daemon(site: Site, bare: bool) -> None:
    start(site)
    site.daemon.stop()
    events = site.daemon.events_folder
    job = run_job(site)
    if bare:
        done = call([site.daemon.adapter], {**environment(job, PROLOG), "CC_SLURM_ADAPTER_EVENTS": str(events)})
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    else:
        call_hook(site, job, PROLOG)
    (event,) = (path for path in events.iterdir() if not path.name.startswith("."))
    assert event.name.startswith(f"{job}.prolog_slurmctld.lab.")
    site.daemon.start()
    site.wait_for("the event to be served", lambda: not event.exists() and site.has_started(job))


def test_a_gpu_job_of_one_second_keeps_all_its_cores_and_gpus(site: Site) -> None:
    """What GPUs it held can only be read while it runs: the hook tells in time."""
    start(site)
    job = site.cluster.submit(JobRequest(tasks=4, gpus_per_node=2, duration=1))
    site.wait_for("the job to run", lambda: bool(site.cluster.truth()))
    call_hook(site, job, PROLOG)
    site.wait_for("the job to be over", site.cluster.is_idle)
    call_hook(site, job, EPILOG)
    site.wait_for("all to be reported", site.is_reported)
    assert site.differences() == []
