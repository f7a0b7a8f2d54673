"""GPUs and shares of them: GRES and TRES as three versions of Slurm print them.

The texts were seen on Slurm 22.05.8, 24.11.5 and 26.05.5, on nodes with `gpu:a:2,gpu:b:2,shard:8`,
`gpu:h100:12`, `gpu:2,mps:200`, `gpu:1g.10gb:2,gpu:2g-20gb:1` and without GPUs, with 24.11 where no
other version is named. The right answers follow from gres.conf, which lists the device files, and from
what sinfo says is in use beside it. `gpu(CNT:4)` alone was not seen: Slurm refuses GPUs without device
files, but prints other resources so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.errors import UnexpectedOutput
from cc_slurm_adapter.model import Missing, Run
from cc_slurm_adapter.slurm.parse.gres import (
    GPU,
    MAX_DEVICES,
    cpus_of_tres,
    gpu_count,
    gpu_indices,
    gpu_types,
    gpus_by_host,
    gpus_of_details,
    gpus_of_tres,
    other_devices,
    requests_gpus,
)
from cc_slurm_adapter.slurm.parse.jobs import job_id_of, parse_job
from cc_slurm_adapter.slurm.parse.json_values import Json
from cc_slurm_adapter.slurm.parse.nodes import NodeLayout
from tests.recorded.fixture_files import LAYOUTS, Recording, parse_sinfo, recordings, sinfo_row, split_document

TWO_TYPES = "gpu:a:2(IDX:0-1),gpu:b:2(IDX:2-3)"
MIG = "gpu:1g.10gb:2(IDX:0-1),gpu:2g-20gb:1(IDX:2)"


@pytest.mark.parametrize(
    ("gres", "indices"),
    [
        ("gpu:h100:2(IDX:0-1)", (0, 1)),
        ("gpu:h100:2(IDX:1,3)", (1, 3)),
        ("gpu:2(IDX:0-1,3)", (0, 1, 3)),
        ("gpu:1(IDX:0)", (0,)),
        # Slurm counts the devices of all types of a node.
        ("gpu:a:1(IDX:0),gpu:b:1(IDX:2)", (0, 2)),
        (TWO_TYPES, (0, 1, 2, 3)),
        ("gpu:b:2(IDX:2-3),gpu:a:2(IDX:0-1)", (0, 1, 2, 3)),  # 26.05, as the user put it
        # Untyped requests name the type that was not taken as well.
        ("gpu:a:2(IDX:0-1),gpu:b:0(IDX:)", (0, 1)),
        ("gpu:2g-20gb:1(IDX:2),gpu:1g.10gb:1(IDX:0)", (0, 2)),
        ("gpu:h100:11(IDX:0-10)", tuple(range(11))),
        ("gpu:h100:12(IDX:0-11)", tuple(range(12))),
        ("shard:2(IDX:0)", (0,)),  # 22.05
        ("shard:1(IDX:2)", (2,)),  # 22.05
        ("mps:30(IDX:0)", (0,)),  # 22.05
        ("shard:1(0/2,0/2,1/2,0/2)", (2,)),
        ("shard:5(2/2,2/2,1/2,0/2)", (0, 1, 2)),
        ("shard:3(0/2,0/2,2/2,1/2)", (2, 3)),
        ("shard:1(0/0,1/3,0/3)", (1,)),  # shares of some GPUs alone
        ("mps:150(100/100,50/100)", (0, 1)),
        ("nogpu(CNT:2)", ()),
        ("gpu(CNT:4)", ()),
        ("gpu:h100:0(IDX:N/A)", ()),
        ("shard:1((null))", ()),  # where Slurm does not find the node
        ("license:2(IDX:0-1)", ()),
        ("gpumem:2(IDX:0-1)", ()),
        ("gpu:h100:4", ()),
        ("", ()),
    ],
)
def test_the_devices_of_a_job_in_one_node(gres: str, indices: tuple[int, ...]) -> None:
    assert gpu_indices(gres) == indices


@pytest.mark.parametrize(
    ("gres", "count"),
    [
        ("gpu:h100:4", 4),
        ("gpu:2", 2),
        ("gpu:h100:2(IDX:0-1)", 2),
        ("gpu:1g.10gb:2,gpu:2g-20gb:1", 3),
        ("gpu:h100:4(S:0-1),shard:h100:8(S:0-1)", 4),
        ("gpu:a:2,gpu:b:2,shard:a:4,shard:b:4", 4),
        ("gpu:2,mps:200", 2),
        ("gpu:x:3,nogpu:5", 3),
        ("gpu(CNT:4)", 4),
        ("gpu:4090:2(S:0)", 2),
        ("gpu:4090(CNT:2)", 2),
        ("(null)", 0),
        ("", 0),
    ],
)
def test_the_gpus_that_a_node_has(gres: str, count: int) -> None:
    assert gpu_count(gres) == count
    layouts, _ = parse_sinfo(sinfo_row(Gres=gres))
    assert layouts["node01"].gpus == (count,)


@pytest.mark.parametrize(
    ("gres_used", "count"),
    [
        # 22.05
        ("gpu:a:1(IDX:0),gpu:b:1(IDX:2),shard:a:0(IDX:N/A),shard:b:0(IDX:N/A),mps:0", 2),
        ("gpu:a:0(IDX:N/A),gpu:b:0(IDX:N/A),shard:a:0(IDX:N/A),shard:b:1(IDX:2),mps:0", 1),
        ("gpu:0,shard:0,mps:(null):1(IDX:0)", 1),
        ("gpu:1,shard:0,mps:(null):0(IDX:N/A)", 1),
        ("gpu:h100:12(IDX:0-11),shard:0,mps:0", 12),
        # 24.11
        ("gpu:a:2(IDX:0-1),gpu:b:1(IDX:2)", 3),
        ("gpu:h100:0(IDX:N/A)", 0),
        ("gpu:x:0,nogpu:0", 0),
        ("nogpu:2", 0),
        ("gpu:a:2(IDX:0-1),gpu:b:0(IDX:N/A),shard:a:0(0/2,0/2),shard:b:3(2/2,1/2)", 4),
        ("gpu:1g.10gb:0(IDX:N/A),gpu:2g-20gb:0(IDX:N/A),shard:1g.10gb:1(0/0,1/3),shard:2g-20gb:0(0/3)", 1),
        ("gpu:(null):1(IDX:0),mps:(null):0(0/100,0/100)", 1),
        ("gpu:(null):0(IDX:N/A),mps:(null):30(30/100,0/100)", 1),
        # 26.05
        ("gpu:a:2(IDX:0-1),gpu:b:0(IDX:N/A),shard:a:0(-/2,-/2),shard:b:0(0/2,0/2)", 2),
        ("gpu:0(IDX:N/A),mps:150(100/100,50/100)", 2),
        ("(null)", 0),
    ],
)
def test_the_gpus_that_are_in_use_on_a_node(gres_used: str, count: int) -> None:
    assert gpu_count(gres_used) == count
    _, (state,) = parse_sinfo(sinfo_row(GresUsed=gres_used))
    assert state.gpus_allocated == count


@pytest.mark.parametrize(
    ("gres_used", "indices"),
    [
        ("gpu:a:2(IDX:0-1),gpu:b:1(IDX:2)", (0, 1, 2)),
        ("gpu:h100:2(IDX:1,3)", (1, 3)),
        ("gpu:h100:12(IDX:0-11),shard:0,mps:0", tuple(range(12))),
        ("gpu:a:1(IDX:0),gpu:b:1(IDX:2),shard:a:0(IDX:N/A),shard:b:0(IDX:N/A),mps:0", (0, 2)),
        ("gpu:a:2(IDX:0-1),gpu:b:0(IDX:N/A),shard:a:0(-/2,-/2),shard:b:0(0/2,0/2)", (0, 1)),
        # Shares are in use, of devices that are not named.
        ("gpu:a:2(IDX:0-1),gpu:b:0(IDX:N/A),shard:a:0(0/2,0/2),shard:b:3(2/2,1/2)", ()),
        ("gpu:0(IDX:N/A),mps:150(100/100,50/100)", ()),
        # Only counted.
        ("gpu:1,shard:0,mps:(null):0(IDX:N/A)", ()),
        ("gpu:a:2(IDX:0-1),gpu:b:1(IDX:N/A)", ()),
        ("gpu:h100:0(IDX:N/A)", ()),
        ("(null)", ()),
    ],
)
def test_which_gpus_are_in_use_on_a_node_is_known_of_all_or_of_none(gres_used: str, indices: tuple[int, ...]) -> None:
    _, (state,) = parse_sinfo(sinfo_row(GresUsed=gres_used))
    assert state.gpus_in_use == indices


@pytest.mark.parametrize(
    "gres",
    [
        "gpu:1(IDX:0-999999999)",
        "gpu:1(IDX:0-99999999999999999999)",
        f"gpu:1(IDX:{MAX_DEVICES})",
        "gpu:2(IDX:3-1)",
        "gpu:2(IDX:0,)",
        "gpu:2(IDX:x)",
        "gpu:2(IDX:²)",
        "gpu:2(IDX:٣)",
        "gpu:2(0-1)",
        "shard:2(1/2,x/2)",
        "shard:2(1/2,)",
        "gpu:999999999",
        "gpu(CNT:5000)",
    ],
)
def test_damaged_or_endless_devices_are_a_named_error(gres: str) -> None:
    with pytest.raises(UnexpectedOutput, match="gres"):
        gpu_indices(gres)


def test_the_sum_and_its_parts_are_not_added() -> None:
    assert gpus_of_tres("cpu=6,mem=600M,node=3,billing=6,gres/gpu=3,gres/gpu:h100=1") == 3
    assert gpus_of_tres("gres/gpu:h100=4,gres/gpu=4") == 4
    assert gpus_of_tres("cpu=16,mem=1600M,node=1,billing=16,gres/gpu:h100=4") == 4
    assert gpus_of_tres("gres/gpu:a=1,gres/gpu:b=2") == 3
    assert gpus_of_tres("cpu=4,mem=1G,gres/gpumem=3,gres/shard=2") == 0


@pytest.mark.parametrize(
    ("tres", "answer"),
    [
        ("gres:gpu:2", True),  # 22.05
        ("gres:gpu:a:1,gres:gpu:b:1", True),  # 22.05
        ("gres/gpu", True),
        ("gres/gpu:11", True),
        ("gres/gpu=2", True),
        ("gres/gpu:b=1,gres/gpu:a=1", True),  # 26.05
        ("gres/gpu:1g.10gb:1", True),
        ("cpu=2,gres/gpu:1", True),
        ("gres/nogpu:2,gres/gpu:3", True),
        ("gres/shard:3", True),
        ("gres:mps:30", True),
        ("gres/gpu:0", False),
        ("gres/gpu:a:0,gres/gpu:b:1", True),
        ("gres/nogpu:2", False),
        ("gres/gpumem:2", False),
        ("cpu=2", False),
        ("", False),
    ],
)
def test_requests_for_gpus(tres: str, answer: bool) -> None:
    assert requests_gpus(tres) is answer


EQUIPMENT = {"node01": (4,), "node02": (12,), "node03": (3,), "node04": (0,)}
HOSTS = sorted(EQUIPMENT)


def test_each_node_of_a_job_has_an_entry_even_one_without_gpus() -> None:
    details = [TWO_TYPES, "gpu:h100:12(IDX:0-11)", MIG, None]
    gpus = gpus_by_host(details, HOSTS, EQUIPMENT, "gres/gpu=19,gres/gpu:h100=12")
    assert gpus == {"node01": (0, 1, 2, 3), "node02": tuple(range(12)), "node03": (0, 1, 2)}
    assert gpus_of_details(details) == 19


def test_a_node_may_have_devices_and_the_one_before_it_none() -> None:
    gpus = gpus_by_host([None, "gpu:1(IDX:1)", None], ["c", "a", "b"], {"a": (2,), "b": (2,), "c": (2,)}, "")
    assert gpus == {"a": (1,)}


def test_entries_that_do_not_fit_the_nodes_are_not_given_to_any() -> None:
    assert gpus_by_host(["gpu:1(IDX:0)", "gpu:1(IDX:1)"], HOSTS, EQUIPMENT, "gres/gpu=2") == {}
    assert gpus_by_host(["gpu:1(IDX:0)", None], ["node01"], EQUIPMENT, "gres/gpu=1") == {}


@pytest.mark.parametrize(
    ("hosts", "tres", "gpus"),
    [
        (["node01", "node04"], "gres/gpu=4", {"node01": (0, 1, 2, 3), "node04": ()}),
        (["node01", "node03"], "gres/gpu:a=2,gres/gpu:b=5", {"node01": (0, 1, 2, 3), "node03": (0, 1, 2)}),
        (["node01", "node02"], "gres/gpu=6,gres/gpu:h100=2", {}),
        (["node01", "unknown"], "gres/gpu=4", {}),  # two on each of them?
        (["node04"], "cpu=4", {}),
        (["node01"], "cpu=4", {}),
    ],
)
def test_after_the_end_only_all_gpus_of_all_nodes_are_known(
    hosts: list[str], tres: str, gpus: dict[str, tuple[int, ...]]
) -> None:
    assert gpus_by_host([], hosts, EQUIPMENT, tres) == gpus


SEVERAL = ("gpu", "npu")
"""What a site may name as accelerators. The texts have the shapes that they have for gpu: gres.c makes them alike for
every GRES, from 22.05 (src/common) to 26.05 (src/interfaces)."""


def test_a_gres_of_another_name_is_no_gpu_unless_the_site_says_so() -> None:
    assert gpu_indices("dcu:z100:2(IDX:0,3)") == ()
    assert gpu_indices("dcu:z100:2(IDX:0,3)", ("dcu",)) == (0, 3)
    assert gpu_count("dcu:z100:4(S:0-1)", ("dcu",)) == gpu_count("dcu:4", ("dcu",)) == 4
    assert gpu_count("gpu:4,dcu:8", ("dcu",)) == 8
    assert gpu_count("mydcu:4,dcu_x:2,dcu.1:3", ("dcu",)) == 0
    assert gpus_of_tres("cpu=4,gres/dcu=2,gres/dcu:z100=2,gres/gpu=7", ("dcu",)) == 2
    assert requests_gpus("gres/dcu:2", ("dcu",))
    assert requests_gpus("gres:dcu:z100:2", ("dcu",))
    assert not requests_gpus("gres/gpu:2,gres/shard:1", ("dcu",))
    assert not requests_gpus("gres/dcu:0", ("dcu",))


def test_shares_are_of_the_devices_called_gpu() -> None:
    assert gpu_indices("shard:3(2/2,1/2)", ("npu",)) == ()
    assert gpu_indices("shard:3(2/2,1/2)", ("npu", "gpu"), (4, 2)) == (4, 5)
    assert not requests_gpus("gres/shard:1", ("npu",))


@pytest.mark.parametrize(
    ("detail", "counts", "indices"),
    [
        # Seen on a real 22.05 and 24.11, on a node with gpu:h100:2,npu:910b:2.
        ("gpu:h100:1(IDX:0),npu:910b:2(IDX:0-1)", (2, 2), (0, 2, 3)),
        ("gpu:h100:2(IDX:0-1),npu:910b:2(IDX:1,3)", (2, 4), (0, 1, 3, 5)),
        ("npu:910b:2(IDX:0-1)", (2, 4), (2, 3)),
        ("npu:910b:1(IDX:0)", (0, 4), (0,)),  # a node without the first
        ("gpu:h100:1(IDX:1)", (2, 0), (1,)),
        ("gpu:h100:1(IDX:1),npu:1(IDX:0)", (), (1,)),  # nobody knows the node: only the first are numbered
    ],
)
def test_devices_of_the_next_name_follow_those_of_the_one_before(
    detail: str, counts: tuple[int, ...], indices: tuple[int, ...]
) -> None:
    assert gpu_indices(detail, SEVERAL, counts) == indices


def test_a_node_with_devices_of_two_names() -> None:
    """Seen on a real 24.11."""
    row = sinfo_row(Gres="gpu:h100:2,npu:910b:2", GresUsed="gpu:h100:1(IDX:0),npu:910b:2(IDX:0-1)")
    for names, counts, used, words in (
        (("gpu",), (2,), 1, "2 gpu:h100"),
        (("npu", "gpu"), (2, 2), 3, "2 gpu:h100, 2 npu:910b"),
    ):
        layouts, (state,) = parse_sinfo(row, names)
        assert layouts["node01"].gpus == counts
        assert (state.gpus, state.gpus_allocated, state.gpu_types) == (sum(counts), used, words)


def test_after_the_end_all_devices_of_all_names_are_known_or_none() -> None:
    equipment = {"a": (2, 4), "b": (0, 4)}
    everything = gpus_by_host([], ["a", "b"], equipment, "gres/gpu=2,gres/npu=8,gres/npu:910b=8", SEVERAL)
    assert everything == {"a": (0, 1, 2, 3, 4, 5), "b": (0, 1, 2, 3)}
    assert gpus_by_host([], ["a", "b"], equipment, "gres/npu=8", SEVERAL) == {}


@pytest.mark.parametrize(
    ("detail", "names", "others"),
    [
        ("gpu:1(IDX:0),dcu:2(IDX:0-1)", GPU, ("dcu",)),
        ("dcu:2(IDX:0-1),npu:1(IDX:3)", GPU, ("dcu", "npu")),
        ("dcu:2(IDX:0-1)", ("dcu",), ()),
        ("gpu:1(IDX:0)", ("dcu",), ("gpu",)),
        ("shard:3(2/2,1/2),mps:100(100/100)", GPU, ()),
        ("shard:1(IDX:0)", ("dcu",), ()),
        ("license:4(CNT:4),bandwidth:1G", GPU, ()),  # no devices
        ("dcu:0(IDX:N/A),dcu:0(IDX:)", GPU, ()),
        ("", GPU, ()),
    ],
)
def test_what_else_has_devices_is_known(detail: str, names: tuple[str, ...], others: tuple[str, ...]) -> None:
    assert other_devices(detail, names) == others


@pytest.mark.parametrize(
    ("gres", "text"),
    [
        ("gpu:h100:4(S:0-1)", "4 gpu:h100"),
        ("gpu:2", "2 gpu"),
        ("gpu:(null):2(S:0)", "2 gpu"),
        ("gpu:1g.10gb:2,gpu:2g-20gb:1,npu:8", "2 gpu:1g.10gb, 1 gpu:2g-20gb, 8 npu"),
        ("gpu:4090(CNT:2)", "2 gpu:4090"),
        ("gpu:0,shard:8,lustre:1", ""),
        ("(null)", ""),
    ],
)
def test_what_a_node_has_in_words(gres: str, text: str) -> None:
    assert gpu_types(gres, SEVERAL) == text


TYPED = [each for each in recordings("running.squeue*.json") if each.case == "gpu-typed-2nodes"]
LOST = frozenset({Missing.GPUS})
UNTRACKED = "cpu=4,mem=400M,node=2,billing=4"
"""What `tres_alloc_str` is where AccountingStorageTRES does not name GPUs."""


def job_of(recording: Recording, **values: Any) -> Json:
    """The job on node[01-02] that was recorded, with other values where given."""
    wanted = recording.truth[0]["job_id"]
    (job,) = (job for job in split_document(recording.text, "squeue") if job_id_of(job) == wanted)
    return {**job, **values}


def gpus_of(run: Run) -> list[tuple[int, ...]]:
    return [resource.gpus for resource in run.resources]


def ended(**values: Any) -> dict[str, Any]:
    return {"job_state": ["COMPLETED"], "gres_detail": [], "tres_alloc_str": UNTRACKED, **values}


def requests() -> Iterator[dict[str, str]]:
    keys = ("tres_per_node", "tres_per_job", "tres_per_task", "tres_per_socket")
    for key in keys:
        for request in ("gres/gpu:1", "gres:gpu:h100:1", "gres/gpu=1", "gres/shard:1"):
            yield {**dict.fromkeys(keys, ""), key: request}


@pytest.mark.parametrize("recording", TYPED, ids=str)
class TestJobs:
    def test_several_types_in_a_node(self, recording: Recording) -> None:
        run = parse_job(job_of(recording, gres_detail=[TWO_TYPES, "gpu:h100:2(IDX:0-1)"]), "lab", LAYOUTS)
        assert gpus_of(run) == [(0, 1, 2, 3), (0, 1)]

    def test_only_one_of_the_nodes_has_gpus(self, recording: Recording) -> None:
        job = job_of(recording, gres_detail=[None, MIG], tres_alloc_str="cpu=32,node=2,gres/gpu=3")
        run = parse_job(job, "lab", LAYOUTS)
        assert gpus_of(run) == [(), (0, 1, 2)]
        assert run.missing == frozenset()

    def test_gpus_that_slurm_does_not_account(self, recording: Recording) -> None:
        run = parse_job(job_of(recording, tres_alloc_str=UNTRACKED), "lab", LAYOUTS)
        assert (run.num_gpus, gpus_of(run), run.missing) == (4, [(0, 1), (0, 1)], frozenset())

    def test_types_of_which_slurm_accounts_some(self, recording: Recording) -> None:
        tres = f"{UNTRACKED},gres/gpu:h100=2"
        job = job_of(recording, gres_detail=[TWO_TYPES, "gpu:h100:2(IDX:0-1)"], tres_alloc_str=tres)
        assert parse_job(job, "lab", LAYOUTS).num_gpus == 6

    def test_shares_count_as_the_devices_they_sit_on(self, recording: Recording) -> None:
        details = ["shard:3(0/2,0/2,2/2,1/2)", "mps:30(IDX:0)"]
        job = job_of(recording, gres_detail=details, tres_alloc_str=UNTRACKED, tres_per_node="gres/shard:3")
        run = parse_job(job, "lab", LAYOUTS)
        assert (run.num_gpus, gpus_of(run), run.missing) == (3, [(2, 3), (0,)], frozenset())

    @pytest.mark.parametrize("tres", [UNTRACKED, "cpu=4,node=2,gres/gpu=4"])
    def test_counted_gpus_have_no_indices(self, recording: Recording, tres: str) -> None:
        job = job_of(recording, gres_detail=["gpu(CNT:2)", "gpu:4090(CNT:2)"], tres_alloc_str=tres)
        run = parse_job(job, "lab", LAYOUTS)
        assert (run.num_gpus, gpus_of(run), run.missing) == (4, [(), ()], LOST)

    def test_entries_that_do_not_fit_the_nodes(self, recording: Recording) -> None:
        run = parse_job(job_of(recording, gres_detail=["gpu:h100:2(IDX:0-1)"]), "lab", LAYOUTS)
        assert (run.num_gpus, gpus_of(run), run.missing) == (4, [(), ()], LOST)

    @pytest.mark.parametrize(
        "request_", [*requests()], ids=lambda keys: str([each for each in keys.items() if each[1]])
    )
    def test_seen_after_its_end_by_its_request(self, recording: Recording, request_: dict[str, str]) -> None:
        run = parse_job(job_of(recording, **ended(**request_)), "lab", LAYOUTS)
        assert (gpus_of(run), run.missing) == ([(), ()], LOST)

    @pytest.mark.parametrize("request_", ["", "gres/gpu:0", "gres/nogpu:2"])
    def test_a_job_that_asked_for_none_misses_none(self, recording: Recording, request_: str) -> None:
        run = parse_job(job_of(recording, **ended(tres_per_node=request_)), "lab", LAYOUTS)
        assert (run.num_gpus, run.missing) == (0, frozenset())

    def test_a_job_that_waits_misses_none(self, recording: Recording) -> None:
        job = job_of(recording, job_state=["PENDING"], gres_detail=[], tres_alloc_str="", nodes="", job_resources=None)
        assert parse_job(job, "lab", LAYOUTS).missing == frozenset()

    def test_no_text_of_the_user_tells_gpus(self, recording: Recording) -> None:
        plain = parse_job(job_of(recording), "lab", LAYOUTS)
        imitation = f"{TWO_TYPES} GRES={TWO_TYPES} gres/gpu=9 gres_detail=[{MIG}]"
        texts = dict.fromkeys(["comment", "command", "current_working_directory", "standard_output"], imitation)
        run = parse_job(job_of(recording, **texts, name=imitation), "lab", LAYOUTS)
        assert (run.num_gpus, run.resources, run.missing) == (plain.num_gpus, plain.resources, plain.missing)

    @pytest.mark.parametrize("details", [[7], [{}], [["gpu:1(IDX:0)"]], "gpu:1(IDX:0)", ["gpu:1(IDX:x)", None]])
    def test_another_shape_is_a_named_error(self, recording: Recording, details: object) -> None:
        with pytest.raises(UnexpectedOutput, match=r"jobs\[\d+\]\.gres"):
            parse_job(job_of(recording, gres_detail=details), "lab", LAYOUTS)


WHOLE = [each for each in recordings("running.squeue*.json") if each.case == "exclusive-partition"]
BARE = {host: NodeLayout(2, 4, 2, (0,)) for host in LAYOUTS}


@pytest.mark.parametrize("recording", WHOLE, ids=str)
def test_whole_nodes_come_with_gpus_although_slurm_accounts_none(recording: Recording) -> None:
    job = job_of(recording, **ended(tres_alloc_str="cpu=32,mem=3200M,node=2,billing=32"))
    assert parse_job(job, "lab", LAYOUTS).missing == LOST
    assert parse_job(job, "lab", BARE).missing == frozenset()
    accounted = job_of(recording, **ended(tres_alloc_str="cpu=32,gres/gpu=8,gres/gpu:h100=8"))
    run = parse_job(accounted, "lab", LAYOUTS)
    assert (gpus_of(run), run.missing) == ([(0, 1, 2, 3)] * 2, frozenset())


def test_a_node_whose_gpus_nobody_understands_is_named(caplog: pytest.LogCaptureFixture) -> None:
    _, states = parse_sinfo(f"{sinfo_row(GresUsed='shard:a:1(what)')}\n{sinfo_row(NodeList='node02')}")
    assert [state.hostname for state in states] == ["node02"]
    assert "node01" in caplog.text


PIECES = st.sampled_from(
    [*"/:(),=-017²٣", "gpu", "shard", "mps", "gres", "999999999", "IDX:", "CNT:", "S:", "N/A", "(null)", "1/2", "-/2"]
)
TEXTS = st.text(max_size=60) | st.lists(PIECES, max_size=15).map("".join)


@given(TEXTS)
def test_no_text_breaks_a_parser(text: str) -> None:
    for parse in (gpu_indices, gpu_count, gpu_types, other_devices, gpus_of_tres, cpus_of_tres, requests_gpus):
        try:
            parse(text)
        except UnexpectedOutput as error:
            assert error.path == "gres"


@given(st.lists(st.none() | TEXTS, max_size=4), st.lists(st.sampled_from(HOSTS), max_size=4, unique=True), TEXTS)
def test_no_detail_breaks_the_devices_of_nodes(details: list[str | None], hosts: list[str], tres: str) -> None:
    try:
        gpus = gpus_by_host(details, hosts, EQUIPMENT, tres)
        count = gpus_of_details(details)
    except UnexpectedOutput as error:
        assert error.path == "gres"
        return
    assert set(gpus) <= set(hosts)
    assert count >= 0
    assert all(index < MAX_DEVICES for indices in gpus.values() for index in indices)


@given(st.sets(st.integers(0, MAX_DEVICES - 1), min_size=1, max_size=40))
def test_any_devices_are_read_as_slurm_writes_them(devices: set[int]) -> None:
    ranges = ",".join(_ranges(sorted(devices)))
    assert gpu_indices(f"gpu:1g.10gb:{len(devices)}(IDX:{ranges})") == tuple(sorted(devices))
    shares = ",".join(f"{int(index in devices)}/4" for index in range(max(devices) + 1))
    assert gpu_indices(f"shard:{len(devices)}({shares})") == tuple(sorted(devices))


def _ranges(numbers: list[int]) -> Iterator[str]:
    """`0-2,5` from [0, 1, 2, 5], as Slurm's bit_fmt does it."""
    first = last = numbers[0]
    for number in [*numbers[1:], -1]:
        if number == last + 1:
            last = number
            continue
        yield str(first) if first == last else f"{first}-{last}"
        first = last = number
