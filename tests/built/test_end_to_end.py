"""The built file as daemon and hook on a practice site: every run is reported once, and as it was."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from examples.practice.cc_backend import CcBackend, CcBackendServer, LostAnswer, refused_jobs
from examples.practice.demo.jobs import KINDS
from examples.practice.site import GPU_PCI_ADDRESSES, Site
from examples.practice.slurm.model import JobRequest, Settings

CLUSTER = Settings(nodes="node[01-08]")
LONG = JobRequest("long", tasks=2, gpus_per_node=1, duration=600)


def of_every_kind(seconds: float) -> list[JobRequest]:
    """The demo's jobs, each so long but for those of a second, and those that are to be cancelled."""
    users = ("alice", "bob", "")
    return [
        kind._replace(
            user=users[place % 3], duration=seconds if kind.duration == JobRequest().duration else kind.duration
        )
        for place, kind in enumerate(KINDS)
    ]


def runs_to_report(jobs: Sequence[JobRequest]) -> int:
    """How many rows must come of them: one for each task of an array, none for a job that opted out."""
    return sum(max(job.array_size, 1) for job in jobs if "disable_cc_submission" not in job.admin_comment)


def assert_all_is_right(site: Site, runs: int) -> None:
    """Every run has one row, with all that it held."""
    assert site.differences() == []
    assert len(site.backend.rows) == runs
    site.wait_for("an empty outbox", lambda: site.daemon.waiting_messages() == 0)


def test_jobs_of_every_kind_with_hooks(adapter: Path) -> None:
    """The daemon polls once; after that it knows only what the hooks tell."""
    with Site(adapter, cluster=CLUSTER, slurmPollInterval=3600) as site:
        site.daemon.start()
        site.wait_for("the first pass", (site.daemon.state_folder / "lastrun").exists)
        jobs = of_every_kind(1.5)
        ids = site.cluster.submit_all(jobs)
        names = [job.name for job in jobs]
        cancelled, opted_out = (ids[names.index(name)] for name in ("cancelled", "opted out"))
        never_ran = site.cluster.submit(JobRequest(cancel_pending=True, duration=0.5))
        site.wait_for("the starts", lambda: site.has_started(cancelled))
        site.cluster.cancel(cancelled)
        site.wait_for("all to be reported", site.is_reported)
        assert_all_is_right(site, runs_to_report(jobs))
        assert site.backend.rows_of(never_ran) == site.backend.rows_of(opted_out) == []
        states = {row.state for row in site.backend.rows}
        assert states == {"completed", "failed", "cancelled", "timeout", "out_of_memory"}


def test_jobs_of_every_kind_by_polling(adapter: Path) -> None:
    with Site(adapter, cluster=CLUSTER, hook="", slurmPollInterval=1) as site:
        site.daemon.start()
        jobs = [job._replace(duration=4) for job in of_every_kind(4)]
        site.cluster.submit_all(jobs)
        site.wait_for("all to be reported", site.is_reported)
        assert_all_is_right(site, runs_to_report(jobs))


def test_walltime_script_and_sharing_arrive(adapter: Path) -> None:
    with Site(adapter) as site:
        site.daemon.start()
        script = "#!/bin/sh\n# \u00e4 'quoted' $(text)\nexit 0\n"
        alone = site.cluster.submit(JobRequest("alone", exclusive=True, time_limit=90, script=script, duration=1))
        among = site.cluster.submit(JobRequest("among", user="alice", duration=1))
        site.wait_for("the starts", lambda: site.has_started(alone, among))
        start = site.backend.rows_of(alone)[0].start
        assert (start["shared"], start["walltime"]) == ("none", 90 * 60)
        assert start["metaData"]["jobScript"] == script
        assert start["metaData"]["slurmInfo"].startswith(f"JobId={alone} JobName=alone\n")
        assert site.backend.rows_of(among)[0].start["shared"] == "multi_user"


def test_cc_backend_is_away_at_the_start_and_in_the_middle(adapter: Path) -> None:
    short = JobRequest(gpus_per_node=1, duration=1)
    with Site(adapter) as site:
        site.server.stop()
        site.daemon.start()
        site.cluster.submit_all([short] * 4)
        site.wait_for("8 messages in the outbox", lambda: site.daemon.waiting_messages() == 8)
        site.server.start()
        site.wait_for("all to be reported", site.is_reported)
        running = site.cluster.submit_all([short._replace(duration=3)] * 2)
        site.wait_for("their starts", lambda: site.has_started(*running))
        site.server.stop()
        site.cluster.submit_all([short] * 4)
        site.wait_for("10 messages in the outbox", lambda: site.daemon.waiting_messages() == 10)
        site.server.start()
        site.wait_for("all to be reported", site.is_reported)
        assert_all_is_right(site, 10)


def test_lost_answers_double_nothing(adapter: Path) -> None:
    with Site(adapter) as site:
        site.daemon.start()
        lost = site.backend.add_fault(LostAnswer(path="/api/jobs/", count=3))
        site.cluster.submit_all([JobRequest(duration=1, gpus_per_node=1)] * 6)
        site.wait_for("three lost answers", lambda: lost.count == 0)
        site.wait_for("all to be reported", site.is_reported)
        assert_all_is_right(site, 6)


def test_kill_9_loses_and_doubles_nothing(adapter: Path) -> None:
    """Killed with running jobs while cc-backend is away, and again amid the delivery of what had piled up."""
    with Site(adapter) as site:
        site.daemon.start()
        first = site.cluster.submit_all([JobRequest(gpus_per_node=1, duration=second) for second in range(1, 7)])
        site.wait_for("the first starts", lambda: site.has_started(*first))
        site.server.stop()
        site.cluster.submit_all([JobRequest(gpus_per_node=1, duration=1)] * 4)
        site.wait_for("8 messages in the outbox", lambda: site.daemon.waiting_messages() >= 8)
        site.daemon.kill()
        site.cluster.submit_all([JobRequest(gpus_per_node=1, duration=8)] * 2)
        site.daemon.start()
        site.server.start()
        site.wait_for("some of it", lambda: len(site.backend.rows) > len(first))
        site.daemon.kill()
        site.daemon.start()
        site.wait_for("all to be reported", site.is_reported)
        assert_all_is_right(site, 12)


def test_stops_arrive_of_jobs_reported_by_the_existing_adapter_and_after_the_state_was_lost(adapter: Path) -> None:
    """Some end beside the daemon, some while neither program runs.

    The existing adapter lists core numbers: one thread in each core, so that they are right.
    """
    with Site(adapter, cluster=Settings(threads_per_core=1), slurmPollInterval=1) as site:
        jobs = site.cluster.submit_all([LONG] * 8)
        site.wait_for("the jobs to run", lambda: len(site.cluster.truth()) == 8)
        report_as_existing_adapter(site)
        site.backend.commit()
        (site.daemon.state_folder / "lastrun").touch()
        end(site, jobs[:2])
        site.daemon.start()
        site.wait_for("two stops", lambda: site.has_stopped(*jobs[:2]))
        end(site, jobs[2:4])
        site.wait_for("two stops more", lambda: site.has_stopped(*jobs[2:4]))
        site.daemon.stop()
        for file in site.daemon.state_folder.glob("state.sqlite*"):
            file.unlink()
        end(site, jobs[4:6])
        site.daemon.start()
        site.wait_for("the stops of the time without a daemon", lambda: site.has_stopped(*jobs[4:6]))
        end(site, jobs[6:])
        site.wait_for("the last stops", site.is_reported)
        assert_all_is_right(site, 8)


def end(site: Site, jobs: Sequence[int]) -> None:
    """Cancel them and wait until accounting knows."""
    for job_id in jobs:
        site.cluster.cancel(job_id)
    over = set(jobs)
    site.wait_for("the end", lambda: over <= {run.job_id for run in site.cluster.truth() if run.end is not None})


def report_as_existing_adapter(site: Site) -> None:
    """The start requests of the existing adapter, for all that runs: keys and empty values as it sends them."""
    for run in site.cluster.truth():
        resources = [
            {
                "hostname": share.host,
                "hwthreads": list(share.cores),
                "accelerators": [GPU_PCI_ADDRESSES["^node0[12]$"][gpu] for gpu in share.gpus],
            }
            for share in run.hosts
        ]
        assert {share.host for share in run.hosts} <= {"node01", "node02"}
        request = {
            "cluster": "lab",
            "subCluster": "",
            "partition": run.partition,
            "project": run.account,
            "user": run.user,
            "shared": "multi_user",
            "jobState": "",
            "resources": resources,
            "energyFootprint": None,
            "footprint": None,
            "metaData": {"jobName": run.name},
            "concurrentJobs": {"items": None, "count": 0},
            "energy": 0,
            "jobId": run.job_id,
            "duration": 0,
            "numAcc": sum(len(share.gpus) for share in run.hosts),
            "numHwthreads": sum(len(share.cores) for share in run.hosts),
            "numNodes": len(run.hosts),
            "statistics": None,
            "startTime": run.start,
        }
        headers = {"X-AUTH-TOKEN": site.backend.token, "Content-Type": "application/json"}
        url = f"{site.server.url}/api/jobs/start_job/"
        post = urllib.request.Request(url, json.dumps(request).encode(), headers)  # noqa: S310 (the stand-in's URL)
        with urllib.request.urlopen(post, timeout=10) as answer:  # noqa: S310
            assert answer.status == 201


def test_a_requeued_run_is_cancelled_and_the_next_one_is_refused_by_cc_backend(adapter: Path) -> None:
    """cc-backend takes no second run of a job within a day. The first keeps its own end."""
    with Site(adapter, cluster=Settings(requeue_delay=3), slurmPollInterval=1) as site:
        site.daemon.start()
        job = site.cluster.submit(LONG)
        site.wait_for("its start", lambda: site.has_started(job))
        site.cluster.requeue(job)
        site.wait_for("its stop", lambda: site.has_stopped(job))
        site.wait_for("the next run", lambda: len(site.cluster.truth()) == 2)
        site.cluster.cancel(job)
        site.wait_for(
            "the next run to end", lambda: [run.end is None for run in site.cluster.truth()] == [False, False]
        )
        site.wait_for("the refusal", lambda: "not stored, another run of this job is" in site.daemon.log())
        first, second = site.cluster.truth()
        (row,) = site.backend.rows
        assert (row.start_time, row.stop_time, row.state) == (first.start, first.end, "cancelled")
        assert site.differences() == [f"job {job} of {second.user}, started {second.start}: is missing"]


def test_sighup_tries_again_what_was_refused(adapter: Path) -> None:
    with Site(adapter) as site:
        site.daemon.start()
        refusal = site.backend.add_fault(refused_jobs([1]))
        refused, accepted = site.cluster.submit_all([JobRequest(duration=1)] * 2)
        site.wait_for("the other job", lambda: site.has_stopped(accepted))
        site.wait_for("the refusal", lambda: "parked" in site.daemon.log())
        assert not site.has_started(refused)
        site.backend.remove_fault(refusal)
        site.daemon.signal(signal.SIGHUP)
        site.wait_for("all to be reported", site.is_reported)
        assert_all_is_right(site, 2)


def test_node_states_are_posted(adapter: Path) -> None:
    """2 tasks are one core with two CPUs, each with 100 MB."""
    with Site(adapter, slurmPollInterval=1) as site:
        site.daemon.start()
        site.cluster.submit(JobRequest(tasks=2, gpus_per_node=3, duration=600))
        wanted = {"cpusAllocated": 2, "memoryAllocated": 200, "gpusAllocated": 3, "jobsRunning": 1}

        def reported(host: str) -> dict[str, int]:
            report = site.backend.node_states["lab", host].payload
            return {key: report[key] for key in wanted}

        site.wait_for("the nodes", lambda: len(site.backend.node_states) == 4)
        site.wait_for("the job on its node", lambda: reported("node01") == wanted)
        assert reported("node02") == dict.fromkeys(wanted, 0)
        states = {host: report.payload["states"] for (_, host), report in site.backend.node_states.items()}
        assert states == {"node01": ["mixed"], "node02": ["idle"], "node03": ["idle"], "node04": ["idle"]}


class SiteOfTwoClusters(Site):
    """Its cc-backend knows another cluster too, which has none of the hosts here."""

    def _start_backend(self) -> None:
        super()._start_backend()
        self.server.close()
        self.backend = CcBackend({"lab": ["node01"], "big": ["n001"]})
        self.server = CcBackendServer(self.backend)
        self._open.callback(self.server.close)
        self.server.start()


def test_the_name_of_another_cluster_is_told_and_its_refusals_are_one_line(adapter: Path) -> None:
    """As when a site copies the configuration of its other cluster."""
    with SiteOfTwoClusters(adapter, clusterName="big", slurmPollInterval=1) as site:
        site.daemon.start()
        site.cluster.submit_all([JobRequest(duration=600)] * 8)
        told = "clusterName is big, but Slurm calls this cluster lab and cc-backend knows both"
        site.wait_for("the warning", lambda: told in site.daemon.log())
        refused = "start refused and parked, tried again later or after SIGHUP"
        site.wait_for("all refusals", lambda: site.daemon.log().count(refused) == 8)
        assert [refused in line for line in site.daemon.log().splitlines() if "WARNING" in line].count(True) == 1


def test_only_what_the_site_calls_accelerators_is_reported(adapter: Path) -> None:
    """The nodes here have a GRES called gpu and no dcu."""
    with Site(adapter, acceleratorGres=["dcu"]) as site:
        site.daemon.start()
        job = site.cluster.submit(JobRequest(gpus_per_node=2, duration=600))
        site.wait_for("the start", lambda: site.has_started(job))
        (row,) = site.backend.rows_of(job)
        assert "numAcc" not in row.start
        assert [set(resource) for resource in row.start["resources"]] == [{"hostname", "hwthreads"}]
        site.wait_for("a word about it", lambda: "devices of the GRES gpu on node01" in site.daemon.log())


def test_nodes_whose_gpus_have_no_address_are_told_before_there_is_any_job(adapter: Path) -> None:
    with Site(adapter, gpuPciAddrs={"^node01$": GPU_PCI_ADDRESSES["^node"]}) as site:
        site.daemon.start()
        line = "3 nodes (node02, node03, node04) with 4 gpu:h100 each, for which gpuPciAddrs has 0 addresses"
        site.wait_for("a word about them", lambda: line in site.daemon.log())
        job = site.cluster.submit(JobRequest(nodes=2, gpus_per_node=2, duration=600))
        site.wait_for("the start", lambda: site.has_started(job))
        assert site.backend.rows_of(job)[0].start["numAcc"] == 4
