"""Node states: rows of sinfo, all of Slurm's words, and the one word that cc-backend takes of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.model import NodeState
from cc_slurm_adapter.sinks.messages import encode_nodes
from cc_slurm_adapter.sinks.node_states import states_for_cc_backend
from cc_slurm_adapter.slurm.parse.nodes import COLUMNS, SINFO, NodeLayout
from tests.recorded.fixture_files import FIXTURES, LAYOUTS, VERSIONS, parse_sinfo, sinfo_row

# As src/common/slurm_protocol_defs.c has them, in the order in which they are printed.
BASES = ("DOWN", "IDLE", "ALLOCATED", "ERROR", "MIXED", "FUTURE", "UNKNOWN")
FLAGS_UP_TO_23_11 = (
    *("CLOUD", "COMPLETING", "DRAIN", "DYNAMIC_FUTURE", "DYNAMIC_NORM", "INVALID_REG", "FAIL", "MAINTENANCE"),
    *("POWER_DOWN", "POWER_UP", "PERFCTRS", "POWERED_DOWN", "REBOOT_REQUESTED", "REBOOT_ISSUED", "RESERVED"),
    *("RESUME", "NOT_RESPONDING", "PLANNED", "POWERING_UP", "POWERING_DOWN"),
)
FLAGS_OF_24_05 = (*(flag for flag in FLAGS_UP_TO_23_11 if flag != "PERFCTRS"), "BLOCKED")
FLAGS_SINCE_25_05 = (*FLAGS_OF_24_05, "EXTERNAL")
FLAGS = {
    "22.05": FLAGS_UP_TO_23_11,
    "23.02": FLAGS_UP_TO_23_11,
    "23.11": FLAGS_UP_TO_23_11,
    "24.05": FLAGS_OF_24_05,
    "24.11": FLAGS_OF_24_05,
    "25.05": FLAGS_SINCE_25_05,
    "25.11": FLAGS_SINCE_25_05,
    "26.05": FLAGS_SINCE_25_05,
}
ALL_FLAGS = sorted({flag for flags in FLAGS.values() for flag in flags})
DOWN_FLAGS = {"DRAIN", "FAIL", "INVALID_REG", "NOT_RESPONDING", "POWER_DOWN", "POWERING_DOWN", "REBOOT_ISSUED"}
RESERVED_FLAGS = {"BLOCKED", "MAINTENANCE", "RESERVED"}
CC_BACKEND = {"allocated", "reserved", "idle", "down", "mixed"}


def shown_by_cc_backend(words: list[str]) -> str:
    """What cc-backend makes of the words: allocated > reserved > idle > down > mixed, whatever the case."""
    given_words = {word.lower() for word in words}
    return next((word for word in ("allocated", "reserved", "idle", "down", "mixed") if word in given_words), "unknown")


@pytest.mark.parametrize(
    ("base", "word"),
    [
        ("DOWN", "down"),
        ("IDLE", "idle"),
        ("ALLOCATED", "allocated"),
        ("ERROR", "down"),
        ("MIXED", "mixed"),
        ("FUTURE", "down"),
        ("UNKNOWN", "down"),
    ],
)
def test_every_base_state_becomes_a_word_of_cc_backend(base: str, word: str, caplog: pytest.LogCaptureFixture) -> None:
    assert shown_by_cc_backend(states_for_cc_backend([base])) == word
    assert not caplog.messages


@pytest.mark.parametrize("version", FLAGS)
def test_every_flag_of_every_version_is_known(version: str, caplog: pytest.LogCaptureFixture) -> None:
    for flag in FLAGS[version]:
        expected = "down" if flag in DOWN_FLAGS else "reserved" if flag in RESERVED_FLAGS else "idle"
        assert shown_by_cc_backend(states_for_cc_backend(["IDLE", flag])) == expected, flag
        assert shown_by_cc_backend(states_for_cc_backend(["ALLOCATED", flag])) == "allocated", flag
        assert shown_by_cc_backend(states_for_cc_backend(["MIXED", flag])) == "mixed", flag
        assert shown_by_cc_backend(states_for_cc_backend(["DOWN", flag])) == "down", flag
    assert not caplog.messages


# Free nodes: what slurmctld's avail_node_bitmap (the nodes that it gives jobs to) says of the flags together. Read in
# slurmctld's source of 22.05.8, 24.11.5 and 26.05.3, where it is the same; the functions are in node_mgr.c if no file
# is named. "reserved" is in the bitmap, but only some jobs get it. On a real 22.05 and 24.11 a job for a free node was
# started at once when the node was powered_down or not_responding+powering_up, also when the job for which it was
# powered up had been cancelled. It waited (ReqNodeNotAvail) while the node was power_down or powering_down.
COMBINATIONS = [
    ("idle", "idle", "_sync_bitmaps: neither down, drain, fail nor not responding"),
    ("idle+not_responding", "down", "_sync_bitmaps, node_not_resp: the bit is cleared"),
    # A node that is powered up, for a job or by hand: power_save.c sets both flags and leaves the bit as it is, which
    # it got when the node was off. Powered up for features it is allocated (reboot_job_nodes in job_scheduler.c).
    ("idle+cloud+not_responding+powering_up", "idle", "_do_power_work in power_save.c"),
    ("idle+not_responding+powering_up", "idle", "_do_power_work in power_save.c"),
    ("idle+cloud+powering_up", "idle", "_do_power_work in power_save.c"),
    ("idle+cloud+not_responding+planned+powering_up", "idle", "planned is read by nobody who clears the bit"),
    ("idle+cloud+not_responding+powering_up+reserved", "reserved", "the reservation's jobs get it"),
    ("idle+cloud+drain+not_responding+powering_up", "down", "_drain_node, update_node: cleared"),
    ("idle+cloud+fail+not_responding+powering_up", "down", "update_node: cleared"),
    ("idle+cloud+invalid_reg+drain", "down", "validate_node_specs: drained with it"),
    ("idle+cloud+not_responding+power_down+powering_up", "down", "update_node: an idle node's bit is cleared"),
    ("down+cloud+not_responding+powering_up", "down", "_sync_bitmaps: the base state"),
    # Off: jobs power it up.
    ("idle+cloud+powered_down", "idle", "_do_power_work in power_save.c: make_node_avail after SuspendTimeout"),
    ("idle+powered_down", "idle", "the same"),
    ("idle+cloud+not_responding+powered_down", "idle", "update_node: make_node_avail if silent or powered down"),
    ("idle+cloud+power_up+powered_down", "idle", "update_node: the bit is left as it is"),
    ("idle+cloud+not_responding+power_up+powered_down+powering_up", "idle", "update_node: a repeated power up"),
    ("idle+cloud+planned+powered_down", "idle", "the same as powered_down alone"),
    ("idle+cloud+powered_down+reserved", "reserved", "the reservation's jobs get it"),
    ("idle+cloud+drain+powered_down", "down", "_do_power_work in power_save.c: not made available"),
    ("down+cloud+powered_down", "down", "_do_power_work in power_save.c: not resumed by ResumeTimeout"),
    # On its way there: no job until SuspendTimeout is over.
    ("idle+cloud+powering_down", "down", "_do_power_work in power_save.c: Don't allocate until after SuspendTimeout"),
    ("idle+powering_down", "down", "make_node_avail: returns without setting the bit"),
    ("idle+cloud+powering_down+reserved", "down", "the same, also for a reservation's jobs"),
    ("idle+power_down", "down", "update_node: so that it will power_down before jobs get on it"),
    ("idle+cloud+power_down", "down", "make_node_idle: cleared"),
    ("idle+cloud+power_down+not_responding", "down", "update_node: POWER_DOWN_FORCE of a booting node"),
    ("idle+cloud+power_down+powered_down", "down", "update_node: power down request repeating"),
    ("idle+drain+power_down", "down", "_drain_node: POWER_DOWN_ASAP"),
    # Reboots.
    ("idle+reboot_requested", "idle", "update_node: the bit stays until the reboot is issued"),
    ("idle+drain+reboot_requested", "down", "_slurm_rpc_reboot_nodes in proc_req.c: ASAP drains"),
    ("down+reboot_issued", "down", "_queue_reboot_msg in controller.c, of 26.05 in power_save.c"),
    ("idle+reboot_issued", "down", "the same: the bit is cleared with the flag"),
    # Drained, failing, in reservations.
    ("idle+drain", "down", "_sync_bitmaps"),
    ("idle+fail", "down", "_sync_bitmaps"),
    ("idle+fail+not_responding", "down", "_sync_bitmaps"),
    ("idle+drain+reserved", "down", "_sync_bitmaps"),
    ("idle+drain+maintenance+reserved", "down", "_sync_bitmaps"),
    ("idle+reserved", "reserved", "reservation.c: other jobs do not get it"),
    ("idle+maintenance+reserved", "reserved", "reservation.c"),
    ("idle+maintenance+not_responding", "down", "_sync_bitmaps"),
    ("idle+blocked", "reserved", "node_mgr_make_node_blocked: a job on its neighbours has it (24.05 and later)"),
    ("idle+planned", "idle", "the backfill scheduler means it for a job to come"),
    # A job is being cleaned away: the node stays in the bitmap, and gets jobs when that is over.
    ("idle+completing", "idle", "make_node_comp: the bit stays"),
    ("idle+completing+drain", "down", "_sync_bitmaps"),
    ("idle+completing+not_responding", "down", "_sync_bitmaps"),
    ("idle+perfctrs", "idle", "until 23.11: network counters are in use"),
    # Dynamic and external nodes.
    ("idle+dynamic_norm", "idle", "create_dynamic_reg_node: make_node_idle"),
    ("idle+dynamic_future", "idle", "validate_node_specs: make_node_idle at its registration"),
    ("idle+dynamic_norm+not_responding", "down", "node_not_resp"),
    ("future+dynamic_future", "down", "make_node_idle: a FUTURE node is left as it is"),
    ("future", "down", "make_node_idle"),
    ("idle+external", "idle", "25.05 and later: create_nodes: make_node_idle"),
    ("idle+drain+external", "down", "_drain_node"),
    ("down+external", "down", "_make_node_down"),
    # What slurmctld has no good word for.
    ("unknown", "down", "read_config.c: neither idle nor allocated"),
    ("unknown+not_responding", "down", "read_config.c"),
    ("error", "down", "slurm.h: UNUSED"),
    ("down", "down", "_make_node_down"),
    ("down+drain", "down", "_make_node_down"),
    ("down+reserved", "down", "_make_node_down"),
    ("down+not_responding", "down", "_make_node_down"),
    # Nodes with jobs are told as such.
    ("mixed+drain+maintenance+reserved", "mixed", "they run their jobs to the end"),
    ("allocated+cloud+not_responding+powering_up", "allocated", "the job waits for it (CONFIGURING)"),
    ("mixed+cloud+not_responding+powering_up", "mixed", "the same"),
    ("mixed+power_down", "mixed", "update_node: powered down when its jobs are over"),
    ("allocated+not_responding", "allocated", "node_not_resp: its jobs go on"),
]


@pytest.mark.parametrize(("state", "word", "source"), COMBINATIONS)
def test_flags_are_judged_together_as_slurmctld_does(
    state: str, word: str, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert shown_by_cc_backend(states_for_cc_backend(state.split("+"))) == word, source
    assert not caplog.messages


def is_available(base: str, flags: set[str]) -> bool:
    """slurmctld's rules in the order of its source, for a node without jobs."""
    if base in {"DOWN", "ERROR", "FUTURE", "UNKNOWN"} or flags & {"DRAIN", "FAIL"}:
        return False  # _sync_bitmaps, make_node_idle, read_config.c
    if "INVALID_REG" in flags or "REBOOT_ISSUED" in flags:
        return False  # validate_node_specs drains; _queue_reboot_msg clears the bit
    if flags & {"POWER_DOWN", "POWERING_DOWN"}:
        return False  # make_node_avail, _do_power_work
    if "NOT_RESPONDING" in flags:
        return bool(flags & {"POWERING_UP", "POWERED_DOWN"})  # node_not_resp; _do_power_work, update_node
    return True


def test_all_combinations_of_all_flags() -> None:
    """The flags that decide, in all ways; the others change nothing."""
    deciding = sorted(DOWN_FLAGS | RESERVED_FLAGS | {"POWERED_DOWN", "POWERING_UP"})
    others = [flag for flag in ALL_FLAGS if flag not in deciding]
    for number in range(1 << len(deciding)):
        flags = {flag for at, flag in enumerate(deciding) if number >> at & 1}
        other = others[number % len(others)]
        for base in ("IDLE", "DOWN"):
            expected = "down" if not is_available(base, flags) else "reserved" if flags & RESERVED_FLAGS else "idle"
            assert shown_by_cc_backend(states_for_cc_backend([base, *flags, other])) == expected, (base, flags, other)


@given(st.sampled_from(BASES), st.lists(st.sampled_from(ALL_FLAGS)))
def test_exactly_one_word_is_for_cc_backend_and_the_others_for_people(base: str, flags: list[str]) -> None:
    words = states_for_cc_backend([base, *flags])
    assert words[0] in CC_BACKEND
    assert not CC_BACKEND & set(words[1:])
    assert shown_by_cc_backend(words) == words[0]
    said = {word.lower() for word in (base, *flags)} - CC_BACKEND
    assert set(words[1:]) == said
    assert len(words) == len(set(words))


@given(st.lists(st.text(max_size=12)))
def test_any_words_give_exactly_one_of_cc_backend(states: list[str]) -> None:
    assert len(CC_BACKEND & set(states_for_cc_backend(states))) == 1


def test_an_unknown_word_makes_a_free_node_down_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        assert states_for_cc_backend(["idle", "levitating"]) == ["down", "levitating"]
        assert states_for_cc_backend(["hovering"]) == ["down", "hovering"]
        assert states_for_cc_backend(["mixed", "levitating"]) == ["mixed", "levitating"]
    assert len([line for line in caplog.messages if "levitating" in line]) == 1
    assert len([line for line in caplog.messages if "hovering" in line]) == 1


def test_what_is_sent_of_a_node() -> None:
    node = NodeState("node04", ("idle", "drain"), cpus_allocated=0, memory_allocated=0, gpus_allocated=0)
    assert json.loads(encode_nodes("lab", [node]))["nodes"] == [
        {
            "hostname": "node04",
            "states": ["down", "drain"],
            "cpusAllocated": 0,
            "memoryAllocated": 0,
            "gpusAllocated": 0,
            "jobsRunning": 0,
        }
    ]


# Seen on real clusters: sinfo's StateComplete, CPUsState and AllocMem beside what `scontrol show node` said at that
# moment as State, CPUAlloc and AllocMem; and what is to be sent.
SEEN = [
    ("22.05", "mixed", "6/10/0/16", "500", ("MIXED", 6, 500), "mixed"),
    ("22.05", "allocated", "16/0/0/16", "1600", ("ALLOCATED", 16, 1600), "allocated"),
    ("22.05", "idle", "0/16/0/16", "0", ("IDLE", 0, 0), "idle"),
    ("22.05", "allocated+drain", "6/0/10/16", "500", ("MIXED+DRAIN", 6, 500), "mixed"),
    ("22.05", "allocated+drain", "16/0/0/16", "1600", ("ALLOCATED+DRAIN", 16, 1600), "allocated"),
    ("22.05", "mixed+fail", "6/10/0/16", "1000", ("MIXED+FAIL", 6, 1000), "mixed"),
    ("22.05", "idle+drain", "0/0/16/16", "0", ("IDLE+DRAIN", 0, 0), "down"),
    ("22.05", "idle+fail", "0/16/0/16", "0", ("IDLE+FAIL", 0, 0), "down"),
    ("22.05", "down", "0/0/16/16", "0", ("DOWN", 0, 0), "down"),
    ("22.05", "idle+not_responding", "0/16/0/16", "0", ("IDLE+NOT_RESPONDING", 0, 0), "down"),
    (
        *("22.05", "allocated+not_responding", "16/0/0/16", "1600"),
        *(("ALLOCATED+NOT_RESPONDING", 16, 1600), "allocated"),
    ),
    ("22.05", "idle+reserved", "0/16/0/16", "0", ("IDLE+RESERVED", 0, 0), "reserved"),
    ("22.05", "mixed+reserved", "6/10/0/16", "1000", ("MIXED+RESERVED", 6, 1000), "mixed"),
    ("22.05", "idle+drain+reserved", "0/0/16/16", "0", ("IDLE+DRAIN+RESERVED", 0, 0), "down"),
    (
        *("22.05", "idle+maintenance+reserved", "0/16/0/16", "0"),
        *(("IDLE+MAINTENANCE+RESERVED", 0, 0), "reserved"),
    ),
    (
        *("22.05", "mixed+maintenance+reserved", "6/10/0/16", "1000"),
        *(("MIXED+MAINTENANCE+RESERVED", 6, 1000), "mixed"),
    ),
    ("26.05", "mixed", "4/12/0/16", "300", ("MIXED", 4, 300), "mixed"),
    ("26.05", "mixed+drain", "4/0/12/16", "300", ("MIXED+DRAIN", 4, 300), "mixed"),
    ("26.05", "mixed+fail+not_responding", "4/12/0/16", "300", ("MIXED+FAIL+NOT_RESPONDING", 4, 300), "mixed"),
    ("26.05", "mixed+reserved", "4/12/0/16", "300", ("MIXED+RESERVED", 4, 300), "mixed"),
    ("26.05", "idle+drain", "0/0/16/16", "0", ("IDLE+DRAIN", 0, 0), "down"),
    ("26.05", "idle+fail", "0/16/0/16", "0", ("IDLE+FAIL", 0, 0), "down"),
    (
        *("26.05", "idle+maintenance+reserved", "0/16/0/16", "0"),
        *(("IDLE+MAINTENANCE+RESERVED", 0, 0), "reserved"),
    ),
]


@pytest.mark.parametrize(("version", "state", "cpus", "memory", "truth", "word"), SEEN)
def test_real_nodes_are_as_scontrol_says(
    version: str, state: str, cpus: str, memory: str, truth: tuple[str, int, int], word: str
) -> None:
    row = sinfo_row(StateComplete=state, CPUsState=cpus, AllocMem=memory)
    _, (node,) = parse_sinfo(row)
    assert ("+".join(node.states).upper(), node.cpus_allocated, node.memory_allocated) == truth
    assert shown_by_cc_backend(states_for_cc_backend(node.states)) == word


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_nodes_are_as_scontrol_says(version: str) -> None:
    folder = FIXTURES / f"slurm-{version}" / "cluster"
    told = (folder / "nodes-mixed-allocated-drained.scontrol-oneline.txt").read_text().splitlines()
    truth = {
        line["NodeName"]: line for line in (dict(word.partition("=")[::2] for word in row.split()) for row in told)
    }
    rows = (folder / "nodes-mixed-allocated-drained.sinfo-N.txt").read_text().splitlines()
    cells = {row.split()[0]: row.split() for row in rows}  # of its columns only the sixth, CPUsState, is asked for here
    table = [sinfo_row(NodeList=name, StateComplete=truth[name]["State"], CPUsState=cells[name][5]) for name in cells]
    _, nodes = parse_sinfo("\n".join(table))
    assert {node.hostname: str(node.cpus_allocated) for node in nodes} == {
        name: line["CPUAlloc"] for name, line in truth.items()
    }
    shown = {node.hostname: shown_by_cc_backend(states_for_cc_backend(node.states)) for node in nodes}
    assert shown == {"node01": "mixed", "node02": "allocated", "node03": "idle", "node04": "down"}


def test_a_node_is_told_once_although_it_is_in_several_partitions() -> None:
    layouts, (state,) = parse_sinfo(f"{sinfo_row()}\n{sinfo_row()}\n")
    assert layouts["node01"] == LAYOUTS["node01"]
    assert (state.hostname, state.states) == ("node01", ("mixed",))
    assert (state.cpus_allocated, state.memory_allocated, state.gpus_allocated) == (4, 400, 2)


def test_a_nodes_cpus_are_those_of_its_layout() -> None:
    """Also where slurm.conf has CPUs=8 for 8 cores of 2 threads: its CPU_IDs then go to 15 all the same."""
    _, (state,) = parse_sinfo(sinfo_row(CPUsState="4/4/0/8"))
    assert state.cpus == 16


def test_memory_that_slurm_does_not_know_is_none() -> None:
    _, (state,) = parse_sinfo(sinfo_row(AllocMem="N/A"))
    assert state.memory_allocated == 0


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("idle*", ("idle", "not_responding")),
        ("down~", ("down", "powered_down")),
        ("idle#", ("idle", "powering_up")),
        ("mixed!", ("mixed", "power_down")),
        ("idle%", ("idle", "powering_down")),
        ("allocated$", ("allocated", "maintenance")),
        ("idle@", ("idle", "reboot_requested")),
        ("idle^", ("idle", "reboot_issued")),
        ("mixed-", ("mixed", "planned")),
        ("idle+drain*", ("idle", "drain", "not_responding")),
        ("IDLE+CLOUD+POWERED_DOWN", ("idle", "cloud", "powered_down")),
        ("idle+?", ("idle", "?")),
    ],
)
def test_flags_are_read_in_both_spellings(state: str, words: tuple[str, ...]) -> None:
    _, (node,) = parse_sinfo(sinfo_row(StateComplete=state))
    assert node.states == words


def test_a_draining_node_is_mixed_where_sinfo_cannot_say_so() -> None:
    row = sinfo_row(StateComplete="allocated+drain", CPUsState="4/0/12/16")
    assert parse_sinfo(row)[1][0].states == ("mixed", "drain")


def test_names_of_any_kind_are_whole() -> None:
    names = ["n", "gpu-a-01.cluster.example.org", "x" * 255]
    layouts, states = parse_sinfo("\n".join(sinfo_row(NodeList=name) for name in names))
    assert [state.hostname for state in states] == names
    assert list(layouts) == names


def test_sinfo_is_asked_for_cells_that_it_does_not_cut() -> None:
    """As src/sinfo/opts.c reads it: the width 0, and what is to be printed behind the cell."""
    assert SINFO[-1].split(",")[:2] == ["NodeList:0|", "StateComplete:0|"]
    assert all(column.endswith(":0|") for column in SINFO[-1].split(","))


@pytest.mark.parametrize("types", [0, 1, 500])
def test_cells_of_any_length_are_whole(types: int) -> None:
    state = "+".join(("mixed", *ALL_FLAGS)).lower()
    gres = ",".join(f"gpu:type-{number}:2" for number in range(types))
    layouts, (node,) = parse_sinfo(sinfo_row(StateComplete=state, Gres=gres, GresUsed=gres))
    assert node.states == tuple(state.split("+"))
    assert (sum(layouts["node01"].gpus), node.gpus_allocated) == (2 * types, 2 * types)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_cell_too_many_or_too_few_leaves_the_node_out(column: str, caplog: pytest.LogCaptureFixture) -> None:
    whole = sinfo_row(NodeList=f"odd-{column}")
    too_many = sinfo_row(NodeList=f"odd-{column}", **{} if column == "NodeList" else {column: "a|b"})
    too_many += "|" if column == "NodeList" else ""
    missing = whole.split("|")
    del missing[COLUMNS.index(column)]
    for odd in (too_many, "|".join(missing), whole[:-1]):
        _, states = parse_sinfo("\n".join([sinfo_row(), odd, sinfo_row(NodeList="node03")]))
        assert [state.hostname for state in states] == ["node01", "node03"]
    assert "does not have the columns NodeList,StateComplete,CPUsState" in caplog.text


def test_an_answer_that_breaks_off_gives_no_half_node() -> None:
    """sinfo was ended, or its output was cut: at whatever place, only whole rows count."""
    text = f"{sinfo_row()}\n{sinfo_row(NodeList='node02')}\n"
    _, whole = parse_sinfo(text)
    for length in range(len(text)):
        _, states = parse_sinfo(text[:length])
        assert states == whole[: len(states)]


def test_a_damaged_row_does_not_hide_a_whole_one_of_the_same_node() -> None:
    _, states = parse_sinfo(f"node01|idle\n{sinfo_row()}\n")
    assert [state.hostname for state in states] == ["node01"]


def test_a_damaged_node_costs_no_other_node_anything(caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        sinfo_row(),
        sinfo_row(NodeList="node02", Sockets="?"),
        sinfo_row(NodeList="node03", CPUsState="x"),
        sinfo_row(NodeList="node04", AllocMem="\u00b2"),
        sinfo_row(NodeList="node05", StateComplete=""),
        sinfo_row(NodeList=""),
        "node06",
        "",
        sinfo_row(NodeList="node07"),
    ]
    layouts, states = parse_sinfo("\n".join(rows))
    assert [state.hostname for state in states] == ["node01", "node07"]
    for name in ("node02", "node03", "node04", "node05", "node06"):
        assert name in caplog.text
    assert "node01" in layouts


def test_what_is_wrong_with_a_node_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        parse_sinfo("\n".join([sinfo_row(NodeList="odd", Cores="four")] * 3))
    assert len([line for line in caplog.messages if "'odd'" in line]) == 1
    parse_sinfo(sinfo_row(NodeList="odd", Sockets="two"))
    assert len([line for line in caplog.messages if "'odd'" in line]) == 2


@given(st.lists(st.text(max_size=40)))
def test_no_row_costs_another_anything(rows: list[str]) -> None:
    _, states = parse_sinfo("\n".join([*(row.replace("\n", " ") for row in rows), sinfo_row(NodeList="whole")]))
    assert "whole" in {state.hostname for state in states}


def test_a_layout_counts_the_cores_of_all_sockets() -> None:
    assert NodeLayout(2, 4, 2, (4,)).cores == 8
