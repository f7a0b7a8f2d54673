"""Which CPUs of a machine stand behind Slurm's, against the logs of real slurmds: tests/recorded/machines/README.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cc_slurm_adapter.cli.main import run_command
from cc_slurm_adapter.cli.topology import TopologyReport, make_report
from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.errors import CommandMissing
from cc_slurm_adapter.model import Resource
from cc_slurm_adapter.sinks.hwthreads import hwthreads, numbering_for, numbering_of
from cc_slurm_adapter.slurm.commands import Commands, Finished
from cc_slurm_adapter.slurm.local_node import LocalNode, parse_node, parse_release, parse_slurmd, read_local_node
from cc_slurm_adapter.slurm.topology import SlurmLayout, TopologyError, cpus_of_slurm, read_machine

MACHINES = Path(__file__).parents[2] / "recorded" / "machines"
RECORDED = "cores and the CPUs that a job was bound to"
NEEDED = {"ccRestUrl": "https://cc-backend.example.org", "ccRestJwt": "token"}
GAPS = ("gaps", "cores-offline")
"""slurmd has no place for numbers beyond the count of CPUs: it binds to others than it means to."""


def files_of(machine: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((MACHINES / f"{machine}.json").read_text(encoding="ascii"))
    return found


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder with the files of each machine."""
    folder = tmp_path_factory.mktemp("machines")
    names = [path.stem for path in MACHINES.glob("*.json") if not path.stem.startswith("slurmd-")]
    for name in names:
        lay_out(folder / name, files_of(name))
    return {name: str(folder / name) for name in names}


def lay_out(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n", encoding="ascii")


class Node(NamedTuple):
    """A node of a real slurmd."""

    release: str
    name: str
    said: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.release}-{self.name}"

    @property
    def local(self) -> LocalNode:
        """As it would be read there."""
        return LocalNode(
            self.name,
            parse_release(f"slurm {self.release}"),
            parse_slurmd(self.said["slurmd -C"]),
            parse_node(self.said["scontrol show node"]),
        )

    @property
    def layout(self) -> SlurmLayout:
        layout = self.local.configured
        assert layout
        return layout


def read_nodes() -> Iterator[Node]:
    for path in sorted(MACHINES.glob("slurmd-*.json")):
        for name, said in json.loads(path.read_text(encoding="ascii")).items():
            yield Node(path.stem.removeprefix("slurmd-"), name, said)


NODES = list(read_nodes())
USABLE = [node for node in NODES if node.said["machine"] != "mixed-threads"]
WHOLE = [node for node in USABLE if node.said["machine"] not in GAPS]


def test_slurmds_of_three_releases_saw_each_machine() -> None:
    assert len(NODES) == 60
    assert {node.release for node in NODES} == {"22.05.8", "24.11.5", "26.05.5"}
    names = {path.stem for path in MACHINES.glob("*.json") if not path.stem.startswith("slurmd-")}
    assert {node.said["machine"] for node in NODES} == names


@pytest.mark.parametrize("node", WHOLE, ids=str)
def test_cpus_are_counted_as_slurmd_counts_them(node: Node, roots: dict[str, str]) -> None:
    machine = read_machine(roots[node.said["machine"]])
    assert list(machine.cpus) == node.said["Block Map"]
    assert machine.layout == parse_slurmd(node.said["slurmd -C"])
    assert not machine.has_gaps


@pytest.mark.parametrize("node", WHOLE, ids=str)
def test_with_what_is_printed_a_job_has_the_hardware_threads_that_slurmd_bound_it_to(
    node: Node, roots: dict[str, str]
) -> None:
    report = make_report(read_machine(roots[node.said["machine"]]), node.local)
    assert report.numbering is not None
    config, warnings = parse_config({**NEEDED, **json.loads(f"{{{report.as_setting()}}}")})
    assert warnings == []
    numbering = numbering_of(node.name, config.hwthread_numbering)
    assert node.said[RECORDED]
    for cores, bound_to in node.said[RECORDED]:
        held = Resource(node.name, tuple(cores), (), node.layout.cores, node.layout.threads_per_core)
        assert hwthreads(held, numbering) == bound_to


@pytest.mark.parametrize("node", [each for each in USABLE if each.said["machine"] in GAPS], ids=str)
def test_with_gaps_the_cpus_that_slurmd_means_are_printed_with_a_warning(node: Node, roots: dict[str, str]) -> None:
    """Where slurmd has a place for a number, it is the same."""
    report = make_report(read_machine(roots[node.said["machine"]]), node.local)
    cpus = node.said["Block Map"]
    assert isinstance(report.numbering, list)
    assert [had for had, meant in zip(cpus, report.numbering) if meant < len(cpus)] == [
        meant for meant in report.numbering if meant < len(cpus)
    ]
    online = files_of(node.said["machine"])["sys/devices/system/cpu/online"]
    assert sorted(report.numbering) == expand(online)
    assert any("go up to 13" in note or "go up to 15" in note for note in report.notes)


def expand(ranges: str) -> list[int]:
    ends = [item.split("-") for item in ranges.split(",")]
    return [number for end in ends for number in range(int(end[0]), int(end[-1]) + 1)]


def test_cores_with_different_numbers_of_threads_give_no_numbers(roots: dict[str, str]) -> None:
    with pytest.raises(TopologyError, match=r"1 and 2 hardware threads.*by hand"):
        read_machine(roots["mixed-threads"])


MACHINE = SlurmLayout(16, 2, 4, 2)


# --- by hand, from the two rules of common machines


@pytest.mark.parametrize(
    ("machine", "printed"),
    [
        ("block", "block"),
        ("interleaved", "interleaved"),
        ("without-smt", "block"),
        ("smt-off", "block"),
        ("virtual-machine", "block"),
        # Sockets 0,1,0,1: the even CPUs first, each with its second thread, which is 8 more.
        ("alternating-sockets", [0, 8, 2, 10, 4, 12, 6, 14, 1, 9, 3, 11, 5, 13, 7, 15]),
        ("alternating-sockets-without-smt", [0, 2, 4, 6, 1, 3, 5, 7]),
        ("gaps", [0, 1, 4, 5, 8, 9, 12, 13]),
    ],
)
def test_what_a_machine_is_without_slurm(machine: str, printed: object, roots: dict[str, str]) -> None:
    found = read_machine(roots[machine])
    layout = found.layout
    assert numbering_for(cpus_of_slurm(found, layout, ()), layout.cores, layout.threads_per_core) == printed


def test_older_kernels_have_other_names_for_the_same(tmp_path: Path) -> None:
    files = files_of("alternating-sockets")
    lay_out(
        tmp_path, {path: text for path, text in files.items() if "package_cpus" not in path and "core_cpus" not in path}
    )
    assert read_machine(str(tmp_path)).cpus == (0, 8, 2, 10, 4, 12, 6, 14, 1, 9, 3, 11, 5, 13, 7, 15)


def test_memory_of_several_sockets_makes_no_socket_of_them(tmp_path: Path) -> None:
    lay_out(tmp_path, {**files_of("alternating-sockets"), "sys/devices/system/node/node0/cpulist": "0-15"})
    machine = read_machine(str(tmp_path))
    assert (machine.layout, machine.cpus[:4]) == (MACHINE, (0, 8, 2, 10))


def test_without_any_word_of_sockets_there_is_one(tmp_path: Path) -> None:
    lay_out(tmp_path, {"sys/devices/system/cpu/online": "0-3"})
    assert read_machine(str(tmp_path)).layout == SlurmLayout(4, 1, 4, 1)


def test_a_folder_that_tells_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match="does not list the CPUs"):
        read_machine(str(tmp_path))


def test_the_documented_example_is_what_such_a_machine_prints(roots: dict[str, str]) -> None:
    """Two sockets of four cores with one thread, counted in turn."""
    document = (Path(__file__).parents[3] / "docs/configuration.md").read_text(encoding="utf-8")
    found = read_machine(roots["alternating-sockets-without-smt"])
    assert f'"^xeon[0-9]+$": {list(found.cpus)}' in document


# --- what is said about it


def notes_of(name: str, roots: dict[str, str], **local: Any) -> tuple[str, ...]:
    return make_report(read_machine(roots[name]), LocalNode("n1", **local)).notes


def test_another_layout_in_slurm_is_said(roots: dict[str, str]) -> None:
    assert notes_of("block", roots, machine=MACHINE, configured=MACHINE) == ("block is what counts without a setting",)
    (note,) = notes_of("block", roots, machine=MACHINE, configured=SlurmLayout(16, 16, 1, 1))
    assert note.startswith(
        "Slurm has CPUs=16 Sockets=16 CoresPerSocket=1 ThreadsPerCore=1 for this node, the machine CPUs=16 "
    )


def test_without_slurm_it_is_said_what_is_taken_for_granted(roots: dict[str, str]) -> None:
    (note,) = notes_of("interleaved", roots, failures=("there is no scontrol in PATH",))
    assert "not known (there is no scontrol in PATH)" in note
    assert note.endswith("right if it is CPUs=16 Sockets=2 CoresPerSocket=2 ThreadsPerCore=4")


@pytest.mark.parametrize(
    "local",
    [
        LocalNode("n1", (24, 11), SlurmLayout(8, 1, 8, 1), MACHINE),  # slurmd leaves some out
        LocalNode("n1", (24, 11), MACHINE, SlurmLayout(32, 2, 8, 2)),  # config_overrides
        LocalNode("n1", (22, 5), MACHINE, SlurmLayout(32, 2, 8, 2)),
        LocalNode("n1", (24, 11), MACHINE, SlurmLayout(16, 1, 4, 4)),
    ],
)
def test_nothing_is_printed_where_nothing_is_known_to_be_right(local: LocalNode, roots: dict[str, str]) -> None:
    report = make_report(read_machine(roots["block"]), local)
    assert (report.numbering, report.as_setting(), report.cpus, report.is_known) == (None, "", 0, False)
    assert report.notes[0].endswith("hwthreadNumbering must be written by hand")


def test_what_slurm_has_told_is_known_to_be_right(roots: dict[str, str]) -> None:
    report = make_report(read_machine(roots["block"]), LocalNode("n1", (24, 11), MACHINE, MACHINE))
    assert (report.numbering, report.is_known, json.loads(report.as_json())["checked"]) == ("block", True, True)


def test_the_printed_pattern_is_of_this_node_alone(roots: dict[str, str]) -> None:
    report = make_report(read_machine(roots["interleaved"]), LocalNode("n1.cluster"))
    assert json.loads(f"{{{report.as_setting()}}}") == {"hwthreadNumbering": {r"^n1\.cluster$": "interleaved"}}
    assert not report.is_known  # Slurm may have another layout for this node: a note says so
    assert json.loads(report.as_json()) == {
        "hostname": "n1.cluster",
        "cpus": 16,
        "hwthreadNumbering": "interleaved",
        "checked": False,
        "read": ["/sys"],
        "notes": list(report.notes),
    }


# --- the commands


class Answers(Commands):
    """Answers in place of commands, by their words; what has none is not in PATH."""

    def __init__(self, answers: dict[str, str]) -> None:
        super().__init__()
        self.answers = answers

    def run(self, argv: list[str], **_: Any) -> Finished:
        if argv[0] not in {words.split()[0] for words in self.answers}:
            raise CommandMissing(f"{argv[0]} is not in PATH")
        answer = self.answers.get(" ".join(argv))
        return Finished(1, b"", "Node n1 not found") if answer is None else Finished(0, answer.encode(), "")


SLURMD_C = (
    "NodeName=n1 CPUs=16 Boards=1 SocketsPerBoard=2 CoresPerSocket=4 ThreadsPerCore=2 RealMemory=24105\nUpTime=0-01\n"
)


def test_slurm_is_asked_for_this_node() -> None:
    node = " ".join(text_of_a_node().split("\n"))
    answers = {"slurmd -C": SLURMD_C, "slurmd -V": "slurm-wlm 22.05.8\n", "scontrol -o show node n1": node}
    found = read_local_node(Answers(answers), "", "n1.example.org")
    assert found == LocalNode("n1", (22, 5, 8), MACHINE, MACHINE)


def text_of_a_node() -> str:
    path = Path(__file__).parents[2] / "recorded" / "slurm" / "slurm-24.11.5" / "cluster" / "nodes-idle.scontrol.txt"
    return path.read_text(encoding="utf-8").split("\n\n")[0]


def test_in_a_job_slurm_tells_the_name_of_the_node_and_its_release() -> None:
    answers = {"scontrol -o show node node01": text_of_a_node()}
    found = read_local_node(Answers(answers), "node01", "n1.example.org")
    assert found == LocalNode("node01", (24, 11, 5), None, MACHINE, ("there is no slurmd in PATH",))


def test_what_cannot_be_asked_is_told() -> None:
    found = read_local_node(Answers({"slurmd -V": "slurm 24.11.5"}), "", "n1.example.org")
    assert found == LocalNode("n1", failures=("slurmd -C: Node n1 not found", "there is no scontrol in PATH"))


@pytest.mark.parametrize("dashes", ["-", "--"])
def test_the_command_needs_nothing_but_the_machine_itself(dashes: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is run on whatever machine runs the tests, so only the form is looked at."""
    code = run_command([f"{dashes}topology"])
    printed = capsys.readouterr()
    has_setting = bool(re.match(r'"hwthreadNumbering": \{"\^\S+\$": ', printed.out))
    assert code == run_command([f"{dashes}topology", f"{dashes}json"])
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert has_setting == (told["hwthreadNumbering"] is not None)
    assert (code == 0) == (has_setting and told["checked"])
    assert TopologyReport("n", None, 0, (), ()).as_json().count("\n") == 0
