"""Slurm's small languages: states, host lists, GRES, node rows, listings, configuration, accounting."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.errors import SlurmError, UnexpectedOutput
from cc_slurm_adapter.job import EndState, Phase, RunKey
from cc_slurm_adapter.slurm.accounting import ended_command, parse_accounted_run, parse_ended
from cc_slurm_adapter.slurm.client import parse_listing, parse_setup
from cc_slurm_adapter.slurm.gres import gpu_count, gpu_indices, gpus_of_tres
from cc_slurm_adapter.slurm.hostlist import expand
from cc_slurm_adapter.slurm.jobs import parse_job
from cc_slurm_adapter.slurm.nodes import parse_sinfo
from cc_slurm_adapter.slurm.states import read_states
from tests.fixture_files import FIXTURES, LAYOUTS, VERSIONS, Recording, recordings, sinfo_row, split_document

SACCT = [*recordings("*.sacct*.json")]


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        (["RUNNING"], (Phase.RUNNING, None)),
        (["RUNNING", "CONFIGURING"], (Phase.CONFIGURING, None)),
        (["CONFIGURING"], (Phase.CONFIGURING, None)),
        (["SUSPENDED"], (Phase.RUNNING, None)),
        (["PENDING"], (Phase.WAITING, None)),
        (["PENDING", "COMPLETING"], (Phase.WAITING, None)),
        (["PENDING", "REQUEUED"], (Phase.WAITING, None)),
        (["PENDING", "SPECIAL_EXIT"], (Phase.WAITING, None)),
        (["COMPLETING"], (Phase.ENDED, None)),
        (["COMPLETED", "COMPLETING"], (Phase.ENDED, EndState.COMPLETED)),
        (["CANCELLED"], (Phase.ENDED, EndState.CANCELLED)),
        (["REQUEUED"], (Phase.ENDED, EndState.CANCELLED)),
        (["REVOKED"], (Phase.ENDED, EndState.CANCELLED)),
        (["SPECIAL_EXIT"], (Phase.ENDED, EndState.FAILED)),
        (["OUT_OF_MEMORY"], (Phase.ENDED, EndState.OUT_OF_MEMORY)),
        (["DANCING"], (Phase.ENDED, EndState.FAILED)),
    ],
)
def test_states(words: list[str], meaning: tuple[Phase, EndState | None]) -> None:
    assert read_states(words) == meaning


def test_an_unknown_state_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        read_states(["SINGING"])
    assert len([line for line in caplog.messages if "SINGING" in line]) == 1


def _host_lists() -> list[tuple[str, str, str]]:
    rows = []
    for version in VERSIONS:
        text = (FIXTURES / f"slurm-{version}" / "cluster" / "hostlists.tsv").read_text()
        for line in text.splitlines():
            expression, _, names = line.partition("\t")
            if expression != "n[1-":  # 22.05 makes the host `n]` of this; a cluster has no such node
                rows.append((version, expression, names))
    return rows


@pytest.mark.parametrize(("version", "expression", "names"), _host_lists())
def test_host_lists_expand_as_slurm_does(version: str, expression: str, names: str) -> None:
    brackets = expression.count("[")
    expected = names.split(",") if "," in names else names.split()
    if brackets > 1 or expected == expand(expression):
        # Several brackets: Slurm's own order is unusual, the set of names is what counts.
        assert sorted(expand(expression)) == sorted(expected)
    else:
        assert expand(expression) == expected


@pytest.mark.parametrize("text", ["a[1-", "a[1-2", "a]1[", "a[x]", "a[1-99999999]", "a[[1]]", "n[1-x]"])
def test_a_damaged_host_list_is_a_named_error(text: str) -> None:
    with pytest.raises(UnexpectedOutput, match="host list"):
        expand(text)


@given(st.text(max_size=60))
def test_no_text_breaks_a_small_parser(text: str) -> None:
    for parse in (expand, gpu_indices, gpu_count, gpus_of_tres, parse_listing, parse_sinfo):
        try:
            parse(text)
        except SlurmError:
            continue
    parse_ended(text, "lab")


@pytest.mark.parametrize(
    ("gres", "indices"),
    [
        ("gpu:h100:2(IDX:0-1)", (0, 1)),
        ("gpu:h100:2(IDX:1,3)", (1, 3)),
        ("gpu:2(IDX:0-1,3)", (0, 1, 3)),
        ("gpu:a:2(IDX:0-1),gpu:b:1(IDX:4)", (0, 1, 4)),
        ("gpu:1g.10gb:3(IDX:0-1,12)", (0, 1, 12)),
        ("gpu:h100:0(IDX:N/A)", ()),
        ("license:2(IDX:0-1)", ()),
        ("gpu:h100:4", ()),
        ("", ()),
    ],
)
def test_gpu_indices(gres: str, indices: tuple[int, ...]) -> None:
    assert gpu_indices(gres) == indices


@pytest.mark.parametrize(
    ("gres", "count"),
    [
        ("gpu:h100:4", 4),
        ("gpu:2", 2),
        ("gpu:h100:2(IDX:0-1)", 2),
        ("gpu:h100:4(S:0-1),gpu:a100:2,shard:8", 6),
        ("(null)", 0),
    ],
)
def test_gpu_counts(gres: str, count: int) -> None:
    assert gpu_count(gres) == count


def test_the_sum_and_its_parts_are_not_added() -> None:
    assert gpus_of_tres("cpu=4,gres/gpu=4,gres/gpu:h100=4") == 4
    assert gpus_of_tres("gres/gpu:a=1,gres/gpu:b=2") == 3
    assert gpus_of_tres("cpu=4,mem=1G") == 0


def test_a_node_is_told_once_although_it_is_in_several_partitions() -> None:
    layouts, (state,) = parse_sinfo(f"{sinfo_row()}\n{sinfo_row()}\n")
    assert layouts["node01"] == LAYOUTS["node01"]
    assert (state.hostname, state.states) == ("node01", ("mixed",))
    assert (state.cpus_allocated, state.memory_allocated, state.gpus_allocated) == (4, 400, 2)


def test_node_flags_are_told_apart() -> None:
    _, (state,) = parse_sinfo(sinfo_row(StateComplete="idle+drain*", AllocMem="N/A"))
    assert state.states == ("idle", "drain")
    assert state.memory_allocated == 0


def test_a_damaged_node_costs_no_other_node_anything(caplog: pytest.LogCaptureFixture) -> None:
    rows = [sinfo_row(), sinfo_row(NodeList="node02", Sockets="?"), sinfo_row(NodeList="node03", CPUsState="x")]
    layouts, states = parse_sinfo("\n".join(rows))
    assert [state.hostname for state in states] == ["node01"]
    assert "node02" in caplog.text
    assert "node03" in caplog.text
    assert "node01" in layouts


def test_a_listing_tells_phases_and_times() -> None:
    text = (
        "7|RUNNING|1795351693|1795351993\n8|COMPLETED|1795351693|1795351700\n9|COMPLETING|5|6\n10|CONFIGURING|N/A|N/A\n"
    )
    running, ended, completing, configuring = parse_listing(text)
    assert (running.phase, running.start_time, running.end_time) == (Phase.RUNNING, 1795351693, None)
    assert (ended.end_state, ended.end_time) == (EndState.COMPLETED, 1795351700)
    assert (completing.phase, completing.end_state) == (Phase.ENDED, None)
    assert (configuring.phase, configuring.start_time) == (Phase.CONFIGURING, None)


def test_a_damaged_line_of_a_listing_costs_no_other_line_anything(caplog: pytest.LogCaptureFixture) -> None:
    assert len(parse_listing("7|RUNNING|1|2\nslurm says hello\n8|RUNNING|1|2\n")) == 2
    assert "slurm says hello" in caplog.text


@pytest.mark.parametrize("version", VERSIONS)
def test_the_configuration_names_cluster_and_user(version: str) -> None:
    setup = parse_setup((FIXTURES / f"slurm-{version}" / "cluster" / "scontrol-show-config.txt").read_text())
    assert setup.cluster == "lab"
    assert setup.version == version
    assert setup.slurm_user == "slurm"
    assert setup.has_accounting


def test_a_configuration_without_a_cluster_is_an_error() -> None:
    with pytest.raises(UnexpectedOutput, match="ClusterName"):
        parse_setup("SLURM_VERSION = 24.11.5\n")


def test_ended_runs_of_accounting() -> None:
    text = (
        "2|COMPLETED|1795351693|1795351694|1\n"
        "3|CANCELLED by 0|1795351693|1795351695|2\n"
        "4|CANCELLED by 0|None|1795351695|0\n"
        "5|RUNNING|1795351693|Unknown|1\n"
        "6|REQUEUED|1795351693|1795351699|1\n"
    )
    ended = {each.key.job_id: each for each in parse_ended(text, "lab")}
    assert sorted(ended) == [2, 3, 6]
    assert ended[3].key == RunKey("lab", 3, 1795351693)
    assert ended[3].end.end_state is EndState.CANCELLED
    assert ended[6].end.raw_state == "REQUEUED"


def test_accounting_is_always_asked_with_bounds() -> None:
    argv = ended_command(5, 9, [1, 2])
    assert argv[argv.index("-S") + 1] == "uts5"
    assert argv[argv.index("-E") + 1] == "uts9"
    assert argv[argv.index("-j") + 1] == "1,2"
    assert "-j" not in ended_command(5, 9)


@pytest.mark.parametrize("recording", SACCT, ids=str)
def test_accounted_runs_agree_with_the_truth(recording: Recording) -> None:
    truths = {(truth["job_id"], truth["start"]): truth for truth in recording.truth}
    for job in split_document(recording.text, "sacct"):
        run = parse_accounted_run(job, "lab")
        truth = truths.get((run.key.job_id, run.key.start_time))
        if truth is None or not truth["hosts"]:
            continue
        assert [resource.hostname for resource in run.resources] == list(truth["hosts"])
        assert run.num_cpus == truth["num_cpus"]
        assert run.num_gpus == sum(len(held["gpu_indices"]) for held in truth["hosts"].values())
        assert (run.user, run.account, run.partition) == (truth["user"], truth["account"], truth["partition"])
        assert run.submit_time == truth["submit"]
        assert (run.array_job_id, run.array_task_id) == (truth["array_job_id"], truth["array_task_id"])
        if run.end is not None:
            assert run.end.end_time == truth["end"]


@pytest.mark.parametrize(
    "recording", [each for each in SACCT if each.case == "requeued" and "duplicates" in each.file.name], ids=str
)
def test_the_first_run_of_a_requeued_job_has_ended(recording: Recording) -> None:
    first = recording.truth[0]
    runs = [parse_accounted_run(job, "lab") for job in split_document(recording.text, "sacct")]
    (run,) = (run for run in runs if run.key.start_time == first["start"])
    assert run.end is not None
    assert (run.end.end_state, run.end.end_time) == (EndState.CANCELLED, first["end"])
    assert [resource.hostname for resource in run.resources] == list(first["hosts"])


def test_an_unknown_state_in_a_listing_ends_nothing() -> None:
    (sighting,) = parse_listing("7|EXPEDITING|1795351693|1795351993\n")
    assert sighting.end_state is None


def test_the_recordings_of_accounting_are_there() -> None:
    assert len(SACCT) > 100


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
SAMPLE = json.dumps(
    split_document(
        (FIXTURES / "slurm-24.11.5/jobs/gpu-typed-2nodes/running.squeue.v0.0.40.json").read_bytes(), "squeue"
    )[0]
)


@given(st.sampled_from(sorted(json.loads(SAMPLE))), Json)
def test_a_value_of_any_other_shape_is_a_named_error_or_harmless(key: str, value: object) -> None:
    job = {**json.loads(SAMPLE), key: value}
    try:
        parse_job(job, "lab", LAYOUTS)
    except UnexpectedOutput as error:
        assert error.path
