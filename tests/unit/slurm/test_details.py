"""Details in parts: what each release can be asked for, a job that Slurm's own command fails for, and empty answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.errors import CommandCancelled, CommandFailed, SlurmError
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.details import MANY_OF_A_USER, ONE_IN, DetailReader
from cc_slurm_adapter.slurm.json_formats import FORMATS, ONLY_V39, find_format
from cc_slurm_adapter.slurm.parts import MAX_CONSECUTIVE, MAX_FAILURES, Part, query_in_parts, split
from tests.fakes.programs import FakePrograms
from tests.recorded.fixture_files import FIXTURES, VERSIONS, sinfo_row

FILTERS = FORMATS[0]
"""v0.0.40 of a release that filters by ids."""
PING_UP = "cat " + str(FIXTURES / "slurm-24.11.5" / "cluster" / "scontrol-ping.txt")


# --- halves


class Slurm:
    """Answers for all jobs but the bad ones, for which its command fails."""

    def __init__(self, bad: set[int], *, is_there: bool = True) -> None:
        self.bad = bad
        self.up = is_there
        self.asked: list[Part] = []

    def ask(self, part: Part, following: Part | None) -> list[int]:
        self.asked.append(part)
        if not self.up or self.bad & set(part.jobs):
            raise CommandFailed("squeue: exit code -11")
        return list(part.jobs)

    def read(self, jobs: range, size: int) -> Iterator[list[int]]:
        return query_in_parts(split(jobs, size), self.ask, lambda job_id, reason: [-job_id], lambda: self.up)


@given(st.sets(st.integers(1, 300), max_size=3), st.integers(1, 200))
def test_all_but_the_jobs_that_fail_are_answered_each_once(bad: set[int], size: int) -> None:
    slurm = Slurm(bad)
    found = [job_id for answer in slurm.read(range(1, 301), size) for job_id in answer]
    assert sorted(found, key=abs) == [-job_id if job_id in bad else job_id for job_id in range(1, 301)]


def test_one_bad_job_among_300_costs_few_queries() -> None:
    slurm = Slurm({7})
    list(slurm.read(range(1, 301), 200))
    assert len(slurm.asked) <= 2 + 2 * 8  # 200 is halved eight times
    assert [part.is_doubtful for part in slurm.asked[:2]] == [False, True]


def test_a_slurm_that_is_away_is_asked_once() -> None:
    slurm = Slurm(set(), is_there=False)
    with pytest.raises(CommandFailed):
        list(slurm.read(range(1, 301), 200))
    assert len(slurm.asked) == 1


def test_when_nearly_everything_fails_all_is_given_up() -> None:
    slurm = Slurm(set(range(1, 301)))
    with pytest.raises(CommandFailed):
        list(slurm.read(range(1, 301), 200))
    assert [len(part.jobs) for part in slurm.asked].count(1) == MAX_CONSECUTIVE + 1


def test_failures_with_answers_in_between_are_bounded_too() -> None:
    slurm = Slurm(set(range(1, 301, 2)))
    with pytest.raises(CommandFailed):
        list(slurm.read(range(1, 301), 200))
    assert len([part for part in slurm.asked if slurm.bad & set(part.jobs)]) == MAX_FAILURES + 1


def test_where_slurm_filters_by_user_only_the_jobs_of_a_part_that_failed_are_asked_for_one_by_one() -> None:
    slurm = Slurm({7})
    part = Part(list(range(1, 21)), "alice")
    list(query_in_parts([part], slurm.ask, lambda job_id, reason: [-job_id], lambda: True))
    assert [part.jobs for part in slurm.asked[1:]] == [[job_id] for job_id in range(1, 21)]


def test_a_stop_is_no_failure_of_a_job() -> None:
    def cancel(part: Part, following: Part | None) -> None:
        raise CommandCancelled("the daemon stops")

    with pytest.raises(CommandCancelled):
        list(query_in_parts(split([1, 2], 1), cancel, lambda job_id, reason: None, lambda: True))


# --- what the commands are asked


@pytest.fixture
def client(tmp_path: Path, commands: Commands, programs: FakePrograms) -> SlurmClient:
    rows = "".join(f"{sinfo_row(NodeList=f'node0{number}')}\n" for number in range(1, 5))
    (tmp_path / "sinfo").write_text(rows)
    programs.make("sinfo", f"cat {tmp_path}/sinfo")
    return SlurmClient(commands, "lab", str(tmp_path), 1 << 20)


def be_release(programs: FakePrograms, release: str, script: str) -> None:
    """squeue lists formats and tells its version as that release did, and does this for all else."""
    folder = FIXTURES / f"slurm-{release}" / "cluster"
    code = (folder / "json-list.rc").read_text().strip()
    listed = f"cat {folder}/json-list.stdout; cat {folder}/json-list.stderr >&2; exit {code}"
    own = f"[ $1 = --json=list ] && {{ {listed}; }}\n[ $1 = --version ] && exec cat {folder}/squeue-version.txt"
    programs.make("squeue", f"{own}\necho $* >> {programs.folder}/asked\n{script}")


def asked(programs: FakePrograms) -> list[str]:
    path = programs.folder / "asked"
    calls = path.read_text().splitlines() if path.exists() else []
    return [call for call in calls if not call.startswith("-a -o show node")]


def documents(release: str) -> dict[int, Path]:
    """A recorded document of squeue for each running job of a release, by job id, in the format that is asked for."""
    found = {}
    for path in sorted((FIXTURES / f"slurm-{release}" / "jobs").glob("*/running.squeue.json")):
        jobs = json.loads(path.read_text())["jobs"]
        if len(jobs) == 1:
            found[int(jobs[0]["job_id"])] = path
    return found


def merged(paths: Mapping[int, Path], target: Path, copies: int) -> list[int]:
    """One document with so many jobs, made of copies of recorded ones; their ids."""
    documents = [json.loads(path.read_text()) for path in paths.values()]
    whole: dict[str, Any] = dict(documents[0])
    whole["jobs"] = []
    for number in range(copies):
        job = dict(documents[number % len(documents)]["jobs"][0])
        job["job_id"] = 1000 + number
        whole["jobs"].append(job)
    target.write_text(json.dumps(whole, indent=2))
    return [job["job_id"] for job in whole["jobs"]]


@pytest.mark.parametrize("release", ["23.02.8", "23.11.11"])
def test_many_jobs_of_a_user_are_one_query_where_squeue_filters_by_user_only(
    client: SlurmClient, programs: FakePrograms, tmp_path: Path, release: str
) -> None:
    ids = merged(documents(release), tmp_path / "many.json", 30)
    users = "".join(f"{job_id}|1000\n" for job_id in ids) + "5000|0\n5001|0\n"
    (tmp_path / "users").write_text(users)
    be_release(programs, release, f"case $* in *-u*) cat {tmp_path}/many.json;; *%U*) cat {tmp_path}/users;; esac")
    programs.make("scontrol", f"echo $* >> {programs.folder}/asked; exit 1")
    client.node_states()
    found = [run.key.job_id for details in client.read_details(ids) for run in details.runs]
    assert sorted(found) == ids
    option = find_format(client._commands).option
    assert asked(programs) == ["-h -a -t all -o %A|%U", f"-a -u 1000 {option}"]


@pytest.mark.parametrize("release", ["23.02.8", "23.11.11"])
def test_few_jobs_are_asked_for_one_by_one_there(client: SlurmClient, programs: FakePrograms, release: str) -> None:
    paths = documents(release)
    be_release(programs, release, "exit 1")
    script = "\n".join(f"{job_id}) exec cat {path};;" for job_id, path in paths.items())
    programs.make("scontrol", f"echo $* >> {programs.folder}/asked\ncase $3 in\n{script}\nesac")
    client.node_states()
    found = [run.key.job_id for details in client.read_details(paths) for run in details.runs]
    assert sorted(found) == sorted(paths)
    option = find_format(client._commands).option
    assert asked(programs) == [f"show job {job_id} {option}" for job_id in sorted(paths)]


def test_a_user_with_very_many_other_jobs_is_not_asked_for_as_a_whole(
    commands: Commands, programs: FakePrograms
) -> None:
    wanted = range(1, MANY_OF_A_USER + 1)
    others = range(1000, 1000 + MANY_OF_A_USER * ONE_IN)
    rows = "\\n".join(f"{job_id}|1000" for job_id in [*wanted, *others])
    programs.make("squeue", f"printf '{rows}\\n'")
    reader = DetailReader(commands, lambda job: pytest.fail("nothing is read"), lambda hosts: False)
    assert [part.jobs for part in reader._plan(wanted, ONLY_V39)] == [[job_id] for job_id in wanted]


def test_jobs_of_root_are_asked_for_one_by_one(commands: Commands, programs: FakePrograms) -> None:
    """`squeue -u 0` prints the jobs of everybody there."""
    rows = "\\n".join(f"{job_id}|0" for job_id in range(1, MANY_OF_A_USER + 1))
    programs.make("squeue", f"printf '{rows}\\n'")
    reader = DetailReader(commands, lambda job: pytest.fail("nothing is read"), lambda hosts: False)
    parts = reader._plan(range(1, MANY_OF_A_USER + 1), ONLY_V39)
    assert [(part.jobs, part.user) for part in parts] == [([job_id], "") for job_id in range(1, MANY_OF_A_USER + 1)]


def test_two_jobs_of_a_release_that_filters_are_one_query(commands: Commands) -> None:
    reader = DetailReader(commands, lambda job: pytest.fail("nothing is read"), lambda hosts: False)
    assert reader._plan([2, 1], FILTERS) == [Part([1, 2])]


# --- one bad job


def test_the_job_that_squeue_fails_for_is_named_and_all_others_are_read(
    client: SlurmClient, programs: FakePrograms, tmp_path: Path
) -> None:
    ids = merged(documents("24.05.8"), tmp_path / "many.json", 300)
    bad = ids[6]
    be_release(programs, "24.05.8", f"case ,$5, in *,{bad},*) kill -SEGV $$;; esac\ncat {tmp_path}/many.json")
    scontrol = f"case $* in ping) {PING_UP};; *' {bad} '*) exit 1;; *) cat {tmp_path}/many.json;; esac"
    programs.make("scontrol", scontrol)
    details = list(client.read_details(ids))
    assert sorted(run.key.job_id for each in details for run in each.runs) == [each for each in ids if each != bad]
    (failed,) = [each.failed for each in details if each.failed]
    assert list(failed) == [bad]


def test_one_job_that_sacct_fails_for_keeps_no_other_from_being_read(
    client: SlurmClient, programs: FakePrograms, caplog: pytest.LogCaptureFixture
) -> None:
    find_ids = "while [ $# -gt 1 ] && [ $1 != -j ]; do shift; done"
    fail = "case ,$2, in *,7,*) exit 139;; esac"
    answer = 'for job in $(echo $2 | tr , " "); do echo "$job|COMPLETED|1000|1001|1002|1"; done'
    programs.make("sacct", f"{find_ids}\n{fail}\n{answer}")
    found = [each.key.job_id for ended in client.ends_of(range(1, 21), 0, 5000) for each in ended]
    assert sorted(found) == [job_id for job_id in range(1, 21) if job_id != 7]
    assert "accounting cannot be asked for job 7" in caplog.text


def test_the_smallest_query_to_accounting_has_times_that_sacct_accepts(
    client: SlurmClient, programs: FakePrograms
) -> None:
    """sacct refuses a number after uts that is below a million (src/common/parse_time.c), and so does this one."""
    check = "for word; do case $word in uts*) [ ${word#uts} -gt 1000000 ] || exit 1;; esac; done"
    fail = "case $* in *,7,*|*'-j 7 '*) exit 139;; esac"
    programs.make("sacct", f"{check}\n{fail}\necho '1|COMPLETED|2000000|2000001|2000002|1'")
    assert [list(ended) for ended in client.ends_of([1, 7, 8], 2_000_000, 2_000_100)]


def test_an_accounting_that_is_away_concludes_nothing(client: SlurmClient, programs: FakePrograms) -> None:
    programs.replay("sacct", FIXTURES / "slurm-24.11.5" / "errors", "slurmdbd-down.sacct")
    with pytest.raises(SlurmError):
        list(client.ends_of(range(1, 21), 0, 5000))


# --- an empty answer


@pytest.mark.parametrize("release", [each for each in VERSIONS if each != "22.05.8"])
def test_no_jobs_from_a_slurmctld_that_is_away_is_no_answer(
    client: SlurmClient, programs: FakePrograms, release: str
) -> None:
    errors = FIXTURES / f"slurm-{release}" / "errors"
    down = {name: errors / f"slurmctld-down.{name}.stdout" for name in ("scontrol-json", "scontrol", "scontrol-ping")}
    assert json.loads(down["scontrol-json"].read_text())["jobs"] == []
    recorded = {name: json.loads((errors / f"slurmctld-down.{name}.json").read_text())["exit_status"] for name in down}
    assert recorded == {"scontrol-json": 0, "scontrol": 1, "scontrol-ping": 1}
    lines = [
        f"*--json*) cat {down['scontrol-json']};;",
        f"*ping*) cat {down['scontrol-ping']}; exit 1;;",
        f"*) cat {errors}/slurmctld-down.scontrol.stderr >&2; exit 1;;",
    ]
    programs.make(
        "squeue", "[ $1 = --json=list ] && { echo data_parser/v0.0.40; echo data_parser/v0.0.41; exit; }; exit 1"
    )
    programs.make("scontrol", "case $* in\n" + "\n".join(lines) + "\nesac")
    with pytest.raises(SlurmError):
        list(client.read_details([1]))


@pytest.mark.parametrize("release", [each for each in VERSIONS if each != "22.05.8"])
def test_a_job_that_slurmctld_does_not_know_is_left_out(
    client: SlurmClient, programs: FakePrograms, release: str
) -> None:
    errors = FIXTURES / f"slurm-{release}" / "errors"
    programs.make(
        "squeue", "[ $1 = --json=list ] && { echo data_parser/v0.0.40; echo data_parser/v0.0.41; exit; }; exit 1"
    )
    unknown = f"cat {errors}/unknown-id.scontrol.stderr >&2; exit 1"
    programs.make(
        "scontrol", f"case $* in *--json*) cat {errors}/unknown-id.scontrol-json.stdout;; *) {unknown};; esac"
    )
    assert [(each.runs, each.broken, each.failed) for each in client.read_details([999999])] == [([], {}, {})]


@pytest.mark.parametrize("name", ["squeue", "scontrol", "sacct"])
def test_a_format_that_is_listed_and_prints_nothing_is_no_answer(
    client: SlurmClient, programs: FakePrograms, name: str
) -> None:
    """As 23.11 does with v0.0.39: exit code 0, and nothing on either stream."""
    recorded = FIXTURES / "slurm-23.11.11" / "errors" / f"silent-json-v0.0.39.{name}"
    assert json.loads(recorded.with_name(f"{recorded.name}.json").read_text())["exit_status"] == 0
    assert all(recorded.with_name(f"{recorded.name}.{kind}").read_bytes() == b"" for kind in ("stdout", "stderr"))
    programs.make(
        "squeue", "[ $1 = --json=list ] && { echo data_parser/v0.0.40; echo data_parser/v0.0.41; exit; }; exit 0"
    )
    programs.make("scontrol", f"case $* in ping) {PING_UP};; esac; exit 0")
    programs.make("sacct", "exit 0")
    if name == "sacct":
        answers = list(client.read_accounted([1], 0, 1))
    else:
        answers = list(client.read_details([1] if name == "scontrol" else [1, 2]))
    assert all(not each.runs for each in answers)
    assert {job_id for each in answers for job_id in each.failed} == ({1, 2} if name == "squeue" else {1})


def test_a_query_for_the_names_of_array_tasks_that_fails_is_no_answer(
    commands: Commands, programs: FakePrograms
) -> None:
    reader = DetailReader(commands, lambda job: pytest.fail("nothing is read"), lambda hosts: False)
    reader._arrays[5] = None
    programs.replay("squeue", FIXTURES / "slurm-24.11.5" / "errors", "slurmctld-down.squeue")
    with pytest.raises(SlurmError):
        reader._names([5])
    programs.replay("squeue", FIXTURES / "slurm-24.11.5" / "errors", "unknown-id.squeue")
    assert reader._names([5]) == ["5"]
