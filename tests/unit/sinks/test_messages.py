"""What a start and a stop say to cc-backend."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.model import (
    End,
    EndState,
    Missing,
    NodeState,
    Numbering,
    NumberingByHost,
    Phase,
    Resource,
    Run,
    RunKey,
    Sharing,
)
from cc_slurm_adapter.sinks.gpu_addresses import count_cards
from cc_slurm_adapter.sinks.hwthreads import hwthreads
from cc_slurm_adapter.sinks.messages import CcMessages
from tests.fakes.slurm_and_sinks import make_run
from tests.recorded.fixture_files import FIXTURES, VERSIONS, Recording, read_truth, recordings, runs_of

ADDRESSES = ((re.compile("^node"), ("00000000:00:00.0", "00000000:01:00.0")),)
RECORDED = json.loads(
    (Path(__file__).parents[2] / "recorded" / "cc_backend" / "existing-adapter-requests.json").read_text()
)
EVERYWHERE = re.compile("")


def all_hosts(numbering: Numbering) -> NumberingByHost:
    return ((EVERYWHERE, numbering),)


def start_of(run: Run, numberings: NumberingByHost = ()) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(CcMessages(ADDRESSES, numberings).encode_start(run).whole())
    return message


def listed(message: dict[str, Any]) -> dict[str, list[int]]:
    return {resource["hostname"]: resource.get("hwthreads", []) for resource in message["resources"]}


def test_a_start_has_the_fields_of_the_existing_adapter() -> None:
    theirs = next(each["body"] for each in RECORDED if each.get("body", {}).get("jobId") == 18)
    run = make_run(
        18,
        start=1795340398,
        user="root",
        account="root",
        name="gpus",
        submit_time=1795340397,
        walltime=None,
        num_gpus=4,
        resources=(Resource("node01", (3,), (0, 1), 8, 2), Resource("node02", (0,), (0, 1), 8, 2)),
        job_script=theirs["metaData"]["jobScript"],
        slurm_info=theirs["metaData"]["slurmInfo"],
    )
    ours = start_of(run, all_hosts(Numbering.CORES))
    assert ours == {key: value for key, value in theirs.items() if key in ours}
    assert not {key for key in theirs if key not in ours and _says_something(theirs[key])}


def _says_something(value: Any) -> bool:
    return bool(value) and value != {"items": None, "count": 0}


def test_whole_nodes_arrays_and_limits_are_told() -> None:
    ours = start_of(make_run(sharing=Sharing.WHOLE_NODE, array_job_id=7, walltime=600))
    assert (ours["shared"], ours["arrayJobId"], ours["walltime"]) == ("none", 7, 600)


def test_nothing_is_said_of_what_a_run_has_not() -> None:
    ours = start_of(make_run(num_gpus=0, walltime=None, resources=(Resource("node01", (0,), (), 8, 1),)))
    assert not {"numAcc", "arrayJobId", "walltime"} & set(ours)
    assert not {"hetJobId", "hetJobOffset", "incomplete"} & set(ours["metaData"])
    assert ours["resources"] == [{"hostname": "node01", "hwthreads": [0]}]


@pytest.mark.parametrize(("offset", "told"), [(0, "0"), (2, "2")])
def test_a_component_of_a_heterogeneous_job_names_its_leader(offset: int, told: str) -> None:
    ours = start_of(make_run(12, het_job_id=10, het_job_offset=offset))
    assert (ours["metaData"]["hetJobId"], ours["metaData"]["hetJobOffset"]) == ("10", told)


# --- hardware threads

MAPPED = [
    # cores, cores of the node, threads of a core: block, interleaved
    ((2,), 8, 2, [2, 10], [4, 5]),
    ((1, 5), 8, 2, [1, 5, 9, 13], [2, 3, 10, 11]),
    ((0, 3), 4, 1, [0, 3], [0, 3]),
    ((0, 2), 3, 4, [0, 2, 3, 5, 6, 8, 9, 11], [0, 1, 2, 3, 8, 9, 10, 11]),
    ((), 0, 1, [], []),
]


@pytest.mark.parametrize(("cores", "node_cores", "threads", "block", "interleaved"), MAPPED)
def test_threads_of_cores_in_each_numbering(
    cores: tuple[int, ...], node_cores: int, threads: int, block: list[int], interleaved: list[int]
) -> None:
    resource = Resource("node01", cores, (), node_cores, threads)
    assert hwthreads(resource, Numbering.BLOCK) == block
    assert hwthreads(resource, Numbering.INTERLEAVED) == interleaved
    assert hwthreads(resource, Numbering.CORES) == list(cores)


@given(st.integers(1, 300), st.integers(1, 8), st.data())
def test_each_thread_of_a_node_has_one_number_and_no_other_has_it(
    cores: int, threads: int, data: st.DataObject
) -> None:
    numbering = data.draw(st.sampled_from([Numbering.BLOCK, Numbering.INTERLEAVED]))
    of_core = [hwthreads(Resource("n", (core,), (), cores, threads), numbering) for core in range(cores)]
    assert {len(numbers) for numbers in of_core} == {threads}
    assert sorted(number for numbers in of_core for number in numbers) == list(range(cores * threads))
    held = data.draw(st.sets(st.integers(0, cores - 1)))
    together = hwthreads(Resource("n", tuple(sorted(held)), (), cores, threads), numbering)
    assert together == sorted(number for core in held for number in of_core[core])


MIXED = (
    Resource("amd1", (1,), (), 4, 2),
    Resource("power1", (1,), (), 4, 4),
    Resource("other1", (1,), (), 4, 2),
)


def test_each_host_of_a_run_is_numbered_its_own_way_and_the_first_pattern_counts() -> None:
    numberings = (
        (re.compile("^power"), Numbering.INTERLEAVED),
        (re.compile("1$"), Numbering.BLOCK),
        (re.compile("^amd"), Numbering.CORES),
    )
    ours = start_of(make_run(resources=MIXED), numberings)
    assert listed(ours) == {"amd1": [1, 5], "power1": [4, 5, 6, 7], "other1": [1, 5]}
    assert ours["smt"] == 1


def test_hosts_that_no_pattern_matches_are_numbered_in_blocks() -> None:
    ours = start_of(make_run(resources=MIXED), ((re.compile("^none"), Numbering.CORES),))
    assert listed(ours) == {"amd1": [1, 5], "power1": [1, 5, 9, 13], "other1": [1, 5]}


def test_smt_is_said_when_it_can_be_said() -> None:
    one, two, unknown = Resource("a1", (0,), (), 4, 1), Resource("b1", (0,), (), 4, 2), Resource("c1")
    for resources, told in (((one,), 0), ((two,), 1), ((one, two), 1), ((unknown, one), 0), ((unknown, two), 1)):
        assert start_of(make_run(resources=resources))["smt"] == told
    assert "smt" not in start_of(make_run(resources=(unknown,)))
    for resources in ((one, two), (unknown, two)):
        numberings = ((re.compile(f"^{resources[0].hostname}"), Numbering.CORES),)
        assert "smt" not in start_of(make_run(resources=resources), numberings)


# 8 cores of 2 threads. The second threads count on from 8; the sockets are numbered 0,1,0,1.
ALTERNATING = tuple((number,) for number in (0, 8, 2, 10, 4, 12, 6, 14, 1, 9, 3, 11, 5, 13, 7, 15))


@pytest.mark.parametrize(
    ("cores", "node_cores", "threads", "held", "smt"),
    [
        ((0,), 8, 2, [0, 8], 1),
        ((1, 4), 8, 2, [1, 2, 9, 10], 1),
        # CPUs=16 alone in slurm.conf: 16 sockets of 1 core of 1 thread, which the machine has not.
        ((0, 2), 16, 1, [0, 2], 0),
        ((1, 15), 16, 1, [8, 15], 0),
    ],
)
def test_a_list_has_the_number_of_each_of_slurms_cpus(
    cores: tuple[int, ...], node_cores: int, threads: int, held: list[int], smt: int
) -> None:
    run = make_run(resources=(Resource("node01", cores, (), node_cores, threads),))
    ours = start_of(run, ((EVERYWHERE, ALTERNATING),))
    assert (listed(ours), ours["smt"]) == ({"node01": held}, smt)
    assert "incomplete" not in ours["metaData"]


def test_a_list_may_have_several_numbers_for_a_cpu() -> None:
    """As where Slurm counts cores alone, and tasks are free to use both threads of theirs."""
    run = make_run(resources=(Resource("node01", (1,), (), 2, 1),))
    ours = start_of(run, ((EVERYWHERE, ((0, 2), (1, 3))),))
    assert (listed(ours), ours["smt"]) == ({"node01": [1, 3]}, 1)


@pytest.mark.parametrize("cpus", [15, 17])
def test_a_list_that_does_not_fit_its_node_gives_no_numbers_and_the_run_says_so(cpus: int) -> None:
    numberings = ((re.compile("^bad"), tuple((number,) for number in range(cpus))),)
    bad, good = Resource("bad1", (0,), (), 8, 2), Resource("good1", (0,), (), 8, 2)
    ours = start_of(make_run(resources=(bad, good)), numberings)
    assert (listed(ours), ours["smt"]) == ({"bad1": [], "good1": [0, 8]}, 1)
    assert "hwthreads" not in ours["resources"][0]
    assert ours["metaData"]["incomplete"] == "cores"
    assert ours["numHwthreads"] == 4
    alone = start_of(make_run(resources=(bad,), missing=frozenset({Missing.GPUS})), numberings)
    assert alone["metaData"]["incomplete"] == "cores,gpus"
    assert "smt" not in alone


def test_hosts_are_sent_by_their_other_name_and_all_else_goes_by_slurms() -> None:
    messages = CcMessages(
        ADDRESSES,
        ((re.compile("^node01$"), Numbering.INTERLEAVED),),
        sent_name=lambda node: node.replace("node", "cn-"),
    )
    ours = json.loads(messages.encode_start(make_run(resources=(Resource("node01", (1,), (1,), 4, 2),))).whole())
    assert ours["resources"] == [{"hostname": "cn-01", "hwthreads": [2, 3], "accelerators": ["00000000:01:00.0"]}]


# --- the recorded jobs, against their right answers

RECORDINGS = [*recordings("*.squeue*.json"), *recordings("*.scontrol*.json")]
NODE_CORES, NODE_THREADS = 8, 2


def started(recording: Recording) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Each run of the recorded document that began and that the truth speaks of, with that truth."""
    truths = {(truth["job_id"], truth["start"]): truth for truth in recording.truth if truth["hosts"]}
    for run in runs_of(recording):
        if run.phase is not Phase.WAITING and run.key[1:] in truths:
            yield run, truths[run.key[1:]]


def computed(truth: dict[str, Any], threads_first: bool) -> dict[str, list[int]]:
    """Hardware threads from `cores_by_socket`: the node's threads written down in order, those of its cores picked."""
    order = [(core, thread) for core in range(NODE_CORES) for thread in range(NODE_THREADS)]
    if not threads_first:
        order.sort(key=lambda each: (each[1], each[0]))
    found = {}
    for host, held in truth["hosts"].items():
        cores = {4 * int(socket) + core for socket, cores in held["cores_by_socket"].items() for core in cores}
        found[host] = [number for number, (core, _) in enumerate(order) if core in cores]
    return found


def test_every_run_of_every_case_was_recorded_while_it_ran() -> None:
    cases = [
        (version, folder.parent.name)
        for version in VERSIONS
        for folder in sorted((FIXTURES / f"slurm-{version}" / "jobs").glob("*/truth.json"))
    ]
    assert len(cases) == 3 * 27 + 5 * 19  # as the README of the fixtures has it
    true = {(*case, truth["job_id"], truth["start"]) for case in cases for truth in read_truth(*case) if truth["hosts"]}
    tested = {
        (recording.version, recording.case, *run.key[1:])
        for recording in RECORDINGS
        for run, _ in started(recording)
        if run.phase is Phase.RUNNING
    }
    assert tested == true


@pytest.mark.parametrize("recording", RECORDINGS, ids=str)
def test_a_recorded_job_has_the_hardware_threads_that_it_really_had(recording: Recording) -> None:
    for run, truth in started(recording):
        interleaved = start_of(run, all_hosts(Numbering.INTERLEAVED))
        assert listed(interleaved) == {host: held["hw_threads"] for host, held in truth["hosts"].items()}
        assert listed(interleaved) == computed(truth, threads_first=True)
        block = start_of(run)
        assert listed(block) == computed(truth, threads_first=False)
        for message in (interleaved, block):
            assert sum(map(len, listed(message).values())) == truth["num_cpus"] == message["numHwthreads"]
            assert message["smt"] == 1


@pytest.mark.parametrize("recording", RECORDINGS, ids=str)
def test_a_recorded_job_has_the_cores_that_it_really_had(recording: Recording) -> None:
    for run, truth in started(recording):
        message = start_of(run, all_hosts(Numbering.CORES))
        assert listed(message) == {
            host: sorted({thread // NODE_THREADS for thread in held["hw_threads"]})
            for host, held in truth["hosts"].items()
        }
        assert message["numHwthreads"] == truth["num_cpus"]
        assert "smt" not in message


# --- GPUs


def test_gpus_without_an_address_are_counted_and_said_once_for_each_kind_of_host(
    caplog: pytest.LogCaptureFixture,
) -> None:
    left_out: list[int] = []
    messages = CcMessages(ADDRESSES, on_missing_address=left_out.append)
    resources = (Resource("node01", (0,), (1, 2)), Resource("other", (0,), (0, 1, 2)), Resource("node02", (0,), (2,)))
    for _ in range(2):
        ours = json.loads(messages.encode_start(make_run(num_gpus=6, resources=resources)).whole())
        assert [resource.get("accelerators") for resource in ours["resources"]] == [["00000000:01:00.0"], None, None]
        assert ours["numAcc"] == 6
    assert left_out == [1, 3, 1, 1, 3, 1]
    assert [line for line in caplog.messages if "gpuPciAddrs" in line] == [
        "gpuPciAddrs has no address for GPU 2 of node01: of these and similar ones only the number is reported",
        "gpuPciAddrs has no address for GPU 0, 1, 2 of other: of these and similar ones only the number is reported",
    ]


def test_an_entry_without_an_address_leaves_only_its_gpu_out(caplog: pytest.LogCaptureFixture) -> None:
    left_out: list[int] = []
    addresses = ((re.compile("^node"), ("00000000:0E:00.0", "", "00000000:13:00.0")),)
    messages = CcMessages(addresses, on_missing_address=left_out.append)
    ours = json.loads(messages.encode_start(make_run(resources=(Resource("node01", (0,), (0, 1, 2)),))).whole())
    assert ours["resources"][0]["accelerators"] == ["00000000:0E:00.0", "00000000:13:00.0"]
    assert (ours["numAcc"], left_out) == (3, [1])
    assert caplog.messages[0].startswith("gpuPciAddrs has no address for GPU 1 of node01")


# Two cards; the first is cut into three MIG instances, which are devices of their own for Slurm.
MIG = ((re.compile("^mig"), ("00000000:0E:00.0",) * 3 + ("00000000:13:00.0", "")),)


@pytest.mark.parametrize(
    ("gpus", "accelerators", "cards"),
    [
        ((0, 1), ["00000000:0E:00.0"], 1),
        ((2, 3), ["00000000:0E:00.0", "00000000:13:00.0"], 2),
        ((0, 1, 2, 3), ["00000000:0E:00.0", "00000000:13:00.0"], 2),
    ],
)
def test_parts_of_one_card_are_that_card_once(gpus: tuple[int, ...], accelerators: list[str], cards: int) -> None:
    left_out: list[int] = []
    messages = CcMessages(MIG, on_missing_address=left_out.append)
    ours = json.loads(
        messages.encode_start(make_run(num_gpus=len(gpus), resources=(Resource("mig1", (0,), gpus),))).whole()
    )
    assert (ours["resources"][0]["accelerators"], ours["numAcc"], left_out) == (accelerators, cards, [])


def test_parts_of_cards_on_several_hosts_are_counted_for_each_host() -> None:
    run = make_run(num_gpus=4, resources=(Resource("mig1", (0,), (0, 1)), Resource("mig2", (0,), (0, 1))))
    assert json.loads(CcMessages(MIG).encode_start(run).whole())["numAcc"] == 2


@pytest.mark.parametrize(
    ("host", "in_use", "slurms_count", "cards"),
    [
        ("mig1", (0, 1), 2, 1),
        ("mig1", (0, 1, 2, 3), 4, 2),
        ("mig1", (0, 1, 4), 3, 2),  # one without an address stands for itself
        ("mig1", (3, 7), 2, 2),  # and so does one that is not in the list
        ("mig1", (), 3, 3),  # Slurm only counts them
        ("other", (0, 1), 2, 2),
    ],
)
def test_allocated_parts_of_one_card_are_one_gpu_of_the_node(
    host: str, in_use: tuple[int, ...], slurms_count: int, cards: int
) -> None:
    node = NodeState(host, ("mixed",), 1, 1, slurms_count, gpus_in_use=in_use)
    assert count_cards(node, MIG).gpus_allocated == cards


def test_devices_that_no_name_covers_are_said_once_where_addresses_are_configured(
    caplog: pytest.LogCaptureFixture,
) -> None:
    messages = CcMessages(ADDRESSES)
    held = Resource("node01", (0,), (), other_gres=("dcu",))
    elsewhere = Resource("other", (0,), (), other_gres=("npu",))
    for _ in range(2):
        ours = json.loads(messages.encode_start(make_run(num_gpus=0, resources=(elsewhere, held))).whole())
        assert "numAcc" not in ours
    (line,) = caplog.messages
    assert "devices of the GRES dcu on node01" in line
    assert "name it in acceleratorGres" in line


def test_nothing_is_said_while_all_gpus_have_addresses(caplog: pytest.LogCaptureFixture) -> None:
    left_out: list[int] = []
    CcMessages(ADDRESSES, on_missing_address=left_out.append).encode_start(make_run())
    assert (left_out, caplog.messages) == ([], [])


def test_a_run_seen_too_late_says_so_and_keeps_its_counts() -> None:
    ours = start_of(make_run(resources=(Resource("node01"),), missing=frozenset({Missing.CORES, Missing.GPUS})))
    assert ours["metaData"]["incomplete"] == "cores,gpus"
    assert (ours["numAcc"], ours["numHwthreads"]) == (2, 4)


# --- texts, sizes, stops


def test_texts_that_are_no_unicode_are_sent_all_the_same() -> None:
    assert start_of(make_run(name="a\ud800b\x00\n☃"))["metaData"]["jobName"] == "a?b\x00\n☃"


def test_a_stop_always_has_the_start_time_and_never_ends_before_it() -> None:
    key = RunKey("lab", 3, 500)
    stop = json.loads(CcMessages(()).encode_stop(key, End(EndState.TIMEOUT, 400, "TIMEOUT")).whole())
    assert stop == {"jobId": 3, "cluster": "lab", "startTime": 500, "jobState": "timeout", "stopTime": 500}


def test_the_texts_of_a_start_stand_apart_in_the_order_in_which_they_are_left_out() -> None:
    run = make_run(job_script='#!/bin/sh\necho "\u00e4"', slurm_info="JobId=1")
    encoded = CcMessages(()).encode_start(run)
    assert [json.loads(text.body) for text in encoded.texts] == [run.job_script, run.slurm_info]
    assert len(encoded.whole()) == encoded.size
    meta_data = json.loads(encoded.whole())["metaData"]
    assert (meta_data["jobScript"], meta_data["slurmInfo"]) == (run.job_script, run.slurm_info)
    assert "jobScript" not in json.loads(encoded.head + encoded.tail)["metaData"]
