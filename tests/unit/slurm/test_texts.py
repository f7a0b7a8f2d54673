"""slurmInfo and job scripts: one scontrol for many jobs, no forged texts, limits, any bytes, no file touched."""

from __future__ import annotations

import contextlib
import os
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cc_slurm_adapter.errors import CommandCancelled, NoConversation, SlurmError
from cc_slurm_adapter.model import Run
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.texts import INFO_BYTES, TextRequest, Texts
from cc_slurm_adapter.slurm.texts import read_texts as read_texts_in_turn
from tests.fakes.programs import CountedCommands, FakePrograms, conversation
from tests.fakes.slurm_and_sinks import make_run

LIMIT = 1024 * 1024


def read_texts(commands: Commands, names: dict[int, str], limit: int = LIMIT) -> dict[int, Texts]:
    """All of them, by job id; each job has a script of its own."""
    jobs = {job_id: TextRequest(name, str(job_id)) for job_id, name in names.items()}
    return dict(zip(names, read_texts_in_turn(commands, jobs, limit)))


INFO = '[ ! -e "$JOBS/$3" ] && echo "slurm_load_jobs error: Invalid job id specified" >&2 || { cat "$JOBS/$3"; echo; }'
SCRIPT = (
    '[ ! -e "$JOBS/$3.sh" ] && echo "job script retrieval failed: Invalid job id specified" >&2 || cat "$JOBS/$3.sh"'
)
TALK = conversation(f'echo "$line" >> "$JOBS/asked"; {INFO}', f'echo "$line" >> "$JOBS/asked"; {SCRIPT}')
SINGLE = """\
case "$*" in
    "show job "*)
        [ -e "$JOBS/$3" ] && exec cat "$JOBS/$3"
        echo "slurm_load_jobs error: Invalid job id specified" >&2
        exit 1 ;;
    "show hostnames "*) echo "$3"; exit 0 ;;
esac
"""
SCONTROL = SINGLE + TALK


@pytest.fixture
def jobs(programs: FakePrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the texts of jobs; their scripts end in .sh."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "asked").touch()
    programs.make("scontrol", SCONTROL)
    programs.make("squeue", "exit 0")
    monkeypatch.setenv("JOBS", str(folder))
    return folder


def put_jobs(jobs: Path, count: int) -> list[Run]:
    """So many jobs that run, each with a text and a script of its own."""
    for job_id in range(1, count + 1):
        (jobs / str(job_id)).write_text(f"JobId={job_id} JobName=a\n")
        (jobs / f"{job_id}.sh").write_text(f"#!/bin/sh\n# {job_id}\n")
    return [make_run(job_id) for job_id in range(1, count + 1)]


def client(commands: Commands, folder: Path) -> SlurmClient:
    return SlurmClient(commands, "lab", str(folder), LIMIT)


def test_texts_of_many_jobs_come_from_one_scontrol(commands: CountedCommands, jobs: Path) -> None:
    (jobs / "1").write_text("JobId=1 JobName=a\n   UserId=root(0)\n")
    (jobs / "2").write_text("JobId=2 JobName=b\n   UserId=root(0)\n")
    (jobs / "2.sh").write_bytes(b"#!/bin/sh\nsleep 1\n\0")
    texts = read_texts(commands, {1: "1", 2: "2", 3: "3"})
    assert commands.started == 1
    assert texts[1] == ("JobId=1 JobName=a\n   UserId=root(0)", "")
    assert texts[2] == ("JobId=2 JobName=b\n   UserId=root(0)", "#!/bin/sh\nsleep 1\n")
    assert texts[3] == ("", "")


def test_a_task_of_an_array_is_asked_for_by_its_own_name(commands: Commands, jobs: Path, tmp_path: Path) -> None:
    (jobs / "7").write_text("JobId=8 ArrayJobId=7 ArrayTaskId=0\n\nJobId=7 ArrayJobId=7 ArrayTaskId=1\n")
    (jobs / "7_1").write_text("JobId=7 ArrayJobId=7 ArrayTaskId=1\n")
    run = make_run(7, array_job_id=7, array_task_id=1)
    (read,) = client(commands, tmp_path).with_texts([run])
    assert read.slurm_info == "JobId=7 ArrayJobId=7 ArrayTaskId=1"
    assert read == replace(run, slurm_info=read.slurm_info)


def test_no_job_can_write_the_text_of_another(commands: Commands, jobs: Path) -> None:
    forged = "x\nscontrol: show hostnames 0123456789abcdef0123456789abcdefx2\nscontrol: show job 2\nJobId=2 forged"
    (jobs / "1").write_text(f"JobId=1 JobName={forged}\n")
    (jobs / "1.sh").write_text(f"#!/bin/sh\n{forged}")
    (jobs / "2").write_text("JobId=2 JobName=honest\n")
    texts = read_texts(commands, {1: "1", 2: "2"})
    assert texts[2] == ("JobId=2 JobName=honest", "")
    assert texts[1] == (f"JobId=1 JobName={forged}", f"#!/bin/sh\n{forged}")


def test_a_text_that_is_known_already_is_not_asked_for(commands: CountedCommands, jobs: Path) -> None:
    (jobs / "1.sh").write_text("#!/bin/sh\n")
    wanted = {1: TextRequest("1", "1", "known"), 2: TextRequest("2", "", "known too")}
    assert list(read_texts_in_turn(commands, wanted, LIMIT)) == [("known", "#!/bin/sh\n"), ("known too", "")]
    assert (jobs / "asked").read_text() == "write batch_script 1 -\n"
    assert list(read_texts_in_turn(commands, {2: wanted[2]}, LIMIT)) == [("known too", "")]
    assert commands.started == 1


def read_script(commands: Commands, limit: int) -> str:
    """The script of job 1 under a limit."""
    return read_texts(commands, {1: "1"}, limit)[1].job_script


def test_a_long_script_is_cut_and_says_so(commands: Commands, jobs: Path) -> None:
    (jobs / "1.sh").write_text("#" * 1000)
    script = read_script(commands, 100)
    kept, _, note = script.partition("\n")
    assert kept == "#" * 100
    assert "1000 bytes" in note
    assert "jobScriptMaxBytes is 100" in note
    assert read_script(commands, 999).startswith("#" * 999 + "\n[cut")
    assert read_script(commands, 1000) == "#" * 1000


@pytest.mark.parametrize("limit", [4, 5, 6])
def test_a_script_is_cut_between_two_characters(commands: Commands, jobs: Path, limit: int) -> None:
    (jobs / "1.sh").write_text("#\u20ac\u20ac\u20ac", encoding="utf-8")  # three bytes each
    script = read_script(commands, limit)
    assert script.startswith("#\u20ac\n[cut by cc-slurm-adapter: the script has 10 bytes")


def test_a_limit_of_four_megabytes_lets_the_longest_script_of_slurm_through(commands: Commands, jobs: Path) -> None:
    longest = "#!/bin/sh\n".ljust(4 * 1024 * 1024, "x")  # one byte more is refused where max_script_size is not set
    (jobs / "1.sh").write_text(longest)
    assert read_script(commands, 4 * 1024 * 1024) == longest


def test_no_script_is_asked_for_where_none_is_wanted(commands: Commands, jobs: Path) -> None:
    put_jobs(jobs, 1)
    assert read_texts(commands, {1: "1"}, 0) == {1: ("JobId=1 JobName=a", "")}
    assert "batch_script" not in (jobs / "asked").read_text()


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (b"#!/bin/sh\n# caf\xe9 \xff\xfe\n", "#!/bin/sh\n# caf\ufffd \ufffd\ufffd\n"),
        (b"#!/bin/sh\r\nsleep 1\r\n", "#!/bin/sh\r\nsleep 1\r\n"),
        (b"#!/bin/sh\nsleep 1", "#!/bin/sh\nsleep 1"),
        (b"#!/bin/sh\n# scontrol: ", "#!/bin/sh\n# scontrol: "),
        (b"scontrol: ", "scontrol: "),
        (b"scontrol: write batch_script 1 -\n", "scontrol: write batch_script 1 -\n"),
        (b"# \r \x1b[31m \x01 \x7f\n\n\n", "# \r \x1b[31m \x01 \x7f\n\n\n"),
        (b"a\0b\n\0", "a\0b\n"),
        ("# \u2028 \U0001f600\n".encode(), "# \u2028 \U0001f600\n"),
        (b"", ""),
    ],
)
def test_bytes_of_any_kind_arrive(commands: Commands, jobs: Path, script: bytes, text: str) -> None:
    (jobs / "1.sh").write_bytes(script)
    assert read_script(commands, 1000) == text


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(scripts=st.lists(st.binary(max_size=2000), min_size=1, max_size=5))
def test_any_scripts_arrive(commands: Commands, jobs: Path, scripts: list[bytes]) -> None:
    for number, script in enumerate(scripts):
        (jobs / f"{number}.sh").write_bytes(script)
    texts = read_texts(commands, {number: str(number) for number in range(len(scripts))})
    assert [text.job_script for text in texts.values()] == [
        script.decode("utf-8", errors="replace").rstrip("\0") for script in scripts
    ]


def peak_of(read: Callable[[], object]) -> int:
    """The most bytes that were held meanwhile."""
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_long_script_takes_no_more_memory_than_the_limit_allows(commands: Commands, jobs: Path) -> None:
    limit = 256 * 1024
    (jobs / "1.sh").write_bytes(b"#" * (16 * 1024 * 1024))
    # The bytes, the text, the text with its note, and a piece of the output.
    assert peak_of(lambda: read_script(commands, limit)) < 6 * limit


def test_a_long_text_takes_no_more_memory_than_is_kept(
    commands: Commands, jobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cc_slurm_adapter.slurm.texts.INFO_BYTES", LIMIT)
    (jobs / "1").write_bytes(b"JobId=1 " + b"x" * (16 * 1024 * 1024))
    assert peak_of(lambda: read_texts(commands, {1: "1"})) < 6 * LIMIT
    text = read_texts(commands, {1: "1"})[1].slurm_info
    assert text.startswith("JobId=1 xxx")
    assert "the text has 16777225 bytes" in text
    assert INFO_BYTES > LIMIT


def test_scripts_that_were_handed_on_are_not_held(commands: Commands, jobs: Path) -> None:
    """Also where nobody is slower than who takes them: sixty of a megabyte."""
    (jobs / "1.sh").write_bytes(b"#" * LIMIT)
    programs = {job_id: TextRequest(str(job_id), "1", "") for job_id in range(60)}

    def read_all() -> None:
        assert sum(len(text.job_script) for text in read_texts_in_turn(commands, programs, LIMIT)) == 60 * LIMIT

    assert peak_of(read_all) < 8 * LIMIT


def test_texts_that_wait_because_one_is_missing_are_few(commands: CountedCommands, jobs: Path) -> None:
    """Before the last of sixty megabytes it is not known why the first has none; so they are asked for in parts."""
    (jobs / "1.sh").write_bytes(b"#" * LIMIT)
    wanted = {job_id: TextRequest("1", "1" if job_id else "404", "known") for job_id in range(61)}

    def read_all() -> None:
        texts = iter(read_texts_in_turn(commands, wanted, LIMIT))
        assert next(texts) == ("known", "")
        assert sum(len(text.job_script) for text in texts) == 60 * LIMIT

    assert peak_of(read_all) < 20 * LIMIT
    assert commands.started == 2
    asked = (jobs / "asked").read_text().splitlines()
    assert asked.count("write batch_script 404 -") == 1


def test_a_component_of_a_heterogeneous_job_has_its_own_text_and_the_script_of_all(
    commands: Commands, jobs: Path, tmp_path: Path
) -> None:
    # Seen on 22.05: job 58 names all components, 58+0 and 58+1 one each, and 59 has only a stub of the script.
    leader, component = "JobId=58 HetJobId=58 HetJobOffset=0\n", "JobId=59 HetJobId=58 HetJobOffset=1\n"
    for name, text in (("58", f"{leader}\n{component}"), ("58+0", leader), ("58+1", component), ("59", component)):
        (jobs / name).write_text(text)
    (jobs / "58.sh").write_text("#!/bin/bash\n#SBATCH hetjob\nsrun work\n")
    (jobs / "59.sh").write_text("#!/bin/bash\nexit 0\n")
    runs = [make_run(58 + offset, het_job_id=58, het_job_offset=offset) for offset in (0, 1)]
    read = list(client(commands, tmp_path).with_texts(runs))
    assert [run.slurm_info for run in read] == [leader.rstrip(), component.rstrip()]
    assert {run.job_script for run in read} == {"#!/bin/bash\n#SBATCH hetjob\nsrun work\n"}


def asked_scripts(jobs: Path) -> list[str]:
    return re.findall("^write batch_script (.*) -$", (jobs / "asked").read_text(), re.M)


def tasks_of_an_array(count: int) -> list[Run]:
    return [make_run(10 + task, array_job_id=10, array_task_id=task) for task in range(count)]


def test_the_script_of_an_array_is_asked_for_once_for_tasks_that_follow_one_another(
    commands: Commands, jobs: Path, tmp_path: Path
) -> None:
    put_jobs(jobs, 12)
    (jobs / "12.sh").write_text("the same")
    tasks = tasks_of_an_array(3)
    runs = [*tasks[:2], make_run(1, has_script=False), tasks[2], make_run(2)]
    read = list(client(commands, tmp_path).with_texts(runs))
    script = "#!/bin/sh\n# 10\n"
    assert [run.job_script for run in read] == [script, script, "", "the same", "#!/bin/sh\n# 2\n"]
    assert asked_scripts(jobs) == ["10", "12", "2"]


def test_a_task_that_is_gone_takes_no_script_from_the_others(
    commands: CountedCommands, jobs: Path, tmp_path: Path
) -> None:
    put_jobs(jobs, 13)
    (jobs / "10.sh").unlink()
    read = list(client(commands, tmp_path).with_texts(tasks_of_an_array(4)))
    assert [run.job_script for run in read] == ["", *[f"#!/bin/sh\n# {task}\n" for task in (11, 12, 13)]]
    assert commands.started == 2


def test_no_script_is_asked_for_where_a_job_has_none(commands: Commands, jobs: Path, tmp_path: Path) -> None:
    put_jobs(jobs, 2)
    runs = [make_run(1, has_script=False), make_run(2)]
    read = list(client(commands, tmp_path).with_texts(runs))
    assert [run.job_script for run in read] == ["", "#!/bin/sh\n# 2\n"]
    assert "batch_script 1" not in (jobs / "asked").read_text()


def test_a_job_that_is_gone_is_reported_without_texts(commands: Commands, jobs: Path, tmp_path: Path) -> None:
    runs = put_jobs(jobs, 3)
    for name in ("2", "2.sh"):
        (jobs / name).unlink()
    read = list(client(commands, tmp_path).with_texts(runs))
    assert [run.slurm_info for run in read] == ["JobId=1 JobName=a", "", "JobId=3 JobName=a"]
    assert [run.job_script for run in read] == ["#!/bin/sh\n# 1\n", "", "#!/bin/sh\n# 3\n"]


def test_a_slurmctld_that_is_away_is_no_job_without_texts(
    commands: Commands, jobs: Path, tmp_path: Path, programs: FakePrograms
) -> None:
    """scontrol's standard output is the same for both (recorded in conversations/slurmctld-down)."""
    runs = put_jobs(jobs, 3)
    away = 'echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)" >&2'
    programs.make("scontrol", f"[ $# = 0 ] || {{ {away}; exit 1; }}\n{conversation(away, away)}")
    programs.make("squeue", f"{away}; exit 1")
    with pytest.raises(SlurmError, match="Unable to contact slurm controller"):
        list(client(commands, tmp_path).with_texts(runs))


@pytest.mark.parametrize("kind", [INFO, SCRIPT])
def test_a_slurmctld_that_was_away_for_a_moment_is_asked_again(
    commands: Commands, jobs: Path, tmp_path: Path, programs: FakePrograms, kind: str
) -> None:
    runs = put_jobs(jobs, 4)
    (jobs / "4").unlink()  # gone: that is no reason to ask again
    name = "slurm_load_jobs error" if kind == INFO else "job script retrieval failed"
    moment = f'[ "$3" = 2 ] && mkdir "$JOBS/away" 2>/dev/null && echo "{name}: Socket timed out on send/recv" >&2'
    programs.make("scontrol", SCONTROL.replace(kind, f"{moment} || {{ {kind}; }}"))
    read = list(client(commands, tmp_path).with_texts(runs))
    assert (jobs / "away").exists()
    assert [run.slurm_info for run in read] == [f"JobId={job_id} JobName=a" for job_id in (1, 2, 3)] + [""]
    assert [run.job_script for run in read] == [f"#!/bin/sh\n# {job_id}\n" for job_id in range(1, 5)]
    assert (jobs / "asked").read_text().splitlines().count("show job 1") == 1


@pytest.mark.parametrize("reason", ["Invalid user id", "Access/permission denied", "Job script not specified"])
def test_a_script_that_slurmctld_does_not_give_is_asked_for_once(
    commands: CountedCommands, jobs: Path, tmp_path: Path, programs: FakePrograms, reason: str
) -> None:
    """As without AdminLevel Operator (recorded in conversations/texts-as-other-user)."""
    runs = put_jobs(jobs, 3)
    programs.make("scontrol", conversation(INFO, f'echo "job script retrieval failed: {reason}" >&2'))
    read = list(client(commands, tmp_path).with_texts(runs))
    assert [(run.slurm_info, run.job_script) for run in read] == [(f"JobId={n} JobName=a", "") for n in (1, 2, 3)]
    assert commands.started == 1


# --- scontrol dies, is slow, is a wrapper ------------------------------------------------------------


DIES = 'if [ "$3" = 3 ] && mkdir "$JOBS/died" 2>/dev/null; then {death}; fi; '


@pytest.mark.parametrize(
    "death",
    [
        "kill -9 $$",
        "exit 0",
        "exit 1",
        "printf 'JobId=3 Job'; kill -9 $$",
        "printf 'scontrol: show hostnames '; exit 0",
    ],
)
def test_what_was_complete_counts_when_scontrol_dies_and_the_rest_is_asked_for_again(
    commands: Commands, jobs: Path, tmp_path: Path, programs: FakePrograms, death: str
) -> None:
    runs = put_jobs(jobs, 5)
    programs.make("scontrol", SCONTROL.replace(f"{INFO} ", f"{DIES.format(death=death)}{INFO} "))
    read = list(client(commands, tmp_path).with_texts(runs))
    assert (jobs / "died").exists()
    assert [run.slurm_info for run in read] == [f"JobId={job_id} JobName=a" for job_id in range(1, 6)]
    assert [run.job_script for run in read] == [f"#!/bin/sh\n# {job_id}\n" for job_id in range(1, 6)]
    asked = (jobs / "asked").read_text().splitlines()
    assert [asked.count(f"show job {job_id}") for job_id in (1, 2)] == [1, 1]


def test_the_last_job_of_all_is_asked_for_again_too(
    commands: Commands, jobs: Path, tmp_path: Path, programs: FakePrograms
) -> None:
    runs = put_jobs(jobs, 3)
    programs.make("scontrol", SCONTROL.replace(f"{INFO} ", f"{DIES.format(death='kill -9 $$')}{INFO} "))
    assert [run.slurm_info for run in client(commands, tmp_path).with_texts(runs)][-1] == "JobId=3 JobName=a"


def test_a_slow_scontrol_hands_each_text_on_when_it_is_complete(
    commands: Commands, jobs: Path, programs: FakePrograms
) -> None:
    """The second job's text comes when the first one has been taken."""
    put_jobs(jobs, 2)
    waits = 'while [ "$3" = 2 ] && [ ! -e "$JOBS/taken" ]; do sleep 0.01; done; '
    programs.make("scontrol", conversation(waits + INFO, SCRIPT))
    wanted = {job_id: TextRequest(str(job_id), str(job_id)) for job_id in (1, 2)}
    with contextlib.closing(read_texts_in_turn(commands, wanted, LIMIT)) as texts:
        assert next(texts) == ("JobId=1 JobName=a", "#!/bin/sh\n# 1\n")
        (jobs / "taken").touch()
        assert next(texts) == ("JobId=2 JobName=a", "#!/bin/sh\n# 2\n")


def test_a_stop_ends_scontrol(commands: Commands, jobs: Path, tmp_path: Path, programs: FakePrograms) -> None:
    runs = put_jobs(jobs, 2)
    hangs = '[ "$3" != 2 ] || while :; do sleep 1; done; '
    programs.make("scontrol", f'echo $$ > "$JOBS/pid"\n{conversation(hangs + INFO, SCRIPT)}')
    texts = client(commands, tmp_path).with_texts(runs)
    assert next(texts).slurm_info == "JobId=1 JobName=a"
    commands.cancel()
    with pytest.raises(CommandCancelled):
        next(texts)
    assert not Path(f"/proc/{(jobs / 'pid').read_text().strip()}").exists()


def test_a_scontrol_that_does_not_end_loses_nothing(commands: Commands, jobs: Path, programs: FakePrograms) -> None:
    put_jobs(jobs, 1)
    programs.make("scontrol", f'echo $$ > "$JOBS/pid"\n{TALK}\nwhile :; do sleep 1; done')
    assert read_texts(commands, {1: "1"}) == {1: ("JobId=1 JobName=a", "#!/bin/sh\n# 1\n")}
    assert not Path(f"/proc/{(jobs / 'pid').read_text().strip()}").exists()


def test_a_wrapper_that_says_something_first_is_understood(
    commands: Commands, jobs: Path, programs: FakePrograms
) -> None:
    put_jobs(jobs, 1)
    programs.make("scontrol", f"echo 'Welcome to login1'\necho 'scontrol: '\n{TALK}")
    assert read_texts(commands, {1: "1"}) == {1: ("JobId=1 JobName=a", "#!/bin/sh\n# 1\n")}


@pytest.mark.parametrize(
    "wrapper", ["exec inner < /dev/null", "inner | sed 's/$/\\r/'", "inner | sed 's/^scontrol: //'"]
)
def test_a_wrapper_that_takes_no_commands_costs_texts_and_says_what_to_do(
    commands: Commands,
    jobs: Path,
    tmp_path: Path,
    programs: FakePrograms,
    caplog: pytest.LogCaptureFixture,
    wrapper: str,
) -> None:
    programs.make("inner", TALK)
    programs.make("scontrol", f"{SINGLE}{wrapper}")
    runs, slurm = put_jobs(jobs, 3), client(commands, tmp_path)
    with pytest.raises(NoConversation, match=r"must pass standard input on and give it no terminal"):
        list(slurm.with_texts(runs[:1]))  # once may be chance
    assert list(slurm.with_texts(runs)) == runs
    assert list(slurm.with_texts(runs)) == runs
    assert sum("jobs are reported without slurmInfo and job script" in line for line in caplog.messages) == 1
    programs.make("scontrol", SCONTROL)
    assert [run.job_script for run in slurm.with_texts(runs)] == [f"#!/bin/sh\n# {job_id}\n" for job_id in (1, 2, 3)]


def test_a_scontrol_that_says_nothing_at_all_is_no_such_wrapper(
    commands: Commands, jobs: Path, tmp_path: Path, programs: FakePrograms
) -> None:
    runs, slurm = put_jobs(jobs, 3), client(commands, tmp_path)
    programs.make("scontrol", "exit 0")
    for _ in range(3):
        with pytest.raises(NoConversation):
            list(slurm.with_texts(runs))
    programs.make("scontrol", SCONTROL)
    assert [run.job_script for run in slurm.with_texts(runs)] == [f"#!/bin/sh\n# {job_id}\n" for job_id in (1, 2, 3)]


def test_a_failing_wrapper_is_quoted(commands: Commands, jobs: Path, programs: FakePrograms) -> None:
    programs.make("scontrol", "echo 'ssh: connect to host login1 port 22: Connection refused' >&2; exit 255")
    with pytest.raises(SlurmError, match="has ended before its last answer: ssh: connect to host login1"):
        read_texts(commands, {1: "1"})


def test_readline_is_told_to_write_the_echo_as_it_is(
    commands: Commands, jobs: Path, programs: FakePrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("TERM", "xterm"), ("COLUMNS", "40"), ("INPUTRC", "/etc/inputrc")):
        monkeypatch.setenv(name, value)
    programs.make("scontrol", f'echo "$TERM $COLUMNS $INPUTRC" > "$JOBS/terminal"\n{TALK}')
    read_texts(commands, {1: "1"})
    assert (jobs / "terminal").read_text() == "dumb 80 /dev/null\n"


# --- nothing of others is touched --------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, LIMIT])
@pytest.mark.parametrize("outcome", ["well", "dies", "cancelled", "nothing"])
def test_a_folder_of_that_name_beside_the_last_run_survives(
    commands: Commands, jobs: Path, tmp_path: Path, programs: FakePrograms, limit: int, outcome: str
) -> None:
    """With lastRunPath /opt/monitoring/lastrun the site's own /opt/monitoring/scripts lies beside it."""
    folder = tmp_path / "opt" / "monitoring with space"
    (folder / "scripts" / "important").mkdir(parents=True)
    (folder / "scripts" / "important" / "backup.sh").write_text("x")
    (folder / "scripts" / "1").write_text("of the site")
    before = tree(folder)
    runs = put_jobs(jobs, 2)
    if outcome == "dies":
        programs.make("scontrol", SCONTROL.replace(f"{INFO} ", f'[ "$3" != 2 ] || exit 3; {INFO} '))
    texts = SlurmClient(commands, "lab", str(folder), limit).with_texts([] if outcome == "nothing" else runs)
    if outcome == "cancelled":
        next(texts)
        texts.close()
    else:
        scripts = [run.job_script for run in texts]
        assert [bool(script) for script in scripts] == {
            "well": [limit > 0, limit > 0],
            "dies": [limit > 0, False],
            "nothing": [],
        }[outcome]
    assert tree(folder) == before


def test_no_file_is_made_for_texts(commands: Commands, jobs: Path, tmp_path: Path) -> None:
    """Two daemons in one folder, a full disk and a folder of a strange name are all the same then."""
    state = tmp_path / "state"
    state.mkdir()
    runs = put_jobs(jobs, 3)
    before = os.stat(state).st_mtime_ns
    for _ in SlurmClient(commands, "lab", str(state), LIMIT).with_texts(runs):
        assert tree(state) == {}
    assert os.stat(state).st_mtime_ns == before


def tree(folder: Path) -> dict[str, bytes]:
    """Every file and folder below, with what is in it."""
    return {str(path): b"" if path.is_dir() else path.read_bytes() for path in sorted(folder.rglob("*"))}
