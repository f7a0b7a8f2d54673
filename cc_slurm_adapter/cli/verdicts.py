"""Why a run is in cc-backend or not, and what to do: decided from what was gathered. All functions are pure.

A verdict has a word, which docs/troubleshooting.md lists with its meaning, a text, the next step, and an exit code: 0
if all is as it should be or there is nothing to report, 1 if something needs a look, 2 if there is no such job.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cc_slurm_adapter.cli.job_facts import JobFacts, RunFacts, SlurmRun, other_clusters
from cc_slurm_adapter.daemon.faults import advice
from cc_slurm_adapter.daemon.job_state import DaemonFacts, Failing
from cc_slurm_adapter.daemon.report import RUNNING
from cc_slurm_adapter.jobs import notes
from cc_slurm_adapter.jobs.ignore_rules import OPTED_OUT
from cc_slurm_adapter.outbox.job_rows import MessageRow
from cc_slurm_adapter.outbox.parking import TOO_LONG
from cc_slurm_adapter.sinks.base import CC_NATS, label_of
from cc_slurm_adapter.system.quantities import at, duration

FINE, LOOK, NO_SUCH_JOB = 0, 1, 2
START_DAEMON = "Start the daemon: systemctl start cc-slurm-adapter"
COMPARE_NOW = "or now: systemctl restart cc-slurm-adapter compares at once, and loses nothing"
DAY = 86400
LONG_WAIT = 600
"""Seconds after which a message that waits although nothing fails needs a look."""
ASKS_SLURMCTLD = ("poll", "lookup")


class Verdict(NamedTuple):
    """What was found out about a run, or about the job."""

    word: str
    text: str
    """A sentence without its full stop, for a reader who sees which run it is about."""
    next_step: str
    """A sentence."""
    code: int = LOOK


DROPPED = Verdict("dropped", "an administrator has dropped it (-queue drop)", "Nothing: that was wanted.", FINE)
DELIVERED = ("delivered", "retained", "done")
"""The states of a message that was delivered."""
NO_ROWS = "no message of it is left: it was delivered, or given up"


def conclude(facts: JobFacts, found: Sequence[tuple[RunFacts, Verdict]]) -> Verdict:
    """Return the verdict about the job: that of its latest run that needs a look, else that of its latest run."""
    if not found:
        return _without_runs(facts)
    return next((verdict for _, verdict in found if verdict.code), found[0][1])


def verdict_of(run: RunFacts, facts: JobFacts) -> Verdict:
    """Return the verdict about one run."""
    return _of_known(run, facts) if run.is_known_here else _of_unknown(run, facts)


# --- runs that this program knows


def _of_known(run: RunFacts, facts: JobFacts) -> Verdict:
    for kind in ("start", "stop"):
        row = run.row(facts.config.leading, kind)
        if row is not None and row.state in _UNSETTLED:
            return _UNSETTLED[row.state](row, facts)
    stage, note = (run.known.stage, run.note) if run.known else ("", "")
    if stage == "ignored" or note.startswith(notes.LEFT_OUT):
        return _left_out(note[len(notes.LEFT_OUT) :], facts)
    if stage == "preparing":
        return _preparing()
    return _noted(run, note, facts) or _delivered(run, facts)


def _noted(run: RunFacts, note: str, facts: JobFacts) -> Verdict | None:
    """Return why nothing of a run is sent, if its note says so."""
    if note == notes.NEVER_RAN:
        return _never_ran(run.slurm.end if run.slurm else run.start, facts)
    if note in _NOTHING_TO_REPORT:
        return Verdict(*_NOTHING_TO_REPORT[note], FINE)
    if run.stored is None and notes.is_dropped(note, facts.config.leading):
        return DROPPED
    return None


def _conflict(row: MessageRow, facts: JobFacts) -> Verdict:
    others = [each for each in facts.backend.runs if each.start_time != row.start_time]
    if others:
        nearest = min(others, key=lambda each: abs(each.start_time - row.start_time))
        which = f"the run that began {at(nearest.start_time, facts.now)}, {nearest.state} there"
    else:
        which = "which one was not found within a day of this one"
    if facts.config.requeued_runs == "first":
        step = "If the last run of a requeued job matters more than the first: set requeuedRuns to last, and restart"
    else:
        step = "Nothing can be done here: that run was not sent by this program, or it began later"
    text = f"cc-backend has another run of this job within a day, {which}, and refuses this one"
    again = f"unless the other run is deleted in cc-backend: then cc-slurm-adapter -queue retry {facts.job_id}"
    return Verdict("conflict", text, f"{step}. What is refused already stays so, {again}")


def _parked(row: MessageRow, facts: JobFacts) -> Verdict:
    label = row.to
    if row.why == TOO_LONG:
        text = f"its {row.what} could not be delivered to {label} for slurmQueryMaxSpan and is parked"
    else:
        text = f"{label} has refused its {row.what} since {at(row.parked_since, facts.now)}: {row.reason}"
    if facts.daemon is None:
        text += f"; {_daemon_away(facts)[0]}"
    elif row.next_try is not None:
        text += f"; it is tried again {at(max(row.next_try, facts.now), facts.now)}"
    else:
        text += "; it is tried again when another message that was refused for the same reason is accepted"
    cause = _sentence(advice(row.reason, f"correct the cause in {label}"))
    if facts.daemon is None:
        cause += f". {_daemon_away(facts)[1].removesuffix(', then ask again')}"
    step = f"{cause}, then send it again: cc-slurm-adapter -queue retry {facts.job_id}"
    return Verdict("parked", text, step)


def _pending(row: MessageRow, facts: JobFacts) -> Verdict:
    label, now = row.to, facts.now
    what = f"its {row.what} waits to be sent to {label} since {at(row.created, now)}"
    if facts.daemon is None:
        text, step = _daemon_away(facts)
        return Verdict("daemon away", f"{what}, and {text}", f"{step}.")
    failing = _failing(facts.daemon, row.sink)
    if failing is not None and failing.refuses_all:
        step = "Correct the token (ccRestJwtFile is read again by itself) and reload, or the address and restart"
        text = f"{what}: {label} refuses everything since {at(failing.since, now)}: {failing.why}"
        return Verdict("refused", text, f"{step}. Nothing is lost meanwhile.")
    if failing is not None:
        text = f"{what}: {label} cannot be reached since {at(failing.since, now)}: {failing.why}"
        return Verdict("destination away", text, f"Make {label} answer: everything that waits is sent then by itself.")
    if row.next_try is not None and row.next_try > now:
        text = f"{what}; the last try failed: {row.reason}; it is tried again {at(row.next_try, now)}"
        return Verdict("waits", text, f"Wait, or send it now: cc-slurm-adapter -queue retry {facts.job_id}")
    code = FINE if now - row.created < LONG_WAIT else LOOK
    return Verdict("waits", what, "Ask again in a minute; -status shows how much waits before it.", code)


def _following(row: MessageRow, facts: JobFacts) -> Verdict:
    return Verdict("waits", f"its {row.what} is sent after cc-backend has it", "See what cc-backend answers.")


def _dropped(row: MessageRow, facts: JobFacts) -> Verdict:
    return DROPPED


_UNSETTLED = {
    "conflict": _conflict,
    "parked": _parked,
    "pending": _pending,
    "following": _following,
    "dropped": _dropped,
}
"""By the state of a message that is not delivered."""
_NOTHING_TO_REPORT = {
    notes.IDLE: ("launched nothing", notes.IDLE, "Nothing: cc-backend would take it for the real run."),
    notes.REMAINDER: ("part of a run", notes.REMAINDER, "Look at the run that began before it."),
}
"""The words, texts and next steps by the note."""


def _delivered(run: RunFacts, facts: JobFacts) -> Verdict:
    """Return the verdict about a run whose messages so far were delivered."""
    label = label_of(facts.config.leading)
    if not facts.backend.url:
        text = f"{label} has it" if _has_delivered(run, facts) else NO_ROWS
        return Verdict("delivered", text, "Nothing: no ccRestUrl is set to ask cc-backend.", FINE)
    if run.stored is None and facts.backend.failure:
        text = f"it was delivered to {label}" if _has_delivered(run, facts) else NO_ROWS
        text += f", but cc-backend cannot be asked what it has: {facts.backend.failure}"
        return Verdict("delivered", text, "Make cc-backend answer, then ask again.")
    if run.stored is None:
        return _not_listed(run, facts)
    return _stored(run, facts)


def _not_listed(run: RunFacts, facts: JobFacts) -> Verdict:
    """Return the verdict about a run that was delivered, and that cc-backend does not list."""
    when = _delivered_at(run, facts)
    label = label_of(facts.config.leading)
    if facts.now - when < facts.config.commit_span:
        text = f"{label} accepted it" if _has_delivered(run, facts) else NO_ROWS
        text += f" {at(when, facts.now)}; cc-backend lists a start after a minute or two"
        return Verdict("young", text, f"Ask again in {duration(facts.config.commit_span)}.", FINE)
    text = f"it was delivered to {label}" if _has_delivered(run, facts) else NO_ROWS
    text += f" {at(when, facts.now)}" if when else ""
    text += ", but cc-backend does not list it"
    if facts.config.leading == CC_NATS:
        text += ", which does not answer to messages from NATS"
    if run.known and run.known.stage == "started":
        step = f"The comparison sends it again within ccPollInterval ({duration(facts.config.cc_poll_interval)})"
        return Verdict("not listed", text, f"{step}, {COMPARE_NOW}.")
    step = "Find out whether it was deleted there, or an older database restored: a run that is over is not sent again."
    return Verdict("not listed", text, step)


def _has_delivered(run: RunFacts, facts: JobFacts) -> bool:
    """Return whether a row says that a message was delivered. Without rows, it may also have been given up."""
    return any(row.sink == facts.config.leading and row.state in DELIVERED for row in run.rows)


def _delivered_at(run: RunFacts, facts: JobFacts) -> float:
    """Return when the last message of a run was delivered; 0 if that is not known. When it was sent says nothing."""
    if run.known is not None and run.known.stage == "done":
        return run.known.changed
    start = run.row(facts.config.leading, "start")
    return start.delivered if start else 0


def _stored(run: RunFacts, facts: JobFacts) -> Verdict:
    """Return the verdict about a run that cc-backend has."""
    assert run.stored is not None  # noqa: S101 - the caller has looked
    is_over = run.slurm is not None and run.slurm.is_over
    if run.stored.state == "running" and (is_over or (run.known is not None and run.known.stage == "done")):
        return _end_is_missing(run, facts)
    if run.note.startswith(notes.INCOMPLETE):
        step = "Nothing: Slurm does not tell more."
        if notes.TOO_LATE in run.note:
            step = "Check the hooks (-status names what is wrong with them), and whether the daemon was away then."
        return Verdict("incomplete", f"cc-backend has it, but {run.note}", step)
    note = f" ({run.note})" if run.note else ""
    if not run.is_known_here:
        note = "; another program has reported it, or it is longer ago than this program remembers"
    text = f"cc-backend has it, {run.stored.state}{note}"
    if facts.daemon is None and not is_over and run.known is not None and run.known.stage == "started":
        why, step = _daemon_away(facts)
        return Verdict("there", f"{text}, but {why}, and its end is still to be reported", f"{step}.")
    return Verdict("there", text, "Nothing: all is as it should be.", FINE)


def _end_is_missing(run: RunFacts, facts: JobFacts) -> Verdict:
    """Return the verdict about a run that is over, and that cc-backend believes to be running."""
    if facts.daemon is None:
        why, step = _daemon_away(facts)
        return Verdict("end missing", f"cc-backend has it as running, and {why}", f"{step}.")
    ended = run.slurm.end if run.slurm else 0
    if run.known is not None and run.known.stage == "started":
        text = f"it has ended at {at(ended, facts.now)}, which this program has not seen yet"
        failing = _failing(facts.daemon, "accounting", *ASKS_SLURMCTLD)
        if failing is not None:
            return Verdict("end missing", f"{text}: {failing.why}", "Make Slurm answer the daemon's user.")
        is_young = facts.now - ended < 2 * facts.config.poll_interval
        step = f"Ask again after the next poll (slurmPollInterval, {duration(facts.config.poll_interval)})."
        return Verdict("end missing", text, step, FINE if is_young else LOOK)
    text = "cc-backend has it as running, although it is over"
    step = f"The comparison sends its end within ccPollInterval ({duration(facts.config.cc_poll_interval)})"
    return Verdict("end missing", text, f"{step}, {COMPARE_NOW}.")


# --- runs that this program does not know


def _of_unknown(run: RunFacts, facts: JobFacts) -> Verdict:
    slurm = run.slurm
    if slurm is None:
        text = f"cc-backend has it, {run.stored.state if run.stored else ''}; neither Slurm nor this program knows it"
        return Verdict("only there", text, "Nothing: another program has reported it, or it is long ago.", FINE)
    if run.stored is not None:
        return _stored(run, facts)
    return _never_reported(slurm, facts) or _not_reported_yet(slurm, facts)


def _never_reported(slurm: SlurmRun, facts: JobFacts) -> Verdict | None:
    """Return why such a run is never reported; None if it ought to be."""
    if slurm.never_ran:
        return _never_ran(slurm.end or slurm.start, facts)
    if slurm.left_out:
        return _left_out(slurm.left_out, facts)
    if slurm.has_launched is False:
        return Verdict(*_NOTHING_TO_REPORT[notes.IDLE], FINE)
    if _why_not_understood(facts):
        return _not_understood(facts)
    return _too_long_ago(slurm, facts) if slurm.is_over else None


def _too_long_ago(slurm: SlurmRun, facts: JobFacts) -> Verdict | None:
    """Return why a run that is over was over too long ago; None if it was not."""
    if slurm.end < facts.first_moment:
        text = (
            f"it ended {at(slurm.end, facts.now)}, before the first moment of this program,"
            f" {at(facts.first_moment, facts.now)}"
        )
        step = "Another program had to report it. This one cannot report such runs afterwards."
        return Verdict("before the first moment", text, step)
    if slurm.end < facts.now - facts.config.max_span - DAY:
        text = (
            f"it ended {at(slurm.end, facts.now)}, longer ago than slurmQueryMaxSpan, and nothing is known of it here"
        )
        return Verdict("too old", text, "If cc-backend never had it: it cannot be reported afterwards any more.")
    return None


def _not_reported_yet(slurm: SlurmRun, facts: JobFacts) -> Verdict:
    """Return why a run that ought to be reported is not known here."""
    daemon, now = facts.daemon, facts.now
    if daemon is None:
        read = f"; accounting was read until {at(facts.read_until, now)}" if facts.read_until else ""
        why, step = _daemon_away(facts)
        if not facts.may_run:
            step += ". It reads what it has missed, slurmQueryMaxSpan back"
        return Verdict("daemon away", f"this program does not know it, and {why}{read}", f"{step}.")
    if daemon.phase != RUNNING:
        return Verdict("daemon starts", f"the daemon has not begun to report: {daemon.phase}", "See its log.")
    if slurm.start in daemon.awaiting_layout:
        text = "its cores cannot be numbered before sinfo lists its nodes"
        return Verdict("waits for a layout", text, "Find out why sinfo fails for the daemon's user: its log says it.")
    if slurm.phase == "configuring":
        return _preparing()
    if facts.slurm.privileges and "jobs" in facts.slurm.private_data:
        text = f"Slurm may hide it from the daemon's user {daemon.user}, although you see it"
        return Verdict("no permission", text, f"{_sentence(facts.slurm.privileges[0])}.")
    return _found_soon(slurm, daemon, facts)


def _found_soon(slurm: SlurmRun, daemon: DaemonFacts, facts: JobFacts) -> Verdict:
    """Return what keeps a daemon that runs from finding a run, as far as that is known."""
    now = facts.now
    failing = _failing(daemon, *ASKS_SLURMCTLD, *(["accounting"] if slurm.is_over else []))
    if failing is not None:
        text = f"the daemon cannot ask Slurm ({failing.label}) since {at(failing.since, now)}: {failing.why}"
        return Verdict("Slurm fails", text, "Make Slurm answer the daemon's user: nothing is lost meanwhile.")
    if slurm.is_over and facts.slurm.has_accounting and 0 < facts.read_until < slurm.end:
        text = f"it ended {at(slurm.end, now)}, and accounting was read until {at(facts.read_until, now)} only"
        return Verdict("catching up", text, "Wait: accounting is read on, an hour at a time. -status shows how far.")
    if now - max(slurm.start, slurm.end) < 2 * facts.config.poll_interval:
        step = f"Ask again after the next poll (slurmPollInterval, {duration(facts.config.poll_interval)})."
        return Verdict("not seen yet", "it has just begun, or just ended", step, FINE)
    step = (
        f"Search the log for job {facts.job_id}; restart the daemon with -debug 3, and report it if that finds nothing."
    )
    return Verdict("not found", "Slurm shows it to you, but the daemon, which runs, does not know it", step)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _never_ran(when: int, facts: JobFacts) -> Verdict:
    text = f"cancelled at {at(when, facts.now)} before it began" if when else notes.NEVER_RAN
    return Verdict("never ran", text, "Nothing: there is nothing to report.", FINE)


def _left_out(reason: str, facts: JobFacts) -> Verdict:
    step = "Runs that are left out stay so, also if that is changed"
    if reason == OPTED_OUT:
        return Verdict("left out", f"it is left out: {reason}", f"Nothing: an administrator wanted that. {step}.", FINE)
    where = f"change {reason} in {facts.config.path} and reload the daemon" if reason else "see the ignore... keys"
    return Verdict(
        "left out", f"it is left out by {reason or 'the configuration'}", f"If not meant: {where}. {step}.", FINE
    )


def _preparing() -> Verdict:
    text = "its nodes are being made ready, and its start may still move"
    return Verdict("preparing", text, "Nothing: it is reported when it runs.", FINE)


def _not_understood(facts: JobFacts) -> Verdict:
    text = f"what Slurm prints about it cannot be understood: {_why_not_understood(facts)}"
    return Verdict("not understood", text, "Update this program, or report this line; others are not affected.")


def _why_not_understood(facts: JobFacts) -> str:
    return facts.slurm.not_understood or (facts.daemon.not_understood if facts.daemon else "")


def _daemon_away(facts: JobFacts) -> tuple[str, str]:
    """Return what is to be said of a daemon that does not answer, and the next step. Neither has a full stop."""
    if facts.may_run:
        return "the daemon cannot be asked", "Make the daemon answer (above is why it does not), then ask again"
    return "no daemon runs", START_DAEMON


def _failing(daemon: DaemonFacts, *names: str) -> Failing | None:
    return next((each for name in names for each in daemon.failing if each.name == name), None)


# --- jobs without a run


def _without_runs(facts: JobFacts) -> Verdict:
    """Return the verdict about a job of which nobody has a run."""
    slurm = facts.slurm
    cancelled = [run for run in slurm.runs if run.never_ran]
    if cancelled:
        return _never_ran(cancelled[0].end, facts)
    if any(run.phase == "waiting" for run in slurm.runs):
        reasons = {line.reason for line in slurm.queue if line.job_id == facts.job_id}
        why = f" ({', '.join(sorted(reasons))})" if reasons else ""
        return Verdict("not begun", f"it waits in Slurm{why}", "Nothing: it is reported when it begins.", FINE)
    if _why_not_understood(facts):
        return _not_understood(facts)
    others = other_clusters(facts)
    if others:
        text = f"the state file has it for {', '.join(others)}, but this daemon reports {facts.config.cluster}"
        return Verdict("other cluster", text, "Ask the daemon of that cluster, or set clusterName back.")
    failures = [each for each in (slurm.slurmctld_failure, slurm.accounting_failure) if each]
    if failures:
        return Verdict("cannot tell", f"Slurm cannot be asked: {failures[0]}", "Make Slurm answer, then ask again.")
    return _no_such_job(facts)


def _no_such_job(facts: JobFacts) -> Verdict:
    slurm = facts.slurm
    nobody = "neither slurmctld nor accounting knows" if slurm.has_accounting else "slurmctld does not know"
    where = f" of the cluster {slurm.cluster}" if slurm.cluster else ""
    text = f"{nobody} a job {facts.name}{where}, and neither does this program"
    steps = ["Check the id"]
    if facts.hides_jobs:
        steps.append(f"ask as root (PrivateData={slurm.private_data} may hide it from {slurm.asked_as})")
    steps.append("ask on its own cluster if it is another's (sacct --clusters is not asked)")
    return Verdict("no such job", text, f"{'; or '.join(steps)}. Slurm may also have purged it.", NO_SUCH_JOB)
