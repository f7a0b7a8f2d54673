"""The JSON formats: which one is asked for, what v0.0.39 looks like, and that no shape of a value gives a wrong run."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.errors import SlurmError, UnexpectedOutput
from cc_slurm_adapter.model import EndState, Finding, Phase, Run, Sharing
from cc_slurm_adapter.slurm.commands import Commands, Finished
from cc_slurm_adapter.slurm.json_formats import ONLY_V39, PLAIN, CurrentFormat, JsonFormat, find_format
from cc_slurm_adapter.slurm.parse.accounting import parse_accounted_run
from cc_slurm_adapter.slurm.parse.jobs import parse_job, parse_sharing, sharing_command
from cc_slurm_adapter.slurm.parse.json_values import Json
from tests.fakes.strange_json import Path, anything, changed, paths
from tests.recorded.fixture_files import FIXTURES, LAYOUTS, VERSIONS, split_document

NO_NAME = "squeue: option '--json' doesn't allow an argument\nTry \"squeue --help\" for more information\n"


class Offering(Commands):
    """Slurm's commands as far as find_format asks them: a list of formats, or none and a version."""

    def __init__(self, *formats: str, version: str = "", errors: str = "") -> None:
        self._formats = "".join(f"data_parser/{name}\n" for name in formats)
        self._version = version
        self._errors = errors or ("" if formats else NO_NAME)

    def run(self, argv: list[str], **_: object) -> Finished:
        if argv == ["squeue", "--version"]:
            return Finished(0, f"slurm {self._version}\n".encode(), "")
        assert argv == ["squeue", "--json=list"]
        return Finished(0 if self._formats else 1, self._formats.encode(), self._errors)


@pytest.mark.parametrize(
    ("offered", "used"),
    [
        (("v0.0.41", "v0.0.39", "v0.0.40"), "v0.0.40"),  # 24.05
        (("v0.0.42", "v0.0.40", "v0.0.41"), "v0.0.40"),  # 24.11
        (("v0.0.43", "v0.0.42", "v0.0.41", "v0.0.40"), "v0.0.40"),  # 25.05
        (("v0.0.44", "v0.0.43", "v0.0.42", "v0.0.41"), "v0.0.41"),  # 25.11
        (("v0.0.44", "v0.0.45", "v0.0.42", "v0.0.43"), "v0.0.42"),  # 26.05
    ],
)
def test_each_release_is_asked_for_its_fastest_format(offered: tuple[str, ...], used: str) -> None:
    found = find_format(Offering(*offered))
    assert (found, found.finding) == (JsonFormat(used, f"--json={used}"), None)


def test_releases_whose_commands_take_no_name() -> None:
    assert find_format(Offering(version="22.05.8")) == PLAIN
    assert find_format(Offering(version="23.02.7")) == ONLY_V39
    assert find_format(Offering(version="cannot be read")) == PLAIN
    assert PLAIN.lists_all_jobs
    assert not PLAIN.filters_by_user_only
    assert ONLY_V39.filters_by_user_only
    assert not ONLY_V39.lists_all_jobs


class Recorded(Commands):
    """squeue as far as find_format asks it, as a real release answered."""

    def __init__(self, release: str) -> None:
        self._folder = FIXTURES / f"slurm-{release}" / "cluster"

    def run(self, argv: list[str], **_: object) -> Finished:
        if argv == ["squeue", "--version"]:
            return Finished(0, (self._folder / "squeue-version.txt").read_bytes(), "")
        assert argv == ["squeue", "--json=list"]
        streams = self._folder / "json-list.stdout", self._folder / "json-list.stderr"
        if streams[0].exists():
            code = int((self._folder / "json-list.rc").read_text())
            return Finished(code, streams[0].read_bytes(), streams[1].read_text())
        errors = self._folder / "squeue-json-list.txt.err"
        told = errors.read_text() if errors.exists() else ""
        return Finished(int("doesn't allow" in told), (self._folder / "squeue-json-list.txt").read_bytes(), told)


# The right ones: what the README of the recorded output says of each release, and which format is the smallest there.
RECORDED_FORMATS = {
    "22.05.8": PLAIN,
    "23.02.8": ONLY_V39,
    "23.11.11": JsonFormat("v0.0.40", "--json=v0.0.40", filters_by_user_only=True),
    "24.05.8": JsonFormat("v0.0.40", "--json=v0.0.40"),
    "24.11.5": JsonFormat("v0.0.40", "--json=v0.0.40"),
    "25.05.8": JsonFormat("v0.0.40", "--json=v0.0.40"),
    "25.11.7": JsonFormat("v0.0.41", "--json=v0.0.41"),
    "26.05.5": JsonFormat("v0.0.42", "--json=v0.0.42"),
}


@pytest.mark.parametrize("release", VERSIONS)
def test_each_recorded_release_is_asked_for_its_fastest_format_on_whichever_stream_it_lists_them(release: str) -> None:
    found = find_format(Recorded(release))
    assert (found, found.finding) == (RECORDED_FORMATS[release], None)


def test_a_release_that_does_not_say_its_version_is_not_trusted_to_filter() -> None:
    assert find_format(Offering("v0.0.39", "v0.0.40")).filters_by_user_only
    assert not find_format(Offering("v0.0.40", version="24.05.1")).filters_by_user_only


def test_an_unknown_newer_slurm_is_asked_for_the_newest_format_that_both_know() -> None:
    found = find_format(Offering("v0.0.43", "v0.0.44", "v0.0.45", "v0.0.46"))
    assert (found.option, found.lacks_sharing) == ("--json=v0.0.45", True)
    assert "v0.0.43, v0.0.44, v0.0.45, v0.0.46" in str(found.finding)
    assert "using v0.0.45" in str(found.finding)
    assert "update this program" in str(found.finding)
    found = find_format(Offering("v0.0.44", "v0.0.46"))
    assert found.option == "--json=v0.0.44"
    assert "using v0.0.44" in str(found.finding)


def test_a_newer_slurm_is_reported_once_for_what_it_offers() -> None:
    found: list[Finding] = []
    offering = Offering("v0.0.45", "v0.0.46")
    current = CurrentFormat(offering, found.append)
    for formats in ("v0.0.46", "v0.0.46", "v0.0.47"):
        offering._formats += f"data_parser/{formats}\n"
        for _ in range(2):
            current._until = 0.0
            current.find()
    assert [str(each).partition(":")[0] for each in found] == [
        "this Slurm offers the JSON formats v0.0.45, v0.0.46",
        "this Slurm offers the JSON formats v0.0.45, v0.0.46, v0.0.47",
    ]


def test_of_formats_that_nobody_knows_the_newest_is_tried() -> None:
    found = [find_format(Offering("v0.0.99", "v0.0.100")), find_format(Offering("v0.1.2", "v0.0.100"))]
    assert [each.option for each in found] == ["--json=v0.0.100", "--json=v0.1.2"]
    assert all("does not know" in str(each.finding) for each in found)


def test_a_slurm_that_says_nothing_is_an_error() -> None:
    with pytest.raises(SlurmError, match="slurm is not here"):
        find_format(Offering(errors="slurm is not here"))


# v0.0.39, written by hand from src/plugins/data_parser/v0.0.39/parsers.c of Slurm 23.02. It was never run. Of the
# other keys only those are here that users write.


def set_to(number: int) -> Json:
    return {"set": True, "infinite": False, "number": number}


UNSET = {"set": False, "infinite": False, "number": 0}
UNLIMITED = {"set": False, "infinite": True, "number": 0}
RUNNING_39: Json = {
    "account": "proj",
    "admin_comment": "",
    "array_job_id": set_to(70),
    "array_task_id": set_to(3),
    "array_max_tasks": set_to(0),
    "array_task_string": "",
    "comment": "",
    "cpus": set_to(6),
    "current_working_directory": "/home/alice",
    "end_time": 1795345293,
    "exclusive": [],
    "gres_detail": ["gpu:h100:2(IDX:0-1)", "gpu:h100:1(IDX:3)"],
    "het_job_id": set_to(0),
    "het_job_offset": set_to(0),
    "job_id": 71,
    "job_resources": {
        "nodes": "node[01-02]",
        "allocated_cores": 3,
        "allocated_cpus": 0,
        "allocated_hosts": 2,
        "allocated_nodes": [
            {
                "sockets": {"0": {"cores": {"0": "allocated", "1": "allocated_and_in_use"}}},
                "nodename": "node01",
                "cpus_used": 0,
                "memory_used": 0,
                "memory_allocated": 400,
            },
            {
                "sockets": {"1": {"cores": {"3": "allocated"}}},
                "nodename": "node02",
                "cpus_used": 0,
                "memory_used": 0,
                "memory_allocated": 200,
            },
        ],
    },
    "job_state": "RUNNING",
    "name": "train",
    "nodes": "node[01-02]",
    "oversubscribe": False,
    "partition": "main",
    "shared": [],
    "start_time": 1795341693,
    "submit_time": 1795341690,
    "time_limit": set_to(60),
    "tres_alloc_str": "cpu=6,mem=600M,node=2,billing=6,gres/gpu=3,gres/gpu:h100=3",
    "tres_per_job": "gres:gpu:h100:3",
    "tres_per_node": "",
    "tres_per_socket": "",
    "tres_per_task": "",
    "user_id": 1000,
    "user_name": "alice",
}
PENDING_39 = {
    **RUNNING_39,
    "array_job_id": set_to(0),
    "array_task_id": UNSET,
    "end_time": 0,
    "gres_detail": [],
    "job_resources": {},
    "job_state": "PENDING",
    "nodes": "",
    "start_time": 0,
    "time_limit": UNLIMITED,
    "tres_alloc_str": "",
}
ACCOUNTED_39: Json = {
    "account": "proj",
    "comment": {"administrator": "", "job": "", "system": ""},
    "array": {"job_id": 70, "limits": {"max": {"running": {"tasks": 0}}}, "task_id": set_to(3), "task": ""},
    "het": {"job_id": 0, "job_offset": UNSET},
    "job_id": 71,
    "name": "train",
    "nodes": "node[01-02]",
    "partition": "main",
    "state": {"current": "TIMEOUT", "reason": "None"},
    "time": {
        "elapsed": 3600,
        "eligible": 1795341690,
        "end": 1795345293,
        "start": 1795341693,
        "submission": 1795341690,
        "suspended": 0,
        "limit": set_to(60),
    },
    "tres": {
        "allocated": [
            {"type": "cpu", "name": "", "id": 1, "count": 6},
            {"type": "mem", "name": "", "id": 2, "count": 600},
            {"type": "energy", "name": "", "id": 3, "count": -2},
            {"type": "node", "name": "", "id": 4, "count": 2},
            {"type": "gres", "name": "gpu", "id": 1001, "count": 3},
            {"type": "gres", "name": "gpu:h100", "id": 1002, "count": 3},
        ],
        "requested": [],
    },
    "user": "alice",
}


def printed(*jobs: Json) -> bytes:
    """The whole document as 23.02 prints it."""
    meta = {"plugins": {"data_parser": "v0.0.39", "accounting_storage": ""}, "command": ["squeue"], "Slurm": {}}
    return json.dumps({"meta": meta, "jobs": list(jobs), "errors": [], "warnings": []}, indent=2).encode()


def test_a_running_job_of_23_02() -> None:
    (job,) = split_document(printed(RUNNING_39), "squeue")
    run = parse_job(job, "lab", LAYOUTS)
    assert run.key[1:] == (71, 1795341693)
    assert (run.phase, run.end) == (Phase.RUNNING, None)
    assert [(each.hostname, each.cores, each.gpus) for each in run.resources] == [
        ("node01", (0, 1), (0, 1)),
        ("node02", (7,), (3,)),
    ]
    assert (run.num_cpus, run.num_gpus, run.walltime, run.submit_time) == (6, 3, 3600, 1795341690)
    assert (run.array_job_id, run.array_task_id, run.het_job_id) == (70, 3, None)
    assert (run.user, run.account, run.partition, run.name) == ("alice", "proj", "main", "train")
    assert run.sharing is Sharing.ANY_USER
    assert not run.missing


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"job_state": "TIMEOUT"}, (Phase.ENDED, EndState.TIMEOUT)),
        ({"job_state": "COMPLETING"}, (Phase.ENDED, None)),
        ({"job_state": "CONFIGURING"}, (Phase.CONFIGURING, None)),
        ({"job_state": "SUSPENDED"}, (Phase.RUNNING, None)),
        ({"job_state": "RESIZING"}, (Phase.RUNNING, None)),
    ],
)
def test_a_state_of_23_02_is_a_single_word(changes: Json, expected: tuple[Phase, EndState | None]) -> None:
    run = parse_job({**RUNNING_39, **changes}, "lab", LAYOUTS)
    assert (run.phase, run.end and run.end.end_state) == expected


def test_a_pending_job_of_23_02() -> None:
    run = parse_job(PENDING_39, "lab", LAYOUTS)
    assert (run.phase, run.resources, run.walltime, run.array_job_id) == (Phase.WAITING, (), None, None)


def test_an_accounted_run_of_23_02() -> None:
    run = parse_accounted_run(split_document(printed(ACCOUNTED_39), "sacct")[0], "lab")
    assert run.end is not None
    assert (run.end.end_state, run.end.end_time) == (EndState.TIMEOUT, 1795345293)
    assert [each.hostname for each in run.resources] == ["node01", "node02"]
    assert (run.num_cpus, run.num_gpus, run.walltime) == (6, 3, 3600)
    assert (run.array_job_id, run.array_task_id) == (70, 3)


@pytest.mark.parametrize(
    ("shared", "sharing"),
    [
        ([], Sharing.ANY_USER),
        (["none"], Sharing.WHOLE_NODE),
        (["oversubscribe"], Sharing.ANY_USER),
        (["user"], Sharing.ONE_USER),
        (["mcs"], Sharing.ANY_USER),
        (["topo"], Sharing.WHOLE_NODE),
        (None, Sharing.ANY_USER),
        ("none", Sharing.WHOLE_NODE),
        ("user", Sharing.ONE_USER),
        ("shared", Sharing.ANY_USER),
    ],
)
def test_who_else_may_be_on_the_nodes(shared: object, sharing: Sharing) -> None:
    """Lists up to v0.0.44, a text or null in 22.05."""
    assert parse_job({**RUNNING_39, "shared": shared}, "lab", LAYOUTS).sharing is sharing


def test_what_v0_0_45_lacks_is_asked_in_text(caplog: pytest.LogCaptureFixture) -> None:
    rows = ("7 NODE", "8 USER", "9 NO", "10 MCS", "11 TOPO")
    text = "".join(f"{job:<20}{word:<20}\n" for job, word in map(str.split, rows))
    assert parse_sharing(text) == {
        7: Sharing.WHOLE_NODE,
        8: Sharing.ONE_USER,
        9: Sharing.ANY_USER,
        10: Sharing.ANY_USER,
        11: Sharing.WHOLE_NODE,
    }
    assert not caplog.messages
    assert parse_sharing("7 NODE\n8 DANCING\nsqueue: what?\n") == {7: Sharing.WHOLE_NODE}
    (line,) = caplog.messages
    assert line.startswith("2 lines of squeue cannot be understood and are left out, the first is")
    assert sharing_command([7, 8])[-4:] == ["-j", "7,8", "-O", "JobID:20,Exclusive:20"]


def test_a_user_that_the_host_does_not_know_is_told_by_number() -> None:
    assert parse_job({**RUNNING_39, "user_name": ""}, "lab", LAYOUTS).user == "1000"


# Unexpected shapes. A wrong value costs its own job and is named, or it does no harm; it never gives a wrong run.

READ_OF_JOBS = [
    "account",
    "admin_comment",
    "array_job_id",
    "array_task_id",
    "cpus",
    "end_time",
    "gres_detail",
    "het_job_id",
    "het_job_offset",
    "job_id",
    "job_resources",
    "job_state",
    "name",
    "nodes",
    "partition",
    "shared",
    "start_time",
    "submit_time",
    "time_limit",
    "tres_alloc_str",
    "user_name",
]
READ_OF_SACCT = [
    "account",
    "array",
    "comment",
    "het",
    "job_id",
    "name",
    "nodes",
    "partition",
    "state",
    "time",
    "tres",
    "user",
]


def recorded(kind: str) -> Iterator[Json]:
    """A running and an ended job of each version in each format, of a case with two nodes and GPUs."""
    for version in VERSIONS:
        case = FIXTURES / f"slurm-{version}/jobs/gpu-typed-2nodes"
        job_id = json.loads((case / "truth.json").read_bytes())["jobs"][0]["job_id"]
        for file in sorted(case.glob(f"*.{kind}*.json")):
            yield from (job for job in split_document(file.read_bytes(), kind) if job["job_id"] == job_id)


JOBS = [RUNNING_39, *recorded("squeue"), *recorded("scontrol")]
ACCOUNTED = [ACCOUNTED_39, *recorded("sacct")]


@st.composite
def one_wrong_value(draw: st.DrawFn, jobs: list[Json], read: list[str]) -> Json:
    """A recorded job with one value replaced, or left out; more often one that the program reads."""
    job = draw(st.sampled_from(jobs))
    places = list(paths(job))
    places = draw(st.sampled_from([places, [path for path in places if path[0] in read]]))
    path = draw(st.sampled_from(places))
    damaged = changed(job, path, draw(anything))
    if isinstance(path[-1], str) and draw(st.integers(0, 9)) == 0:
        at: Any = damaged
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]
    return damaged


def is_sound(run: Run) -> bool:
    """What holds for every run, whatever it was read from."""
    numbers = [run.key.job_id, run.key.start_time, run.submit_time, run.num_cpus, run.num_gpus, run.walltime or 0]
    held = [number for each in run.resources for number in (*each.cores, *each.gpus)]
    texts = [run.user, run.account, run.partition, run.name, *(each.hostname for each in run.resources)]
    return (
        all(type(number) is int and 0 <= number < 1 << 40 for number in numbers + held)
        and all(text.encode() is not None for text in texts)  # raises for a text that UTF-8 cannot hold
        and all(len(set(each.cores)) == len(each.cores) <= 8 for each in run.resources)
        and (run.phase is Phase.WAITING or not run.resources or run.key.start_time > 0)
    )


@given(one_wrong_value(JOBS, READ_OF_JOBS))
def test_a_job_with_a_wrong_value_is_a_run_or_a_named_error(job: Json) -> None:
    try:
        assert is_sound(parse_job(job, "lab", LAYOUTS))
    except UnexpectedOutput as error:
        assert error.path.startswith("jobs[")


@given(one_wrong_value(ACCOUNTED, READ_OF_SACCT))
def test_an_accounted_run_with_a_wrong_value_is_a_run_or_a_named_error(job: Json) -> None:
    try:
        assert is_sound(parse_accounted_run(job, "lab"))
    except UnexpectedOutput as error:
        assert error.path.startswith("jobs[")


def sample(name: str) -> Json:
    file = FIXTURES / f"slurm-24.11.5/jobs/gpu-typed-2nodes/{name}.json"
    (job,) = split_document(file.read_bytes(), "squeue")
    return job


NESTED = "running.squeue.v0.0.41"
FLAT = "running.squeue.v0.0.40"
CORE = ("job_resources", "nodes", "allocation", 0, "sockets", 0, "cores", 0)
CORE_PATH = "job_resources.nodes.allocation[].sockets[].cores[]"
HELD = ("job_resources", "allocated_nodes", 0)


@pytest.mark.parametrize(
    ("name", "path", "value", "named"),
    [
        (NESTED, ("job_resources",), [], "job_resources"),
        (NESTED, ("job_resources",), "node01", "job_resources"),
        (NESTED, ("job_resources",), 7, "job_resources"),
        (NESTED, ("job_resources", "nodes"), [], "job_resources.nodes"),
        (NESTED, ("job_resources", "nodes", "list"), 7, "job_resources.nodes.list"),
        (NESTED, ("job_resources", "nodes", "list"), "node[03-04]", "job_resources.nodes"),
        (NESTED, ("job_resources", "nodes", "allocation"), None, "job_resources.nodes.allocation"),
        (NESTED, ("job_resources", "nodes", "allocation"), {}, "job_resources.nodes.allocation"),
        (NESTED, ("job_resources", "nodes", "allocation"), [7], "job_resources.nodes.allocation[]"),
        (NESTED, (*CORE[:4], "name"), "node02", "job_resources.nodes"),
        (NESTED, (*CORE[:4], "name"), None, "job_resources.nodes.allocation[].name"),
        (NESTED, CORE[:5], "0-3", "job_resources.nodes.allocation[].sockets"),
        (NESTED, (*CORE[:6], "index"), 1, "job_resources.nodes.allocation[].sockets[].index"),
        (NESTED, (*CORE[:6], "index"), -5, "job_resources.nodes.allocation[].sockets[].index"),
        (NESTED, (*CORE, "index"), 10**30, f"{CORE_PATH}.index"),
        (NESTED, (*CORE, "index"), "0", f"{CORE_PATH}.index"),
        (NESTED, (*CORE, "index"), False, f"{CORE_PATH}.index"),
        (NESTED, (*CORE, "index"), 0.0, f"{CORE_PATH}.index"),
        (NESTED, (*CORE, "status"), ["ALLOCATED", "UNALLOCATED"], f"{CORE_PATH}.status"),
        (NESTED, (*CORE, "status"), None, f"{CORE_PATH}.status"),
        (NESTED, (*CORE, "status"), [], f"{CORE_PATH}.status"),
        (NESTED, (*CORE, "status"), ["INVALID"], f"{CORE_PATH}.status"),
        (NESTED, (*CORE, "status"), {"a": 1}, f"{CORE_PATH}.status"),
        (FLAT, ("job_resources", "allocated_nodes"), "node01", "job_resources.allocated_nodes"),
        (FLAT, (*HELD, "nodename"), 1, "job_resources.allocated_nodes[].nodename"),
        (FLAT, (*HELD, "nodename"), "node02", "job_resources.nodes"),
        (FLAT, (*HELD, "sockets"), [], "job_resources.allocated_nodes[].sockets"),
        (FLAT, (*HELD, "sockets"), {"x": {"cores": {}}}, "job_resources.allocated_nodes[].sockets"),
        (FLAT, (*HELD, "sockets"), {"2": {"cores": {}}}, "job_resources.allocated_nodes[].sockets"),
        (
            FLAT,
            (*HELD, "sockets"),
            {"0": {"cores": {"4": "allocated"}}},
            "job_resources.allocated_nodes[].sockets.0.cores",
        ),
        (
            FLAT,
            (*HELD, "sockets"),
            {"0": {"cores": {"1": "free"}}},
            "job_resources.allocated_nodes[].sockets.0.cores.1",
        ),
        (NESTED, ("job_state",), [], "job_state"),
        (NESTED, ("job_state",), None, "job_state"),
        (NESTED, ("job_state",), [7], "job_state[]"),
        (NESTED, ("job_state",), 7, "job_state"),
        (NESTED, ("start_time",), None, "start_time"),
        (NESTED, ("start_time",), UNSET, "start_time"),
        (NESTED, ("start_time",), "1795341693", "start_time"),
        (NESTED, ("start_time", "number"), 17953416930, "start_time"),
        (NESTED, ("start_time", "number"), 1.5, "start_time"),
        (NESTED, ("start_time", "number"), True, "start_time"),
        (NESTED, ("start_time", "set"), 1, "start_time"),
        (NESTED, ("time_limit",), {}, "time_limit.set"),
        (NESTED, ("submit_time",), None, "submit_time"),
        (NESTED, ("user_name",), ["alice"], "user_name"),
        (NESTED, ("name",), 7, "name"),
        (NESTED, ("partition",), {}, "partition"),
        (NESTED, ("tres_alloc_str",), [], "tres_alloc_str"),
        (NESTED, ("array_job_id",), "70", "array_job_id"),
        (NESTED, ("het_job_id",), [1], "het_job_id"),
        (NESTED, ("gres_detail",), None, "gres_detail"),
        (NESTED, ("gres_detail",), "gpu:1(IDX:0)", "gres_detail"),
        (NESTED, ("shared",), 7, "shared"),
        (NESTED, ("shared",), ["nobody"], "shared"),
    ],
)
def test_a_wrong_value_is_named_and_gives_no_run(name: str, path: Path, value: object, named: str) -> None:
    job = sample(name)
    with pytest.raises(UnexpectedOutput) as caught:
        parse_job(changed(job, path, value), "lab", LAYOUTS)
    assert caught.value.path == f"jobs[{job['job_id']}].{named}"


@pytest.mark.parametrize("value", [None, 0, -7, "7", [], {}, True, 10**20])
def test_a_job_without_an_id_is_an_error(value: object) -> None:
    with pytest.raises(UnexpectedOutput, match=r"^jobs\[\]\.job_id"):
        parse_job({**RUNNING_39, "job_id": value}, "lab", LAYOUTS)
    with pytest.raises(UnexpectedOutput, match=r"^jobs\[\]\.job_id"):
        parse_accounted_run({**ACCOUNTED_39, "job_id": value}, "lab")


@pytest.mark.parametrize("key", READ_OF_JOBS)
def test_what_is_read_of_a_job_may_not_be_missing(key: str) -> None:
    job = {**sample(NESTED)}
    del job[key]
    if key in ("job_resources", "cpus", "nodes", "het_job_offset", "end_time"):
        # 22.05 leaves out the first; the next two are read where nothing better is there, then one for a leader.
        # The last is no fact yet.
        assert parse_job(job, "lab", LAYOUTS).key.job_id == job["job_id"]
        return
    with pytest.raises(UnexpectedOutput, match=key):
        parse_job(job, "lab", LAYOUTS)


def test_an_ended_job_without_its_end_is_an_error() -> None:
    no_ends: list[object] = [0, None, UNSET, [], "1795345293"]
    for end_time in no_ends:
        with pytest.raises(UnexpectedOutput, match=r"jobs\[71\]\.end_time"):
            parse_job({**RUNNING_39, "job_state": "COMPLETED", "end_time": end_time}, "lab", LAYOUTS)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("nodes",), ["node01"], "nodes"),
        (("nodes",), 7, "nodes"),
        (("nodes",), "node[01-", "host list"),
        (("time",), None, "time"),
        (("time", "start"), "now", "time.start"),
        (("time", "start"), 0, "time.start"),
        (("time", "start"), 4294967294, "time.start"),
        (("time", "end"), 0, "time.end"),
        (("time", "limit"), "60", "time.limit"),
        (("time", "submission"), None, "time.submission"),
        (("state",), "TIMEOUT", "state"),
        (("state", "current"), [], "state.current"),
        (("array", "job_id"), None, "array.job_id"),
        (("het",), [], "het"),
        (("tres",), [], "tres"),
        (("tres", "allocated"), None, "tres.allocated"),
        (("tres", "allocated"), [], "tres.allocated"),
        (("tres", "allocated", 0), 7, "tres.allocated[]"),
        (("tres", "allocated", 0, "type"), 7, "tres.allocated.type"),
        (("tres", "allocated", 0, "count"), "6", "tres.allocated.count"),
        (("user",), 1000, "user"),
        (("comment",), "", "comment"),
    ],
)
def test_a_wrong_value_of_accounting_is_named_and_gives_no_run(path: Path, value: object, named: str) -> None:
    with pytest.raises(UnexpectedOutput) as caught:
        parse_accounted_run(changed(ACCOUNTED_39, path, value), "lab")
    assert caught.value.path == f"jobs[71].{named}"


@pytest.mark.parametrize("no_value", [None, 4294967294, 4294967295, -2, -1, 2**64 - 2, 2**64 - 1])
def test_all_of_slurms_words_for_no_value_are_none(no_value: int | None) -> None:
    assert parse_accounted_run(changed(ACCOUNTED_39, ("time", "limit"), no_value), "lab").walltime is None
    pending = changed(changed(ACCOUNTED_39, ("nodes",), "None assigned"), ("time", "start"), no_value)
    assert parse_accounted_run(pending, "lab").key.start_time == 0


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        ([], 0),
        ([("gpu", 3), ("gpu:a", 2), ("gpu:b", 1)], 3),
        ([("gpu:a", 2), ("gpu:b", 1)], 3),
        ([("gpu:b", 1), ("shard", 8)], 1),
    ],
)
def test_gpus_in_accounting_are_counted_once(rows: list[tuple[str, int]], count: int) -> None:
    job = copy.deepcopy(ACCOUNTED_39)
    others = [row for row in job["tres"]["allocated"] if row["type"] != "gres"]
    gres = [{"type": "gres", "name": name, "id": 1001, "count": number} for name, number in rows]
    job["tres"]["allocated"] = others + gres
    assert parse_accounted_run(job, "lab").num_gpus == count


def test_a_count_of_bytes_among_the_resources_of_a_site_is_no_number_of_gpus() -> None:
    job = copy.deepcopy(ACCOUNTED_39)
    job["tres"]["allocated"].append({"type": "gres", "name": "localtmp", "id": 1002, "count": 10 * 2**30})
    assert parse_accounted_run(job, "lab") == parse_accounted_run(ACCOUNTED_39, "lab")


def test_a_record_without_exclusive_is_shared() -> None:
    assert parse_accounted_run({**ACCOUNTED_39, "exclusive": ""}, "lab").sharing is Sharing.ANY_USER
