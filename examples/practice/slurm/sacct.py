"""The stand-in for sacct. The only step of a job here is its batch script; JSON has none, as with -X."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from examples.practice.slurm.accounting_json import (
    accounting_exit,
    accounting_name,
    accounting_object,
    admin_comment,
    eligible_time,
)
from examples.practice.slurm.call import (
    OPTIONAL,
    VALUE,
    Call,
    CommandError,
    Option,
    database_is_down,
    json_format,
    list_json_formats,
    parse_options,
    print_json,
    print_version,
)
from examples.practice.slurm.model import PENDING, RUNNING, Record, Settings, shares
from examples.practice.slurm.release import PLAIN, release_of
from examples.practice.slurm.times import InvalidTime, format_duration, format_time, parse_time
from examples.practice.slurm.view import (
    accounting_state,
    cpus_asked,
    cpus_held,
    elapsed,
    format_exit,
    format_tres,
    parse_state,
    task_name,
    tres_asked,
    tres_held,
)

OPTIONS = (
    Option("allocations", "X"),
    Option("allusers", "a"),
    Option("duplicates", "D"),
    Option("noheader", "n"),
    Option("parsable2", "P"),
    Option("state", "s", VALUE),
    Option("starttime", "S", VALUE),
    Option("endtime", "E", VALUE),
    Option("jobs", "j", VALUE),
    Option("format", "o", VALUE),
    Option("json", "", OPTIONAL),
    Option("version", "V"),
)
DEFAULT_FORMAT = "JobID,JobName,Partition,Account,AllocCPUS,State,ExitCode"
DATABASE_DOWN = "sacct: error: Problem talking to the database: Connection refused"
NOTHING_FOUND = {
    "description": "Nothing found",
    "error_number": 9003,
    "error": "Nothing found with query",
    "source": "slurmdb_jobs_get",
}


class Window(NamedTuple):
    """Which records are wanted. Both ends of the time belong to it."""

    start: float
    end: float
    states: frozenset[str]
    """Empty is any state."""


class Line(NamedTuple):
    """A record and what its columns depend on."""

    record: Record
    settings: Settings
    now: float
    environ: Mapping[str, str]
    is_step: bool = False
    """Its batch script, which follows the record itself."""


class Field(NamedTuple):
    """A column: its title, its width where the output is not parsable (negative: left), its text."""

    title: str
    width: int
    text: Callable[[Line], str]


def main(call: Call) -> int:
    """Run sacct and return its exit status."""
    options, _ = parse_options(call, OPTIONS)
    if "version" in options:
        return print_version(call)
    if options.get("json") == "list":
        return list_json_formats(call)
    version = json_format(call, options["json"], status=0) if "json" in options else ""
    fields = _parse_fields(options.get("format", DEFAULT_FORMAT))
    window = parse_window(call, options)
    ids = _parse_ids(options["jobs"]) if "jobs" in options else None
    if call.store.is_down("slurmdbd"):
        raise CommandError(f"{database_is_down(call)}\n{DATABASE_DOWN}")
    # The JSON of 22.05 has all runs of a job in any case.
    records = select(call, window, ids, duplicates="duplicates" in options or version == PLAIN)
    if version:
        jobs = [accounting_object(record, call.settings(), call.now, version) for record in records]
        command = [word for word in (call.name, *call.arguments) if not word.startswith("--json")]
        errors = [NOTHING_FOUND] if version == PLAIN and not jobs else []
        print_json(call, {"jobs": jobs, "errors": errors}, version, command)
        return 0
    settings = call.settings()
    lines = [Line(record, settings, call.now, call.environ) for record in records]
    if "allocations" not in options:
        lines = [each for line in lines for each in _with_steps(line)]
    _print_table(call, fields, lines, header="noheader" not in options, parsable="parsable2" in options)
    return 0


def _with_steps(line: Line) -> list[Line]:
    """A batch script is launched when the nodes are ready."""
    has_script = line.record.batch and line.record.run_time is not None
    return [line, line._replace(is_step=True)] if has_script else [line]


def _id(line: Line, job: str) -> str:
    return f"{job}.batch" if line.is_step else job


def parse_window(call: Call, options: Mapping[str, str]) -> Window:
    """Time and states. With states and no end, the end is the start; with states and no start, it is now."""
    states = frozenset(_parse_states(options["state"])) if "state" in options else frozenset()
    default_start = 0.0 if "jobs" in options else call.now if states else _midnight(call.now)
    start = _parse_moment(options["starttime"], call.now) if "starttime" in options else default_start
    default_end = start if states else call.now
    end = _parse_moment(options["endtime"], call.now) if "endtime" in options else default_end
    if start > end:
        text = f"Start time ({format_time(start, {})}) requested is after end time ({format_time(end, {})})."
        raise CommandError(f"sacct: error: {text}")
    return Window(start, end, states)


def _parse_moment(text: str, now: float) -> float:
    try:
        return parse_time(text, now)
    except InvalidTime:
        raise CommandError(f"Invalid time specification (pos=0): {text}") from None


def _midnight(now: float) -> float:
    today = time.localtime(now)
    return time.mktime((*today[:3], 0, 0, 0, 0, 0, -1))


def _parse_states(text: str) -> Iterable[str]:
    for word in text.split(","):
        state = parse_state(word)
        if state is None:
            raise CommandError(f"sacct: fatal: unrecognized job state value '{word}'")
        yield state


def _parse_ids(text: str) -> list[tuple[int, int | None]]:
    """Pairs of job id and, for 9_1, the array's task."""
    ids = []
    for word in text.split(","):
        job, _, task = word.partition("_")
        if not job.isdigit() or (task and not task.isdigit()):
            raise CommandError(f"sacct: fatal: Bad job/step specified: {word}")
        ids.append((int(job), int(task) if task else None))
    return ids


def select(
    call: Call, window: Window, ids: Sequence[tuple[int, int | None]] | None, *, duplicates: bool
) -> list[Record]:
    """The records in the window, by job id; without `duplicates` only the newest run of each job."""
    named = ids is not None
    records = [record for record in _candidates(call, window, ids) if in_window(record, window, named=named)]
    records.sort(key=lambda record: (record.job_id, record.db_index))
    if duplicates:
        return records
    return list({record.job_id: record for record in records}.values())


def _candidates(call: Call, window: Window, ids: Sequence[tuple[int, int | None]] | None) -> Iterable[Record]:
    if ids is not None:
        found = (
            record
            for job, task in ids
            for record in call.store.accounted_by_id(job)
            if task is None or record.array_task_id == task
        )
        return {record.db_index: record for record in found}.values()
    if window.states and not window.states & {PENDING, RUNNING}:
        return call.store.accounted_by_end(window.start, window.end)
    return call.store.accounted_since(window.start)


def in_window(record: Record, window: Window, *, named: bool) -> bool:
    """sacct's rule: waiting and running are states of any moment in the window, an end is one moment.

    Without states all count that were there in the window: jobs asked for by their ids (`named`) from their
    submission, others from the time at which they may start.
    """
    start = window.end + 1 if record.start_time is None else record.start_time
    over = record.end_time is not None and record.end_time < window.start
    if not window.states:
        known = record.submit_time if named else eligible_time(record)
        return known <= window.end and not over
    if RUNNING in window.states and start <= window.end and not over:
        return True
    waited_until = record.start_time if record.end_time is None else record.start_time or record.end_time
    waits = eligible_time(record) <= window.end and (waited_until is None or waited_until >= window.start)
    if PENDING in window.states and waits:
        return True
    ended = record.end_time is not None and window.start <= record.end_time <= window.end
    return ended and accounting_state(record) in window.states


def _moment(line: Line, moment: int | None, missing: str) -> str:
    return missing if moment is None else format_time(moment, line.environ)


def _start(line: Line) -> str:
    return _moment(line, line.record.start_time, "Unknown" if line.record.end_time is None else "None")


def _state(line: Line) -> str:
    state = accounting_state(line.record)
    return f"{state} by {line.record.killed_by_uid}" if line.record.killed_by else state


def _cpus(line: Line) -> str:
    held = shares(line.record)
    if not held and release_of(line.settings.release).is_before("23.02"):
        return str(cpus_asked(line.record))
    return str(cpus_held(held, line.settings))


def _sorted_tres(tres: dict[str, int]) -> str:
    """Accounting sorts the written pairs, so that gres/gpu:h100=4 comes before gres/gpu=4."""
    return format_tres(dict(sorted(tres.items(), key=lambda item: f"{item[0]}=")))


def _time_limit(line: Line, *, raw: bool) -> str:
    minutes = line.record.time_limit
    return "UNLIMITED" if minutes is None else str(minutes) if raw else format_duration(minutes * 60)


FIELDS = (
    Field("JobID", -12, lambda line: _id(line, task_name(line.record, line.settings))),
    Field("JobIDRaw", -12, lambda line: _id(line, str(line.record.job_id))),
    Field("JobName", 10, lambda line: "batch" if line.is_step else accounting_name(line.record)),
    Field("Partition", 10, lambda line: line.record.partition),
    Field("User", 9, lambda line: line.record.user),
    Field("UID", 6, lambda line: str(line.record.uid)),
    Field("Account", 10, lambda line: line.record.account),
    Field("Cluster", 10, lambda line: line.settings.cluster),
    Field("NNodes", 8, lambda line: str(line.record.nodes)),
    Field("NCPUS", 10, _cpus),
    Field("AllocCPUS", 10, _cpus),
    Field("AllocTRES", 10, lambda line: _sorted_tres(tres_held(shares(line.record), line.settings))),
    Field("ReqTRES", 10, lambda line: _sorted_tres(tres_asked(line.record, line.settings))),
    Field("NodeList", 15, lambda line: line.record.node_list or "None assigned"),
    Field("State", 10, _state),
    Field("ExitCode", 8, lambda line: format_exit(*accounting_exit(line.record))),
    Field("Reason", 22, lambda line: "None"),
    Field("Start", 19, _start),
    Field("End", 19, lambda line: _moment(line, line.record.end_time, "Unknown")),
    Field("Submit", 19, lambda line: _moment(line, line.record.submit_time, "Unknown")),
    Field("Eligible", 19, lambda line: _moment(line, eligible_time(line.record), "Unknown")),
    Field("Elapsed", 10, lambda line: format_duration(elapsed(line.record, line.now))),
    Field("ElapsedRaw", 10, lambda line: str(elapsed(line.record, line.now))),
    Field("Timelimit", 10, lambda line: _time_limit(line, raw=False)),
    Field("TimelimitRaw", 10, lambda line: _time_limit(line, raw=True)),
    Field("Restarts", 8, lambda line: str(line.record.restarts)),
    Field("DBIndex", 21, lambda line: str(line.record.db_index)),
    Field("AdminComment", 15, lambda line: admin_comment(line.record)),
)
BY_NAME = {field.title.lower(): field for field in FIELDS}


def _parse_fields(text: str) -> list[Field]:
    fields = []
    for word in text.split(","):
        name, _, width = word.partition("%")
        field = BY_NAME.get(name.lower())
        if field is None or (width and not width.lstrip("-").isdigit()):
            raise CommandError(f'sacct: error: Invalid field requested: "{word}"')
        fields.append(field._replace(width=int(width)) if width else field)
    return fields


def _print_table(call: Call, fields: Sequence[Field], lines: Iterable[Line], *, header: bool, parsable: bool) -> None:
    rows = [[field.text(line) for field in fields] for line in lines]
    titles = [field.title for field in fields]
    if parsable:
        table = [titles, *rows] if header else rows
        call.out.writelines("|".join(row) + "\n" for row in table)
        return
    dashes = ["-" * abs(field.width) for field in fields]
    for row in [titles, dashes, *rows] if header else rows:
        call.out.write("".join(_pad(text, field.width) + " " for text, field in zip(row, fields)) + "\n")


def _pad(text: str, width: int) -> str:
    if len(text) > abs(width):
        text = text[: abs(width) - 1] + "+"
    return text.ljust(-width) if width < 0 else text.rjust(width)
