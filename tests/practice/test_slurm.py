"""The practice cluster lives as a cluster does. (test_releases.py compares what it prints.)"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.practice.programs import write_program
from examples.practice.slurm import __main__ as terminal
from examples.practice.slurm.command import run_command
from examples.practice.slurm.hooks import HookProcesses
from examples.practice.slurm.hostlist import compress_hosts, expand_hosts
from examples.practice.slurm.model import HostShare, JobRequest, Settings, TrueRun
from examples.practice.slurm.store import Store
from tests.practice.practice_lab import BIRTH, Lab

FIXTURES = Path(__file__).parents[1] / "recorded" / "slurm" / "slurm-24.11.5"
ROOT = Path(__file__).parents[2]
PATIENCE = 90.0
SHORT_LIST = "%A|%T|%S|%e"


MakeLab = Callable[..., Lab]


@pytest.fixture
def make_lab(tmp_path: Path) -> Iterator[MakeLab]:
    labs: list[Lab] = []

    def make(**settings: Any) -> Lab:
        labs.append(Lab(tmp_path / f"cluster{len(labs)}", Settings(**settings)))
        return labs[-1]

    yield make
    for lab in labs:
        lab.close()


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab()


def test_a_job_that_slurmctld_loses_is_running_in_accounting_alone(lab: Lab) -> None:
    job = lab.submit(duration=1000)
    lab.step(times=3)
    lab.cluster.lose(job)
    lab.step(times=2)
    assert lab.states() == {}
    assert "Invalid job id specified" in lab.run("scontrol", "show", "job", str(job)).err
    assert [row[1] for row in lab.accounted(job)] == ["RUNNING"]
    assert lab.cluster.is_idle()


def test_what_waits_for_slurmdbd(lab: Lab) -> None:
    assert "\nDBD Agent queue size: 0\n" in lab.run("sdiag").out
    lab.cluster.set_down("slurmdbd", down=True)
    assert "\nDBD Agent queue size: 1\n" in lab.run("sdiag").out
    lab.cluster.set_down("slurmctld", down=True)
    assert lab.run("sdiag").err == "slurm_get_statistics: Unable to contact slurm controller (connect failure)\n"


NODE_COLUMNS = "NodeList,StateLong,StateCompact,Partition,CPUsState,CPUs,Sockets,Cores,Threads,Memory,Gres,GresUsed"


def node_rows(text: str) -> set[tuple[str, ...]]:
    """Rows without the machine's name, which the recording has in its second column."""
    return {tuple(word for word in line.split()[:13] if word != "vm") for line in text.splitlines()}


def test_node_text(lab: Lab) -> None:
    """The lines that count are those that Slurm prints for such nodes."""
    make_mixed_allocated_and_drained(lab)
    recorded = (FIXTURES / "cluster/nodes-mixed-allocated-drained.scontrol-detail.txt").read_text(encoding="utf-8")
    counting = ("NodeName=", "   CPUAlloc=", "   Gres", "   State=", "   Partitions=")
    ours = lab.run("scontrol", "-a", "-d", "show", "node").out
    assert lines_of(ours, counting) == lines_of(recorded, counting)
    asked = lab.run("scontrol", "-a", "-d", "show", "node", "node02,nodeXX")
    assert lines_of(asked.out, counting) == lines_of(recorded, counting)[7:14]
    assert (asked.status, asked.out.splitlines()[-1]) == (1, "Node nodeXX not found")
    assert [line.split()[0] for line in lab.run("scontrol", "-a", "-o", "show", "node").out.splitlines()] == [
        f"NodeName=node0{number}" for number in range(1, 5)
    ]


def lines_of(text: str, beginnings: tuple[str, ...]) -> list[str]:
    """Those lines, without the load of the CPUs."""
    return [line.partition(" CPULoad")[0] for line in text.splitlines() if line.startswith(beginnings)]


def make_mixed_allocated_and_drained(lab: Lab) -> None:
    """As the recording has them."""
    for node in ("node01", "node03", "node04"):
        lab.cluster.drain(node)
    lab.submit(exclusive=True)
    lab.step()
    lab.cluster.resume("node01")
    lab.submit()
    lab.step()
    lab.cluster.resume("node03")
    lab.step()


@pytest.mark.parametrize("recording", ["nodes-idle", "nodes-mixed-allocated-drained"])
def test_node_table(lab: Lab, recording: str) -> None:
    if recording != "nodes-idle":
        make_mixed_allocated_and_drained(lab)
    recorded = (FIXTURES / "cluster" / f"{recording}.sinfo-N.txt").read_text(encoding="utf-8")
    ours = lab.run("sinfo", "-N", "-h", "-a", "-O", NODE_COLUMNS.replace("GresUsed", "GresUsed:40")).out
    assert node_rows(ours) == node_rows(recorded)


def test_node_columns_have_their_widths(lab: Lab) -> None:
    lab.cluster.drain("node04")
    lab.submit(nodes=4, exclusive=True)  # does not fit any more
    lab.submit(gpus_per_node=1)
    lab.step()
    columns = "NodeList:64,StateComplete:128,CPUsState:64,AllocMem:32,GresUsed:1024"
    rows = lab.run("sinfo", "-N", "-h", "-a", "-O", columns).out.splitlines()
    assert {len(row) for row in rows} == {64 + 128 + 64 + 32 + 1024}
    assert rows[-1].split() == ["node04", "idle+drain", "0/0/16/16", "0", "gpu:h100:0(IDX:N/A)"]
    assert len(rows) == 4 * 3
    narrow = lab.run("sinfo", "-N", "-h", "-a", "-O", "NodeList:3,StateComplete:5").out.splitlines()
    assert narrow[-1] == "nodidle+"


def test_node_columns_of_width_0_are_whole_and_end_as_asked(lab: Lab) -> None:
    """Both lines as Slurm 22.05 and 24.11 print them for such a node."""
    ask = ("sinfo", "-N", "-h", "-a", "-O")
    odd = lab.run(*ask, "NodeList:0|,Foo:0|,CPUs:8|,Cores:.5X,Threads:|,Sockets:,Gres:3,GresUsed")
    assert odd.err == "sinfo: error: Invalid job format specification: Foo\n"
    assert odd.out.splitlines()[0] == "node01||16      |    4X2|2gpugpu:h100:0(IDX:N/A) "
    lab.cluster.drain("node04")
    lab.step()
    whole = lab.run(*ask, "NodeList:0|,StateComplete:0|,CPUsState:0|,AllocMem:0|,Gres:0|,GresUsed:0|").out
    assert whole.splitlines()[-1] == "node04|idle+drain|0/0/16/16|0|gpu:h100:4|gpu:h100:0(IDX:N/A)|"


@pytest.mark.parametrize("file", ["hostlists.tsv", "hostlists-compressed.tsv"])
def test_hostlists(file: str) -> None:
    for line in (FIXTURES / "cluster" / file).read_text(encoding="utf-8").splitlines():
        given, expected = line.split("\t")
        if file == "hostlists.tsv":
            assert " ".join(expand_hosts(given)) == expected
        else:
            assert compress_hosts(given.split(",")) == expected


def test_rejected_hostlists(lab: Lab) -> None:
    recorded = (FIXTURES / "cluster" / "hostlists-rejected.tsv").read_text(encoding="utf-8")
    for line in recorded.splitlines():
        given, _, _, err = line.split("\t")
        answer = lab.run("scontrol", "show", "hostnames", given)
        assert (answer.status, answer.out) == (0, "")
        assert repr(answer.err.rstrip("\n")) == err.removeprefix("stderr ")


def test_scontrol_reads_commands(lab: Lab, tmp_path: Path) -> None:
    lab.submit(name="x", script="#!/bin/sh\necho hi\n")
    lab.step()
    commands = ["show job 1", "show hostnames n[1-2]", "write batch_script 1 -", "show job 999"]
    answer = lab.run("scontrol", stdin="\n".join(commands) + "\n")
    shown = lab.run("scontrol", "show", "job", "1").out
    assert shown.startswith("JobId=1 JobName=x\n   UserId=")
    assert shown.endswith("\n   \n\n")
    assert answer.out == (
        f"scontrol: show job 1\n{shown}"
        "scontrol: show hostnames n[1-2]\nn1\nn2\n"
        "scontrol: write batch_script 1 -\n#!/bin/sh\necho hi\n"
        "scontrol: show job 999\nscontrol: \n"
    )
    assert answer.err == "slurm_load_jobs error: Invalid job id specified\n"
    assert answer.status == 1
    script = tmp_path / "s1"
    answer = lab.run("scontrol", "write", "batch_script", "1", str(script))
    assert answer.out == f"batch script for job 1 written to {script}\n"
    assert script.read_text(encoding="utf-8") == "#!/bin/sh\necho hi\n"


# --- How jobs live ---------------------------------------------------------------------------------


def test_a_life(make_lab: MakeLab) -> None:
    lab = make_lab(min_job_age=60)
    job = lab.submit(duration=10, begin_delay=2)
    seen = [lab.states()[job]]
    for _ in range(20):
        lab.step(1)
        seen.append(lab.states()[job])
    order = ["PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "COMPLETED"]
    assert [state for state, _ in itertools.groupby(seen)] == order
    start, end = int(BIRTH) + 2, int(BIRTH) + 13
    assert lab.run("squeue", "-h", "-a", "-t", "all", "-o", SHORT_LIST).out == f"{job}|COMPLETED|{start}|{end}\n"
    assert lab.accounted(job) == [[str(job), "COMPLETED", str(start), str(end), "1"]]
    lab.step(60, times=2)
    assert lab.states() == {}
    assert lab.run("scontrol", "show", "job", str(job)).status == 1
    assert lab.accounted(job) == [[str(job), "COMPLETED", str(start), str(end), "1"]]
    (run,) = lab.cluster.truth()
    assert (run.job_id, run.start, run.end, run.state) == (job, start, end, "COMPLETED")
    assert run.hosts == (HostShare("node01", (0,), ()),)


def test_squeue_filters_by_the_state_shown(make_lab: MakeLab) -> None:
    lab = make_lab(completing_seconds=10)
    ended = lab.submit(duration=1)
    lab.step(5, times=6)
    completing = lab.submit(duration=1)
    running = lab.submit(duration=100)
    lab.step(1, times=4)
    configuring = lab.submit(duration=100)
    lab.step()
    pending = lab.submit(begin_delay=100)
    assert lab.states() == {
        ended: "COMPLETED",
        completing: "COMPLETING",
        running: "RUNNING",
        configuring: "CONFIGURING",
        pending: "PENDING",
    }
    assert lab.states("-t", "R") == {running: "RUNNING"}
    assert lab.states("-t", "CG,CF") == {completing: "COMPLETING", configuring: "CONFIGURING"}
    assert lab.states("-t", "completed,failed") == {ended: "COMPLETED"}
    assert ended not in lab.states("-t", "R,CF,CG,PD")
    assert lab.states("-t", "R", "-j", f"{running},999") == {running: "RUNNING"}
    waiting = lab.run("squeue", "-h", "-t", "PD", "-o", SHORT_LIST).out
    begin = int(lab.now) + 100
    assert waiting == f"{pending}|PENDING|{begin}|{begin + 3600}\n"


@pytest.mark.parametrize(
    ("ending", "state", "exit_text", "reason"),
    [
        ("completed", "COMPLETED", "0:0", "None"),
        ("failed", "FAILED", "7:0", "NonZeroExitCode"),
        ("timeout", "TIMEOUT", "0:15", "TimeLimit"),
        ("cancelled", "CANCELLED", "0:15", "None"),
        ("node_fail", "NODE_FAIL", "0:1", "NodeDown"),
        ("out_of_memory", "OUT_OF_MEMORY", "0:125", "OutOfMemory"),
    ],
)
def test_endings(lab: Lab, ending: str, state: str, exit_text: str, reason: str) -> None:
    job = lab.submit(duration=1, ending=ending, exit_code=7)
    lab.step(1, times=5)
    text = lab.run("scontrol", "show", "job", str(job)).out
    assert f"JobState={state} Reason={reason}" in text
    assert f"ExitCode={exit_text}\n" in text
    assert lab.job(job)["job_state"] == [state]
    codes = {"failed": "F", "timeout": "TO", "cancelled": "CA", "node_fail": "NF", "out_of_memory": "OOM"}
    window = ("-S", f"uts{int(BIRTH)}", "-E", f"uts{int(lab.now)}", "-s", codes.get(ending, "CD"))
    assert [row[1] for row in lab.accounted(job, *window)] == [state]


def test_the_time_limit_ends_a_job(lab: Lab) -> None:
    job = lab.submit(duration=1000, time_limit=1)
    lab.step(1, times=3)
    lab.step(60, times=2)
    assert lab.states()[job] == "TIMEOUT"


def test_cancelled_while_pending(lab: Lab) -> None:
    job = lab.submit(duration=5, cancel_pending=True)
    lab.step(1, times=6)
    end = int(BIRTH) + 5
    assert lab.run("squeue", "-h", "-t", "all", "-o", SHORT_LIST).out == f"{job}|CANCELLED|{end}|{end}\n"
    assert lab.accounted(job)[0][2:] == ["None", str(end), "1"]
    assert lab.accounted(job)[0][1].startswith("CANCELLED by ")
    assert lab.cluster.truth() == []
    assert lab.hooks.calls == []


def test_accounting_windows_include_their_ends(lab: Lab) -> None:
    job = lab.submit(duration=3)
    lab.step(1, times=6)
    (run,) = lab.cluster.truth()
    assert run.end is not None

    def found(start: int, end: int, *states: str) -> bool:
        window = ("-D", "-S", f"uts{start}", "-E", f"uts{end}", *states)
        return bool(lab.accounted(job, *window))

    assert found(run.end, run.end, "-s", "CD")
    assert found(run.end - 5, run.end, "-s", "F,CD")
    assert not found(run.end + 1, run.end + 9, "-s", "CD")
    assert not found(run.start, run.end - 1, "-s", "CD")
    assert not found(run.end - 5, run.end, "-s", "CA,F,TO,NF,OOM,PR,RQ,DL,BF,RS,RV")
    assert found(run.start, run.start, "-s", "R")
    assert found(run.start, run.end - 1)
    # With states and no end, the moment of the start counts.
    assert lab.accounted(job, "-s", "CD", "-S", f"uts{run.end - 1}") == []


def test_requeue_makes_a_second_run(make_lab: MakeLab) -> None:
    lab = make_lab(requeue_delay=30)
    job = lab.submit(duration=100)
    lab.step(1, times=3)
    lab.cluster.requeue(job)
    lab.step(1)
    now = int(lab.now)
    # While it is COMPLETING slurmctld already speaks of the next run.
    assert lab.run("squeue", "-h", "-o", SHORT_LIST).out == f"{job}|COMPLETING|{now}|{now + 3600}\n"
    assert lab.job(job)["job_state"] == ["PENDING", "COMPLETING"]
    lab.step(1)
    assert lab.states() == {job: "PENDING"}
    lab.step(30, times=3)
    lab.step(100, times=2)
    assert [row[1] for row in lab.accounted(job, "-D")] == ["REQUEUED", "COMPLETED"]
    assert [row[1] for row in lab.accounted(job)] == ["COMPLETED"]
    first, second = lab.cluster.truth()
    assert (first.state, first.end, second.state) == ("REQUEUED", now, "COMPLETED")
    assert second.start >= now + 30


def test_arrays_wait_together_and_start_one_by_one(lab: Lab) -> None:
    array = lab.submit(array_size=4, array_limit=2, duration=10)
    lab.step(1, times=2)
    assert lab.states() == {array: "PENDING", array + 1: "RUNNING", array + 2: "RUNNING"}
    names = lab.run("squeue", "-h", "-o", "%i|%K").out.splitlines()
    assert names == ["1_[2-3%2]|2-3%2", "1_0|0", "1_1|1"]
    assert len(lab.run("scontrol", "show", "job", str(array)).out.split(" ArrayJobId=")) == 1 + 3
    lab.step(10, times=6)
    tasks = {(run.job_id, run.array_job_id, run.array_task_id) for run in lab.cluster.truth()}
    assert tasks == {(2, 1, 0), (3, 1, 1), (4, 1, 2), (1, 1, 3)}


def test_cancelling_an_array_cancels_all_of_it(lab: Lab) -> None:
    array = lab.submit(array_size=5, array_limit=2, duration=100)
    lab.step(1, times=2)
    lab.cluster.cancel(array, by="alice")
    lab.step(1, times=2)
    assert set(lab.states().values()) == {"CANCELLED"}
    answer = lab.run("sacct", "-X", "-a", "-n", "-P", "-j", str(array), "--format=JobID,State,NodeList")
    uid = answer.out.split(" by ")[1].split("|")[0]
    assert answer.out.splitlines()[0] == f"1_[2-4%2]|CANCELLED by {uid}|None assigned"


def test_a_job_that_does_not_fit_holds_up_those_behind_it(lab: Lab) -> None:
    lab.submit(exclusive=True, nodes=3, duration=10)
    large = lab.submit(exclusive=True, nodes=2, duration=10)
    small = lab.submit(duration=10)
    lab.step(1, times=2)
    reasons = lab.run("squeue", "-h", "-t", "PD", "-o", "%A|%r").out.splitlines()
    assert reasons == [f"{large}|Resources", f"{small}|Priority"]
    lab.step(10)
    assert lab.states("-t", "R,CF") == {large: "CONFIGURING", small: "CONFIGURING"}


def test_a_drained_node_gets_no_jobs(lab: Lab) -> None:
    lab.cluster.drain("node01")
    lab.submit()
    lab.step(1, times=2)
    assert [run.hosts[0].host for run in lab.cluster.truth()] == ["node02"]


def test_jobs_that_can_never_run_are_refused(lab: Lab) -> None:
    wrong_requests: tuple[dict[str, Any], ...] = (
        {"nodes": 5},
        {"tasks": 17},
        {"gpus_per_node": 5},
        {"nodes": 2, "tasks": 1},
        {"partition": "nosuch"},
        {"ending": "vanished"},
        *({name: "a\0b"} for name in ("name", "user", "account", "comment", "admin_comment")),
    )
    for wrong in wrong_requests:
        with pytest.raises(ValueError, match=r"\w"):
            lab.submit(**wrong)
    assert lab.states() == {}


# --- Cores, GPUs and the truth ---------------------------------------------------------------------


def random_request(chance: random.Random) -> JobRequest:
    nodes = chance.choice([1, 1, 1, 2, 3])
    return JobRequest(
        nodes=nodes,
        tasks=chance.randint(nodes, nodes * 6),
        cpus_per_task=chance.choice([1, 1, 2]),
        gpus_per_node=chance.choice([0, 0, 1, 3]),
        exclusive=chance.random() < 0.1,
        partition=chance.choice(["main", "shared", "excl"]) if chance.random() < 0.2 else "main",
        duration=chance.randint(1, 30),
        array_size=chance.choice([0, 0, 0, 3]),
        ending=chance.choice(["completed", "failed", "cancelled", "node_fail"]),
        user=chance.choice(["alice", "bob"]),
    )


def held_by(job: dict[str, Any]) -> tuple[HostShare, ...]:
    """Cores and GPUs of a job out of its JSON (v0.0.40 or later)."""
    gpus = [parse_index_list(re.findall(r"IDX:([\d,-]+)", gres)[0]) for gres in job["gres_detail"]]
    resources = job["job_resources"]
    if "allocated_nodes" in resources:
        cores = {
            node["nodename"]: [
                int(socket) * 4 + int(core) for socket, part in node["sockets"].items() for core in part["cores"]
            ]
            for node in resources["allocated_nodes"]
        }
    else:
        cores = {
            node["name"]: [
                socket["index"] * 4 + core["index"]
                for socket in node["sockets"]
                for core in socket["cores"]
                if core["status"] == ["ALLOCATED"]
            ]
            for node in resources["nodes"]["allocation"]
        }
    indices = gpus or [[]] * len(cores)
    return tuple(HostShare(host, tuple(numbers), tuple(held)) for (host, numbers), held in zip(cores.items(), indices))


def parse_index_list(text: str) -> list[int]:
    ranges = (part.partition("-") for part in text.split(","))
    return [number for first, _, last in ranges for number in range(int(first), int(last or first) + 1)]


def used_twice(shares: list[HostShare]) -> bool:
    cores = [(share.host, core) for share in shares for core in share.cores]
    gpus = [(share.host, gpu) for share in shares for gpu in share.gpus]
    return len(set(cores)) < len(cores) or len(set(gpus)) < len(gpus)


def running_jobs(lab: Lab, version: str) -> list[dict[str, Any]]:
    answer = lab.run("squeue", "-a", "-t", "R,CF", f"--json={version}")
    jobs: list[dict[str, Any]] = json.loads(answer.out)["jobs"]
    return jobs


def test_nothing_is_given_out_twice_and_the_truth_is_what_squeue_showed(lab: Lab) -> None:
    chance = random.Random(24)
    lab.cluster.submit_all([random_request(chance) for _ in range(60)])
    shown: dict[tuple[int, int], tuple[HostShare, ...]] = {}
    for count in range(400):
        lab.step(1)
        if count == 20:
            lab.restart_controller()
        jobs = running_jobs(lab, ("v0.0.40", "v0.0.42")[count % 2])
        held = {(job["job_id"], job["start_time"]["number"]): held_by(job) for job in jobs}
        assert not used_twice([share for shares in held.values() for share in shares])
        shown.update(held)
        if lab.cluster.is_idle():
            break
    truth = lab.cluster.truth()
    assert {(run.job_id, run.start): run.hosts for run in truth} == shown
    assert len(truth) > 60
    assert overlaps(truth) == []
    idle = lab.run("sinfo", "-N", "-h", "-O", "StateComplete,GresUsed:30").out
    assert set(idle.split()) == {"idle", "gpu:h100:0(IDX:N/A)"}


def overlaps(runs: list[TrueRun]) -> list[tuple[int, int]]:
    """Pairs of runs that held the same core or GPU at the same time."""
    return [
        (one.job_id, other.job_id)
        for one, other in itertools.combinations(runs, 2)
        if (one.end or 0) > other.start and (other.end or 0) > one.start and used_twice([*one.hosts, *other.hosts])
    ]


def test_gpu_indices_go_at_the_end_and_cores_stay(lab: Lab) -> None:
    job = lab.submit(gpus_per_node=2, tasks=4, duration=5)
    lab.step(1, times=2)
    assert lab.job(job)["gres_detail"] == ["gpu:h100:2(IDX:0-1)"]
    lab.step(5)
    for states in (["COMPLETED", "COMPLETING"], ["COMPLETED"]):
        told = lab.job(job)
        assert (told["job_state"], told["gres_detail"]) == (states, [])
        assert held_by(told) == (HostShare("node01", (0, 1), ()),)
        assert told["tres_alloc_str"].endswith("gres/gpu=2,gres/gpu:h100=2")
        lab.step()


def test_ids_and_times_are_looked_up_and_not_searched_for(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    look = Store._records

    def note(store: Store, query: str, *values: Any) -> Any:
        plan = store._connection.execute(f"EXPLAIN QUERY PLAN {query}", values).fetchall()
        asked.extend(row[3] for row in plan)
        return look(store, query, *values)

    lab.submit()
    monkeypatch.setattr(Store, "_records", note)
    lab.step(1, times=3)
    lab.run("squeue", "-a", "-t", "all", "-j", "1,2", "--json")
    lab.run("squeue", "-h", "-t", "R,CF,CG", "-o", "%A")
    lab.run("scontrol", "show", "job", "1")
    lab.run("sacct", "-X", "-D", "-s", "CD,F", "-S", f"uts{int(BIRTH)}", "-E", f"uts{int(BIRTH) + 9}")
    lab.run("sacct", "-X", "-D", "-j", "1,2", "--json")
    assert len(asked) >= 10
    assert [step for step in asked if "SCAN" in step] == []


# --- Hooks -----------------------------------------------------------------------------------------

HOOK_NAMES = {
    *("SLURM_JOB_GROUP", "SLURM_JOBID", "SLURM_JOB_USER", "SLURM_JOB_NUM_NODES", "SLURM_JOB_OVERSUBSCRIBE"),
    *("SLURM_JOB_STDOUT", "SLURM_JOB_NAME", "SLURM_JOB_CPUS_PER_NODE", "SLURM_JOB_START_TIME", "SLURM_JOB_GID"),
    *("SLURM_JOB_WORK_DIR", "SLURM_JOB_ACCOUNT", "SLURM_SCRIPT_CONTEXT", "SLURM_JOB_RESTART_COUNT"),
    *("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_JOB_END_TIME", "SLURM_CLUSTER_NAME", "SLURM_JOB_UID"),
    *("SLURM_JOB_PARTITION", "SLURM_JOB_STDIN"),
}
"""What a real slurmctld 24.11.5 gave to PrologSlurmctld for a batch job; the shell's own PWD left out."""

ARRAY_NAMES = {f"SLURM_ARRAY_{name}" for name in ("JOB_ID", "TASK_COUNT", "TASK_ID", "TASK_MAX", "TASK_MIN")}
EXIT_NAMES = {"SLURM_JOB_DERIVED_EC", "SLURM_JOB_EXIT_CODE", "SLURM_JOB_EXIT_CODE2"}


def test_hooks_get_slurms_environment(make_lab: MakeLab) -> None:
    lab = make_lab(hook="/opt/hook")
    job = lab.submit(name="two", nodes=2, duration=3, ending="failed", exit_code=3, user="alice")
    lab.step(1, times=6)
    prolog, epilog = (call.environ for call in lab.hooks.calls)
    assert set(prolog) == HOOK_NAMES
    assert set(epilog) == HOOK_NAMES | EXIT_NAMES
    assert prolog["SLURM_SCRIPT_CONTEXT"] == "prolog_slurmctld"
    assert epilog["SLURM_SCRIPT_CONTEXT"] == "epilog_slurmctld"
    start = int(BIRTH) + 1
    assert prolog["SLURM_JOB_ID"] == prolog["SLURM_JOBID"] == str(job)
    assert (prolog["SLURM_CLUSTER_NAME"], prolog["SLURM_JOB_USER"]) == ("lab", "alice")
    assert (prolog["SLURM_JOB_NODELIST"], prolog["SLURM_JOB_CPUS_PER_NODE"]) == ("node[01-02]", "2(x2)")
    assert (prolog["SLURM_JOB_START_TIME"], prolog["SLURM_JOB_END_TIME"]) == (str(start), str(start + 3600))
    assert epilog["SLURM_JOB_END_TIME"] == str(start + 4)
    assert (epilog["SLURM_JOB_EXIT_CODE"], epilog["SLURM_JOB_EXIT_CODE2"]) == ("768", "3:0")


def test_hooks_of_array_tasks(make_lab: MakeLab) -> None:
    lab = make_lab(hook="/opt/hook")
    lab.submit(array_size=2)
    lab.step()
    environs = [call.environ for call in lab.hooks.calls]
    assert [set(environ) for environ in environs] == [HOOK_NAMES | ARRAY_NAMES | {"SLURM_ARRAY_TASK_STEP"}] * 2
    ids = [(environ["SLURM_JOB_ID"], environ["SLURM_ARRAY_TASK_ID"]) for environ in environs]
    assert ids == [("2", "0"), ("1", "1")]
    assert {environ["SLURM_ARRAY_JOB_ID"] for environ in environs} == {"1"}


def test_what_a_hook_sees_while_it_runs(make_lab: MakeLab) -> None:
    lab = make_lab(hook="/opt/hook")
    lab.hooks.status = None
    job = lab.submit(gpus_per_node=1, duration=5)
    lab.step(1, times=4)
    told = lab.job(job)
    assert told["job_state"] == ["RUNNING", "CONFIGURING"]
    assert held_by(told) == (HostShare("node01", (0,), (0,)),)
    assert lab.states("-t", "R") == {}
    lab.hooks.calls[0].status = 0
    lab.step(1)
    assert lab.job(job)["job_state"] == ["RUNNING"]
    lab.step(5, times=4)
    told = lab.job(job)
    assert told["job_state"] == ["COMPLETED", "COMPLETING"]
    assert (told["gres_detail"], told["nodes"], told["end_time"]["set"]) == ([], "", True)
    lab.hooks.calls[1].status = 0
    lab.step()
    assert (lab.job(job)["job_state"], lab.job(job)["nodes"]) == (["COMPLETED"], "node01")


def test_a_failing_prolog_requeues(make_lab: MakeLab) -> None:
    lab = make_lab(hook="/opt/hook", requeue_delay=5)
    lab.hooks.status = 1
    job = lab.submit(duration=5)
    lab.step(1, times=3)
    assert lab.job(job)["job_state"] == ["PENDING"]
    assert [row[1] for row in lab.accounted(job, "-D")] == ["REQUEUED", "PENDING"]
    lab.hooks.status = 0
    lab.step(5, times=3)
    steps = ["sacct", "-a", "-D", "-n", "-P", "-j", str(job), "-S", f"uts{int(BIRTH)}", "--format=JobIDRaw,JobName"]
    assert lab.run(*steps).out == f"{job}|job\n{job}|job\n{job}.batch|batch\n"
    assert [run.is_idle for run in lab.cluster.truth()] == [True, False]


def test_hooks_are_processes_without_path_and_home(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    hook = write_program(tmp_path / "hook", f"#!/bin/sh\n/usr/bin/env > {seen}\n")
    hooks = HookProcesses(str(tmp_path))
    call = hooks.call(str(hook), {"SLURM_JOB_ID": "1"})
    missing = hooks.call(str(tmp_path / "missing"), {})
    assert call._process is not None
    call._process.wait(10)
    hooks.poll()
    assert (call.status, missing.status) == (0, 127)
    names = {line.partition("=")[0] for line in seen.read_text(encoding="utf-8").splitlines()}
    assert names - {"PWD", "_", "SHLVL", "OLDPWD"} == {"SLURM_JOB_ID"}


def test_hooks_that_still_run_are_ended(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\nwhile :; do :; done\n", encoding="utf-8")
    hook.chmod(0o755)
    hooks = HookProcesses(str(tmp_path))
    call = hooks.call(str(hook), {})
    hooks.stop()
    assert call._process is not None
    assert call._process.returncode == -signal.SIGKILL


# --- Faults and processes --------------------------------------------------------------------------


def test_nothing_happens_without_slurmctld(lab: Lab) -> None:
    job = lab.submit(duration=1)
    lab.cluster.set_down("slurmctld", down=True)
    lab.step(1, times=5)
    assert lab.run("squeue", "-h").status == 1
    assert lab.accounted(job)[0][1] == "PENDING"
    lab.cluster.set_down("slurmctld", down=False)
    lab.step(1, times=2)
    assert lab.states() == {job: "RUNNING"}


def test_the_scripts_in_bin_run_as_processes(lab: Lab) -> None:
    lab.submit(name="ü", duration=1000)
    lab.step(times=2)
    environ = lab.cluster.environ(os.environ)
    listed = subprocess.run(["squeue", "-h", "-o", "%A|%T|%j"], env=environ, capture_output=True, check=True)
    assert listed.stdout.decode() == "1|RUNNING|ü\n"
    # The folder is known without its variable, and no other environment is needed.
    bare = subprocess.run(
        [f"{lab.cluster.bin}/scontrol"],
        input=b"show hostnames a\n",
        env={"PATH": os.defpath},
        capture_output=True,
        check=True,
    )
    assert bare.stdout == b"scontrol: show hostnames a\na\nscontrol: \n"
    wrong = {**environ, "PRACTICE_SLURM": "/nowhere"}
    failed = subprocess.run(["sinfo"], env=wrong, capture_output=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr == b"sinfo: PRACTICE_SLURM names no practice cluster: '/nowhere'\n"


def test_the_terminal_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "lab")
    kind = ["--nodes", "n[1-2]", "--release", "25.11.7"]
    command = [sys.executable, "-m", "examples.practice.slurm", "up", folder, *kind]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        line = up.stdout.readline()
        assert line == f"export PATH={folder}/bin:$PATH PRACTICE_SLURM={folder}\n"
        assert terminal.main(["submit", folder, "--nodes", "2", "--duration", "0"]) == 0
        assert terminal.main(["submit", folder, "--nodes", "3"]) == 1
        assert run_command(folder, "squeue", "--version").out == "slurm 25.11.7\n"
        up.send_signal(signal.SIGTERM)
        assert up.wait(PATIENCE) == 0
    printed = capsys.readouterr()
    assert printed.out == "1\n"
    assert printed.err == "practice cluster: 3 nodes for 3 tasks cannot be had\n"


def test_up_calls_the_hook_shows_the_script_and_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    folder, called, script = str(tmp_path / "lab"), tmp_path / "called", tmp_path / "job.sh"
    script.write_text("#!/bin/sh\necho shown\n")
    hook = write_program(tmp_path / "hook", f'#!/bin/sh\necho "$SLURM_JOB_ID $SLURM_SCRIPT_CONTEXT" >> {called}\n')
    command = [sys.executable, "-m", "examples.practice.slurm", "up", folder, "--hook", str(hook)]
    for job_id in ("1", "2"):  # what was asked of the one before does not end the next one
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as up:
            assert up.stdout is not None
            up.stdout.readline()
            assert terminal.main(["submit", folder, "--script", str(script), "--duration", "600"]) == 0
            deadline = time.monotonic() + PATIENCE
            while not (called.exists() and called.read_text()) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert called.read_text() == f"{job_id} prolog_slurmctld\n"
            assert terminal.main(["cancel", folder, job_id]) == 0
            assert terminal.main(["stop", folder]) == 0
            assert up.wait(PATIENCE) == 0
        called.unlink(missing_ok=True)
    assert "echo shown" in run_command(folder, "scontrol", "write", "batch_script", "1", "-").out


def test_unknown_terminal_commands_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        terminal.main(["nosuch"])
    assert "nosuch" in capsys.readouterr().err
