"""`-queue`: over the socket of a daemon or on the file, as a table or as JSON, and never dropped without a yes."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from cc_slurm_adapter.__main__ import main
from cc_slurm_adapter.cli import queue_lines
from cc_slurm_adapter.cli.main import OTHER, USAGE
from cc_slurm_adapter.cli.queue import (
    Either,
    OnFile,
    OverSocket,
    QueueCommand,
    answer_of,
    check_command,
    lines_of,
    print_queue,
)
from cc_slurm_adapter.daemon.control import parse_object
from cc_slurm_adapter.daemon.job_state import JobState
from cc_slurm_adapter.errors import NotRunning, StateError, UsageError
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox import admin as admin_module
from cc_slurm_adapter.outbox.admin import answer_drop, answer_queue, answer_retry
from cc_slurm_adapter.outbox.outbox import Batch, Message, OpenRun, Outbox, Stage
from cc_slurm_adapter.outbox.selection import Selection
from cc_slurm_adapter.sinks.base import CC_NATS, CC_REST, Encoded, Kind
from cc_slurm_adapter.system.quantities import moment

BEGIN = 1_800_000_000
BOTH = {CC_REST: "", CC_NATS: CC_REST}
NOBODY = 65534
SOCKET = "/run/control.sock"


def fill(outbox: Outbox, *job_ids: int, kinds: Sequence[Kind] = (Kind.START, Kind.STOP)) -> None:
    batch = Batch()
    for job_id in job_ids:
        key = RunKey("lab", job_id, BEGIN)
        batch.runs[key] = OpenRun(key, Stage.DONE, "", None)
        body = Encoded(json.dumps({"jobId": job_id, "user": "alice"}).encode())
        batch.messages += [Message(tuple(BOTH), key, kind, body) for kind in kinds]
    outbox.commit("lab", batch)


def park(outbox: Outbox, reason: str) -> None:
    for row in outbox.deliveries.due(CC_REST, time.time(), 1000):
        outbox.deliveries.parked(row, reason)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(str(tmp_path / "state.sqlite"), BOTH)
    yield made
    made.close()


class FakeClient:
    """A daemon with this outbox, as seen through the socket, with the checks of its routes."""

    def __init__(self, outbox: Outbox) -> None:
        self.admin = outbox.admin
        self.asked: list[str] = []
        self.runs = True

    def get(self, path: str, socket_path: str) -> tuple[int, bytes]:
        split = urlsplit(path)
        words = dict(parse_qsl(split.query))
        if split.path == "/queue":
            return self._answer(path, socket_path, lambda: answer_queue(self.admin, words))
        job_id = int(split.path.rpartition("/")[2])
        return self._answer(
            path, socket_path, lambda: JobState(job_id, self.admin.rows_of_job(job_id), None).as_object()
        )

    def post(self, path: str, value: dict[str, object], socket_path: str) -> tuple[int, bytes]:
        do = {"/queue/retry": answer_retry, "/queue/drop": answer_drop}[path]
        body = json.dumps(value)
        return self._answer(f"{path} {body}", socket_path, lambda: do(self.admin, parse_object(body.encode())))

    def _answer(self, asked: str, socket_path: str, do: Callable[[], dict[str, object]]) -> tuple[int, bytes]:
        assert socket_path == SOCKET
        if not self.runs:
            raise NotRunning("no daemon answers")
        self.asked.append(asked)
        try:
            return 200, json.dumps(do()).encode()
        except UsageError as error:
            return 400, json.dumps({"version": 1, "error": str(error)}).encode()


@pytest.fixture
def client(outbox: Outbox) -> FakeClient:
    return FakeClient(outbox)


def no(question: str) -> bool:
    return False


def command(*words: str, **options: Any) -> QueueCommand:
    return check_command(words, **options)


# --- what is typed


@pytest.mark.parametrize(
    "words",
    [[], ["list", "4711"], ["show"], ["show", "all"], ["retry"], ["drop"], ["drop", "1", "2"], ["look"], ["drop", "x"]],
)
def test_a_wrong_command_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        check_command(words or [""])


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["list"], {"state": "lost"}),
        (["list"], {"sink": "influx"}),
        (["list"], {"limit": 0}),
        (["list"], {"limit": 10_001}),
        (["show", "1"], {"state": "parked"}),
        (["retry", "all"], {"state": "following"}),
    ],
)
def test_a_wrong_selection_is_refused(words: list[str], options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        check_command(words, **options)


@pytest.mark.parametrize(
    ("words", "options", "expected"),
    [
        (["list"], {}, {}),
        (["list"], {"state": "parked", "sink": "nats"}, {"state": "parked", "sink": "nats"}),
        (["retry", "4711"], {}, {"job": 4711}),
        (["retry", "all"], {}, {"all": True}),
        (["drop", "all"], {"reason": "host"}, {"reason": "host"}),
    ],
)
def test_all_must_be_said(words: list[str], options: dict[str, Any], expected: dict[str, object]) -> None:
    assert check_command(words, **options).words == expected


def test_a_task_of_an_array_is_explained() -> None:
    with pytest.raises(UsageError, match=r"scontrol show job.* squeue .*, or sacct "):
        check_command(["show", "4711_3"])


@pytest.mark.parametrize("words", [["show"], ["show", "all"]])
def test_one_job_is_shown(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^-queue show needs a job id"):
        check_command(words)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["retry", "1", "-limit", "5"], "-limit goes with -queue list"),
        (["drop", "1", "-limit", "5"], "-limit goes with -queue list"),
        (["show", "1", "-limit", "50"], "-limit goes with -queue list"),
        (["retry", "1", "-yes"], "-yes goes with -queue drop"),
        (["list", "-yes"], "-yes goes with -queue drop"),
        (["list", "-limit", "0"], "-limit is 0, but must be from 1 to 10000"),
    ],
)
def test_a_flag_that_changes_nothing_is_refused(
    flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-queue", *flags]) == USAGE
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["-state", "-reason", "-cluster", "-sink", "-limit"])
@pytest.mark.parametrize("dashes", ["", "-"])
def test_flags_of_the_queue_need_it(flag: str, dashes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([dashes + flag, "1"]) == USAGE
    assert "-queue" in capsys.readouterr().err


# --- list and show


def test_the_table_is_for_people(outbox: Outbox, client: FakeClient) -> None:
    fill(outbox, 4711)
    park(outbox, "HTTP 422: " + "x" * 200 + "\n\x1b[31m")
    queue = OverSocket(client, SOCKET)
    lines = list(lines_of(command("list"), answer_of(command("list"), queue, None) or {}))
    began = moment(BEGIN, time.time())
    assert lines[0].split() == ["JOB", "BEGAN", "MESSAGE", "TO", "STATE", "SINCE", "NEXT", "TRY"]
    assert lines[1].startswith(f"4711        {began}  start    cc-backend  parked     ")
    assert lines[2].startswith("    HTTP 422: xxx")
    assert lines[2].endswith("xxx ...")
    assert lines[3].endswith("after cc-backend")
    assert lines[3].split()[3:6] == ["start", "NATS", "following"]
    assert lines[4].endswith("after its start")
    assert lines[-1] == "4 messages: 2 starts, 2 stops"
    assert max(map(len, lines)) <= 100


def test_a_table_says_how_to_see_more(outbox: Outbox, client: FakeClient) -> None:
    fill(outbox, *range(1, 31))
    few = command("list", limit=5, sink=CC_REST)
    lines = list(lines_of(few, answer_of(few, OverSocket(client, SOCKET), None) or {}))
    assert len(lines) == 7
    assert lines[-1] == "5 of 60 messages (sink cc-backend): 30 starts, 30 stops; more with -limit 60, or select less"


def test_an_empty_queue_says_so(client: FakeClient) -> None:
    found = command("list", state="parked", reason="host")
    (line,) = lines_of(found, answer_of(found, OverSocket(client, SOCKET), None) or {})
    assert line == "no message waits (state parked, reason host)"


def test_a_long_list_is_read_in_pages(
    outbox: Outbox, client: FakeClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cc_slurm_adapter.cli.queue.AT_ONCE", 10)
    fill(outbox, *range(1, 8))
    assert print_queue(command("list", as_json=True, limit=25), OverSocket(client, SOCKET), None)
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert [row["id"] for row in found["rows"]] == list(range(1, 26))
    assert (found["messages"], found["next"]) == (28, 25)
    assert [dict(parse_qsl(urlsplit(each).query))["limit"] for each in client.asked] == ["10", "10", "5"]


def test_two_clusters_are_told_apart(outbox: Outbox, client: FakeClient) -> None:
    fill(outbox, 1)
    key = RunKey("other", 1, BEGIN)
    outbox.commit("other", Batch(messages=[Message((CC_REST,), key, Kind.START, Encoded(b"{}"))]))
    found = command("list")
    lines = list(lines_of(found, answer_of(found, OverSocket(client, SOCKET), None) or {}))
    assert [line.split("  ")[0] for line in lines[1:-1]] == ["1 lab"] * 4 + ["1 other"]


def test_a_job_is_shown_with_what_its_messages_contain(outbox: Outbox, client: FakeClient) -> None:
    fill(outbox, 4711)
    park(outbox, "HTTP 422: no such host")
    found = command("show", "4711")
    lines = list(lines_of(found, answer_of(found, OverSocket(client, SOCKET), None) or {}))
    began = f"{moment(BEGIN, time.time())} ({BEGIN})"
    assert lines[0].startswith(f"job 4711 of lab, run that began {began}: done, since ")
    at = next(number for number, line in enumerate(lines) if "start to cc-backend: parked" in line)
    assert "parked 1 time since " in lines[at]
    assert ", next try: " in lines[at]
    assert lines[at + 1] == "    reason: HTTP 422: no such host"
    assert lines[at + 2] == '    message of 32 bytes: {"jobId": 4711, "user": "alice"}'


def test_an_unknown_job_is_said_to_be(client: FakeClient) -> None:
    found = command("show", "1")
    (line,) = lines_of(found, answer_of(found, OverSocket(client, SOCKET), None) or {})
    assert line.startswith("nothing is known of job 1:")


# --- retry and drop


def test_messages_are_tried_again(outbox: Outbox, client: FakeClient) -> None:
    fill(outbox, 1, 2)
    park(outbox, "HTTP 422")
    found = command("retry", "2")
    (line,) = lines_of(found, answer_of(found, OverSocket(client, SOCKET), None) or {})
    assert line == "due now: 2 messages of 1 run (1 start, 1 stop); -queue list shows the answers"
    assert [row.key.job_id for row in outbox.deliveries.due(CC_REST, time.time(), 9)] == [2]


def test_a_drop_asks_and_says_how_much_it_is(
    outbox: Outbox, client: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(outbox, 1, 2)
    asked = []

    def yes(question: str) -> bool:
        asked.append(question)
        fill(outbox, 3)  # meanwhile
        return True

    assert not print_queue(command("drop", "all"), OverSocket(client, SOCKET), no)
    assert capsys.readouterr() == ("", "nothing was dropped\n")
    assert outbox.counts() == {"pending": 4, "following": 4}
    assert print_queue(command("drop", "all"), OverSocket(client, SOCKET), yes)
    assert asked == [
        "drop 8 messages of 2 runs (4 starts, 4 stops): they are never reported, nor are stops of these runs that are"
        " still to come? [y/N]"
    ]
    assert capsys.readouterr().out == "dropped: 8 messages of 2 runs (4 starts, 4 stops)\n"
    assert {row.job_id for row in outbox.admin.list_rows(Selection()).rows} == {3}


def test_a_drop_in_steps_is_added_up(
    outbox: Outbox, client: FakeClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(admin_module, "RUNS_AT_ONCE", 2)
    fill(outbox, *range(1, 6))
    assert print_queue(command("drop", "all", yes=True, as_json=True), OverSocket(client, SOCKET), None)
    found = json.loads(capsys.readouterr().out)
    assert {name: found[name] for name in ("version", "messages", "starts", "stops", "runs", "next")} == {
        "version": 1,
        "messages": 20,
        "starts": 10,
        "stops": 10,
        "runs": 5,
        "next": None,
    }
    assert len(client.asked) == 3
    assert outbox.counts() == {}


def test_nothing_is_dropped_where_nobody_can_be_asked(outbox: Outbox, client: FakeClient) -> None:
    fill(outbox, 1)
    with pytest.raises(UsageError, match="-yes"):
        print_queue(command("drop", "1"), OverSocket(client, SOCKET), None)
    assert client.asked == []


def test_nothing_is_asked_if_nothing_is_selected(client: FakeClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert print_queue(command("drop", "1"), OverSocket(client, SOCKET), no)
    assert capsys.readouterr().out == "no message that waits is selected: none is dropped\n"


def test_what_a_crash_would_undo_is_said() -> None:
    answer = {"messages": 2, "starts": 1, "stops": 1, "runs": 1, "restored": 1, "durable": False}
    assert list(queue_lines.dropped_lines(answer)) == [
        "dropped: 2 messages of 1 run (1 start, 1 stop)",
        "sent again: 1 earlier run of these jobs, which had made room for them",
        "the daemon cannot write its state file now: if it crashes before it can, this is undone",
    ]


def test_an_error_of_the_daemon_is_passed_on(client: FakeClient) -> None:
    with pytest.raises(UsageError, match="job id"):
        OverSocket(client, SOCKET).retry({"job": "x"})


# --- without a daemon


@pytest.fixture
def path(tmp_path: Path, outbox: Outbox) -> str:
    fill(outbox, 1, 2)
    park(outbox, "HTTP 422")
    outbox.close()
    return str(tmp_path / "state.sqlite")


def test_without_a_daemon_the_file_is_used(path: str, client: FakeClient, tmp_path: Path) -> None:
    client.runs = False
    queue = Either(OverSocket(client, SOCKET), OnFile(path, SOCKET))
    assert queue.list({"state": "parked", "limit": 1})["messages"] == 2
    assert len(queue.job(1)["rows"]) == 4
    assert queue.drop({"job": 1, "dry_run": True})["messages"] == 4
    assert [each.name for each in tmp_path.iterdir()] == ["state.sqlite"]
    assert queue.retry({"job": 1})["messages"] == 2
    assert queue.drop({"job": 1})["messages"] == 4
    assert queue.list({})["messages"] == 4
    assert [each.name for each in tmp_path.iterdir()] == ["state.sqlite"], "the lock is gone"


def test_the_file_of_a_daemon_that_does_not_answer_is_not_changed(path: str) -> None:
    queue = OnFile(path, SOCKET)
    with open(f"{path}.lock", "w", encoding="ascii") as lock:
        lock.write("4711\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for change in (queue.retry, queue.drop):
            with pytest.raises(
                StateError, match=r"pid 4711\), but nobody answers on its control socket /run/"
            ) as caught:
                change({"all": True})
            assert "pidFilePath" not in str(caught.value)
            assert "stop it" not in str(caught.value)
        assert queue.list({})["messages"] == 8
        assert queue.away == f"a daemon runs (pid {os.getpid()}), but nobody answers on its control socket {SOCKET}"
    assert Path(f"{path}.lock").read_text(encoding="ascii") == "4711\n"


@pytest.mark.parametrize("action", ["list", "retry", "drop"])
def test_without_a_file_nothing_is_made(tmp_path: Path, action: str) -> None:
    queue = OnFile(str(tmp_path / "state.sqlite"), SOCKET)
    with pytest.raises(StateError, match="there is no state file"):
        getattr(queue, action)({} if action == "list" else {"all": True})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_after_root_has_dropped_messages_the_daemons_user_can_start() -> None:
    """Nothing beside the file is root's, not even while the file is used."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        path = str(folder / "state.sqlite")
        outbox = Outbox(path, BOTH)
        fill(outbox, 1)
        outbox.close()
        for each in (folder, Path(path)):
            os.chown(each, NOBODY, NOBODY)
        folder.chmod(0o700)
        queue = OnFile(path, SOCKET)
        seen: set[int] = set()

        def look(*_: object) -> dict[str, object]:
            seen.update(each.stat().st_uid for each in folder.iterdir())
            seen.add(len(list(folder.iterdir())))
            return {}

        queue._change(lambda admin: (admin.drop(Selection()), look())[1])
        assert seen == {NOBODY, 4}, "the file, its log with the index, and the lock"
        assert [(each.name, each.stat().st_uid) for each in folder.iterdir()] == [("state.sqlite", NOBODY)]
        assert os.geteuid() == 0


# --- the whole command


@pytest.fixture
def config(path: str, tmp_path: Path) -> str:
    token = tmp_path / "token"
    token.write_text("eyJ.x.y")
    token.chmod(0o600)
    file = tmp_path / "config.json"
    names = {"ccRestUrl": "http://127.0.0.1:1", "ccRestJwtFile": str(token), "statePath": path}
    paths = {"pidFilePath": str(tmp_path / "daemon.pid"), "lastRunPath": str(tmp_path / "lastrun")}
    file.write_text(json.dumps({**names, **paths}))
    return str(file)


def test_secrets_are_not_read(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A member of SlurmUser's group may ask the daemon, and may not read the token."""
    (tmp_path / "token").unlink()
    assert main(["-queue", "list", "-config", config]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("dash", ["-", "--"])
def test_the_command_uses_the_configuration(config: str, dash: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"{dash}queue", "list", f"{dash}config", config, f"{dash}limit", "1", f"{dash}state", "parked"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0] == "no daemon runs: this is what its state file has"
    assert out.splitlines()[-1] == (
        "1 of 2 messages (state parked): 2 starts, 0 stops; more with -limit 2, or select less"
    )
    assert main([f"{dash}queue", "show", "1", f"{dash}config", config, f"{dash}json"]) == 0
    assert json.loads(capsys.readouterr().out)["job_id"] == 1
    assert main([f"{dash}queue", "drop", "1", f"{dash}config", config, f"{dash}yes"]) == 0
    assert capsys.readouterr().out == "dropped: 4 messages of 1 run (2 starts, 2 stops)\n"
    assert main([f"{dash}queue", "retry", "all", f"{dash}config", config]) == 0
    assert capsys.readouterr().out == (
        "no daemon runs: 2 messages of 1 run (1 start, 1 stop) are sent when it starts (systemctl start"
        " cc-slurm-adapter)\n"
    )


def test_without_a_terminal_the_command_does_not_drop(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(os.devnull, encoding="ascii") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert main(["-queue", "drop", "all", "-config", config]) == USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert "give -yes" in line


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", OTHER), ("\n", OTHER), ("", OTHER)])
def test_on_a_terminal_the_command_asks(
    config: str, typed: str, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    master, terminal = os.openpty()
    try:
        os.write(master, typed.encode() or b"\x04")
        with open(terminal, encoding="ascii", closefd=False) as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            assert main(["-queue", "drop", "1", "-config", config]) == code
    finally:
        os.close(master)
        os.close(terminal)
    assert "drop 4 messages of 1 run (2 starts, 2 stops)" in capsys.readouterr().err
    assert main(["-queue", "list", "-json", "-config", config]) == 0
    assert json.loads(capsys.readouterr().out)["messages"] == (4 if code == 0 else 8)


def test_what_was_dropped_without_a_daemon_stays_so_when_one_starts(path: str, config: str) -> None:
    assert main(["-queue", "drop", "1", "-yes", "-config", config]) == 0
    outbox = Outbox(path, BOTH)
    outbox.retry_all()
    assert {row.key.job_id for row in outbox.deliveries.due(CC_REST, time.time(), 9)} == {2}
    outbox.close()
