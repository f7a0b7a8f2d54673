"""Who else was on the nodes of runs that only accounting knows: proven by partition and CPUs, or said to be unknown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cc_slurm_adapter.jobs.decisions import complete_from_seen
from cc_slurm_adapter.model import Missing, Phase, Run, Sharing
from cc_slurm_adapter.outbox.outbox import OpenRun, Stage
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.parse.accounting import parse_accounted_run, with_sharing
from cc_slurm_adapter.slurm.parse.nodes import NodeLayout
from cc_slurm_adapter.slurm.parse.partitions import Partition, parse_partitions
from examples.practice.programs import write_program
from tests.fakes.programs import FakePrograms
from tests.fakes.slurm_and_sinks import make_run
from tests.recorded.fixture_files import (
    FIXTURES,
    LAYOUTS,
    VERSIONS,
    Recording,
    parse_sinfo,
    recordings,
    sinfo_row,
    split_document,
)

SACCT = [*recordings("*.sacct*.json")]


def partitions_of(version: str) -> dict[str, Partition]:
    file = FIXTURES / f"slurm-{version}/cluster/scontrol-show-partition-oneline.txt"
    return parse_partitions(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("version", VERSIONS)
def test_partitions_of_every_release(version: str) -> None:
    """main, shared and excl have OverSubscribe NO, YES:4 and EXCLUSIVE."""
    assert partitions_of(version) == {
        "main": Partition(gives_whole_nodes=False, shares_cores=False),
        "shared": Partition(gives_whole_nodes=False, shares_cores=True),
        "excl": Partition(gives_whole_nodes=True, shares_cores=False),
    }


def test_a_line_that_says_nothing_of_sharing_is_no_partition() -> None:
    text = "PartitionName=a Default=YES\nNo partitions in the system\n\nPartitionName=b X=1 OverSubscribe=FORCE:2 Y=2\n"
    assert parse_partitions(text) == {"b": Partition(gives_whole_nodes=False, shares_cores=True)}


@pytest.mark.parametrize("recording", SACCT, ids=str)
def test_what_is_told_of_sharing_is_the_truth(recording: Recording) -> None:
    truths = {(truth["job_id"], truth["start"]): truth for truth in recording.truth if truth["hosts"]}
    partitions = partitions_of(recording.version)
    for job in split_document(recording.text, "sacct"):
        run = with_sharing(parse_accounted_run(job, "lab"), LAYOUTS, partitions)
        truth = truths.get(run.key[1:])
        if truth is None or run.phase is Phase.WAITING:
            assert Missing.SHARING not in run.missing
        elif truth["whole_node_exclusive"]:
            assert (run.sharing, Missing.SHARING in run.missing) == (Sharing.WHOLE_NODE, False)
        else:
            assert run.sharing is Sharing.ANY_USER
            assert (Missing.SHARING in run.missing) is ("exclusive" not in job)


def test_exclusive_and_shared_runs_are_among_them() -> None:
    cases = {(each.version, each.case) for each in SACCT}
    assert {(version, case) for version in VERSIONS for case in ("exclusive-node", "shared-oversubscribed")} <= cases


def accounted(**changes: object) -> Run:
    """A run on one node of 16 CPUs, as accounting tells of it."""
    missing = frozenset({Missing.CORES, Missing.SHARING})
    run = make_run(partition="main", num_cpus=16, sharing=Sharing.ANY_USER, missing=missing)
    return replace(run, **changes)  # type: ignore[arg-type]


MAIN = {"main": Partition(gives_whole_nodes=False, shares_cores=False)}


@pytest.mark.parametrize(
    ("layouts", "partitions"),
    [
        ({}, MAIN),
        ({"node01": NodeLayout(2, 4, 2, (4,))}, MAIN),  # nobody knows how many CPUs it has
        ({"node01": NodeLayout(2, 8, 2, (4,), 32)}, MAIN),
        (LAYOUTS, {}),
        (LAYOUTS, {"main": Partition(gives_whole_nodes=False, shares_cores=True)}),
    ],
)
def test_what_is_not_proven_stays_unknown(layouts: dict[str, NodeLayout], partitions: dict[str, Partition]) -> None:
    assert with_sharing(accounted(), layouts, partitions) == accounted()


def test_a_partition_of_whole_nodes_proves_it_without_a_layout() -> None:
    excl = {"main": Partition(gives_whole_nodes=True, shares_cores=False)}
    run = with_sharing(accounted(num_cpus=1), {}, excl)
    assert run.sharing is Sharing.WHOLE_NODE
    assert run.missing == {Missing.CORES}


def test_the_cpus_of_a_node_are_those_that_slurm_gives_out() -> None:
    """With CPUs=8 in slurm.conf a node of 8 cores with 2 threads has 8 of them."""
    layouts, _ = parse_sinfo(sinfo_row(NodeList="node01", CPUsState="8/0/0/8"))
    assert layouts["node01"].cpus == 8
    assert with_sharing(accounted(num_cpus=8), layouts, MAIN).sharing is Sharing.WHOLE_NODE


def test_a_run_that_was_seen_before_keeps_whose_its_nodes_were() -> None:
    before = replace(accounted(), sharing=Sharing.ONE_USER, missing=frozenset())
    known = OpenRun(before.key, Stage.PREPARING, "", before)
    whole = complete_from_seen(accounted(), [known])
    assert (whole.sharing, whole.missing) == (Sharing.ONE_USER, frozenset())


@pytest.fixture
def client(tmp_path: Path, commands: Commands, programs: FakePrograms) -> SlurmClient:
    (tmp_path / "sinfo").write_text("".join(f"{sinfo_row(NodeList=f'node0{number}')}\n" for number in range(1, 5)))
    programs.make("sinfo", f"cat {tmp_path}/sinfo")
    programs.make("squeue", f"cat {FIXTURES}/slurm-24.11.5/cluster/squeue-json-list.txt")
    return SlurmClient(commands, "lab", str(tmp_path), 1 << 20)


def test_the_client_asks_for_partitions_where_accounting_tells_nothing(
    client: SlurmClient, programs: FakePrograms, tmp_path: Path
) -> None:
    case = FIXTURES / "slurm-24.11.5/jobs/exclusive-node"
    (job,) = split_document((case / "ended.sacct.json").read_bytes(), "sacct")
    programs.make("sacct", f"cat {case}/ended.sacct.json")
    errors = FIXTURES / "slurm-24.11.5/errors"
    programs.replay("scontrol", errors, "slurmctld-down.scontrol")
    (details,) = client.read_accounted([job["job_id"]], 0, 1)
    assert [(run.sharing, Missing.SHARING in run.missing) for run in details.runs] == [(Sharing.ANY_USER, True)]
    recorded = FIXTURES / "slurm-24.11.5/cluster/scontrol-show-partition-oneline.txt"
    write_program(programs.folder / "scontrol", f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\ncat {recorded}\n')
    for _ in range(3):
        (details,) = client.read_accounted([job["job_id"]], 0, 1)
        assert [(run.sharing, Missing.SHARING in run.missing) for run in details.runs] == [(Sharing.WHOLE_NODE, False)]
    assert (tmp_path / "asked").read_text() == "--all --oneliner show partition\n"
