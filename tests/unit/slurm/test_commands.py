"""Starting commands, and asking Slurm through them: limits, cancelling, failures, cut documents."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.errors import CommandCancelled, CommandFailed, CommandMissing, SlurmError, UnexpectedOutput
from cc_slurm_adapter.slurm import commands as commands_module
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.cluster_config import read_cluster_config
from cc_slurm_adapter.slurm.commands import Commands, Timing
from cc_slurm_adapter.slurm.json_formats import PLAIN, find_format
from cc_slurm_adapter.slurm.parse import json_stream as documents_module
from cc_slurm_adapter.slurm.parse.json_stream import JobSplitter
from cc_slurm_adapter.slurm.parse.json_values import Json
from cc_slurm_adapter.system.owner import find_account
from tests.fakes.programs import FakePrograms
from tests.recorded.fixture_files import FIXTURES, sinfo_row, split_document

PATIENCE = 10.0


def test_output_errors_and_exit_code_are_kept(commands: Commands, programs: FakePrograms) -> None:
    programs.make("squeue", "cat; echo said >&2; exit 3")
    answer = commands.run(["squeue"], stdin=b"x" * 300_000)
    assert (answer.exit_code, len(answer.output), answer.last_error()) == (3, 300_000, "said")


def test_commands_speak_english_and_are_looked_up_each_time(
    commands: Commands, programs: FakePrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    programs.make("squeue", 'printf "%s" "$LC_ALL $EXTRA"')
    assert commands.run(["squeue"], environment={"EXTRA": "1"}).output == b"C 1"
    (programs.folder / "squeue").unlink()
    with pytest.raises(CommandMissing, match="squeue is not in PATH"):
        commands.run(["squeue"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a command as another user")
def test_root_can_start_a_command_as_another_user(tmp_path: Path) -> None:
    account = find_account("nobody", "daemon")
    assert account is not None
    with closing(Commands(run_as=account)) as commands:
        found = commands.run(["id", "-u"]).output, commands.run(["id", "-g"]).output, commands.run(["id", "-G"]).output
        assert found[:2] == (b"%d\n" % account.uid, b"%d\n" % account.gid)
        assert set(map(int, found[2].split())) == set(account.groups)
        secret = tmp_path / "secret"
        secret.touch(mode=0o600)
        assert commands.run(["cat", str(secret)]).exit_code == 1


def test_the_answers_are_not_changed_by_the_environment(
    commands: Commands, programs: FakePrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("SQUEUE_USERS", "SINFO_PARTITION", "SACCT_FORMAT", "SCONTROL_SIB", "SQUEUE_LOCAL")
    for name in (*options, "SLURM_CLUSTERS", "SLURM_JSON"):
        monkeypatch.setenv(name, "other")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    programs.make("squeue", 'env | grep -E "^(SQUEUE|SINFO|SACCT|SCONTROL|SLURM)_" | sort')
    assert commands.run(["squeue"]).output.decode().split() == [
        *("SACCT_LOCAL=1", "SCONTROL_LOCAL=1", "SINFO_LOCAL=1", "SLURM_CONF=/etc/slurm/slurm.conf", "SQUEUE_LOCAL=1")
    ]


def test_a_command_that_hangs_is_ended_with_all_that_it_started(programs: FakePrograms, tmp_path: Path) -> None:
    programs.make("squeue", f"sleep 60 & echo $! > {tmp_path}/pid; wait")
    with (
        closing(Commands(timing=Timing(time_limit=0.3))) as commands,
        pytest.raises(CommandFailed, match="no answer within"),
    ):
        commands.run(["squeue"])
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_a_command_that_says_something_now_and_then_is_not_ended_before_long(
    programs: FakePrograms,
) -> None:
    programs.make("scontrol", "for i in 1 2 3 4 5 6; do sleep 0.1; echo $i; done")
    with closing(Commands(timing=Timing(time_limit=0.3))) as commands:
        assert commands.run(["scontrol"]).output.split() == b"1 2 3 4 5 6".split()
    with (
        closing(Commands(timing=Timing(time_limit=0.3, longest=0.25))) as commands,
        pytest.raises(CommandFailed, match="no answer within"),
    ):
        commands.run(["scontrol"])


def test_a_command_that_takes_long_is_logged_when_it_has_succeeded(
    programs: FakePrograms, caplog: pytest.LogCaptureFixture
) -> None:
    programs.make("squeue", "sleep 0.4; echo 7")
    with closing(Commands(timing=Timing(slow=0.1))) as commands:
        for _ in range(2):
            assert commands.run(["squeue"]).output == b"7\n"
    (line,) = caplog.messages
    assert line.startswith("squeue has taken")


def test_a_command_that_fails_late_is_logged_by_whoever_asked_only(
    programs: FakePrograms, caplog: pytest.LogCaptureFixture
) -> None:
    programs.make("squeue", "sleep 0.4; exit 1")
    with closing(Commands(timing=Timing(slow=0.1))) as commands:
        assert commands.run(["squeue"]).exit_code == 1
    assert caplog.messages == []


def is_gone(pid: int) -> bool:
    """Whether a process ends soon; killed and not yet reaped by init counts."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_a_command_that_closes_its_output_and_goes_on_is_ended(programs: FakePrograms, tmp_path: Path) -> None:
    programs.make("squeue", f"echo $$ > {tmp_path}/pid; exec > /dev/null 2>&1; exec sleep 60")
    with (
        closing(Commands(timing=Timing(exit_limit=0.05))) as commands,
        pytest.raises(CommandFailed, match="does not end"),
    ):
        commands.run(["squeue"])
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_a_stop_ends_the_command_that_runs_and_refuses_the_next(commands: Commands, programs: FakePrograms) -> None:
    programs.make("squeue", "exec sleep 60")
    timer = threading.Timer(0.1, commands.cancel)
    timer.start()
    began = time.monotonic()
    with pytest.raises(CommandCancelled):
        commands.run(["squeue"])
    assert time.monotonic() - began < 2
    with pytest.raises(CommandCancelled):
        commands.run(["squeue"])
    timer.join()


def test_a_stop_ends_the_wait_for_a_command_that_has_closed_its_output(programs: FakePrograms, tmp_path: Path) -> None:
    commands = Commands(timing=Timing(exit_limit=60.0))
    programs.make("squeue", f"exec > /dev/null 2>&1; touch {tmp_path}/closed; exec sleep 60")

    def cancel() -> None:
        while not (tmp_path / "closed").exists():
            time.sleep(0.01)
        time.sleep(0.1)
        commands.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(CommandCancelled):
        commands.run(["squeue"])
    thread.join(PATIENCE)
    commands.close()


def test_the_watchdog_is_fed_with_each_piece_and_each_moment_of_a_wait(
    programs: FakePrograms,
) -> None:
    fed: list[None] = []
    environment = {"PATH": f"{programs.folder}:/usr/bin:/bin"}
    commands = Commands(environment, lambda: fed.append(None), timing=Timing(tick=0.01))
    programs.make("squeue", "echo 1; sleep 0.3; echo 2; sleep 0.3")
    assert commands.run(["squeue"]).output == b"1\n2\n"
    assert len(fed) >= 10
    commands.close()


def test_a_process_that_sigkill_does_not_end_is_left_behind(
    programs: FakePrograms, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in the state D, in which no signal reaches it."""
    monkeypatch.setattr(commands_module, "MOST_LEFT_BEHIND", 2)
    held: list[int] = []
    counted: list[None] = []
    timing = Timing(kill_limit=0.05, time_limit=0.1)
    commands = Commands(on_left_behind=lambda: counted.append(None), timing=timing)
    with monkeypatch.context() as patched:
        patched.setattr(os, "killpg", lambda pid, _: held.append(pid))
        programs.make("squeue", "exec sleep 60")
        for _ in range(2):
            with pytest.raises(CommandFailed, match="no answer within"):
                commands.run(["squeue"])
        assert commands.left_behind == 2
        with pytest.raises(CommandFailed, match="was not started: 2 commands do not end after SIGKILL"):
            commands.run(["squeue"])
        assert len(held) == len(counted) == 2
    assert caplog.text.count("does not end after SIGKILL and is left behind") == 1
    for pid in held:
        os.killpg(pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while commands.left_behind and time.monotonic() < deadline:
        time.sleep(0.01)
    programs.make("squeue", "echo 1")
    assert commands.run(["squeue"]).output == b"1\n"
    commands.close()


def test_too_much_output_is_refused(
    commands: Commands, programs: FakePrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands_module, "OUTPUT_LIMIT", 1000)
    programs.make("squeue", "head -c 5000 /dev/zero")
    with pytest.raises(CommandFailed, match="more than 1000 bytes"):
        commands.run(["squeue"])


def test_a_program_that_cannot_be_started_is_named(commands: Commands, programs: FakePrograms) -> None:
    (programs.folder / "squeue").write_bytes(b"\x7fELF broken")
    (programs.folder / "squeue").chmod(0o755)
    with pytest.raises(SlurmError, match="squeue"):
        commands.run(["squeue"])


def test_the_best_known_format_is_pinned(commands: Commands, programs: FakePrograms) -> None:
    programs.make("squeue", "echo data_parser/v0.0.42; echo data_parser/v0.0.40; echo data_parser/v0.0.41")
    assert find_format(commands).option == "--json=v0.0.40"
    programs.make("squeue", "echo data_parser/v0.0.42; echo data_parser/v0.0.43")
    assert find_format(commands).option == "--json=v0.0.42"
    programs.make("squeue", "echo \"squeue: option '--json' doesn't allow an argument\" >&2; exit 1")
    assert find_format(commands) == PLAIN
    programs.make("squeue", "echo 'slurm is not here' >&2; exit 1")
    with pytest.raises(SlurmError, match="slurm is not here"):
        find_format(commands)


def test_a_newer_format_than_any_known_is_tried_with_a_warning(commands: Commands, programs: FakePrograms) -> None:
    programs.make("squeue", "echo data_parser/v0.0.99; echo data_parser/v0.0.100")
    found = find_format(commands)
    assert found.option == "--json=v0.0.100"
    assert found.finding is not None
    assert (found.finding.level, "v0.0.100" in found.finding.text) == (logging.WARNING, True)


def test_slurmctld_down_is_an_error_and_not_an_empty_answer(
    commands: Commands, programs: FakePrograms, tmp_path: Path
) -> None:
    for version in ("22.05.8", "24.11.5"):
        errors = FIXTURES / f"slurm-{version}" / "errors"
        for name, recorded in (("squeue", "slurmctld-down.squeue"), ("sinfo", "slurmctld-down.sinfo")):
            programs.replay(name, errors, recorded)
        programs.replay("scontrol", errors, "slurmctld-down.show-config")
        client = SlurmClient(commands, "lab", str(tmp_path), 1 << 20)
        for ask in (partial(next, client.list_jobs()), client.node_states, lambda: read_cluster_config(commands)):
            with pytest.raises(CommandFailed, match="Unable to contact slurm controller"):
                ask()


def test_slurmdbd_down_is_an_error_and_not_an_empty_answer(
    commands: Commands, programs: FakePrograms, tmp_path: Path
) -> None:
    for version in ("22.05.8", "24.11.5"):
        errors = FIXTURES / f"slurm-{version}" / "errors"
        programs.replay("sacct", errors, "slurmdbd-down.sacct")
        programs.replay("sacctmgr", errors, "slurmdbd-down.sacctmgr")
        client = SlurmClient(commands, "lab", str(tmp_path), 1 << 20)
        with pytest.raises(CommandFailed, match="Connection refused"):
            list(client.ended_between(1, 2))
        with pytest.raises(CommandFailed, match="Persist"):
            client.admin_level("root")


def test_22_05_says_in_its_document_that_slurmctld_is_down() -> None:
    document = (FIXTURES / "slurm-22.05.8" / "errors" / "slurmctld-down.squeue-json.stdout").read_bytes()
    with pytest.raises(UnexpectedOutput, match="errors"):
        split_document(document, "squeue")


def test_a_document_is_split_the_same_in_pieces_of_any_size() -> None:
    for path in ("22.05.8/jobs/array-limit/running.squeue.json", "24.11.5/jobs/array-limit/running.squeue.json"):
        text = (FIXTURES / f"slurm-{path}").read_bytes()
        whole = json.loads(text)["jobs"]
        assert len(whole) >= 2
        for size in (7, 4096, len(text)):
            assert split_document(text, "squeue", size) == whole
        compact = json.dumps(json.loads(text)).encode()
        assert split_document(compact, "squeue", 100) == whole


def test_a_damaged_job_costs_no_other_job_of_the_document_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"jobs": [{"job_id": 1, "name": "a"}, {"job_id": 2, "name": "b" * 500}, {"job_id": 3}], "errors": []}
    lines = json.dumps(document, indent=2).replace('"name": "a"', '"name": NaN NaN').encode()
    monkeypatch.setattr(documents_module, "MAX_JOB_BYTES", 400)
    jobs: list[Json] = []
    broken: dict[int, str] = {}
    splitter = JobSplitter("squeue", jobs.append, broken.__setitem__)
    splitter.feed(lines)
    splitter.finish()
    assert jobs == [{"job_id": 3}]
    assert sorted(broken) == [1, 2]
    assert "400 bytes" in broken[2]


def test_nodes_that_were_added_since_the_last_poll_are_looked_up(
    commands: Commands, programs: FakePrograms, tmp_path: Path
) -> None:
    job = FIXTURES / "slurm-24.11.5/jobs/one-core/running.squeue.v0.0.40.json"
    host = json.loads(job.read_text())["jobs"][0]["nodes"]
    programs.make("squeue", "echo data_parser/v0.0.40")
    nodes = FIXTURES / "slurm-24.11.5/cluster/nodes-idle.scontrol-detail.txt"
    programs.make("scontrol", f'case "$*" in "-a -d show node {host}") cat {nodes};; *--json*) cat {job};; esac')
    (tmp_path / "sinfo").write_text(f"{sinfo_row(NodeList='other')}\n")
    programs.make("sinfo", f"cat {tmp_path}/sinfo")
    client = SlurmClient(commands, "lab", str(tmp_path), 1 << 20)
    client.node_states()
    job_id = json.loads(job.read_text())["jobs"][0]["job_id"]
    (details,) = client.read_details([job_id])
    assert details.runs[0].resources[0].cores


@given(st.text(max_size=50))
def test_no_name_of_a_job_ends_it_or_begins_another(name: str) -> None:
    document = {"jobs": [{"job_id": 1, "name": name}, {"job_id": 2}], "errors": []}
    assert split_document(json.dumps(document, indent=2).encode(), "squeue") == document["jobs"]


@pytest.mark.parametrize("at", [0, 1, 500, 5000, -3])
def test_a_document_that_was_cut_is_an_error(at: int) -> None:
    text = (FIXTURES / "slurm-24.11.5/jobs/one-core/running.squeue.v0.0.40.json").read_bytes()
    with pytest.raises(UnexpectedOutput):
        split_document(text[:at], "squeue")


def test_what_a_command_took_is_passed_on_once_for_each(programs: FakePrograms) -> None:
    ended: list[tuple[str, str, float]] = []
    for name, script in {
        "squeue": "echo 1",
        "sinfo": "exit 3",
        "sacct": "sleep 60",
        "strange": "echo 1",
        "sdiag": "echo 1; sleep 60",
    }.items():
        programs.make(name, script)
    timing = Timing(time_limit=0.3)
    with closing(Commands(on_ended=lambda *each: ended.append(each), timing=timing)) as commands:
        for argv in (["squeue"], ["sinfo"], [f"{programs.folder}/squeue", "-a"], ["strange"]):
            commands.run(argv)
        for missing_or_late in ("sacct", "scontrol-that-is-not-there"):
            with pytest.raises(SlurmError):
                commands.run([missing_or_late])
        with closing(commands.pieces(["sdiag"])) as pieces:
            assert next(pieces) == b"1\n"
    assert [each[:2] for each in ended] == [
        ("squeue", "ok"),
        ("sinfo", "exit_code"),
        ("squeue", "ok"),
        ("other", "ok"),
        ("sacct", "failed"),
        ("other", "failed"),
        ("sdiag", "broken_off"),
    ]
    assert [each[2] >= 0 for each in ended] == [True] * 7
    assert ended[4][2] >= 0.3
    assert ended[5][2] == 0


def test_the_time_of_a_reader_is_not_that_of_the_command(programs: FakePrograms) -> None:
    """It may ask for something else between two pieces."""
    ended: list[float] = []
    programs.make("squeue", f"sleep 0.5; touch {programs.folder}/go")
    programs.make("sacct", f"echo 1; while [ ! -e {programs.folder}/go ]; do sleep 0.01; done; echo 2")
    with closing(Commands(on_ended=lambda command, result, seconds: ended.append(seconds))) as commands:
        read: list[bytes] = []
        for piece in commands.pieces(["sacct"]):
            if not read:
                commands.run(["squeue"])
            read.append(piece)
    of_squeue, of_sacct = ended
    assert read == [b"1\n", b"2\n"]
    assert of_squeue >= 0.5
    assert of_sacct > 0


def test_a_stop_ends_a_command_that_is_no_failure(programs: FakePrograms) -> None:
    ended: list[str] = []
    programs.make("squeue", "sleep 60")
    with closing(Commands(on_ended=lambda command, result, seconds: ended.append(result))) as commands:
        commands.pulse = commands.cancel
        with pytest.raises(CommandCancelled):
            commands.run(["squeue"])
    assert ended == ["broken_off"]
