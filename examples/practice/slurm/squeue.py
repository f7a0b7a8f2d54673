"""The stand-in for squeue."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from examples.practice.slurm.call import (
    OPTIONAL,
    UNKNOWN_JOB,
    VALUE,
    Call,
    CommandError,
    Option,
    json_format,
    list_json_formats,
    parse_options,
    print_json,
    print_version,
    require_controller,
)
from examples.practice.slurm.job_json import job_object
from examples.practice.slurm.job_template import number
from examples.practice.slurm.model import COMPLETING, CONFIGURING, ENDED, PENDING, RUNNING, Record, Settings, shares
from examples.practice.slurm.release import ONE, PLAIN
from examples.practice.slurm.times import format_duration, format_time
from examples.practice.slurm.view import (
    STATE_CODES,
    cpus_asked,
    cpus_held,
    elapsed,
    moments,
    parse_state,
    reason,
    shown_nodes,
    shown_state,
    task_name,
    waiting_tasks,
)

OPTIONS = (
    Option("noheader", "h"),
    Option("all", "a"),
    Option("states", "t", VALUE),
    Option("jobs", "j", VALUE),
    Option("user", "u", VALUE),
    Option("format", "o", VALUE),
    Option("json", "", OPTIONAL),
    Option("version", "V"),
)
DEFAULT_FORMAT = "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R"
DEFAULT_STATES = frozenset((PENDING, RUNNING, CONFIGURING, COMPLETING))
COLUMN = re.compile(r"%(\.?)(\d*)([a-zA-Z])")


class Line(NamedTuple):
    """A record and what its columns depend on."""

    record: Record
    settings: Settings
    now: float
    environ: Mapping[str, str]


def main(call: Call) -> int:
    """Run squeue and return its exit status."""
    options, rest = parse_options(call, OPTIONS)
    if rest:
        raise CommandError(f"squeue: error: Unrecognized option: {rest[0]}")
    if "version" in options:
        return print_version(call)
    if options.get("json") == "list":
        return list_json_formats(call)
    version = json_format(call, options["json"]) if "json" in options else ""
    states = parse_states(options["states"]) if "states" in options else DEFAULT_STATES
    ids = _parse_ids(options["jobs"]) if "jobs" in options else None
    if version == PLAIN:
        return _print_plain(call)
    require_controller(call, "slurm_load_jobs error")
    users = frozenset(options["user"].split(",")) if "user" in options else frozenset()
    if version and call.release().json_jobs == ONE:
        _print_jobs(call, _loaded(call, ids, users), version)
        return 0
    records = [record for record in select(call, states, ids) if not users or record.user in users]
    if version:
        _print_jobs(call, records, version)
    else:
        _print_lines(call, records, options.get("format", DEFAULT_FORMAT), header="noheader" not in options)
    return 0


def _print_plain(call: Call) -> int:
    """22.05 asks slurmctld for all jobs, whatever the options say; a failure is told in the document."""
    if call.store.is_down("slurmctld"):
        problem = {"description": "Failed while looking for jobs", "error_number": -1, "error": "Unspecified error"}
        print_json(call, {"jobs": [], "errors": [{**problem, "source": "slurm_load_jobs"}]}, PLAIN, ())
    else:
        _print_jobs(call, call.store.in_memory(), PLAIN)
    return 0


def _loaded(call: Call, ids: Sequence[tuple[int, int | None]] | None, users: frozenset[str]) -> list[Record]:
    """What squeue of 23.02 and 23.11 loads, and prints unfiltered: the job of one id, else those of one user, else all.

    (_load_job_info or print_jobs in src/squeue/squeue.c; -u was not recorded.)
    """
    if ids is not None and len(ids) == 1:
        records = _by_id(call, [(ids[0][0], None)])
        if not records:
            raise CommandError(f"slurm_load_jobs error: {UNKNOWN_JOB}")
        return records
    records = call.store.in_memory()
    return [record for record in records if record.user in users] if len(users) == 1 else records


def parse_states(text: str) -> frozenset[str]:
    """The states of -t by their long names."""
    if text.lower() == "all":
        return frozenset(STATE_CODES)
    states = set()
    for word in text.split(","):
        state = parse_state(word)
        if state is None:
            known = ",".join(STATE_CODES).lower()
            raise CommandError(
                f"squeue: error: Invalid job state specified: {word}\n"
                f"squeue: error: Valid job states include: {known}\n"
            )
        states.add(state)
    return frozenset(states)


def _parse_ids(text: str) -> list[tuple[int, int | None]]:
    """Pairs of job id and, for 9_1, the array's task."""
    ids = []
    for word in text.split(","):
        job, _, task = word.partition("_")
        if not job.isdigit() or (task and not task.isdigit()):
            raise CommandError(f"squeue: error: Invalid job id: {word}")
        ids.append((int(job), int(task) if task else None))
    return ids


def select(call: Call, states: frozenset[str], ids: Sequence[tuple[int, int | None]] | None) -> list[Record]:
    """The jobs in these states, by job id. Only a single unknown id is an error."""
    if ids is None:
        records = call.store.in_memory() if states - DEFAULT_STATES else call.store.in_phases(states)
    else:
        records = _by_id(call, ids)
    if ids is not None and len(ids) == 1 and not records:
        raise CommandError(f"slurm_load_jobs error: {UNKNOWN_JOB}")
    return [record for record in records if shown_state(record) in states]


def _by_id(call: Call, ids: Iterable[tuple[int, int | None]]) -> list[Record]:
    found = {
        record.db_index: record
        for job, task in ids
        for record in call.store.in_memory_by_id(job)
        if task is None or record.array_task_id == task
    }
    return sorted(found.values(), key=lambda record: record.job_id)


def _print_jobs(call: Call, records: Sequence[Record], version: str) -> None:
    settings = call.settings()
    document = {
        "jobs": [job_object(record, settings, call.now, version) for record in records],
        "last_backfill": number(int(call.now)),
        "last_update": number(int(call.now)),
    }
    warnings = [] if records else ["Zero jobs to dump"]
    print_json(call, document, version, _told_command(call), warnings)


def _told_command(call: Call) -> list[str]:
    """squeue tells its own call without the ids of -j: it has eaten them by then."""
    words = [call.name, *call.arguments]
    return [word for place, word in enumerate(words) if not place or words[place - 1] not in ("-j", "--jobs")]


def _print_lines(call: Call, records: Sequence[Record], form: str, *, header: bool) -> None:
    settings = call.settings()
    pieces = parse_format(form)
    ordered = sorted(records, key=lambda record: (record.partition, shown_state(record), record.job_id))
    if header:
        call.out.write("".join(piece.literal + piece.fit(piece.column.title) for piece in pieces) + "\n")
    for record in ordered:
        line = Line(record, settings, call.now, call.environ)
        words = (piece.literal + piece.fit(piece.column.text(line)) for piece in pieces)
        call.out.write("".join(words) + "\n")


class Column(NamedTuple):
    """One letter of -o."""

    title: str
    text: Callable[[Line], str]


class Piece(NamedTuple):
    """A column of -o with the text in front of it. Width 0 is as wide as it takes."""

    literal: str
    column: Column
    width: int
    right: bool

    def fit(self, text: str) -> str:
        if not self.width:
            return text
        text = text[: self.width]
        return text.rjust(self.width) if self.right else text.ljust(self.width)


def parse_format(form: str) -> list[Piece]:
    """Cut %i, %10i (left) and %.10i (right) out of the text between them."""
    pieces = []
    place = 0
    for match in COLUMN.finditer(form):
        right, width, letter = match.groups()
        column = COLUMNS.get(letter)
        if column is None:
            raise CommandError(f"squeue: error: Invalid job format specification: {letter}")
        pieces.append(Piece(form[place : match.start()], column, int(width or 0), bool(right)))
        place = match.end()
    return [*pieces, Piece(form[place:], NOTHING, 0, False)]


def _start(line: Line) -> str:
    start = moments(line.record).start
    return "N/A" if start is None else format_time(start, line.environ)


def _end(line: Line) -> str:
    end = moments(line.record).end
    if end is not None and line.record.end_time is None and line.record.time_limit is None:
        return "NONE"
    return "N/A" if end is None else format_time(end, line.environ)


def _cpus(line: Line) -> str:
    held = shares(line.record)
    return str(cpus_held(held, line.settings) if held else cpus_asked(line.record))


def _time_limit(line: Line) -> str:
    minutes = line.record.time_limit
    return "UNLIMITED" if minutes is None else format_duration(minutes * 60, short=True)


def _task(line: Line) -> str:
    record = line.record
    waiting = waiting_tasks(record, line.settings)
    return waiting or ("N/A" if record.array_task_id is None else str(record.array_task_id))


def _nodes_or_reason(line: Line) -> str:
    nodes = shown_nodes(line.record)
    told = line.record.phase == PENDING or (line.record.phase == ENDED and not nodes)
    return f"({_reason(line)})" if told else nodes


def _reason(line: Line) -> str:
    return reason(line.record, line.now)


NOTHING = Column("", lambda line: "")
COLUMNS = {
    "A": Column("JOBID", lambda line: str(line.record.job_id)),
    "a": Column("ACCOUNT", lambda line: line.record.account),
    "C": Column("CPUS", _cpus),
    "D": Column("NODES", lambda line: str(line.record.nodes)),
    "e": Column("END_TIME", _end),
    "F": Column("ARRAY_JOB_ID", lambda line: str(line.record.array_job_id or line.record.job_id)),
    "i": Column("JOBID", lambda line: task_name(line.record, line.settings)),
    "j": Column("NAME", lambda line: line.record.name),
    "K": Column("ARRAY_TASK_ID", _task),
    "l": Column("TIME_LIMIT", _time_limit),
    "M": Column("TIME", lambda line: format_duration(elapsed(line.record, line.now), short=True)),
    "N": Column("NODELIST", lambda line: shown_nodes(line.record)),
    "P": Column("PARTITION", lambda line: line.record.partition),
    "R": Column("NODELIST(REASON)", _nodes_or_reason),
    "r": Column("REASON", _reason),
    "S": Column("START_TIME", _start),
    "T": Column("STATE", lambda line: shown_state(line.record)),
    "t": Column("ST", lambda line: STATE_CODES[shown_state(line.record)]),
    "U": Column("UID", lambda line: str(line.record.uid)),
    "u": Column("USER", lambda line: line.record.user),
    "V": Column("SUBMIT_TIME", lambda line: format_time(line.record.submit_time, line.environ)),
}
