"""Explains one job from end to end: facts become sections of lines, and a conclusion. All functions are pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from cc_slurm_adapter.cli.job_facts import NOT_RUNNING, JobFacts, RunFacts, SlurmRun, runs_of
from cc_slurm_adapter.cli.verdicts import Verdict, conclude, verdict_of
from cc_slurm_adapter.daemon.report import plain
from cc_slurm_adapter.daemon.screen_text import wrapped
from cc_slurm_adapter.jobs import notes
from cc_slurm_adapter.outbox.job_rows import MessageRow
from cc_slurm_adapter.outbox.schema import DROPPED_REASON
from cc_slurm_adapter.sinks.base import StoredRun
from cc_slurm_adapter.system.quantities import at, counted, duration, moment

VERSION = 1
"""Of the JSON form. It grows if a field is removed, renamed or changes its meaning."""
WIDTH, INDENT = 96, 4
"""Columns of a line, and how far a line is indented that continues another."""
NAMED_HOSTS, NAMED_TASKS = 4, 5
"""The most nodes of a run, and the most tasks of an array, that are named."""
STAGES = {
    "preparing": "its nodes are being made ready",
    "started": "open: its end is not known yet",
    "ignored": "open",
    "done": "over",
}
STATES = {
    "pending": "waits to be sent",
    "following": "waits until the leading destination has it",
    "parked": "refused and parked",
    "conflict": "not sent, another run of the job is stored",
    "delivered": "delivered",
    "retained": "delivered",
    "done": "delivered",
    "dropped": DROPPED_REASON,
}


class Section(NamedTuple):
    """A title and the lines below it."""

    title: str
    lines: tuple[str, ...]


class Explanation(NamedTuple):
    """What is told about a job."""

    sections: tuple[Section, ...]
    runs: tuple[tuple[RunFacts, Verdict], ...]
    """The latest first."""
    conclusion: Verdict


def explain(facts: JobFacts) -> Explanation:
    """Explain a job."""
    found = [(run, verdict_of(run, facts)) for run in runs_of(facts)]
    sections = (
        Section(_slurm_title(facts), tuple(_slurm(facts))),
        Section("Here", tuple(_here(facts))),
        *(_run_section(run, verdict, facts, is_one_of=len(found)) for run, verdict in found),
        Section(_backend_title(facts), tuple(_backend(facts))),
    )
    return Explanation(tuple(each for each in sections if each.lines), tuple(found), conclude(facts, found))


def render(explanation: Explanation, name: str, width: int = WIDTH) -> Iterator[str]:
    """Yield the lines for people. The last one says what to do next."""
    for section in explanation.sections:
        yield from wrapped(section.title, width, INDENT)
        for line in section.lines:
            yield from (f"  {each}" for each in wrapped(line, width - 2, INDENT))
        yield ""
    conclusion = explanation.conclusion
    yield from wrapped(f"Job {name}: {conclusion.word}: {conclusion.text}.", width, INDENT)
    yield from wrapped(f"Next: {conclusion.next_step}", width, INDENT)


def as_object(explanation: Explanation, facts: JobFacts) -> dict[str, Any]:
    """Return the facts and the conclusion as an object for JSON."""
    runs = [{"start": run.start, **verdict._asdict()} for run, verdict in explanation.runs]
    conclusion = explanation.conclusion._asdict()
    return {"version": VERSION, "job_id": facts.job_id, "conclusion": conclusion, "runs": runs, "facts": plain(facts)}


# --- Slurm


def _slurm_title(facts: JobFacts) -> str:
    slurm = facts.slurm
    cluster = f" {slurm.cluster}" if slurm.cluster else ""
    return f"Slurm{cluster} now, asked as {slurm.asked_as or 'this user'}"


def _slurm(facts: JobFacts) -> Iterator[str]:
    slurm = facts.slurm
    yield from _slurmctld(facts)
    yield from _tasks(facts)
    states = [line.state for line in slurm.queue if line.job_id == facts.job_id]
    for run in slurm.runs:
        if run.start or not states:
            state = states[0] if states and run.source == "slurmctld" else run.phase
            yield _slurm_run(run, state, facts.now)
    if slurm.not_understood:
        yield f"cannot be understood: {slurm.not_understood}"
    yield from _accounting(facts)
    if facts.hides_jobs:
        yield f"PrivateData is {slurm.private_data}: Slurm may hide jobs from {slurm.asked_as}"
    yield from (f"the daemon's user: {each}" for each in slurm.privileges)


def _slurmctld(facts: JobFacts) -> Iterator[str]:
    """Say what slurmctld tells of a job that is no run now."""
    slurm = facts.slurm
    if slurm.slurmctld_failure:
        yield f"slurmctld: cannot be asked: {slurm.slurmctld_failure}"
    elif slurm.is_forgotten:
        yield "slurmctld: does not know the job (any more: it forgets ended ones after MinJobAge)"
    if not any(run.start and run.source == "slurmctld" for run in slurm.runs):
        lines = {f"{line.state}, reason {line.reason}": None for line in slurm.queue if line.job_id == facts.job_id}
        yield from (f"slurmctld: {each}" for each in lines)


def _accounting(facts: JobFacts) -> Iterator[str]:
    """Say what accounting tells beside its runs."""
    slurm = facts.slurm
    if slurm.accounting_failure:
        yield f"accounting: cannot be asked: {slurm.accounting_failure}"
    elif not slurm.has_accounting:
        yield "accounting: this Slurm has none"
    elif not (slurm.runs or slurm.queue or slurm.not_understood):
        yield "accounting: does not know the job"
    elif not any(run.source == "accounting" for run in slurm.runs):
        yield "accounting: shows no other run of the job"


def _tasks(facts: JobFacts) -> Iterator[str]:
    """Name tasks of the array that this id stands for. Each has an id of its own."""
    tasks = [line for line in facts.slurm.queue if line.job_id != facts.job_id]
    if tasks:
        named = ", ".join(f"{line.array_job_id}_{line.task} is {line.job_id}" for line in tasks[:NAMED_TASKS])
        rest = f" and {len(tasks) - NAMED_TASKS} more" if len(tasks) > NAMED_TASKS else ""
        yield f"this is the id of an array, and of its last task only; of the others {named}{rest}"


def _slurm_run(run: SlurmRun, state: str, now: float) -> str:
    """Describe a run. `state` is Slurm's word for it, or its phase."""
    if run.never_ran:
        when = f" at {moment(run.end, now)}" if run.end else ""
        return f"{run.source}: cancelled{when} before it began, submitted {at(run.submit, now)}, by {run.user}"
    if not run.start:
        return f"{run.source}: {run.state or 'waits'}, submitted {at(run.submit, now)}, by {run.user}"
    ended = f", ended {moment(run.end, now)}: {run.state}" if run.is_over else f", {state}"
    hosts = ", ".join(run.hosts[:NAMED_HOSTS])
    rest = f" and {len(run.hosts) - NAMED_HOSTS} more" if len(run.hosts) > NAMED_HOSTS else ""
    where = f", on {hosts}{rest}" if run.hosts else ", without nodes"
    return f"{run.source}: began {at(run.start, now)}{ended}; {run.user} in {run.partition}{where}"


# --- this program


def _here(facts: JobFacts) -> Iterator[str]:
    daemon, now = facts.daemon, facts.now
    if daemon is None:
        yield f"daemon: {facts.daemon_failure or NOT_RUNNING}"
    else:
        yield f"daemon: {daemon.phase} since {at(daemon.started, now)}, reports the cluster {daemon.cluster}"
        for each in daemon.failing:
            yield f"{each.label} fails since {at(each.since, now)}: {each.why}"
    if facts.state_failure:
        yield f"state file: {facts.state_failure}"
    elif not (facts.state.runs or facts.state.rows):
        yield "state file: has no run of this job"
    if facts.first_moment:
        yield f"first moment: {moment(facts.first_moment, now)}; runs that ended before it are not reported"
    if facts.read_until and facts.slurm.has_accounting:
        yield f"accounting was read until {at(facts.read_until, now)}"


def _run_section(run: RunFacts, verdict: Verdict, facts: JobFacts, *, is_one_of: int) -> Section:
    """Describe a run. Where it is the only one, the last lines are about it."""
    lines = [*_run(run, facts), *([verdict.text] if is_one_of > 1 else [])]
    has_begun = run.note != notes.NEVER_RAN and not (run.slurm and run.slurm.never_ran)
    what = "Run that began" if has_begun else "Cancelled before it began,"
    return Section(f"{what} {moment(run.start, facts.now)} ({run.start}): {verdict.word}", tuple(lines))


def _run(run: RunFacts, facts: JobFacts) -> Iterator[str]:
    if run.known is None:
        yield "not known here" if not run.rows else "forgotten here, but for its messages"
    else:
        note = f"; {run.note}" if run.note else ""
        stage = STAGES.get(run.known.stage, run.known.stage)
        yield f"here: {stage}{note} (changed {at(run.known.changed, facts.now)})"
    rows = [row for row in run.rows if row.kind != "withdraw" or row.state not in ("retained", "done")]
    yield from (_row(row, facts.now) for row in rows)
    if run.known is not None and not rows and run.known.stage == "done" and not run.note:
        yield "no message of it is left: they were delivered, or given up (the log says so)"


def _row(row: MessageRow, now: float) -> str:
    """Describe a message and what became of it."""
    what = f"{row.what} to {row.to}: {STATES.get(row.state, row.state)}"
    parts = [f"queued {at(row.created, now)}"]
    if row.delivered:
        what += f" {at(row.delivered, now)}"
    if row.first_sent:
        parts.append(f"first sent {at(row.first_sent, now)}")
    if row.refusals or row.parkings:
        parts.append(f"refused {counted(max(row.refusals, row.parkings), 'time')}")
    if row.cuts:
        parts.append(f"{row.cuts} of its texts left out, as it was too large")
    if row.reason and row.state not in ("done", "retained"):
        parts.append(f"answer: {row.reason}")
    if row.state in ("pending", "parked"):
        parts.append(_next_try(row, now))
    return f"{what}; {'; '.join(parts)}"


def _next_try(row: MessageRow, now: float) -> str:
    if row.next_try is None:
        return f"to be sent {row.next}"
    return f"next try {at(row.next_try, now)}" if row.next_try > now else "to be sent now"


# --- cc-backend


def _backend_title(facts: JobFacts) -> str:
    return f"cc-backend now ({facts.backend.url})" if facts.backend.url else "cc-backend now"


def _backend(facts: JobFacts) -> Iterator[str]:
    backend = facts.backend
    if not backend.url:
        yield "no ccRestUrl is set, so it cannot be asked"
    elif backend.failure:
        yield f"cannot be asked: {backend.failure}"
    elif not backend.runs and backend.searched:
        yield "lists no run of this job around the times at which its runs began"
    elif not backend.runs:
        yield "was not asked: no run of the job is known, and it can only be asked for a time"
    yield from (_stored(run, facts.now) for run in backend.runs)


def _stored(run: StoredRun, now: float) -> str:
    nodes = f" on {counted(run.nodes, 'node')}" if run.nodes else ""
    return f"a run of {run.user}{nodes} that began {at(run.start_time, now)}: {run.state}, {duration(run.duration)}"
