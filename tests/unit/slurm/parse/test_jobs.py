"""Jobs in the JSON of squeue and scontrol, against the right answers of every recorded case."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cc_slurm_adapter.model import EndState, Missing, Phase, Run, Sharing
from cc_slurm_adapter.slurm.parse.jobs import job_id_of, parse_job
from tests.recorded.fixture_files import (
    FIXTURES,
    LAYOUTS,
    Recording,
    recordings,
    runs_of,
    split_document,
    true_cores,
    true_gpus,
)

SLURMCTLD = [*recordings("*.squeue*.json"), *recordings("*.scontrol*.json")]


def pairs(recording: Recording) -> list[tuple[Run, dict[str, Any]]]:
    """Each run of the recorded document that the truth speaks of, with that truth."""
    truths = {(truth["job_id"], truth["start"]): truth for truth in recording.truth}
    return [(run, truths[run.key[1:]]) for run in runs_of(recording) if run.key[1:] in truths]


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
        assert (run.het_job_id, run.het_job_offset) == (truth["het_job_id"], truth["het_job_offset"])
        if truth["hosts"]:
            assert run.sharing is (Sharing.WHOLE_NODE if truth["whole_node_exclusive"] else Sharing.ANY_USER)


def of_its_case(recording: Recording) -> list[Run]:
    """The runs of the case, without the other jobs that 22.05 prints."""
    ids = {truth["job_id"] for truth in recording.truth}
    return [run for run in runs_of(recording) if run.key.job_id in ids]


# task1 waits while task0 runs.
RUNNING = [each for each in SLURMCTLD if re.search(r"\brunning\.(?!task1)", each.file.name)]


@pytest.mark.parametrize(
    ("version", "formats"),
    [
        ("22.05.8", {"default"}),
        ("24.11.5", {"default", "v0.0.40", "v0.0.41"}),  # the default is v0.0.42
        ("26.05.5", {"default", "v0.0.42", "v0.0.43", "v0.0.44"}),  # and v0.0.45 here
    ],
)
def test_each_case_is_there_in_each_format(version: str, formats: set[str]) -> None:
    cases: dict[str, set[str]] = {}
    for recording in RUNNING:
        if recording.version == version:
            named = re.search(r"v0\.0\.\d\d", recording.file.name)
            cases.setdefault(recording.case, set()).add(named.group() if named else "default")
    every_case = {file.parent.name for file in (FIXTURES / f"slurm-{version}/jobs").glob("*/truth.json")}
    assert len(every_case) == 27
    assert set(cases) == every_case - {"cancelled-pending"}
    assert all(formats <= found for found in cases.values())


@pytest.mark.parametrize("recording", RUNNING, ids=str)
def test_a_running_job_runs(recording: Recording) -> None:
    running = [run for run in of_its_case(recording) if run.phase is Phase.RUNNING]
    assert running
    assert all(run.key[1:] in {(truth["job_id"], truth["start"]) for truth in recording.truth} for run in running)
    assert all(run.end is None and run.resources for run in running)


@pytest.mark.parametrize("recording", [each for each in SLURMCTLD if "pending" in each.file.name.split(".")], ids=str)
def test_a_pending_job_holds_nothing(recording: Recording) -> None:
    waiting = [run for run in of_its_case(recording) if run.phase is Phase.WAITING]
    assert waiting
    assert all(run.end is None and not run.resources and not run.num_gpus for run in waiting)
    names = {(truth["job_id"], truth["name"], truth["user"], truth["account"]) for truth in recording.truth}
    assert {(run.key.job_id, run.name, run.user, run.account) for run in waiting} <= names


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
