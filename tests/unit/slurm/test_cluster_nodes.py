"""Nodes that sinfo does not list, because they are in no partition: scontrol shows them, and nobody's comment does."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.errors import SlurmError
from cc_slurm_adapter.model import NodeState
from cc_slurm_adapter.slurm import cluster_nodes
from cc_slurm_adapter.slurm.cluster_nodes import ALL_EVERY, ClusterNodes
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.parse.nodes import NodeLayout, is_node_name, node_names, parse_scontrol, read_rows
from tests.fakes.programs import FakePrograms
from tests.recorded.fixture_files import FIXTURES, LAYOUTS, VERSIONS, sinfo_row

RECORDED = ("22.05.8", "24.11.5", "26.05.5")
"""Where a job of 3 CPUs and 2 GPUs ran on node06 when that was taken out of its partition."""
NODE = NodeLayout(2, 4, 2, (4,), 16)
WITH_JOB = NodeState("node06", ("mixed",), 4, 400, 2, gpus_in_use=(0, 1), cpus=16, gpus=4, gpu_types="4 gpu:h100")


def recorded(version: str, name: str) -> Path:
    return FIXTURES / f"slurm-{version}" / "cluster" / f"{name}.txt"


@pytest.mark.parametrize("version", VERSIONS)
def test_scontrol_tells_the_same_of_a_node_as_sinfo(version: str) -> None:
    shown = parse_scontrol(recorded(version, "nodes-mixed-allocated-drained.scontrol-detail").read_text())
    layouts, states = read_rows(shown.rows.items())
    assert (layouts, shown.absent, shown.doubtful) == (LAYOUTS, frozenset(), frozenset())
    cells = [row.split() for row in recorded(version, "nodes-mixed-allocated-drained.sinfo-N").read_text().splitlines()]
    cpus = {cell[0]: int(cell[5].split("/")[0]) for cell in cells}  # CPUsState
    assert {state.hostname: state.cpus_allocated for state in states} == cpus
    assert [state.states for state in states] == [("mixed",), ("allocated",), ("idle",), ("idle", "drain")]
    assert [state.memory_allocated for state in states] == [200, 1600, 0, 0]
    assert [state.gpus_allocated for state in states] == [0, 4, 0, 0]


@pytest.mark.parametrize("version", RECORDED)
class TestRecordedNodes:
    """On a real cluster, whose sinfo does not list node06."""

    @pytest.fixture
    def nodes(self, version: str, commands: Commands, programs: FakePrograms) -> ClusterNodes:
        """What the commands of that cluster answer."""
        programs.make("sinfo", f"cat {recorded(version, 'no-partition.sinfo-N-O')}")
        programs.make(
            "scontrol",
            f"""echo "$*" >> {programs.folder}/asked
case "$*" in
    "-a -o show node") cat {recorded(version, "no-partition.scontrol-oneline")} ;;
    "-a -d show node node06") cat {recorded(version, "no-partition.scontrol-detail")} ;;
    "-a -d show node node06,nodeXX") cat {recorded(version, "no-partition-and-unknown.scontrol-detail")}; exit 1 ;;
    "-a -d show node "*) cat {recorded(version, "unknown-node.scontrol-detail")}; exit 1 ;;
esac""",
        )
        return ClusterNodes(commands)

    def test_a_node_in_no_partition_is_a_node(self, nodes: ClusterNodes) -> None:
        states = nodes.read()
        assert [state.hostname for state in states] == [f"node0{number}" for number in (1, 2, 3, 4, 5, 7, 6)]
        assert states[-1] == WITH_JOB
        assert nodes.layouts == {f"node0{number}": NODE for number in range(1, 8)}

    def test_a_job_s_node_is_known_without_a_poll(self, nodes: ClusterNodes, programs: FakePrograms) -> None:
        assert nodes.learn(["node06", "nodeXX"])
        assert nodes.layouts == {"node06": NODE}
        assert not nodes.learn(["node06", "nodeXX"])
        assert (programs.folder / "asked").read_text().splitlines() == ["-a -d show node node06,nodeXX"]

    def test_who_writes_a_comment_makes_no_node(
        self, version: str, nodes: ClusterNodes, programs: FakePrograms
    ) -> None:
        """An administrator's comment of several lines on node06, which imitates a node called ghost."""
        text = recorded(version, "no-partition-forged.scontrol-detail").read_text()
        shown = parse_scontrol(text)
        assert (set(shown.rows), set(shown.doubtful)) == ({"node06"}, {"ghost"})
        alone = programs.folder / "alone"
        programs.make(
            "scontrol",
            f"""case "$*" in
    "-a -o show node") cat {recorded(version, "no-partition-forged.scontrol-oneline")} ;;
    "-a -d show node ghost") cat {recorded(version, "unknown-node.scontrol-detail")}; touch {alone}; exit 1 ;;
    "-a -d show node ghost,node06") cat {recorded(version, "no-partition-forged.scontrol-detail")}; exit 1 ;;
esac""",
        )
        assert [state.hostname for state in nodes.read()[6:]] == ["node06"]
        assert alone.exists()
        assert "ghost" not in nodes.layouts
        assert nodes.layouts["node06"] == NODE


SHOWN = recorded("24.11.5", "no-partition.scontrol-detail").read_text()
OTHER = SHOWN.replace("node06", "node08").replace("Sockets=2", "Sockets=1")


def test_a_comment_that_imitates_another_node_makes_it_doubtful_until_it_is_asked_for_alone() -> None:
    """As the recorded comment does, but with the name of a node that there is."""
    forged = SHOWN.rstrip() + "\n   Comment=a\nNodeName=node08 CoresPerSocket=99 \n   State=DOWN ThreadsPerCore=9 \n\n"
    shown = parse_scontrol(forged + OTHER)
    assert (set(shown.rows), set(shown.doubtful)) == ({"node06"}, {"node08"})
    forged = OTHER.rstrip() + "\n   Comment=a\nNodeName=node08 CoresPerSocket=99 \nNode node08 not found\n\n"
    alone = parse_scontrol(forged, alone=True)
    layouts, _ = read_rows(alone.rows.items())
    assert (layouts, alone.absent) == ({"node08": NodeLayout(1, 4, 2, (4,), 16)}, frozenset())


def test_a_comment_that_denies_a_node_makes_it_doubtful() -> None:
    forged = SHOWN.rstrip() + "\n   Comment=a\nNode node08 not found\n\n" + OTHER
    assert parse_scontrol(forged).doubtful == {"node08"}


def test_only_the_first_words_of_a_line_are_read() -> None:
    """The operating system is what the node says it is, Reason and Comment what an administrator wrote."""
    text = SHOWN.replace("OS=Linux", "OS=Linux State=DOWN Sockets=9 AllocMem=9")
    text = (
        text.rstrip() + "\n   Reason=State=DOWN\n          State=DOWN [root@2026]\n   State=DOWN ThreadsPerCore=8\n\n"
    )
    layouts, states = read_rows(parse_scontrol(text).rows.items())
    assert (layouts, states) == ({"node06": NODE}, [WITH_JOB])


@pytest.mark.parametrize("left_out", ["CPUAlloc=4 ", "AllocMem=400 ", "ThreadsPerCore=2 ", "CoresPerSocket=4 "])
def test_a_node_of_which_something_is_missing_costs_no_other(left_out: str, caplog: pytest.LogCaptureFixture) -> None:
    odd = SHOWN.replace(left_out, "").replace("node06", f"odd-{left_out[:3]}")
    layouts, _ = read_rows(parse_scontrol(odd + OTHER).rows.items())
    assert list(layouts) == ["node08"]
    assert f"does not show {left_out.partition('=')[0]}" in caplog.text


@given(st.text(max_size=200), st.booleans())
def test_no_text_breaks_the_reading(text: str, alone: bool) -> None:
    parse_scontrol(text, alone=alone)
    assert all(map(is_node_name, node_names(text.splitlines())))


@given(st.text(max_size=30))
def test_no_name_becomes_a_list_or_an_option(name: str) -> None:
    """scontrol would write a[1-9999999] out, and takes what begins with a dash for an option."""
    assert not (is_node_name(name) and (name[0] in "-." or set(name) & set("[], =\n/")))


class Cluster:
    """A sinfo and a scontrol that tests make say something else, and a clock."""

    def __init__(self, commands: Commands, programs: FakePrograms, folder: Path) -> None:
        self.folder = folder
        self.now = 0.0
        self.nodes = ClusterNodes(commands, clock=lambda: self.now)
        programs.make("sinfo", f"cat {folder}/sinfo")
        programs.make(
            "scontrol",
            f"""cd {folder}
echo "$*" >> asked
[ -e broken ] && cat broken >&2 && exit 1
[ "$2" = -o ] && exec cat names
for name in $(echo "$5" | tr , " "); do cat "node-$name" 2>/dev/null || echo "Node $name not found"; done""",
        )
        self.lists("node01")
        self.has("node01")

    def lists(self, *names: str) -> None:
        (self.folder / "sinfo").write_text("".join(f"{sinfo_row(NodeList=name)}\n" for name in names))

    def has(self, *names: str, state: str = "MIXED") -> None:
        (self.folder / "names").write_text("".join(f"NodeName={name} Arch=x86_64\n" for name in names))
        for old in self.folder.glob("node-*"):
            old.unlink()
        for name in names:
            shown = SHOWN.replace("node06", name).replace("State=MIXED", f"State={state}")
            (self.folder / f"node-{name}").write_text(shown)

    def read(self) -> list[str]:
        return [state.hostname for state in self.nodes.read()]

    def asked(self) -> list[str]:
        """scontrol's arguments since the last time."""
        file = self.folder / "asked"
        words = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return words


ALL = "-a -o show node"


@pytest.fixture
def cluster(commands: Commands, programs: FakePrograms, tmp_path: Path) -> Cluster:
    return Cluster(commands, programs, tmp_path)


def test_a_cluster_whose_nodes_are_all_in_partitions_costs_one_query_an_hour(cluster: Cluster) -> None:
    for cluster.now in (0, 60, ALL_EVERY - 1):
        assert cluster.read() == ["node01"]
    assert cluster.asked() == [ALL]
    cluster.now = ALL_EVERY
    cluster.read()
    assert cluster.asked() == [ALL]


def test_a_node_that_loses_its_partition_is_told_at_once_and_one_that_is_removed_no_more(cluster: Cluster) -> None:
    cluster.lists("node01", "node02")
    cluster.has("node01", "node02")
    cluster.read()
    cluster.lists("node01")
    assert cluster.read() == ["node01", "node02"]
    assert cluster.asked() == [ALL, "-a -d show node node02"]
    cluster.has("node01")
    assert cluster.read() == ["node01"]
    assert "node02" in cluster.nodes.layouts  # a job that has just ended may have held it
    cluster.asked()
    assert cluster.read() == ["node01"]
    assert cluster.asked() == []
    cluster.now = ALL_EVERY
    cluster.read()
    assert list(cluster.nodes.layouts) == ["node01"]


def test_a_node_that_gets_a_partition_is_told_once(cluster: Cluster) -> None:
    cluster.has("node01", "node02")
    assert cluster.read() == ["node01", "node02"]
    cluster.lists("node01", "node02")
    assert cluster.read() == ["node01", "node02"]
    assert cluster.asked() == [ALL, "-a -d show node node02"]


def test_a_node_that_a_job_named_is_told_with_the_next_poll(cluster: Cluster) -> None:
    cluster.read()
    cluster.has("node01", "cloud-7")
    assert cluster.nodes.learn(["cloud-7", "node01"])
    assert cluster.read() == ["node01", "cloud-7"]


def test_a_future_node_is_no_node_yet(cluster: Cluster) -> None:
    cluster.has("node01", "node02", state="FUTURE+DYNAMIC_FUTURE")
    assert cluster.read() == ["node01"]


def test_a_sinfo_without_a_word_leaves_the_nodes_to_scontrol(cluster: Cluster) -> None:
    cluster.read()
    cluster.lists()
    assert cluster.read() == ["node01"]
    cluster.has()
    assert cluster.read() == []


def test_a_scontrol_that_fails_costs_only_the_nodes_outside(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    cluster.has("node01", "node02")
    cluster.read()
    (cluster.folder / "broken").write_text("slurm_load_node error: Unable to contact slurm controller\n")
    for _ in range(3):
        assert cluster.read() == ["node01"]
    (line,) = caplog.messages
    assert "are left out of the node states" in line
    assert "Unable to contact slurm controller" in line
    with pytest.raises(SlurmError):
        cluster.nodes.learn(["node03"])
    (cluster.folder / "broken").unlink()
    assert cluster.read() == ["node01", "node02"]


def test_names_go_into_as_many_queries_as_arguments_hold(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_nodes, "MAX_ARGUMENT", 21)
    cluster.has("node01", *(f"spare{number}" for number in range(5)))
    assert len(cluster.read()) == 6
    assert cluster.asked()[1:] == [
        "-a -d show node spare0,spare1,spare2",
        "-a -d show node spare3,spare4",
    ]
