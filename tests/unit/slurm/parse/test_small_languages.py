"""Slurm's small languages: host lists, listings, configuration, accounting."""

from __future__ import annotations

from typing import Any

import pytest

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.model import EndState, Missing, Phase, Run, RunKey, Sharing
from cc_slurm_adapter.slurm.cluster_config import parse_cluster_config
from cc_slurm_adapter.slurm.parse.accounting import EndedParser, ended_command, parse_accounted_run
from cc_slurm_adapter.slurm.parse.hostlist import expand
from cc_slurm_adapter.slurm.parse.listing import parse_listing
from tests.recorded.fixture_files import FIXTURES, VERSIONS, Recording, recordings, split_document

SACCT = [*recordings("*.sacct*.json")]


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


def test_a_listing_tells_phases_and_times() -> None:
    text = (
        "7|RUNNING|1795351693|1795351993|n\n8|COMPLETED|1795351693|1795351700|n\n9|COMPLETING|5|6|n\n"
        "10|CONFIGURING|N/A|N/A|n\n"
    )
    running, ended, completing, configuring = parse_listing(text.encode().splitlines())
    assert (running.phase, running.start_time, running.end_time) == (Phase.RUNNING, 1795351693, None)
    assert (ended.end_state, ended.end_time) == (EndState.COMPLETED, 1795351700)
    assert (completing.phase, completing.end_state) == (Phase.ENDED, None)
    assert (configuring.phase, configuring.start_time) == (Phase.CONFIGURING, None)


# Lines of LISTING as Slurm 22.05.8, 24.11.5 and 26.05.5 print them alike. The last job has lost its only node already.
NEVER_RAN = "1|CANCELLED|1795931867|1795931867| \n"
REQUEUED_THEN_CANCELLED = "5|CANCELLED|1795931872|1795931872| \n"
RAN = [
    "6|COMPLETED|1795931864|1795931864|n\n",
    "5|COMPLETING|1795931869|NONE|n\n",
    "7|COMPLETING|1795931874|1795931877|n\n",
    "9|COMPLETING|1795931879|1795931883| \n",
    "8|RUNNING|1795932243|1827468244|n\n",
]


def test_a_listing_tells_which_jobs_never_had_a_node() -> None:
    never = (NEVER_RAN + REQUEUED_THEN_CANCELLED).encode().splitlines()
    assert [each.never_ran for each in parse_listing(never)] == [True, True]
    assert [each.never_ran for each in parse_listing("".join(RAN).encode().splitlines())] == [False] * len(RAN)


def test_a_damaged_line_of_a_listing_costs_no_other_line_anything(caplog: pytest.LogCaptureFixture) -> None:
    assert len(list(parse_listing([b"7|RUNNING|1|2|n", b"slurm says hello", b"8|RUNNING|1|2|n"]))) == 2
    assert "slurm says hello" in caplog.text


@pytest.mark.parametrize("version", VERSIONS)
def test_the_configuration_names_cluster_and_user(version: str) -> None:
    setup = parse_cluster_config((FIXTURES / f"slurm-{version}" / "cluster" / "scontrol-show-config.txt").read_text())
    assert setup.cluster == "lab"
    assert setup.version == version
    assert setup.slurm_user == "slurm"
    assert setup.has_accounting
    assert setup.question_rate is None


@pytest.mark.parametrize(
    ("parameters", "rate"),
    [
        ("(null)", None),
        ("cloud_dns,rl_enable", 2),
        ("RL_ENABLE,rl_bucket_size=100,rl_refill_rate=10", 10),
        ("rl_refill_period=5,rl_enable,rl_refill_rate=4", 0.8),
        ("rl_refill_rate=10", None),
        ("xrl_enable", None),
        ("rl_enable,rl_refill_rate=none,rl_refill_period=0", 2),
    ],
)
def test_the_limit_of_queries_is_read(parameters: str, rate: float | None) -> None:
    text = f"ClusterName = lab\nSlurmUser = slurm(64030)\nSlurmctldParameters     = {parameters}\n"
    assert parse_cluster_config(text).question_rate == rate


def test_a_configuration_without_a_cluster_is_an_error() -> None:
    with pytest.raises(UnexpectedOutput, match="ClusterName"):
        parse_cluster_config("SLURM_VERSION = 24.11.5\n")


def test_ended_runs_of_accounting() -> None:
    text = (
        "2|COMPLETED|1795351690|1795351693|1795351694|1\n"
        "3|CANCELLED by 0|1795351690|1795351693|1795351695|2\n"
        "4|CANCELLED by 0|1795351690|None|1795351695|0\n"
        "5|RUNNING|1795351690|1795351693|Unknown|1\n"
        "6|REQUEUED|1795351690|1795351693|1795351699|1\n"
    )
    ended = {each.key.job_id: each for each in EndedParser("lab").parse(text.splitlines())}
    assert sorted(ended) == [2, 3, 6]
    assert ended[3].key == RunKey("lab", 3, 1795351693)
    assert ended[3].end.end_state is EndState.CANCELLED
    assert ended[6].end.raw_state == "REQUEUED"


def test_accounting_is_always_asked_with_bounds() -> None:
    argv = ended_command(1_795_351_690, 1_795_351_699, [1, 2])
    assert argv[argv.index("-S") + 1] == "uts1795351690"
    assert argv[argv.index("-E") + 1] == "uts1795351699"
    assert argv[argv.index("-j") + 1] == "1,2"
    assert "-j" not in ended_command(1_795_351_690, 1_795_351_699)


@pytest.mark.parametrize("since", [-5, 0, 992_802, 1_000_000])
def test_accounting_is_asked_for_no_time_that_sacct_refuses(since: int) -> None:
    """`sacct: Invalid time specification (pos=0): uts992802`: it takes six digits for a time of day."""
    argv = ended_command(since, 1_795_351_699)
    assert argv[argv.index("-S") + 1] == "uts1000001"


@pytest.mark.parametrize("recording", SACCT, ids=str)
def test_accounted_runs_agree_with_the_truth(recording: Recording) -> None:
    truths = {(truth["job_id"], truth["start"] or 0): truth for truth in recording.truth}
    for job in split_document(recording.text, "sacct"):
        run = parse_accounted_run(job, "lab")
        truth = truths.get((run.key.job_id, run.key.start_time))
        if truth is None:
            assert run.phase is Phase.WAITING
            continue
        held = truth["hosts"]
        assert [resource.hostname for resource in run.resources] == list(held)
        assert run.num_cpus == (truth["num_cpus"] if held else 0)
        assert run.num_gpus == sum(len(on_host["gpu_indices"]) for on_host in held.values())
        assert (run.user, run.account, run.submit_time) == (truth["user"], truth["account"], truth["submit"])
        assert run.name == name_in_accounting(truth["name"], recording.version)
        assert (run.array_job_id, run.array_task_id) == (truth["array_job_id"], truth["array_task_id"])
        assert (run.het_job_id, run.het_job_offset) == (truth["het_job_id"], truth["het_job_offset"])
        assert_same_end(run, truth)
        if run.phase is not Phase.WAITING:
            assert (run.partition, run.walltime) == (truth["partition"], truth["walltime_s"])
            unknown = set() if "exclusive" in job else {Missing.SHARING}
            assert run.missing - unknown == ({Missing.CORES, Missing.GPUS} if run.num_gpus else {Missing.CORES})
            assert run.missing >= unknown


def assert_same_end(run: Run, truth: dict[str, Any]) -> None:
    if run.end is None:
        assert run.phase is (Phase.RUNNING if truth["hosts"] else Phase.WAITING)
        return
    state = truth["final_state"].split(" ")[0]
    assert run.end.end_state.name == ("CANCELLED" if state == "REQUEUED" else state)
    assert run.end.end_time == truth["end"]


def name_in_accounting(name: str, version: str) -> str:
    """What is left of a name there, as the README of the recorded output says."""
    if version.startswith("22.05"):
        name = "".join("?" if len(char.encode()) == 3 else char for char in name)
    return name.replace('"', "`").encode()[:255].decode()


def test_the_newest_accounting_knows_who_else_was_on_the_nodes() -> None:
    runs = [
        parse_accounted_run(job, "lab")
        for case in ("exclusive-node", "exclusive-partition")
        for job in split_document((FIXTURES / f"slurm-26.05.5/jobs/{case}/ended.sacct.json").read_bytes(), "sacct")
    ]
    assert [run.sharing for run in runs] == [Sharing.WHOLE_NODE, Sharing.WHOLE_NODE]


@pytest.mark.parametrize("recording", [each for each in SACCT if each.file.name.startswith("ended.")], ids=str)
def test_accounting_has_the_end_of_every_ended_run(recording: Recording) -> None:
    runs = [parse_accounted_run(job, "lab") for job in split_document(recording.text, "sacct")]
    assert runs
    assert all(run.end is not None for run in runs)


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
    (sighting,) = parse_listing([b"7|DANCING|1795351693|1795351993|n"])
    assert sighting.end_state is None


def test_the_recordings_of_accounting_are_there() -> None:
    assert len(SACCT) > 100
