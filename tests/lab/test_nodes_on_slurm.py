"""Node states arrive with slurmctld's figures of each node, and with words that cc-backend understands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .campaign import do
from .expectations import WHAT_IT_HOLDS, choose, expected_holdings, reported_holdings
from .installation import Installation
from .kinds import UNREPORTED
from .namespaces import PATIENCE
from .slurm_conf import FRAGILE_NODE, MAIN_NODES, NODES, PREEMPTING_NODE, RESERVING_NODE
from .slurm_jobs import Submission, running_job, submit, wait_until_running
from .slurm_lab import SlurmLab
from .slurm_nodes import nodes_now, reported_figures, reported_words

pytestmark = pytest.mark.slurm

FULL, SHARED, DRAINING, IDLE = MAIN_NODES
DRAINED, DOWN = FRAGILE_NODE, PREEMPTING_NODE
JOBS = [
    Submission(("-N1", "--exclusive", f"--nodelist={FULL}"), "sleep 600"),
    Submission(("-n3", "--gres=gpu:2", f"--nodelist={SHARED}"), "sleep 600"),
    Submission(("-n1", "--mem=700", f"--nodelist={SHARED}"), "sleep 600", user="alice"),
    Submission(("-n1", "--array=1-2", f"--nodelist={SHARED}"), "sleep 600"),
    Submission(("-N2", "-n2", "--gres=gpu:1", f"--nodelist={SHARED},{DRAINING}"), "sleep 600"),
    Submission(("-N1", "--exclusive", "--partition=spec"), "sleep 600"),
]
OPTED_OUT = Submission(("-n1", "--gres=gpu:1", "--hold", f"--nodelist={SHARED}"), "sleep 600")
WORDS = {FULL: "allocated", SHARED: "mixed", DRAINING: "mixed", IDLE: "idle", DRAINED: "down", DOWN: "down"}
SLURM_WORDS = {
    FULL: "ALLOCATED",
    SHARED: "MIXED",
    DRAINING: "MIXED+DRAIN",
    IDLE: "IDLE",
    DRAINED: "IDLE+DRAIN",
    DOWN: "DOWN",
}


@pytest.fixture
def unusable_nodes(lab: SlurmLab) -> Iterator[None]:
    """One drained, one down; and one that is to be drained is given back at the end."""
    set_state(lab, DRAINED, "DRAIN")
    set_state(lab, DOWN, "DOWN")
    yield
    for node in (DRAINED, DOWN, DRAINING):
        lab.run("scontrol", "update", f"NodeName={node}", "State=RESUME")


def set_state(lab: SlurmLab, node: str, state: str) -> None:
    lab.output("scontrol", "update", f"NodeName={node}", f"State={state}", "Reason=lab")


def submit_opted_out(lab: SlurmLab) -> int:
    job_id = submit(lab, OPTED_OUT)
    do(lab, UNREPORTED["opted out"].while_held, job_id)
    return job_id


@pytest.mark.usefixtures("unusable_nodes")
def test_node_states_count_what_runs(lab: SlurmLab, installation: Installation) -> None:
    """All kinds of nodes at once; cc-backend hears nothing of the opted-out job, but its node is in use."""
    opted_out = submit_opted_out(lab)
    wait_until_running(lab, [opted_out, *(submit(lab, job) for job in JOBS)])
    set_state(lab, DRAINING, "DRAIN")
    now = nodes_now(lab)
    assert {node: now[node].state for node in SLURM_WORDS} == SLURM_WORDS
    installation.start()
    expected = {node: now[node].figures for node in NODES}
    assert expected[SHARED][-1] == 6
    assert expected[RESERVING_NODE][-1] == 1
    installation.backend.wait_for(lambda: reported_figures(installation) == expected, PATIENCE * 20)
    assert reported_figures(installation) == expected
    assert {node: reported_words(installation, node) for node in WORDS} == {node: {WORDS[node]} for node in WORDS}
    assert opted_out not in installation.started()


@pytest.fixture
def node_without_partition(lab: SlurmLab) -> Iterator[str]:
    """It gets its partition back at the end."""
    yield FRAGILE_NODE
    lab.output("scontrol", "update", "PartitionName=fragile", f"Nodes={FRAGILE_NODE}")


ON_FRAGILE = Submission(("-n3", "--gres=gpu:2", "--partition=fragile"), "sleep 600")


def test_a_node_in_no_partition_is_reported_with_the_job_on_it(
    lab: SlurmLab, installation: Installation, node_without_partition: str
) -> None:
    """sinfo does not list it when the daemon starts; the job that was there before goes on."""
    job_id = submit(lab, ON_FRAGILE)
    wait_until_running(lab, [job_id])
    lab.output("scontrol", "update", "PartitionName=fragile", f"Nodes={PREEMPTING_NODE}")
    assert node_without_partition not in lab.output("sinfo", "-a", "-N", "-h", "-o", "%N")
    truth = running_job(lab, job_id, ON_FRAGILE)
    now = nodes_now(lab)
    assert now[node_without_partition].figures[2:] == (2, 1)
    installation.start()
    expected = {node: now[node].figures for node in NODES}
    installation.backend.wait_for(lambda: reported_figures(installation) == expected, PATIENCE * 20)
    assert reported_figures(installation) == expected
    assert reported_words(installation, node_without_partition) == {"mixed"}
    installation.wait_for_starts([job_id], 20)
    start = reported_holdings(installation.only_row(job_id).start)
    assert choose(start, WHAT_IT_HOLDS) == expected_holdings(truth)
