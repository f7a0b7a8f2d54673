"""The questions to Slurm: which format they use, and what is asked besides where a format lacks a fact."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from cc_slurm_adapter.errors import CommandFailed, SlurmError
from cc_slurm_adapter.model import Run, Sharing
from cc_slurm_adapter.slurm import details as details_module
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.commands import Command, Commands
from cc_slurm_adapter.slurm.details import CHUNK
from tests.fakes.programs import CountedCommands, FakePrograms
from tests.fakes.waiting import comes
from tests.recorded.fixture_files import FIXTURES, sinfo_row

JOBS = FIXTURES / "slurm-26.05.5" / "jobs"
NO_OTHER_NODES = '[ "$1" = -a ] && exit'
"""For a scontrol: there is no node but those of sinfo."""
OFFERS_OLD = "[ $1 = --json=list ] && { echo data_parser/v0.0.40; echo data_parser/v0.0.41; exit; }"
OFFERS_NEW = "[ $1 = --json=list ] && { echo data_parser/v0.0.44; exit; }"
OFFERS_NEWEST = "[ $1 = --json=list ] && { echo data_parser/v0.0.45; exit; }"


@pytest.fixture
def client(tmp_path: Path, commands: Commands, programs: FakePrograms) -> SlurmClient:
    """On a cluster of four nodes."""
    rows = "".join(f"{sinfo_row(NodeList=f'node0{number}')}\n" for number in range(1, 5))
    (tmp_path / "sinfo").write_text(rows)
    programs.make("sinfo", f"cat {tmp_path}/sinfo")
    return SlurmClient(commands, "lab", str(tmp_path), 1 << 20)


def running(case: str) -> Path:
    return JOBS / case / "running.squeue.json"


def read_one(client: SlurmClient, path: Path) -> Run:
    (job_id,) = (job["job_id"] for job in json.loads(path.read_text())["jobs"])
    (details,) = client.read_details([job_id])
    (run,) = details.runs
    return run


def without_nodes(path: Path) -> str:
    """For a scontrol that shows a job, and fails for nodes."""
    return f'case "$*" in *"show node"*) echo "slurm_load_node error: no" >&2; exit 1;; esac\ncat {path}'


def test_runs_on_nodes_that_cannot_be_asked_for_wait(
    client: SlurmClient, programs: FakePrograms, tmp_path: Path
) -> None:
    path = running("one-core")
    programs.make("squeue", OFFERS_OLD)
    programs.make("scontrol", without_nodes(path))
    programs.make("sinfo", "exit 1")
    assert read_one(client, path).awaits_layout
    programs.make("sinfo", f"cat {tmp_path}/sinfo")
    client.node_states()
    run = read_one(client, path)
    assert not run.awaits_layout
    assert all(resource.cores for resource in run.resources)
    programs.make("sinfo", "exit 1")
    with pytest.raises(CommandFailed):
        client.node_states()
    assert read_one(client, path) == run  # by the layout of before


def test_no_node_is_an_answer_and_costs_no_run_its_cores(
    client: SlurmClient, programs: FakePrograms, tmp_path: Path
) -> None:
    path = running("one-core")
    programs.make("squeue", OFFERS_OLD)
    programs.make("scontrol", without_nodes(path))
    programs.make("sinfo", "exit 0")
    assert client.node_states() == []
    assert read_one(client, path).awaits_layout
    programs.make("sinfo", f"cat {tmp_path}/sinfo")
    client.node_states()
    whole = read_one(client, path)
    assert not whole.awaits_layout
    programs.make("sinfo", "exit 0")
    assert client.node_states() == []
    assert read_one(client, path) == whole


def test_a_node_that_nobody_knows_keeps_no_run_waiting(client: SlurmClient, programs: FakePrograms) -> None:
    path = running("one-core")
    programs.make("squeue", OFFERS_OLD)
    unknown = 'case "$*" in *"show node"*) echo "Node node01 not found"; exit 1;; esac'
    programs.make("scontrol", f"{unknown}\ncat {path}")
    run = read_one(client, path)
    assert not run.awaits_layout
    assert not any(resource.cores for resource in run.resources)


def test_only_commands_without_formats_read_all_jobs_for_each_query(
    client: SlurmClient, programs: FakePrograms
) -> None:
    assert not client.reads_all_jobs(1)
    recorded = FIXTURES / "slurm-22.05.8" / "jobs" / "one-core" / "running.squeue.json"
    refuses = "[ $1 = --json=list ] && { echo \"squeue: option '--json' doesn't allow an argument\" >&2; exit 1; }"
    programs.make("squeue", f"{refuses}\n[ $1 = --version ] && {{ echo slurm-wlm 22.05.8; exit; }}\ncat {recorded}")
    list(client.read_details([1]))
    assert client.reads_all_jobs(1)


@pytest.mark.parametrize(
    ("word", "sharing"),
    [("NODE", Sharing.WHOLE_NODE), ("USER", Sharing.ONE_USER), ("MCS", Sharing.ANY_USER), ("NO", Sharing.ANY_USER)],
)
def test_who_shares_a_whole_node_is_asked_where_the_format_does_not_say(
    client: SlurmClient, programs: FakePrograms, word: str, sharing: Sharing
) -> None:
    path = running("exclusive-node")
    job_id = json.loads(path.read_text())["jobs"][0]["job_id"]
    programs.make("squeue", f"{OFFERS_NEWEST}\nprintf '%-20s%-20s\\n' {job_id} {word}")
    programs.make("scontrol", f"cat {path}")
    assert read_one(client, path).sharing is sharing


def test_an_upgrade_of_slurm_is_noticed_by_the_failure_of_the_old_format(
    client: SlurmClient, programs: FakePrograms, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = running("one-core")
    programs.make("squeue", OFFERS_OLD)
    programs.make("scontrol", f"[ $4 = --json=v0.0.40 ] && exec cat {path}; exit 1")
    read_one(client, path)
    programs.make("squeue", OFFERS_NEW)
    programs.make("scontrol", f"[ $4 = --json=v0.0.44 ] && exec cat {path}; exit 1")
    with pytest.raises(SlurmError):
        read_one(client, path)
    read_one(client, path)
    asked = [line for line in caplog.messages if line.startswith("asking Slurm with")]
    assert asked == ["asking Slurm with --json=v0.0.40", "asking Slurm with --json=v0.0.44"]


def test_an_upgrade_of_slurm_is_noticed_although_the_old_format_still_works(
    client: SlurmClient, programs: FakePrograms
) -> None:
    path = running("one-core")
    programs.make("squeue", OFFERS_NEW)
    programs.make("scontrol", f"{NO_OTHER_NODES}; echo $4 >> {programs.folder}/asked; cat {path}")
    read_one(client, path)
    programs.make("squeue", OFFERS_OLD)
    read_one(client, path)
    client._format._until = 0.0  # the time is over
    read_one(client, path)
    asked = (programs.folder / "asked").read_text().split()
    assert asked == ["--json=v0.0.44", "--json=v0.0.44", "--json=v0.0.40"]


def test_only_slurmctld_itself_can_say_that_a_job_is_forgotten(client: SlurmClient, programs: FakePrograms) -> None:
    for version in ("22.05.8", "24.11.5", "26.05.5"):
        errors = FIXTURES / f"slurm-{version}" / "errors"
        programs.replay("scontrol", errors, "unknown-id.scontrol")
        assert client.is_forgotten(999999)
        programs.replay("scontrol", errors, "slurmctld-down.scontrol")
        with pytest.raises(SlurmError):
            client.is_forgotten(999999)
    programs.make("scontrol", "echo JobId=7 JobName=x")
    assert not client.is_forgotten(7)


def recorded_accounting(case: str, version: str = "22.05.8") -> tuple[int, Path]:
    path = FIXTURES / f"slurm-{version}" / "jobs" / case / "ended.sacct.json"
    return json.loads(path.read_text())["jobs"][0]["job_id"], path


@pytest.mark.parametrize(("uid", "name", "user"), [("1000", "alice", "alice"), ("65534", "", "65534")])
def test_a_user_without_an_association_is_asked_for_in_text(
    client: SlurmClient, programs: FakePrograms, tmp_path: Path, uid: str, name: str, user: str
) -> None:
    job_id, path = recorded_accounting("one-core")
    document = json.loads(path.read_text())
    document["jobs"][0]["user"] = None
    (tmp_path / "sacct.json").write_text(json.dumps(document, indent=2))
    programs.make("squeue", "echo \"squeue: option '--json' doesn't allow an argument\" >&2; exit 1")
    programs.make("sacct", f"case $* in *--json*) cat {tmp_path}/sacct.json;; *) echo '{job_id}|{uid}|{name}';; esac")
    (details,) = client.read_accounted([job_id], 0, 1)
    assert [run.user for run in details.runs] == [user]
    programs.make("sacct", f"case $* in *--json*) cat {tmp_path}/sacct.json;; esac")
    (details,) = client.read_accounted([job_id], 0, 1)
    assert (details.runs, list(details.broken)) == ([], [job_id])


def test_a_query_ahead_that_fails_is_not_tried_again_before_it_is_due(
    client: SlurmClient, programs: FakePrograms, tmp_path: Path
) -> None:
    """The names of an array's tasks are asked for first. That may take long, and the output has many pieces."""
    path = FIXTURES / "slurm-24.11.5" / "jobs" / "one-core" / "running.squeue.v0.0.40.json"
    (job,) = json.loads(path.read_text())["jobs"]
    names = f"case $* in *%A*%K*) echo asked >> {tmp_path}/log; exit 1;; esac"
    programs.make("squeue", f"{OFFERS_OLD}\n{names}\nyes \"$(printf '%70s')\" | head -n 20000; cat {path}")
    last = job["job_id"] + CHUNK
    client._details._arrays[last] = None
    details = next(client.read_details(range(job["job_id"], last + 1)))
    assert [run.key.job_id for run in details.runs] == [job["job_id"]]
    assert noted(tmp_path) == ["asked"]


@pytest.fixture
def accounting(client: SlurmClient, programs: FakePrograms, tmp_path: Path) -> SlurmClient:
    """A sacct that prints one recorded job whatever is asked, and notes when it begins, ends, and is asked twice."""
    _, path = recorded_accounting("one-core", "24.11.5")
    programs.make("squeue", OFFERS_OLD)
    programs.make(
        "sacct",
        f"cd {tmp_path}; exec 9>lock; flock -n 9 || echo twice >> log\n"
        f"echo begin >> log; case $* in *{CHUNK + 1},*) while [ -e hold ]; do sleep 0.01; done;; esac\n"
        f"case $* in *--json*) cat {path};; esac; echo end >> log",
    )
    return client


def noted(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().split()


def test_accounting_prepares_the_next_jobs_while_the_ones_before_are_handled(
    accounting: SlurmClient, tmp_path: Path
) -> None:
    job_id, _ = recorded_accounting("one-core", "24.11.5")
    others = range(job_id + 1, job_id + 2 * CHUNK)
    answers = accounting.read_accounted([job_id, *others], 0, 1)
    assert [run.key.job_id for run in next(answers).runs] == [job_id]
    assert comes(lambda: noted(tmp_path).count("begin") == 2)
    assert [each.runs for each in answers] == [[]]
    assert noted(tmp_path) == ["begin", "end"] * 2


@pytest.mark.parametrize("ask", ["ends_of", "launches_of", "read_accounted", "ended_between"])
def test_accounting_is_never_asked_twice_at_a_time(accounting: SlurmClient, tmp_path: Path, ask: str) -> None:
    (tmp_path / "hold").touch()
    answers = accounting.read_accounted(range(1, 3 * CHUNK + 1), 0, 1)
    next(answers)
    assert comes(lambda: noted(tmp_path).count("begin") == 2)
    query = getattr(accounting, ask)
    list(query(0, 1) if ask == "ended_between" else query([1], 0, 1))
    (tmp_path / "hold").unlink()
    assert len(list(answers)) == 2
    assert "twice" not in noted(tmp_path)


def test_the_last_task_of_an_array_is_asked_for_by_its_own_name(
    client: SlurmClient, programs: FakePrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id is the array's, by which Slurm would print all tasks."""
    path = FIXTURES / "slurm-24.11.5" / "jobs" / "array-limit" / "running.squeue.v0.0.40.json"
    last = next(
        job["job_id"] for job in json.loads(path.read_text())["jobs"] if job["job_id"] == job["array_job_id"]["number"]
    )
    programs.make("scontrol", f"{NO_OTHER_NODES}; echo $3 >> {programs.folder}/asked; cat {path}")
    programs.make("squeue", f"{OFFERS_OLD}\necho '{last}|7'")
    list(client.read_details([last]))
    list(client.read_details([last]))
    programs.make("squeue", f"{OFFERS_OLD}\necho '{last}|8-99%2'")
    list(client.read_details([last]))
    programs.make("squeue", f"{OFFERS_OLD}\necho 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    list(client.read_details([last]))
    monkeypatch.setattr(details_module, "MAX_ARRAYS", 0)
    list(client.read_details([last]))  # it is not remembered any more
    programs.make("squeue", f"{OFFERS_OLD}\necho '{last}|7'")
    list(client.read_details([last]))
    assert (programs.folder / "asked").read_text().split() == [str(last), f"{last}_7", *[str(last)] * 3]


def test_slurm_prepares_the_next_answer_while_one_is_dealt_with(
    client: SlurmClient,
    programs: FakePrograms,
    commands: CountedCommands,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(details_module, "CHUNK", 2)
    programs.make("squeue", f"{OFFERS_OLD}\nmkdir {tmp_path}/$5; echo '{{\"jobs\": []}}'")
    begun = [commands.started for _ in client.read_details([1, 2, 3, 4, 5, 6])]
    assert begun == [3, 4, 4]  # the formats, and then always one chunk ahead
    assert {path.name for path in tmp_path.iterdir()} >= {"1,2", "3,4", "5,6"}


def test_slurm_prepares_the_next_answer_while_the_output_of_one_is_read(
    client: SlurmClient, programs: FakePrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(details_module, "CHUNK", 2)
    count = f"ls -d {tmp_path}/?,? | wc -l"
    await_next = f"[ $5 = 5,6 ] || while [ $({count}) = $begun ]; do sleep 0.01; done"
    squeue = f"mkdir {tmp_path}/$5; begun=$({count}); echo '{{'; {await_next}; echo '\"jobs\": []}}'"
    programs.make("squeue", f"{OFFERS_OLD}\n{squeue}")
    assert [each.runs for each in client.read_details([1, 2, 3, 4, 5, 6])] == [[], [], []]


def test_a_query_that_fails_after_the_next_was_begun_is_halved(
    client: SlurmClient, programs: FakePrograms, commands: CountedCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(details_module, "CHUNK", 2)
    forgotten = "[ $# = 3 ] && { echo 'Invalid job id specified' >&2; exit 1; }"
    programs.make("scontrol", f"[ $3 = 1 ] && exit 1\n{forgotten}\necho '{{\"jobs\": []}}'")
    squeue = "case $5 in -o) ;; 1,2) echo '{'; exit 1 ;; *) echo '{\"jobs\": []}' ;; esac"
    programs.make("squeue", f"{OFFERS_OLD}\n[ $3 = -j ] && exit\n{squeue}")
    found = list(client.read_details([1, 2, 3, 4]))
    assert [(sorted(each.failed), each.runs) for each in found] == [([1], []), ([], []), ([], [])]


def test_an_answer_that_nobody_wants_any_more_leaves_no_process(
    client: SlurmClient, programs: FakePrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(details_module, "CHUNK", 2)
    squeue = f"[ $5 = 1,2 ] || {{ echo $$ > {tmp_path}/pid; exec sleep 60; }}\necho '{{\"jobs\": []}}'"
    programs.make("squeue", f"{OFFERS_OLD}\n{squeue}")
    details = client.read_details([1, 2, 3, 4])
    next(details)
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text()):
        time.sleep(0.01)
    details.close()
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


def test_a_query_that_failed_ahead_is_asked_again_in_its_turn(
    client: SlurmClient, programs: FakePrograms, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(details_module, "CHUNK", 2)
    programs.make("squeue", f"{OFFERS_OLD}\necho '{{\"jobs\": []}}'")
    details = client.read_details([1, 2, 3, 4])
    commands.run(["sinfo"])
    begin = Commands.begin

    def refuse(self: Commands, argv: list[str], **options: Any) -> Command:
        if "3,4" in argv:
            monkeypatch.setattr(Commands, "begin", begin)
            raise CommandFailed("squeue cannot be started: too many processes")
        return begin(self, argv, **options)

    monkeypatch.setattr(Commands, "begin", refuse)
    assert [each.runs for each in details] == [[], []]


def test_the_names_of_accelerators_reach_what_is_read(
    tmp_path: Path, commands: Commands, programs: FakePrograms
) -> None:
    """A recorded job with two GPUs on each of its nodes, as it looks where the GRES is called npu."""
    for name in ("gpu", "npu"):
        recorded = JOBS / "gpu-typed-2nodes" / "running.squeue.json"
        (tmp_path / "job.json").write_text(recorded.read_text().replace("gpu", name))
        rows = (sinfo_row(NodeList=f"node0{number}").replace("gpu", name) for number in range(1, 5))
        (tmp_path / "sinfo").write_text("".join(f"{row}\n" for row in rows))
        programs.make("sinfo", f"cat {tmp_path}/sinfo")
        programs.make("squeue", OFFERS_NEW)
        programs.make("scontrol", f"{NO_OTHER_NODES}; cat {tmp_path}/job.json")
        run = read_one(SlurmClient(commands, "lab", str(tmp_path), 0, (name,)), recorded)
        held = [resource.gpus for resource in run.resources]
        other = read_one(SlurmClient(commands, "lab", str(tmp_path), 0, ("dcu",)), recorded)
        truth = json.loads((recorded.parent / "truth.json").read_text())["jobs"][0]
        assert held == [tuple(host["gpu_indices"]) for host in truth["hosts"].values()]
        assert run.num_gpus == sum(map(len, held))
        assert (other.num_gpus, {resource.gpus for resource in other.resources}) == (0, {()})
        assert {resource.other_gres for resource in other.resources} == {(name,)}


def test_the_names_of_accelerators_reach_what_accounting_is_asked(
    tmp_path: Path, commands: Commands, programs: FakePrograms
) -> None:
    recorded = JOBS / "gpu-typed-2nodes" / "ended.sacct.json"
    (tmp_path / "sacct.json").write_text(recorded.read_text().replace('"gpu', '"npu'))
    job_id = json.loads(recorded.read_text())["jobs"][0]["job_id"]
    programs.make("squeue", OFFERS_NEW)
    programs.make("sacct", f"cat {tmp_path}/sacct.json")
    truth = json.loads((recorded.parent / "truth.json").read_text())["jobs"][0]
    count = sum(len(host["gpu_indices"]) for host in truth["hosts"].values())
    for names, expected in ((("gpu",), 0), (("gpu", "npu"), count)):
        (details,) = SlurmClient(commands, "lab", str(tmp_path), 0, names).read_accounted([job_id], 0, 1)
        assert [run.num_gpus for run in details.runs] == [expected]
