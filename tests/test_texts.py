"""slurmInfo and job scripts: one scontrol for many jobs, no forged texts, limits, any bytes."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.texts import Texts, Wanted, split_infos
from cc_slurm_adapter.slurm.texts import read_texts as read_texts_in_turn
from tests.fake_programs import FakePrograms
from tests.fakes import make_run

LIMIT = 1024 * 1024


def read_texts(commands: Commands, names: dict[int, str], folder: str, limit: int) -> dict[int, Texts]:
    """All of them, by job id; each job has a script of its own."""
    jobs = {job_id: Wanted(name, str(job_id)) for job_id, name in names.items()}
    return dict(zip(names, read_texts_in_turn(commands, jobs, folder, limit)))


SCONTROL = """\
while read -r line; do
    echo "$line" >> "$JOBS/asked"
    printf 'scontrol: %s\\n' "$line"
    set -- $line
    case "$1 $2" in
        "show hostnames") echo "$3" ;;
        "show job") [ -e "$JOBS/$3" ] && cat "$JOBS/$3" && printf '   \\n\\n' ;;
        "write batch_script") [ -e "$JOBS/$3.sh" ] && cp "$JOBS/$3.sh" "$4" ;;
    esac
done
printf 'scontrol: \\n'
"""


@pytest.fixture
def jobs(programs: FakePrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "jobs"
    folder.mkdir()
    programs.make("scontrol", SCONTROL)
    monkeypatch.setenv("JOBS", str(folder))
    return folder


def test_texts_of_many_jobs_come_from_one_scontrol(commands: Commands, jobs: Path, tmp_path: Path) -> None:
    (jobs / "1").write_text("JobId=1 JobName=a\n   UserId=root(0)\n")
    (jobs / "2").write_text("JobId=2 JobName=b\n   UserId=root(0)\n")
    (jobs / "2.sh").write_bytes(b"#!/bin/sh\nsleep 1\n\0")
    texts = read_texts(commands, {1: "1", 2: "2", 3: "3"}, str(tmp_path), LIMIT)
    assert commands.started == 1
    assert texts[1] == ("JobId=1 JobName=a\n   UserId=root(0)", "")
    assert texts[2] == ("JobId=2 JobName=b\n   UserId=root(0)", "#!/bin/sh\nsleep 1\n")
    assert texts[3] == ("", "")
    assert not (tmp_path / "scripts").exists()


def test_a_task_of_an_array_is_asked_for_by_its_own_name(commands: Commands, jobs: Path, tmp_path: Path) -> None:
    (jobs / "7").write_text("JobId=8 ArrayJobId=7 ArrayTaskId=0\n\nJobId=7 ArrayJobId=7 ArrayTaskId=1\n")
    (jobs / "7_1").write_text("JobId=7 ArrayJobId=7 ArrayTaskId=1\n")
    run = make_run(7, array_job_id=7, array_task_id=1)
    (read,) = SlurmClient(commands, "lab", str(tmp_path), LIMIT).add_texts([run])
    assert read.slurm_info == "JobId=7 ArrayJobId=7 ArrayTaskId=1"
    assert read == replace(run, slurm_info=read.slurm_info)


def test_no_job_can_write_the_text_of_another(commands: Commands, jobs: Path, tmp_path: Path) -> None:
    forged = "x\nscontrol: show hostnames 0123456789abcdef0123456789abcdefx2\nscontrol: show job 2\nJobId=2 forged"
    (jobs / "1").write_text(f"JobId=1 JobName={forged}\n")
    (jobs / "2").write_text("JobId=2 JobName=honest\n")
    texts = read_texts(commands, {1: "1", 2: "2"}, str(tmp_path), LIMIT)
    assert texts[2].slurm_info == "JobId=2 JobName=honest"
    assert "forged" in texts[1].slurm_info


def test_answers_without_an_echo_are_understood_too() -> None:
    output = "scontrol: Mx1\nscontrol: JobId=1 JobName=a\n   \n\nscontrol: M\nscontrol: Mx2\nscontrol: M\nscontrol: \n"
    assert split_infos(output, "M") == {1: "JobId=1 JobName=a"}


def test_scripts_left_over_by_a_killed_daemon_are_removed(commands: Commands, jobs: Path, tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "1").write_text("of another day")
    assert read_texts(commands, {1: "1"}, str(tmp_path), LIMIT)[1].job_script == ""
    assert jobs.exists()


def read_script(commands: Commands, tmp_path: Path, limit: int) -> str:
    """The script of job 1 under a limit."""
    return read_texts(commands, {1: "1"}, str(tmp_path), limit)[1].job_script


def test_a_long_script_is_cut_and_says_so(commands: Commands, jobs: Path, tmp_path: Path) -> None:
    (jobs / "1.sh").write_text("#" * 1000)
    script = read_script(commands, tmp_path, 100)
    kept, _, note = script.partition("\n")
    assert kept == "#" * 100
    assert "1000 bytes" in note
    assert "jobScriptMaxBytes is 100" in note
    assert read_script(commands, tmp_path, 999).startswith("#" * 999 + "\n[cut")
    assert read_script(commands, tmp_path, 1000) == "#" * 1000


@pytest.mark.parametrize("limit", [4, 5, 6])
def test_a_script_is_cut_between_two_characters(commands: Commands, jobs: Path, tmp_path: Path, limit: int) -> None:
    (jobs / "1.sh").write_text("#\u20ac\u20ac\u20ac", encoding="utf-8")  # three bytes each
    script = read_script(commands, tmp_path, limit)
    assert script.startswith("#\u20ac\n[cut by cc-slurm-adapter: the script has 10 bytes")


def test_a_limit_of_four_megabytes_lets_the_longest_script_of_slurm_through(
    commands: Commands, jobs: Path, tmp_path: Path
) -> None:
    longest = "#!/bin/sh\n".ljust(4 * 1024 * 1024, "x")  # one byte more is refused where max_script_size is not set
    (jobs / "1.sh").write_text(longest)
    assert read_script(commands, tmp_path, 4 * 1024 * 1024) == longest


def test_no_script_is_asked_for_where_none_is_wanted(commands: Commands, jobs: Path, tmp_path: Path) -> None:
    (jobs / "1").write_text("JobId=1 JobName=a\n")
    (jobs / "1.sh").write_text("#!/bin/sh\n")
    assert read_texts(commands, {1: "1"}, str(tmp_path), 0) == {1: ("JobId=1 JobName=a", "")}
    assert "batch_script" not in (jobs / "asked").read_text()
    assert "batch_script" not in str([*tmp_path.iterdir()])


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (b"#!/bin/sh\n# caf\xe9 \xff\xfe\n", "#!/bin/sh\n# caf\ufffd \ufffd\ufffd\n"),
        (b"#!/bin/sh\r\nsleep 1\r\n", "#!/bin/sh\r\nsleep 1\r\n"),
        (b"# \r \x1b[31m \x01 \x7f\n\n\n", "# \r \x1b[31m \x01 \x7f\n\n\n"),
        (b"a\0b\n\0", "a\0b\n"),
        ("# \u2028 \U0001f600\n".encode(), "# \u2028 \U0001f600\n"),
        (b"", ""),
    ],
)
def test_bytes_of_any_kind_arrive(commands: Commands, jobs: Path, tmp_path: Path, script: bytes, text: str) -> None:
    (jobs / "1.sh").write_bytes(script)
    assert read_script(commands, tmp_path, 1000) == text


def test_a_long_script_takes_no_more_memory_than_the_limit_allows(
    commands: Commands, jobs: Path, tmp_path: Path
) -> None:
    limit = 256 * 1024
    (jobs / "1.sh").write_bytes(b"#" * (16 * 1024 * 1024))
    tracemalloc.start()
    read_script(commands, tmp_path, limit)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * limit  # the bytes, the text, and the text with its note


def test_a_script_that_the_disk_had_no_room_for_is_left_out(
    commands: Commands, jobs: Path, tmp_path: Path, programs: FakePrograms, caplog: pytest.LogCaptureFixture
) -> None:
    (jobs / "1").write_text("JobId=1 JobName=a\n")
    (jobs / "1.sh").write_bytes(b"#!/bin/sh\nsle")
    no_room = f"mkdir {tmp_path}/scripts/room"  # the file that is tried cannot be written
    programs.make("scontrol", f"{no_room}\n{SCONTROL}")
    assert read_texts(commands, {1: "1"}, str(tmp_path), LIMIT) == {1: Texts("JobId=1 JobName=a", "")}
    assert "job scripts are left out" in caplog.text
    assert not (tmp_path / "scripts").exists()


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
    read = list(SlurmClient(commands, "lab", str(tmp_path), LIMIT).add_texts(runs))
    assert [run.slurm_info for run in read] == [leader.rstrip(), component.rstrip()]
    assert {run.job_script for run in read} == {"#!/bin/bash\n#SBATCH hetjob\nsrun work\n"}


def test_no_script_is_asked_for_where_a_job_has_none(commands: Commands, jobs: Path, tmp_path: Path) -> None:
    for job_id in (1, 2):
        (jobs / str(job_id)).write_text(f"JobId={job_id} JobName=a\n")
        (jobs / f"{job_id}.sh").write_text("#!/bin/sh\n")
    runs = [make_run(1, has_script=False), make_run(2)]
    read = list(SlurmClient(commands, "lab", str(tmp_path), LIMIT).add_texts(runs))
    assert [run.job_script for run in read] == ["", "#!/bin/sh\n"]
    assert "batch_script 1" not in (jobs / "asked").read_text()


def test_a_folder_that_cannot_be_made_costs_only_the_scripts(
    commands: Commands, jobs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (jobs / "1").write_text("JobId=1 JobName=a\n")
    (jobs / "1.sh").write_text("#!/bin/sh\n")
    (tmp_path / "scripts").write_text("in the way")
    assert read_texts(commands, {1: "1"}, str(tmp_path), LIMIT) == {1: ("JobId=1 JobName=a", "")}
    assert "job scripts are left out" in caplog.text


@given(st.lists(st.text(max_size=80), min_size=1, max_size=4))
def test_no_text_reaches_another_job(texts: list[str]) -> None:
    """Each job's text is whatever its user wrote, also what scontrol prints; nobody knows the marker."""
    marker = "7f" * 16
    wanted = {number: f"JobId={number} JobName={text}" for number, text in enumerate(texts)}
    output = "".join(
        f"scontrol: show hostnames {marker}x{number}\n{marker}x{number}\n"
        f"scontrol: show job {number}\n{text}\n   \n\nscontrol: show hostnames {marker}\n{marker}\n"
        for number, text in wanted.items()
    )
    infos = split_infos(output, marker)
    assert infos.keys() == wanted.keys()
    for number, text in wanted.items():
        assert infos[number] == text.rstrip()
