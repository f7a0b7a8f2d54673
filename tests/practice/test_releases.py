"""The practice cluster answers as each recorded release did: text, JSON, streams, exit status, errors."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from examples.practice.slurm.cluster import PracticeCluster
from examples.practice.slurm.command import run_command
from examples.practice.slurm.model import JobRequest, Settings
from examples.practice.slurm.release import PRINTED, RELEASES
from tests.practice.practice_lab import EPOCH, Lab, shape_differences, until
from tests.recorded.fixture_files import FIXTURES, VERSIONS, read_truth

RICHEST = "24.11.5"
"""All cases are compared with what this release printed, and with the others those in which they may differ."""


def recorded_folder(release: str) -> Path:
    return FIXTURES / f"slurm-{release}"


def words(text: str) -> list[str]:
    return text.split()


def true_name(case: str) -> str:
    return str(read_truth(RICHEST, case)[0]["name"])


COMMENT = 'first line | "quoted"\nsecond line\ttab Key=value\n\n   indented last line'
CASES = {
    "one-core": JobRequest(time_limit=None),
    "gpu-typed-2nodes": JobRequest(nodes=2, gpus_per_node=2, typed_gpus=True, time_limit=30),
    "gpu-untyped": JobRequest(gpus_per_node=1, time_limit=30),
    "exclusive-node": JobRequest(exclusive=True, time_limit=5),
    "exclusive-partition": JobRequest(partition="excl", nodes=2, cpus_per_task=2, time_limit=5),
    "array-limit": JobRequest(array_size=2, array_limit=1, time_limit=5),
    "failed": JobRequest(ending="failed", exit_code=3, time_limit=5),
    "cancelled-running": JobRequest(time_limit=5),
    "cancelled-pending": JobRequest(begin_delay=3600, time_limit=5),
    "requeued": JobRequest(tasks=2, time_limit=5),
    "alice-proj": JobRequest(user="alice", account="proj", time_limit=5),
    "admin-comment": JobRequest(admin_comment='{"disable_cc_submission": true}', time_limit=5),
    "comment-newline": JobRequest(comment=COMMENT, time_limit=5),
    "long-name": JobRequest(name=true_name("long-name"), time_limit=5),
    "name-special": JobRequest(name=true_name("name-special"), time_limit=5),
    "cpus3-smt": JobRequest(cpus_per_task=3, time_limit=10),
    "two-nodes-even": JobRequest(nodes=2, tasks=4, time_limit=30),
    "salloc-no-script": JobRequest(tasks=2, script=None, time_limit=5),
    "shared-oversubscribed": JobRequest(
        name="shared-a", partition="shared", tasks=16, oversubscribe=True, time_limit=5
    ),
}
TELLING = words("""one-core gpu-typed-2nodes gpu-untyped exclusive-node array-limit failed cancelled-running
    cancelled-pending requeued admin-comment salloc-no-script shared-oversubscribed""")
"""Cases in which releases may differ."""
LIMITED = {(RICHEST, "one-core"): 525600}
"""Minutes that the scheduler of this release gave a job without a time limit."""
CANCELLED_CASES = ("cancelled-running", "cancelled-pending", "salloc-no-script")
STATES = {
    "pending": "pending",
    "running": "running",
    "running.a": "running",
    "first.running": "running",
    "requeued.pending": "requeued",
    "second.running": "running again",
    "task1-running": "running again",
    "ended": "ended",
    "ended.a": "ended",
}
"""The names under which states were recorded, and what to do to get there."""

NAME = re.compile(r"(?P<state>.+)\.(?P<command>squeue|scontrol|sacct)(?P<dup>-duplicates)?(\.(?P<v>v.+))?\.json")


RECORDED_CASES = [
    (release, case)
    for release in VERSIONS
    for case in (CASES if release == RICHEST else TELLING)
    if (recorded_folder(release) / "jobs" / case).is_dir()
]


class Recorded(NamedTuple):
    """One recorded document: the release, the case, its state, and how it was asked for."""

    release: str
    case: str
    state: str
    command: str
    duplicates: bool
    version: str
    file: Path

    def __str__(self) -> str:
        return f"{self.release}-{self.case}-{self.file.name}"

    def arguments(self, job_id: int) -> list[str]:
        form = "--json" if self.version == RELEASES[self.release].default else f"--json={self.version}"
        if self.command == "scontrol":
            return ["show", "job", str(job_id), form]
        return ["-j", str(job_id), form, *(["-D"] if self.duplicates else [])]


def recorded_documents() -> Iterator[Recorded]:
    for release, case in RECORDED_CASES:
        for file in sorted((recorded_folder(release) / "jobs" / case).glob("*.json")):
            match = NAME.fullmatch(file.name)
            version = match["v"] or RELEASES[release].default if match else ""
            if match and match["state"] in STATES and version in PRINTED:
                yield Recorded(release, case, match["state"], match["command"], bool(match["dup"]), version, file)


class Scene(NamedTuple):
    """A lab in which a case has reached a state."""

    lab: Lab
    job_id: int


Scenes = Callable[[str, str, str], Scene]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    """Makes the scene of a case in a state, and lets its commands be those of a release."""
    made: dict[tuple[str, str, int | None], Scene] = {}

    def scene(release: str, case: str, state: str) -> Scene:
        limit = LIMITED.get((release, case))
        key = (case, STATES[state], limit)
        if key not in made:
            lab = Lab(tmp_path_factory.mktemp("scene") / "cluster", Settings(requeue_delay=5))
            request = CASES[case] if limit is None else CASES[case]._replace(time_limit=limit)
            made[key] = Scene(lab, act(lab, case, request, STATES[state]))
        made[key].lab.cluster.upgrade(release)
        return made[key]

    yield scene
    for ready in made.values():
        ready.lab.close()


def act(lab: Lab, case: str, request: JobRequest, state: str) -> int:
    """Bring a case into a state; returns the job id."""
    job_id = lab.cluster.submit(
        request._replace(name=case if request.name == "job" else request.name, user=request.user or "root")
    )
    if case == "cancelled-pending" or state == "pending":
        lab.step(1)
    else:
        until(lab, lambda: "RUNNING" in lab.states().values())
    if state in ("pending", "running"):
        return job_id
    if case in CANCELLED_CASES:
        lab.cluster.cancel(job_id, by="root")
        lab.step()
    if case == "requeued":
        lab.cluster.requeue(job_id)
        until(lab, lambda: lab.states() == {job_id: "PENDING"})
    if state == "running again":
        until(lab, lambda: len(lab.cluster.truth()) == 2 and "RUNNING" in lab.states().values())
    elif state == "ended":
        until(lab, lab.cluster.is_idle)
    return job_id


def by_task(document: dict[str, Any]) -> dict[str, Any]:
    """Tasks of an array in their order; Slurm's own order has no meaning."""

    def task(job: dict[str, Any]) -> tuple[bool, int]:
        number = job["array_task_id"] if "array_task_id" in job else job["array"]["task_id"]
        # An array that waits has no task of its own from 25.11 on: it is the last one.
        is_task = number["set"] if isinstance(number, dict) else number is not None
        return not is_task, int(number["number"] if isinstance(number, dict) else number or 0)

    return {**document, "jobs": sorted(document["jobs"], key=task)}


@pytest.fixture(scope="module")
def printed(scenes: Scenes) -> Callable[[Recorded], str]:
    """Prints what we have in place of a recorded document; once for all tests that compare them."""

    @functools.cache
    def of(recorded: Recorded) -> str:
        lab, job_id = scenes(recorded.release, recorded.case, recorded.state)
        answer = lab.run(recorded.command, *recorded.arguments(job_id))
        assert answer.err == ""
        return answer.out

    return of


@pytest.fixture
def documents(printed: Callable[[Recorded], str], recorded: Recorded) -> tuple[dict[str, Any], dict[str, Any]]:
    """What we print, and what was recorded."""
    theirs = json.loads(recorded.file.read_text(encoding="utf-8"))
    ours = json.loads(printed(recorded))
    if recorded.release == "22.05.8":  # its squeue prints other jobs as well
        names = {job["name"] for job in ours["jobs"]}
        theirs["jobs"] = [job for job in theirs["jobs"] if job["name"] in names]
    return by_task(ours), by_task(theirs)


all_recorded = pytest.mark.parametrize("recorded", list(recorded_documents()), ids=str)


def is_known(recorded: Recorded, difference: str) -> bool:
    """What is a number in one and null in the other by chance.

    One case was recorded with --mem, and in 22.05 what a requeued job has paid for stays.
    """
    expected = {"shared-oversubscribed": ".memory_per_", "requeued": ".billable_tres"}.get(recorded.case, "?")
    return recorded.release == "22.05.8" and expected in difference


@all_recorded
def test_json_has_the_recorded_shape(documents: tuple[dict[str, Any], dict[str, Any]], recorded: Recorded) -> None:
    ours, theirs = documents
    differences = [each for each in shape_differences(ours, theirs) if not is_known(recorded, each)]
    assert differences == []
    assert len(ours["jobs"]) == len(theirs["jobs"])


CONTROLLER_FACTS = words("""account admin_comment array_max_tasks array_task_id array_task_string batch_flag comment
    cpus cpus_per_task exclusive exit_code gres_detail hold job_state name node_count
    oversubscribe partition qos requeue restart_cnt shared standard_output state_reason tasks time_limit
    tres_per_node tres_per_task user_name""")
ACCOUNTING_FACTS = words("""account allocation_nodes comment exit_code failed_node hold kill_request_user name
    partition qos restart_cnt user script""")


@all_recorded
def test_json_tells_the_recorded_facts(documents: tuple[dict[str, Any], dict[str, Any]], recorded: Recorded) -> None:
    facts = ACCOUNTING_FACTS if recorded.command == "sacct" else CONTROLLER_FACTS
    for ours, theirs in zip(documents[0]["jobs"], documents[1]["jobs"]):
        for job in (ours, theirs):  # which of the GPUs is chance
            job["gres_detail"] = [re.sub(r"IDX:[\d,-]+", "IDX", gres) for gres in job.get("gres_detail", [])]
        known = [fact for fact in facts if fact in theirs]
        if recorded.release == "22.05.8" and recorded.case == "requeued":
            known = [fact for fact in known if fact != "allocation_nodes"]  # of a waiting one those of its last run
        assert {fact: ours[fact] for fact in known} == {fact: theirs[fact] for fact in known}
        if recorded.command == "sacct":
            assert ours["state"]["current"] == theirs["state"]["current"]
            assert ours["time"]["limit"] == theirs["time"]["limit"]
            assert ours["array"]["task_id"] == theirs["array"]["task_id"]
        if recorded.command == "sacct" and recorded.case != "shared-oversubscribed":
            assert ours["tres"] == theirs["tres"]
        elif recorded.case != "shared-oversubscribed":  # recorded with --mem
            assert ours["tres_alloc_str"] == theirs["tres_alloc_str"]
            assert ours["tres_req_str"] == theirs["tres_req_str"]


def whole_and_cores(job: dict[str, Any]) -> tuple[Any, list[int]]:
    nodes = job["job_resources"]["nodes"]
    counts = [
        sum(core["status"] == ["ALLOCATED"] for socket in node["sockets"] for core in socket["cores"])
        for node in nodes["allocation"]
    ]
    return (nodes["whole"], nodes["select_type"], nodes["count"], job["job_resources"]["cpus"]), counts


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("cancelled-pending", "requeued")])
def test_as_many_cores_as_recorded(scenes: Scenes, case: str) -> None:
    lab, job_id = scenes(RICHEST, case, "ended")
    state = "ended.a" if case == "shared-oversubscribed" else "ended"
    file = recorded_folder(RICHEST) / "jobs" / case / f"{state}.scontrol.json"
    recorded = json.loads(file.read_text(encoding="utf-8"))
    ours = lab.job(job_id, "v0.0.42")
    assert whole_and_cores(ours) == whole_and_cores(recorded["jobs"][0])


TEXT_FACTS = words("""JobState Reason Requeue Restarts BatchFlag ExitCode DerivedExitCode TimeLimit Partition NumNodes
    NumCPUs NumTasks CPUs/Task OverSubscribe TresPerNode TresPerTask Account JOB_GRES
    ArrayTaskId ArrayTaskThrottle""")


@pytest.mark.parametrize(
    ("release", "case", "state"),
    [
        (release, case, state)
        for release, case in RECORDED_CASES
        for state in STATES
        if (recorded_folder(release) / "jobs" / case / f"{state}.scontrol.txt").exists()
    ],
)
def test_scontrol_text_has_the_recorded_lines(scenes: Scenes, release: str, case: str, state: str) -> None:
    lab, job_id = scenes(release, case, state)
    ours = lab.run("scontrol", "show", "job", "-d", str(job_id)).out
    file = recorded_folder(release) / "jobs" / case / f"{state}.scontrol.txt"
    theirs = file.read_text(encoding="utf-8")
    for our_job, their_job in zip(text_by_task(ours), text_by_task(theirs)):
        assert facts_of(our_job) == facts_of(their_job)
        assert keys_of(our_job) == keys_of(their_job)
    assert len(text_by_task(ours)) == len(text_by_task(theirs))


def text_by_task(text: str) -> list[str]:
    return sorted(re.split(r"\n\n(?=JobId=)", text), key=lambda job: re.findall(r"ArrayTaskId=\d+", job))


def facts_of(job: str) -> dict[str, str]:
    pairs = re.findall(r"(\S+?)=(\S*)", job)
    return {key: value for key, value in pairs if key in TEXT_FACTS}


def keys_of(job: str) -> list[list[str]]:
    """The keys line by line. Nodes= lines count once: which nodes hold equal cores is chance."""
    lines = [re.findall(r"([A-Z][\w/:]*)=", line) for line in job.split("\n")]
    merged = [line for line, _ in itertools.groupby(lines)]
    return [line if line[:1] != ["MinCPUsNode"] else ["MinCPUsNode"] for line in merged]


@pytest.mark.parametrize(("release", "case"), RECORDED_CASES)
@pytest.mark.parametrize("form", ["sacct", "sacct-epoch"])
def test_sacct_columns(scenes: Scenes, release: str, case: str, form: str) -> None:
    lab, job_id = scenes(release, case, "ended")
    state = "ended.a" if case == "shared-oversubscribed" else "ended"
    file = recorded_folder(release) / "jobs" / case / f"{state}.{form}.txt"
    recorded = file.read_text(encoding="utf-8").splitlines()
    columns = recorded[0]
    answer = run_command(
        lab.cluster.folder,
        "sacct",
        *("-X", "-P", "-j", str(job_id), f"--format={columns.replace('|', ',')}"),
        environ=EPOCH if form == "sacct-epoch" else {},
        now=lab.now,
    )
    ours = answer.out.splitlines()
    assert ours[0] == recorded[0]
    assert len(ours) == len(recorded)
    chance = {"JobIDRaw", "JobID", "NodeList", "DBIndex", "Start", "End", "Submit", "AllocTRES"}
    for our_row, their_row in zip(sorted(ours[1:], key=task_of), recorded[1:]):
        pairs = zip(columns.split("|"), our_row.split("|"), their_row.split("|"))
        assert [pair for pair in pairs if pair[0] not in chance and pair[1] != pair[2]] == []
        for moment in (3, 4, 5):
            expected = re.sub(r"\d+", "1", their_row.split("|")[moment])
            assert re.sub(r"\d+", "1", our_row.split("|")[moment]) == expected


def task_of(row: str) -> str:
    return row.split("|")[1]


SUPPORTED_ERRORS = words("""bad-date.sacct bad-json-version.sacct bad-json-version.scontrol bad-json-version.squeue
    empty-range.sacct empty-range.sacct-json invalid-id.sacct invalid-id.scontrol invalid-id.squeue
    no-jobs.squeue-json purged-job.sacct-json purged-job.scontrol purged-job.scontrol-json
    purged-job.squeue purged-job.squeue-json purged-job.write-batch-script
    slurmctld-down.sacct slurmctld-down.scontrol slurmctld-down.scontrol-json slurmctld-down.scontrol-ping
    slurmctld-down.show-config slurmctld-down.sinfo slurmctld-down.squeue slurmctld-down.squeue-json
    slurmctld-down.write-batch-script slurmdbd-down.sacct slurmdbd-down.sacct-json slurmdbd-down.sacctmgr
    slurmdbd-down.scontrol slurmdbd-down.squeue unknown-field.sacct unknown-id.sacct unknown-id.sacct-json
    unknown-id.scontrol unknown-id.scontrol-json unknown-id.squeue unknown-id.squeue-json
    unknown-id.squeue-two-ids unknown-id.squeue-two-ids-json unknown-id.write-batch-script
    unknown-option.squeue unknown-user.sacctmgr""")


def purged_job(release: str) -> int:
    """The job that was asked for in the recordings of this release."""
    asked = json.loads((recorded_folder(release) / "errors/purged-job.squeue.json").read_text(encoding="utf-8"))
    return int(asked["command"][-1])


@pytest.fixture(scope="module")
def purged_labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, bool], Lab]]:
    """Makes a cluster of a release where that job ended so long ago that only accounting knows it.

    Another job is in slurmctld's memory if it is to be busy.
    """
    made: dict[tuple[str, bool], Lab] = {}

    def purged(release: str, busy: bool) -> Lab:
        if (release, busy) not in made:
            settings = Settings(machine="vm", min_job_age=30, release=release)
            made[release, busy] = lab = Lab(tmp_path_factory.mktemp("purged") / "cluster", settings)
            with lab.cluster.store() as store:
                store.write("next_job_id", str(purged_job(release)))
            assert lab.submit(name="one-core", user="root") == purged_job(release)
            lab.step(5, times=5)
            lab.step(31, times=2)
            if busy:
                lab.submit(name="other", user="root", duration=1e6)
        return made[release, busy]

    yield purged
    for lab in made.values():
        lab.close()


ERRORS = [
    (release, name)
    for release in VERSIONS
    for name in SUPPORTED_ERRORS
    if (recorded_folder(release) / "errors" / f"{name}.json").exists()
    # It prints a job of accounting in the format that is the default, which is not imitated.
    and (name != "purged-job.sacct-json" or RELEASES[release].default in PRINTED)
]


@pytest.mark.parametrize(("release", "name"), ERRORS)
def test_errors_as_recorded(purged_labs: Callable[[str, bool], Lab], release: str, name: str) -> None:
    errors = recorded_folder(release) / "errors"
    recorded = json.loads((errors / f"{name}.json").read_text(encoding="utf-8"))
    out = (errors / f"{name}.stdout").read_text(encoding="utf-8")
    err = (errors / f"{name}.stderr").read_text(encoding="utf-8")
    purged = purged_labs(release, out.startswith("{") and bool(json.loads(out)["jobs"]))
    for daemon in ("slurmctld", "slurmdbd"):
        purged.cluster.set_down(daemon, down=name.startswith(f"{daemon}-down"))
    command, *arguments = recorded["command"]
    answer = purged.run(command, *arguments)
    assert (answer.err.rstrip("\n"), answer.status) == (err.rstrip("\n"), recorded["exit_status"])
    if out.startswith("{"):
        ours, theirs = json.loads(answer.out), json.loads(out)
        assert bool(ours["jobs"]) == bool(theirs["jobs"])
        # What 22.05 prints of jobs that nobody asked for are all kinds of them.
        assert list(shape_differences({**ours, "jobs": []}, {**theirs, "jobs": []})) == []
        assert (ours.get("warnings"), ours["errors"]) == (theirs.get("warnings"), theirs["errors"])
    else:
        assert answer.out == out


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A cluster without jobs, for `upgrade`."""
    settings = Settings(hook="/opt/hook.sh", min_job_age=30, slurm_user="slurm")
    lab = Lab(tmp_path_factory.mktemp("idle") / "cluster", settings)
    yield lab
    lab.close()


def recorded_streams(file: Path) -> tuple[int, str, str]:
    """Exit status, output and errors of a command under cluster/."""
    told = Path(f"{file}.err")
    status, errors = "0", ""
    if told.exists():
        status, errors = re.findall(r"exit status: (\d+)\nstderr:\n(.*)", told.read_text(encoding="utf-8"), re.DOTALL)[
            0
        ]
    return int(status), file.read_text(encoding="utf-8"), errors


@pytest.mark.parametrize("release", VERSIONS)
@pytest.mark.parametrize("command", ["squeue", "sacct", "scontrol"])
def test_the_list_of_formats_is_the_recorded_one(idle: Lab, release: str, command: str) -> None:
    idle.cluster.upgrade(release)
    status, out, err = recorded_streams(recorded_folder(release) / f"cluster/{command}-json-list.txt")
    answer = idle.run(command, "--json=list")
    assert (answer.status, answer.out, answer.err.rstrip("\n")) == (status, out, err.rstrip("\n"))


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("*/cluster/json-list.rc")), ids=lambda file: file.parts[-3])
def test_the_streams_and_status_of_that_list_are_the_recorded_ones(idle: Lab, file: Path) -> None:
    idle.cluster.upgrade(file.parts[-3].partition("-")[2])
    answer = idle.run("squeue", "--json=list")
    recorded = [file.with_suffix(f".{stream}").read_text(encoding="utf-8") for stream in ("stdout", "stderr")]
    assert (answer.status, [answer.out, answer.err]) == (int(file.read_text()), recorded)


@pytest.mark.parametrize("release", VERSIONS)
def test_the_commands_tell_the_recorded_version(idle: Lab, release: str) -> None:
    idle.cluster.upgrade(release)
    for command in ("squeue", "scontrol", "sinfo"):
        recorded = recorded_folder(release) / f"cluster/{command}-version.txt"
        assert idle.run(command, "--version").out == recorded.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", sorted(FIXTURES.glob("*/errors/silent-json-*.json")), ids=lambda file: file.stem)
def test_a_format_that_is_listed_and_prints_nothing(idle: Lab, file: Path) -> None:
    idle.cluster.upgrade(file.parts[-3].partition("-")[2])
    recorded = json.loads(file.read_text(encoding="utf-8"))
    command, *arguments = recorded["command"]
    if command == "sinfo":  # no JSON of nodes is printed here
        return
    answer = idle.run(command, *arguments)
    assert (answer.status, answer.out, answer.err) == (recorded["exit_status"], "", "")
    assert file.with_suffix(".stdout").read_text() == file.with_suffix(".stderr").read_text() == ""


def asked(lab: Lab, *options: str) -> set[int]:
    """The ids of the jobs that squeue prints as JSON, in a format that every release but the oldest has."""
    form = {"22.05.8": "", "23.02.8": "", "24.05.8": "=v0.0.40", "23.11.11": "=v0.0.40"}
    release = lab.cluster.settings().release
    answer = lab.run("squeue", "-a", *options, f"--json{form.get(release, '=v0.0.42')}")
    assert answer.status == 0
    return {job["job_id"] for job in json.loads(answer.out)["jobs"]}


@pytest.mark.parametrize("release", VERSIONS)
def test_which_jobs_squeue_prints_as_json(tmp_path: Path, release: str) -> None:
    """As the README of the recordings tells of each release."""
    lab = Lab(tmp_path / "cluster", Settings(release=release))
    ended = lab.submit(duration=1, user="alice")
    lab.step(1, times=5)
    first, second, other = (lab.submit(duration=1e6, user=user) for user in ("root", "root", "alice"))
    lab.step(1, times=2)
    pair, everything = f"{first},{second}", {ended, first, second, other}
    if release == "22.05.8":
        assert asked(lab, "-j", str(first)) == asked(lab, "-t", "R") == asked(lab, "-j", pair) == everything
    elif release in ("23.02.8", "23.11.11"):
        assert asked(lab, "-j", str(first)) == {first}
        assert asked(lab, "-j", str(ended)) == {ended}
        assert asked(lab, "-j", pair) == asked(lab, "-j", f"{first},999") == asked(lab, "-t", "R") == everything
        assert asked(lab, "-u", "alice") == {ended, other}
    else:
        assert asked(lab, "-j", pair) == {first, second}
        assert asked(lab, "-j", str(ended)) == set()
        assert asked(lab, "-j", str(ended), "-t", "all") == {ended}
        assert asked(lab, "-t", "R") == {first, second, other}
        assert asked(lab, "-u", "alice") == {other}
    lab.close()


def test_only_recorded_releases_can_be_had(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no Slurm 21\.08\.1 was recorded"):
        PracticeCluster.create(tmp_path / "old", settings=Settings(release="21.08.1"))
    assert not (tmp_path / "old").exists()
    assert tuple(RELEASES) == VERSIONS


@pytest.mark.parametrize("release", ["25.05.8", "25.11.7", "26.05.5"])
def test_a_job_in_a_format_that_is_not_imitated_is_refused(scenes: Scenes, release: str) -> None:
    lab, job_id = scenes(release, "failed", "ended")
    for command, *arguments in (["scontrol", "show", "job", str(job_id)], ["sacct", "-j", str(job_id)]):
        answer = lab.run(command, *arguments, "--json")
        assert (answer.status, answer.out) == (2, "")
        assert answer.err == f"{command}: this practice cluster prints no job in {RELEASES[release].default}\n"


@pytest.mark.parametrize("release", VERSIONS)
def test_config_in_the_recorded_layout(idle: Lab, release: str) -> None:
    idle.cluster.upgrade(release)
    ours = idle.run("scontrol", "show", "config").out.splitlines()
    file = recorded_folder(release) / "cluster/scontrol-show-config.txt"
    known = {line.partition("=")[0]: line for line in file.read_text(encoding="utf-8").splitlines()}
    hooks = [line for line in ours if line.endswith(" = /opt/hook.sh")]
    assert [line.split()[0].partition("[")[0] for line in hooks] == ["EpilogSlurmctld", "PrologSlurmctld"]
    lines = [line for line in ours[1:-2] if line not in hooks]
    assert [line for line in lines if line.partition("=")[0] not in known] == []
    for key in ("AccountingStorageType", "AccountingStoreFlags", "ClusterName", "MinJobAge", "PrivateData"):
        assert known[f"{key:<23} "] in lines
    assert known["SLURM_VERSION           "] in lines
    assert re.fullmatch(r"Configuration data as of \d+", ours[0])
    assert ours[-1] == "Slurmctld(primary) at localhost is UP"


@pytest.mark.parametrize("release", VERSIONS)
def test_partitions_are_the_recorded_ones(idle: Lab, release: str) -> None:
    idle.cluster.upgrade(release)
    recorded = recorded_folder(release) / "cluster/scontrol-show-partition-oneline.txt"
    assert idle.run("scontrol", "--all", "--oneliner", "show", "partition").out == recorded.read_text(encoding="utf-8")


@pytest.mark.parametrize("release", VERSIONS)
def test_users(tmp_path: Path, release: str) -> None:
    lab = Lab(tmp_path / "cluster", Settings(slurm_user="root", release=release))
    show = ("-nP", "show", "user")
    users = (recorded_folder(release) / "cluster/sacctmgr-users-adminlevel.txt").read_text(encoding="utf-8")
    assert lab.run("sacctmgr", *show, "format=user,adminlevel").out == users
    assert lab.run("sacctmgr", *show, "root", "format=user,adminlevel").out == "root|Administrator\n"
    assert lab.run("sacctmgr", *show, "nobody", "format=user,adminlevel").out == ""
    assert lab.run("sacctmgr", "-nP", "show", "cluster", "format=cluster").out == "lab\n"
    lab.close()


RECORDED_CONVERSATIONS = ("22.05.8", "24.11.5", "26.05.5")


@pytest.fixture(scope="module", params=RECORDED_CONVERSATIONS)
def talkative(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Path]]:
    """A cluster with the jobs of the recorded conversations, and where these are."""
    release = request.param
    lab = Lab(tmp_path_factory.mktemp("talkative") / "cluster", Settings(slurm_user="root", release=release))
    for name in ("plain", "no-newline", "prompt-at-end", "imitation", "bytes", "plain"):
        lab.submit(script=(FIXTURES / "scripts" / name).read_text(encoding="utf-8", errors="replace"), duration=1000)
    lab.submit(script=None, duration=1000)
    lab.submit(script=(FIXTURES / "scripts" / "plain").read_text(encoding="utf-8"), array_size=2, duration=1000)
    lab.step(times=3)
    yield lab, recorded_folder(release) / "conversations"
    lab.close()


def without_job_texts(output: str) -> str:
    return re.sub(r"(?m)(^scontrol: show job \S+\n)JobId=[^\f]*?(?=^scontrol: show hostnames 01234)", r"\1", output)


@pytest.mark.parametrize("name", ["texts", "79-columns", "78-columns", "no-input"])
def test_conversations(talkative: tuple[Lab, Path], name: str) -> None:
    lab, folder = talkative
    told = folder / f"{name}.stdin"
    answer = lab.run("scontrol", stdin=told.read_text(encoding="utf-8") if told.exists() else "")
    recorded = (folder / f"{name}.stdout").read_bytes().decode(errors="replace")  # with its carriage returns
    assert without_job_texts(answer.out) == without_job_texts(recorded)
    errors = folder / f"{name}.stderr"
    assert answer.err == (errors.read_text(encoding="utf-8") if errors.exists() else "")
    assert answer.status == json.loads((folder / "index.json").read_text(encoding="utf-8"))[name]["exit_status"]


def test_a_conversation_without_slurmctld(talkative: tuple[Lab, Path]) -> None:
    lab, folder = talkative
    lab.cluster.set_down("slurmctld", down=True)
    answer = lab.run("scontrol", stdin=(folder / "slurmctld-down.stdin").read_text(encoding="utf-8"))
    lab.cluster.set_down("slurmctld", down=False)
    assert answer.out == (folder / "slurmctld-down.stdout").read_text(encoding="utf-8")
    assert answer.err == (folder / "slurmctld-down.stderr").read_text(encoding="utf-8")
    assert answer.status == 1
