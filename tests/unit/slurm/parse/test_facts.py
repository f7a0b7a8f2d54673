"""Values count only where the state says that they are facts: nonsense elsewhere changes nothing, breaks nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.model import End, EndState, ListedJob, Phase, RunKey
from cc_slurm_adapter.slurm.parse.accounting import EndedParser, parse_accounted_run
from cc_slurm_adapter.slurm.parse.jobs import parse_job
from cc_slurm_adapter.slurm.parse.json_values import Json
from cc_slurm_adapter.slurm.parse.listing import parse_listing
from tests.fakes.strange_json import anything, changed
from tests.recorded.fixture_files import FIXTURES, LAYOUTS, VERSIONS, recordings, split_document

FOREVER = 2**32
"""Seconds that slurmctld adds to the start it expects of a job without a time limit."""

OWN_WORDS = {
    *("job_id", "job_state", "user_name", "user_id", "account", "name", "submit_time", "array_job_id"),
    *("array_task_id", "het_job_id", "het_job_offset", "batch_flag", "admin_comment"),
}
"""What is true of a job from its submission on."""
ALLOCATION = {
    *("start_time", "nodes", "job_resources", "gres_detail", "tres_alloc_str", "cpus", "time_limit", "partition"),
    *("shared", "tres_per_node", "tres_per_job", "tres_per_task", "tres_per_socket"),
}
FACTS = {
    Phase.WAITING: OWN_WORDS,
    Phase.CONFIGURING: OWN_WORDS | ALLOCATION,
    Phase.RUNNING: OWN_WORDS | ALLOCATION,
    Phase.ENDED: OWN_WORDS | ALLOCATION | {"end_time"},
}
"""The keys of a job in slurmctld's JSON that are facts, by where it stands. No other key is read."""

Place = tuple[str, ...]
ACCOUNTED_WORDS: set[Place] = {
    *(("job_id",), ("state", "current"), ("user",), ("account",), ("name",), ("time", "submission")),
    *(
        ("array", "job_id"),
        ("array", "task_id"),
        ("het", "job_id"),
        ("het", "job_offset"),
        ("comment", "administrator"),
    ),
}
ACCOUNTED_ALLOCATION: set[Place] = {
    *(("time", "start"), ("time", "limit"), ("nodes",), ("partition",), ("tres", "allocated"), ("exclusive",)),
}
ACCOUNTED_FACTS = {
    Phase.WAITING: ACCOUNTED_WORDS,
    Phase.RUNNING: ACCOUNTED_WORDS | ACCOUNTED_ALLOCATION,
    Phase.ENDED: ACCOUNTED_WORDS | ACCOUNTED_ALLOCATION | {("time", "end")},
}


def all_jobs(pattern: str) -> list[Json]:
    """Each recorded job of these files that belongs to their case, a few of each release and format."""
    cases = ("gpu-typed-2nodes", "requeued", "cancelled-pending", "array-limit")
    found = []
    for recording in recordings(pattern):
        if recording.case in cases:
            ids = {truth["job_id"] for truth in recording.truth}
            found += [job for job in split_document(recording.text, "squeue") if job["job_id"] in ids]
    return found


JOBS = [*all_jobs("*.squeue*.json"), *all_jobs("*.scontrol*.json")]
ACCOUNTED = all_jobs("*.sacct*.json")


def test_jobs_of_every_kind_are_there() -> None:
    assert {parse_job(job, "lab", LAYOUTS).phase for job in JOBS} == {Phase.WAITING, Phase.RUNNING, Phase.ENDED}
    assert {parse_accounted_run(job, "lab").phase for job in ACCOUNTED} == set(ACCOUNTED_FACTS)


@given(st.sampled_from(JOBS), st.data())
def test_what_is_no_fact_of_a_job_changes_nothing(job: Json, data: st.DataObject) -> None:
    run = parse_job(job, "lab", LAYOUTS)
    places = sorted(job.keys() - FACTS[run.phase])
    likely = [
        key for key in ("start_time", "end_time", "nodes", "cpus", "job_resources", "time_limit") if key in places
    ]
    key = data.draw(st.sampled_from(likely) | st.sampled_from(places) if likely else st.sampled_from(places))
    assert parse_job({**job, key: data.draw(anything)}, "lab", LAYOUTS) == run


@given(st.sampled_from(ACCOUNTED), st.data())
def test_what_is_no_fact_in_accounting_changes_nothing(job: Json, data: st.DataObject) -> None:
    run = parse_accounted_run(job, "lab")
    objects = {"state", "time", "array", "het", "comment", "tres"}
    inner = [(key, each) for key in objects for each in job[key]]
    places = sorted({*((key,) for key in job.keys() - objects), *inner} - ACCOUNTED_FACTS[run.phase])
    place = data.draw(st.sampled_from(places))
    assert parse_accounted_run(changed(job, place, data.draw(anything)), "lab") == run


@given(
    st.sampled_from(["PENDING", "RUNNING", "CONFIGURING", "SUSPENDED", "COMPLETING"]),
    st.text(st.characters(exclude_characters="|\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")),
)
def test_what_is_no_fact_in_the_listing_changes_nothing(word: str, nonsense: str) -> None:
    """%S of a job that waits and %e of one that is not over are forecasts."""
    start = nonsense if word == "PENDING" else "1795351693"
    (sighting,) = parse_listing([f"7|{word}|{start}|{nonsense}|n".encode(errors="replace")])
    assert sighting.start_time == (None if word == "PENDING" else 1795351693)
    assert (sighting.end_time, sighting.end_state) == (None, None)


def forecast(value: Any, moment: int) -> Any:
    """The number in the shape that another one has."""
    return {"set": True, "infinite": False, "number": moment} if isinstance(value, dict) else moment


@pytest.mark.parametrize("version", VERSIONS)
def test_a_requeued_job_without_a_time_limit_waits_and_is_no_error(version: str) -> None:
    """slurmctld expects it to end 2^32 seconds after its start; a real 24.11.5 printed that."""
    found = 0
    for recording in recordings("requeued.*.s*.json"):
        if recording.version != version or "sacct" in recording.file.name:
            continue
        (job,) = (
            job for job in split_document(recording.text, "squeue") if job["job_id"] == recording.truth[0]["job_id"]
        )
        start = 1795342341
        job["start_time"] = forecast(job["start_time"], start)
        job["end_time"] = forecast(job["end_time"], start + FOREVER)
        run = parse_job(job, "lab", LAYOUTS)
        assert run.end is None
        assert (run.key, run.resources, run.num_gpus) == (RunKey("lab", run.key.job_id, 0), (), 0)
        found += 1
    assert found


JUST_STARTED = [
    FIXTURES / f"slurm-{version}/cluster/sacct-just-started" for version in ("23.02.8", "23.11.11", "24.05.8")
]


@pytest.mark.parametrize("recording", JUST_STARTED, ids=lambda path: path.parts[-3])
def test_a_job_of_which_accounting_has_only_a_step_waits(recording: Any) -> None:
    text = recording.with_suffix(".json").read_bytes()
    (job,) = split_document(text, "sacct")
    assert (job["name"], job["partition"], job["tres"]["allocated"]) == ("allocation", "", [])
    run = parse_accounted_run(job, "lab")
    assert run.phase is Phase.WAITING
    assert (run.key, run.end, run.resources) == (RunKey("lab", job["job_id"], 0), None, ())


@pytest.mark.parametrize("recording", JUST_STARTED, ids=lambda path: path.parts[-3])
def test_such_a_record_has_not_ended_in_text_either(recording: Any, caplog: pytest.LogCaptureFixture) -> None:
    header, row = recording.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    cells = dict(zip(header.split("|"), row.split("|")))
    line = "|".join(cells[column] for column in ("JobIDRaw", "State", "Submit", "Start", "End", "NNodes"))
    assert EndedParser("lab").parse([line]) == []
    assert not caplog.messages


def test_every_recording_of_that_moment_is_read() -> None:
    assert sorted(FIXTURES.glob("*/cluster/sacct-just-started.json")) == [
        path.with_suffix(".json") for path in JUST_STARTED
    ]


def test_a_state_of_one_word_that_hides_another_tells_nothing() -> None:
    """23.02 shows a requeued job as COMPLETING: its times are those of the next run, if any."""
    recording = FIXTURES / "slurm-23.02.8/jobs/requeued/requeued.immediately.squeue.json"
    truth = json.loads((recording.parent / "truth.json").read_bytes())["jobs"][0]
    (job,) = (job for job in split_document(recording.read_bytes(), "squeue") if job["job_id"] == truth["job_id"])
    for start in (0, None, truth["start"]):
        run = parse_job({**job, "job_state": "COMPLETING", "start_time": start}, "lab", LAYOUTS)
        assert (run.phase, run.end, run.key.start_time) == (Phase.ENDED, None, 0)


def test_a_listing_tells_an_end_where_the_state_says_so() -> None:
    line = b"7|TIMEOUT|1795351693|1795351993|n"
    assert list(parse_listing([line])) == [
        ListedJob(7, Phase.ENDED, 1795351693, 1795351993, EndState.TIMEOUT, "TIMEOUT", line=line)
    ]


def test_an_ended_job_keeps_its_end() -> None:
    ended = [parse_job(job, "lab", LAYOUTS) for job in JOBS]
    assert all(isinstance(run.end, End) for run in ended if run.phase is Phase.ENDED)
