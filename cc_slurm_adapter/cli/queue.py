"""`-queue`: shows the messages that are not delivered yet, tries them again, or drops them.

A running daemon is asked over its control socket. When none runs, the state file is used itself: only read to list and
show, and under the daemon's lock to change messages.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode

from cc_slurm_adapter import lines
from cc_slurm_adapter.cli import control_client, queue_lines
from cc_slurm_adapter.cli.control_client import parse_answer
from cc_slurm_adapter.config.paths import Paths, read_paths
from cc_slurm_adapter.daemon.job_state import JobState, parse_state
from cc_slurm_adapter.errors import AlreadyRunning, NotRunning, StateError, UsageError
from cc_slurm_adapter.lines import log_line, print_line
from cc_slurm_adapter.outbox.job_rows import MessageRow
from cc_slurm_adapter.outbox.selection import ALL, KEYS, parse, parse_job
from cc_slurm_adapter.system.file_locks import holder_of_lock
from cc_slurm_adapter.system.nearest import hint
from cc_slurm_adapter.system.owner import acting_as_owner

Answer = dict[str, Any]
Words = Mapping[str, object]
LIST, SHOW, RETRY, DROP = ACTIONS = "list", "show", "retry", "drop"
_ACTION_FORMS = "give list, show JOB, retry JOB or drop JOB; all is every job"
LIMIT, MOST, AT_ONCE = 50, 10_000, 1000
"""How many messages are listed if nobody says, at most, and in one request."""
SUMS = ("messages", "starts", "stops", "runs", "restored")
"""What the answers to the steps of a change are added up to."""


class Queue(Protocol):
    """Where the messages are. Each method returns the answer of the control socket. Raises StateError, UsageError."""

    @property
    def away(self) -> str:
        """Why the last answer is not a daemon's but from the state file; '' if a daemon has answered."""
        ...

    def list(self, words: Words) -> Answer:
        """Return some messages."""
        ...

    def job(self, job_id: int) -> Answer:
        """Return what is known of a job."""
        ...

    def retry(self, words: Words) -> Answer:
        """Do one step of trying messages again."""
        ...

    def drop(self, words: Words) -> Answer:
        """Do one step of dropping messages, or of counting them with `dry_run`."""
        ...


class Client(Protocol):
    """Sends a request to a daemon and returns the status and body, as the module `control_client` does."""

    def get(self, path: str, socket_path: str, /) -> tuple[int, bytes]:
        """Raises NotRunning and StateError."""
        ...

    def post(self, path: str, value: dict[str, object], socket_path: str, /) -> tuple[int, bytes]:
        """Raises NotRunning and StateError."""
        ...


class OverSocket:
    """The queue of a running daemon. Every method raises NotRunning if there is none."""

    away = ""

    def __init__(self, client: Client, socket_path: str) -> None:
        self._client = client
        self._socket_path = socket_path

    def list(self, words: Words) -> Answer:
        """Return some messages."""
        return parse_answer(*self._client.get(f"/queue?{urlencode(words)}", self._socket_path))

    def job(self, job_id: int) -> Answer:
        """Return what is known of a job."""
        return parse_answer(*self._client.get(f"/jobs/{job_id}", self._socket_path))

    def retry(self, words: Words) -> Answer:
        """Do one step of trying messages again."""
        return parse_answer(*self._client.post("/queue/retry", dict(words), self._socket_path))

    def drop(self, words: Words) -> Answer:
        """Do one step of dropping messages."""
        return parse_answer(*self._client.post("/queue/drop", dict(words), self._socket_path))


class OnFile:
    """The queue in the state file, when no daemon runs. Root acts as the owner of the file."""

    def __init__(self, state_path: str, socket_path: str) -> None:
        self._state_path = state_path
        self._socket_path = socket_path

    @property
    def away(self) -> str:
        """Why no daemon is asked. One that runs has locked a file beside the state file."""
        holder = holder_of_lock(f"{self._state_path}.lock")
        return self._silent(str(holder)) if holder else "no daemon runs"

    def _silent(self, pid: str) -> str:
        return f"a daemon runs (pid {pid}), but nobody answers on its control socket {self._socket_path}"

    def list(self, words: Words) -> Answer:
        """Return some messages."""
        from cc_slurm_adapter.outbox.admin import answer_queue  # noqa: PLC0415 - loads SQLite, only for this

        return self._read(lambda admin: answer_queue(admin, {key: str(word) for key, word in words.items()}))

    def job(self, job_id: int) -> Answer:
        """Return what is known of a job."""
        return self._read(lambda admin: JobState(job_id, admin.rows_of_job(job_id), None).as_object())

    def retry(self, words: Words) -> Answer:
        """Do one step of trying messages again: the next start sends them."""
        from cc_slurm_adapter.outbox.admin import answer_retry  # noqa: PLC0415

        return self._change(lambda admin: answer_retry(admin, words))

    def drop(self, words: Words) -> Answer:
        """Do one step of dropping messages. To count them, the file is only read."""
        from cc_slurm_adapter.outbox.admin import answer_drop  # noqa: PLC0415

        use = self._read if words.get("dry_run") else self._change
        return use(lambda admin: answer_drop(admin, words))

    def _read(self, action: Callable[[Any], Answer]) -> Answer:
        from cc_slurm_adapter.outbox.admin import QueueAdmin  # noqa: PLC0415
        from cc_slurm_adapter.outbox.offline import open_to_read  # noqa: PLC0415

        with open_to_read(self._state_path) as state:
            return action(QueueAdmin(state, state.leaders()))

    def _change(self, action: Callable[[Any], Answer]) -> Answer:
        from cc_slurm_adapter.daemon.state_files import PidFile  # noqa: PLC0415
        from cc_slurm_adapter.outbox.admin import QueueAdmin  # noqa: PLC0415
        from cc_slurm_adapter.outbox.offline import demand, open_to_change  # noqa: PLC0415

        lock = PidFile(f"{self._state_path}.lock", "statePath")
        with acting_as_owner(self._state_path):
            demand(self._state_path, to_change=True)  # before anything is made beside it
            try:
                lock.lock()
                with open_to_change(self._state_path) as state:
                    return action(QueueAdmin(state, state.leaders()))
            except AlreadyRunning as error:
                raise StateError(
                    f"{self._silent(error.pid)}: try again when it has started; if it stays so: systemctl restart"
                    " cc-slurm-adapter"
                ) from None
            finally:
                lock.release()


class Either:
    """The daemon's queue if one runs, else that in the file."""

    def __init__(self, daemon: Queue, file: Queue) -> None:
        self._daemon = daemon
        self._file = file
        self._answered = daemon

    @property
    def away(self) -> str:
        """Why the last answer is from the file."""
        return self._answered.away

    def list(self, words: Words) -> Answer:
        """Return some messages."""
        return self._ask(lambda queue: queue.list(words))

    def job(self, job_id: int) -> Answer:
        """Return what is known of a job."""
        return self._ask(lambda queue: queue.job(job_id))

    def retry(self, words: Words) -> Answer:
        """Do one step of trying messages again."""
        return self._ask(lambda queue: queue.retry(words))

    def drop(self, words: Words) -> Answer:
        """Do one step of dropping messages."""
        return self._ask(lambda queue: queue.drop(words))

    def _ask(self, request: Callable[[Queue], Answer]) -> Answer:
        try:
            self._answered = self._daemon
            return request(self._daemon)
        except NotRunning:
            self._answered = self._file
            return request(self._file)


class QueueCommand(NamedTuple):
    """What was typed after -queue."""

    action: str
    job: str = ""
    """A job id, or `all`; '' for a list."""
    state: str = ""
    reason: str = ""
    cluster: str = ""
    sink: str = ""
    limit: int = LIMIT
    as_json: bool = False
    yes: bool = False

    @property
    def words(self) -> dict[str, object]:
        """What it selects, as the control socket understands it."""
        job = parse_job(self.job)
        found = {**{key: getattr(self, key) for key in KEYS}, "job": job}
        selected = {key: word for key, word in found.items() if word}
        return selected if selected or self.action not in (RETRY, DROP) else {ALL: True}


def check_command(words: Sequence[str], **options: Any) -> QueueCommand:
    """Return the command of these words and options. Raises UsageError."""
    action, *rest = words
    if action == SHOW and (not rest or rest == [ALL]):
        raise UsageError("-queue show needs a job id: -queue list shows which jobs there are")
    if action not in ACTIONS:
        raise UsageError(f"-queue {action}: unknown word; {hint(action, ACTIONS, _ACTION_FORMS)}")
    if len(rest) != (0 if action == LIST else 1):
        raise UsageError(f"-queue {' '.join(words)} is not understood: {_ACTION_FORMS}")
    if action != LIST and "limit" in options:
        raise UsageError("-limit goes with -queue list")
    if action != DROP and options.get("yes"):
        raise UsageError("-yes goes with -queue drop")
    command = QueueCommand(action, rest[0] if rest else "", **options)
    parse(command.words, others=(ALL,))
    if action == SHOW and set(command.words) - {"job"}:
        raise UsageError("-queue show shows all of a job: it takes no other selection")
    if action == RETRY and command.state == "following":
        raise UsageError("what follows is sent when cc-backend has it: try the messages for cc-backend again")
    if not 0 < command.limit <= MOST:
        raise UsageError(f"-limit is {command.limit}, but must be from 1 to {MOST}")
    return command


def run_queue(command: QueueCommand, config_path: str, *, explicit: bool) -> bool:
    """Print what the command finds or does. Return whether it was done. Raises AdapterError."""
    paths = read_paths(config_path, explicit=explicit)
    return print_queue(command, queue_of(paths), ask_on_terminal if can_be_asked() else None)


def queue_of(paths: Paths) -> Queue:
    """Return the queue that a configuration names.

    Secrets are not read: whoever may use the control socket may not read them.
    """
    return Either(OverSocket(control_client, paths.control_sock), OnFile(paths.state, paths.control_sock))


def can_be_asked() -> bool:
    """Return whether standard input is a terminal. There may be none at all."""
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


def ask_on_terminal(question: str) -> bool:
    """Ask, and return whether the answer is yes. Ctrl-C is a no."""
    log_line(question, lines.NOTICE)
    try:
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        return False


def print_queue(command: QueueCommand, queue: Queue, ask: Callable[[str], bool] | None) -> bool:
    """Print what the command finds or does. `ask` asks a question; None if nobody can be asked."""
    answer = answer_of(command, queue, ask)
    if answer is None:
        log_line("nothing was dropped", lines.NOTICE)
        return False
    for line in [json.dumps(answer)] if command.as_json else lines_of(command, answer, queue.away):
        print_line(line)
    return True


def answer_of(command: QueueCommand, queue: Queue, ask: Callable[[str], bool] | None) -> Answer | None:
    """Do what the command says, and return the answer; None if it was not to be done after all."""
    if command.action == LIST:
        return list_rows(queue, command.words, command.limit)
    if command.action == SHOW:
        return queue.job(int(command.job))
    if command.action == RETRY:
        return all_steps(queue.retry, command.words)
    return drop(command, queue, ask)


def list_rows(queue: Queue, words: Words, limit: int) -> Answer:
    """Return the first messages, which may be several pages, as one answer."""
    answer = queue.list({**words, "limit": min(limit, AT_ONCE)})
    rows, following = answer["rows"], answer["next"]
    while following is not None and len(rows) < limit:
        page = queue.list({**words, "limit": min(limit - len(rows), AT_ONCE), "after": following})
        rows, following = [*rows, *page["rows"]], page["next"]
    return {**answer, "rows": rows, "next": following}


def all_steps(do: Callable[[Words], Answer], words: Words) -> Answer:
    """Do all steps of a change. Return the answer to the last one, with the numbers of all of them."""
    answer = do(words)
    sums = {name: answer[name] for name in SUMS}
    while answer["next"] is not None:
        answer = do({**words, "after": answer["next"], "until": answer["until"]})
        sums = {name: sums[name] + answer[name] for name in SUMS}
    return {**answer, **sums}


def drop(command: QueueCommand, queue: Queue, ask: Callable[[str], bool] | None) -> Answer | None:
    """Drop what is selected, after a question that says how much it is. Return None if the answer is no.

    Messages that were added after the question are not dropped.
    """
    if command.yes:
        return all_steps(queue.drop, command.words)
    if ask is None:
        raise UsageError("-queue drop asks before it drops, and here nobody can be asked: give -yes to drop")
    would = all_steps(queue.drop, {**command.words, "dry_run": True})
    if not would["messages"]:
        return would
    if not ask(queue_lines.question(would)):
        return None
    return all_steps(queue.drop, {**command.words, "until": would["until"]})


def parse_rows(answer: Answer) -> list[MessageRow]:
    """Return the rows of a list. Raises StateError if they have another form, as another version may print."""
    try:
        return [MessageRow(**row) for row in answer["rows"]]
    except (KeyError, TypeError) as error:
        raise StateError(
            f"the daemon answers in another form ({error}): restart it, so that it is this version"
        ) from None


def lines_of(command: QueueCommand, answer: Answer, away: str = "") -> Iterator[str]:
    """Return the lines for people. `away` says why no daemon has answered; '' if one has."""
    if command.action == LIST:
        rows = parse_rows(answer)
        if away:
            yield f"{away}: this is what its state file has"
        if rows:
            yield queue_lines.table_header()
        yield from queue_lines.table_lines(rows, time.time())
        yield queue_lines.summary(len(rows), answer, str(parse(command.words)))
    elif command.action == SHOW:
        yield from queue_lines.job_lines(parse_state(answer), time.time())
    elif command.action == RETRY:
        yield from queue_lines.retried_lines(answer, runs=not away)
    else:
        yield from queue_lines.dropped_lines(answer)
