"""The runs that hold nodes, by job and by node."""

from __future__ import annotations

import pytest

from cc_slurm_adapter.jobs.open_runs import OpenRuns
from cc_slurm_adapter.outbox.outbox import OpenRun, Stage
from tests.fakes.slurm_and_sinks import make_run


def test_open_runs_are_found_by_job_and_counted_by_node() -> None:
    first, second, other = make_run(1, start=10), make_run(1, start=20), make_run(2, start=10)
    runs = OpenRuns([OpenRun(run.key, Stage.STARTED, "a,b", None) for run in (first, second, other)])
    assert {known.key for known in runs.of_job(1)} == {first.key, second.key}
    assert (runs.jobs_on("a"), runs.jobs_on("b"), runs.jobs_on("c")) == (3, 3, 0)
    runs.put(OpenRun(second.key, Stage.STARTED, "a", None))
    assert (runs.jobs_on("a"), runs.jobs_on("b")) == (3, 2)
    runs.put(OpenRun(first.key, Stage.DONE, "", None))
    runs.drop(other.key)
    runs.drop(other.key)
    assert list(runs) == [second.key]
    assert (runs.jobs_on("a"), runs.jobs_on("b")) == (1, 0)
    assert runs.of_job(2) == []
    assert runs.stage(second.key) is Stage.STARTED
    assert runs.stage(first.key) is None


def test_a_run_has_begun_when_it_is_open_and_its_start_is_sure() -> None:
    keys = {stage: make_run(job_id).key for job_id, stage in enumerate(Stage, 1)}
    runs = OpenRuns([OpenRun(key, stage, "a", None) for stage, key in keys.items()])
    assert {stage for stage, key in keys.items() if runs.has_begun(key)} == {Stage.STARTED, Stage.IGNORED}
    assert {stage for stage, key in keys.items() if runs.is_preparing(key)} == {Stage.PREPARING}


def test_a_job_may_have_several_runs_and_each_is_found_until_it_is_over() -> None:
    keys = [make_run(1, start=start).key for start in (10, 20, 30)]
    runs = OpenRuns([OpenRun(key, Stage.STARTED, "a", None) for key in keys])
    assert (len(runs), set(runs)) == (3, set(keys))
    assert [runs[key].key for key in keys] == keys
    for at, key in enumerate([keys[2], keys[0], keys[1]], 1):
        runs.drop(key)
        assert key not in runs
        assert runs.get(key) is None
        assert (len(runs), len(runs.of_job(1)), runs.jobs_on("a")) == (3 - at, 3 - at, 3 - at)
    with pytest.raises(KeyError):
        runs[keys[0]]
