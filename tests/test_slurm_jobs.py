"""Jobs in the JSON of squeue and scontrol, against the right answers of every recorded case."""

from __future__ import annotations

from typing import Any

import pytest

from cc_slurm_adapter.job import EndState, Missing, Phase, Run, Sharing
from cc_slurm_adapter.slurm.jobs import job_id_of, parse_job
from tests.fixture_files import LAYOUTS, Recording, recordings, split_document, true_cores, true_gpus

SLURMCTLD = [*recordings("*.squeue*.json"), *recordings("*.scontrol*.json")]


def pairs(recording: Recording) -> list[tuple[Run, dict[str, Any]]]:
    """Each run of the recorded document that the truth speaks of, with that truth."""
    truths = {(truth["job_id"], truth["start"]): truth for truth in recording.truth}
    runs = [parse_job(job, "lab", LAYOUTS) for job in split_document(recording.text, "squeue")]
    return [(run, truths[run.key[1:]]) for run in runs if run.key[1:] in truths]


def test_the_recordings_are_there() -> None:
    counted = sum(len(pairs(recording)) for recording in SLURMCTLD)
    assert len(SLURMCTLD) > 150
    assert counted > 150


@pytest.mark.parametrize("recording", SLURMCTLD, ids=str)
def test_a_job_has_the_nodes_cores_and_gpus_that_it_really_had(recording: Recording) -> None:
    for run, truth in pairs(recording):
        if run.phase is Phase.WAITING or not truth["hosts"]:
            continue
        cores = {resource.hostname: resource.cores for resource in run.resources}
        assert cores == true_cores(truth)
        gpus = {resource.hostname: resource.gpus for resource in run.resources}
        if run.phase is Phase.RUNNING:
            assert gpus == true_gpus(truth)
            assert run.missing == frozenset()
        else:
            had = sum(len(indices) for indices in true_gpus(truth).values())
            assert gpus == true_gpus(truth) or (not any(gpus.values()) and run.missing == {Missing.GPUS})
            assert run.num_gpus == had


@pytest.mark.parametrize("recording", SLURMCTLD, ids=str)
def test_a_job_has_its_own_words_and_numbers(recording: Recording) -> None:
    for run, truth in pairs(recording):
        if run.phase is Phase.WAITING:
            continue
        assert run.user == truth["user"]
        assert run.account == truth["account"]
        assert run.partition == truth["partition"]
        assert run.name == truth["name"]
        assert run.submit_time == truth["submit"]
        assert run.num_cpus == truth["num_cpus"]
        assert run.walltime == truth["walltime_s"]
        assert run.array_job_id == truth["array_job_id"]
        assert run.array_task_id == truth["array_task_id"]
        if truth["hosts"]:
            assert (run.sharing is Sharing.WHOLE_NODE) == truth["whole_node_exclusive"]


@pytest.mark.parametrize("recording", [each for each in SLURMCTLD if each.file.name.startswith("ended")], ids=str)
def test_an_ended_job_has_its_end(recording: Recording) -> None:
    for run, truth in pairs(recording):
        if run.phase is not Phase.ENDED:
            continue
        assert run.end is not None
        assert run.end.end_time == truth["end"]
        assert run.end.end_state.name == truth["final_state"].split(" ")[0]


@pytest.mark.parametrize("recording", [*recordings("ended.squeue.json"), *recordings("ended.scontrol*.json")], ids=str)
def test_a_completing_job_has_all_its_nodes_although_slurm_takes_them_away(recording: Recording) -> None:
    truths = {truth["job_id"]: truth for truth in recording.truth if truth["hosts"]}
    for job in split_document(recording.text, "squeue"):
        if job_id_of(job) in truths:
            run = parse_job({**job, "nodes": "", "job_state": ["COMPLETED", "COMPLETING"]}, "lab", LAYOUTS)
            assert [each.hostname for each in run.resources] == list(truths[job_id_of(job)]["hosts"])
            assert run.is_completing
            assert not run.never_ran


def test_a_job_cancelled_while_it_waited_never_ran() -> None:
    runs = [
        parse_job(job, "lab", LAYOUTS)
        for recording in recordings("*.s*.json")
        if recording.case == "cancelled-pending" and "sacct" not in recording.file.name
        for job in split_document(recording.text, "squeue")
        if job_id_of(job) == recording.truth[0]["job_id"]
    ]
    ended = [run for run in runs if run.phase is Phase.ENDED]
    assert ended
    assert all(run.never_ran for run in ended)
    assert all(run.end is not None and run.end.end_state is EndState.CANCELLED for run in ended)
