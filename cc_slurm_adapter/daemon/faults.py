"""What is wrong now: findings made from a status, each with what to do next.

Only what lasts is a fault. Counters are none, because what they count may be over: runs that were reported without all
their cores, for example, are shown with the status and named in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from cc_slurm_adapter.daemon.health import LONGEST_STEP
from cc_slurm_adapter.daemon.report import RUNNING, STEPS, DestinationReport, StatusReport
from cc_slurm_adapter.daemon.screen_text import clipped
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.outbox.report import Parked, SinkReport
from cc_slurm_adapter.system.backoff import StepReport
from cc_slurm_adapter.system.outages import cause_of
from cc_slurm_adapter.system.quantities import counted, duration, size

LONGEST_START = 60.0
"""Seconds that a start may take: it asks Slurm and cc-backend a few questions, each of which takes seconds at most."""
POLLS_MISSED, LEAST_POLL_AGE = 5, 600.0
"""How many intervals without a poll are too long, and at least so many seconds. After a slow poll Slurm rests as long
as the poll took, and accounting is read between two polls."""
LONGEST_FIRST_POLL = 2 * 3600.0
"""Seconds until the first poll must have ended. With slurmctld's limits (rl_enable) and 10,000 jobs it takes 83 min."""
LONG_OUTAGE = 600.0
"""Seconds after which a destination that cannot be reached needs an administrator: a restart of it takes less."""
LONGEST_LAG = 600.0
"""Seconds that a message may be pending while its destination answers. The longest wait by design is 300 s: until
cc-backend surely lists a start that it has."""
NEARLY_FULL = 0.9
"""The share of stateMaxBytes from which on the state file is about to lose its texts."""
OLDEST_NUMBERS = 60.0
"""Seconds after which numbers from the state file are too old: they are counted every few seconds."""

DAEMON_LOG = "see journalctl -u cc-slurm-adapter -p warning"
RETRY = "then systemctl reload cc-slurm-adapter, which tries them again"

_OF_STEPS = {
    "poll": ("slurmctld", "slurmctld cannot be asked", "check slurmctld (scontrol ping); nothing is lost meanwhile"),
    "accounting": ("slurmdbd", "accounting cannot be read", "check slurmdbd (sacct); it is read on from where it was"),
    "comparison": ("comparison", "running jobs cannot be compared with cc-backend's", DAEMON_LOG),
    "upkeep": ("state file", "the state file cannot be tidied", DAEMON_LOG),
}
_OF_STEPS.update(dict.fromkeys(("lookup", "nodes"), _OF_STEPS["poll"]))
"""By step: what a failure is about, what has failed, and what to do. Three steps ask slurmctld."""

ADVICE = (
    ("is not in PATH", "set PATH in the unit, so that Slurm's commands are found"),
    ("an error of this program", "report it, with the lines of the log around it"),
    ("too little memory", "let the daemon have more memory (MemoryMax= in its unit), or free some"),
    (
        "no such cluster",
        "if its name is another one there, set clusterName, restart, and drop what waits, as that keeps the old name"
        " (-queue drop); else add it in cc-backend",
    ),
    ("no subcluster found", "add these hosts to a subcluster in cc-backend's cluster.json, or check hostnameRewrite"),
    ("no such host", "add the host to cc-backend's cluster.json, or check hostnameRewrite"),
    ("subcluster", "correct the subclusters in cc-backend's cluster.json"),
    ("unknown field", "update cc-backend, or this program: one does not know what the other writes"),
    ("cannot unmarshal", "update cc-backend, or this program: one does not know what the other writes"),
    ("refuses the token", "put a valid token with the role api into ccRestJwtFile"),
    ("proxy requires a user", "put the right user and password into ccRestProxy and restart"),
    ("proxy", "see what the proxy says, or set ccRestProxy"),
    ("ccRestUrl", "correct ccRestUrl and restart"),
    ("max_payload", "raise max_payload of the NATS server"),
    ("max_msg_size", "raise max_msg_size of the stream"),
    ("HTTP 413", "let the proxy before cc-backend accept larger requests (nginx: client_max_body_size)"),
    ("does not permit this user", "allow natsSubject and natsNodeSubject in the permissions of the NATS server"),
    ("no stream has", "make a stream for natsSubject, or set natsJetStream to false"),
    ("see its limits", "raise the limits of the stream, or let it discard old messages"),
    ("refuses the user", "correct natsUser and natsPassword, natsCredsFile or natsNKeySeedFile"),
    ("natsTls", "correct natsTlsCaFile, natsTlsCertFile or natsTlsKeyFile"),
    ("CERTIFICATE_VERIFY", "set ccRestCaFile to the certificates that its certificate is checked against"),
    ("must be renewed", "renew cc-backend's certificate, or set the clocks"),
    ("is not trusted", "set ccRestCaFile to the certificate of the CA that signed cc-backend's, and restart"),
    ("cannot be resolved", "correct the host in ccRestUrl and restart, or see the name server (getent hosts)"),
    ("connection refused", "start cc-backend there, or correct the port in ccRestUrl and restart"),
    ("no answer in time", "see whether it is busy, or a firewall drops what is sent to it"),
    ("not delivered for too long", "see that the destination answers"),
    ("no rows in result set", "see in cc-backend's log what became of the start of the run"),
    ("HTTP 5", "see cc-backend's log"),
)
"""By a part of a reason: what to do about it. The first that fits counts."""


def find_faults(report: StatusReport) -> tuple[Finding, ...]:
    """Return what is wrong now, the worst first. What the start has found and still lasts comes last of its level."""
    found = [
        *_of_program(report),
        *_of_steps(report),
        *_of_state(report),
        *(fault for destination in report.destinations for fault in _of_destination(destination, report)),
        *_of_runs(report),
        *(finding for finding in report.findings if finding.level >= logging.WARNING),
    ]
    return tuple(sorted(found, key=lambda fault: -fault.level))


def advice(reason: str, otherwise: str = "") -> str:
    """Return what to do about a reason that Slurm, a destination or this program gave; `otherwise` if none is known."""
    return next((step for part, step in ADVICE if part in reason), otherwise)


def _of_program(report: StatusReport) -> Iterator[Finding]:
    """Find a main thread that is stuck, a start that does not end, or polls that do not come."""
    program, now = report.program, report.time
    if now - program.progress_at > LONGEST_STEP:
        text = "the daemon's main thread makes no progress"
        step = f"{DAEMON_LOG}; if it lasts: systemctl restart cc-slurm-adapter, which loses nothing"
        yield Finding(logging.ERROR, "daemon", text, step, program.progress_at)
    elif program.phase != RUNNING:
        if now - program.started > LONGEST_START:
            text = f"nothing is reported yet: {clipped(program.phase)}"
            yield Finding(logging.ERROR, "start", text, advice(program.phase, DAEMON_LOG), program.started)
    else:
        yield from _of_late_polls(report)


def _of_late_polls(report: StatusReport) -> Iterator[Finding]:
    """Find out whether no poll has ended for too long, unless polls fail: then another fault says why."""
    poll, now = report.steps.get("poll"), report.time
    if poll is None or poll.failing_since:
        return
    longest = LONGEST_FIRST_POLL
    if poll.last_success:
        longest = max(POLLS_MISSED * report.slurm.poll_interval + 2 * poll.seconds, LEAST_POLL_AGE)
    since = poll.last_success or report.program.started
    if now - since > longest:
        text = f"no poll has ended for longer than {duration(longest)}"
        yield Finding(logging.WARNING, "polls", text, "see what keeps slurmctld busy (sdiag)", since)


def _of_steps(report: StatusReport) -> Iterator[Finding]:
    """Find the steps that fail. Those that fail for the same cause are one fault."""
    causes: dict[str, list[str]] = {}
    for name in (*STEPS, *(each for each in report.steps if each not in STEPS)):
        step = report.steps.get(name)
        if step is not None and step.failing_since and not _is_told_otherwise(name, report):
            causes.setdefault(cause_of(step.why), []).append(name)
    for names in causes.values():
        yield _of_failing_steps(names, [report.steps[name] for name in names])


def _is_told_otherwise(name: str, report: StatusReport) -> bool:
    """Return whether another fault has the cause: the comparison needs cc-backend, and the upkeep the state file.

    A lookup that failed is not repeated if no other event comes. Then a poll that succeeds shows that Slurm answers.
    """
    if name == "lookup" and "poll" in report.steps:
        return report.steps["poll"].last_success > report.steps[name].failed_at > 0
    if name == "comparison":
        return any(each.sink.name == "cc_rest" and each.sink.failing_since for each in report.destinations)
    return name == "upkeep" and not report.state.is_durable


def _of_failing_steps(names: list[str], steps: list[StepReport]) -> Finding:
    subject, text, next_step = _OF_STEPS.get(names[0], (names[0], f"{clipped(steps[0].name)} fails", DAEMON_LOG))
    which = f" ({', '.join(names)})" if len(names) > 1 else ""
    why = steps[0].why
    since = min(step.failing_since for step in steps)
    return Finding(logging.ERROR, subject, f"{text}{which}: {clipped(why)}", advice(why, next_step), since)


def _of_state(report: StatusReport) -> Iterator[Finding]:
    """Find a state file that cannot be written or read, or that is nearly as large as it may be."""
    state, now = report.state, report.time
    if not state.is_durable:
        text = f"the state file {clipped(state.path)} cannot be written, the state is kept in memory"
        step = "make room or mount its disk writable; it is tried again every 30 s"
        yield Finding(logging.ERROR, "state file", text, step)
    counted_at = state.taken_at or report.program.started
    if report.program.phase == RUNNING and now - counted_at > OLDEST_NUMBERS:
        text = "the numbers of messages are old, because the state file cannot be read"
        step = "see whether its disk answers (dmesg)"
        yield Finding(logging.WARNING, "state file", text, step, counted_at)
    if state.max_bytes and state.bytes > NEARLY_FULL * state.max_bytes:
        text = (
            f"the state file has {size(state.bytes)} of {size(state.max_bytes)} (stateMaxBytes), above which job"
            " scripts are left out"
        )
        step = "find out what prevents messages from being delivered, or raise stateMaxBytes"
        yield Finding(logging.WARNING, "state file", text, step)


def _of_destination(destination: DestinationReport, report: StatusReport) -> Iterator[Finding]:
    """Find what keeps messages from a destination."""
    sink, queue = destination
    if sink.failing_since:
        yield _of_outage(sink, report.time)
    elif sink.nodes_why:
        text = f"{sink.label} does not take the node states: {clipped(sink.nodes_why)}"
        yield Finding(logging.WARNING, sink.label, text, advice(sink.nodes_why, f"see the log of {sink.label}"))
    if not sink.failing_since and queue.oldest_pending and report.time - queue.oldest_pending > LONGEST_LAG:
        text = f"{counted(queue.pending, 'message')} for {sink.label} pending, the oldest for too long, as it answers"
        step = "see cc-slurm-adapter -queue list -state pending, and the log at -debug 3"
        yield Finding(logging.WARNING, sink.label, text, step, queue.oldest_pending)
    if queue.parked:
        yield _of_parked(sink, queue.parked, [each for each in report.parked if each.sink == sink.name])
    if queue.conflicts and sink.withdraws:  # else cc-backend's rule, one run of a job in a day, is what was chosen
        text = (
            f"{counted(queue.conflicts, 'run is', 'runs are')} not stored in {sink.label}, because it has another run"
            " of the job"
        )
        step = "see cc-slurm-adapter -queue list -state conflict, and -job for one of them"
        yield Finding(logging.WARNING, sink.label, text, step)


def _of_outage(sink: SinkReport, now: float) -> Finding:
    """Describe a destination that does not answer, or that refuses everything."""
    step = f"see the log of {sink.label}" if sink.refuses_all else "see that it runs, and that this host reaches it"
    needs_somebody = sink.refuses_all or now - sink.failing_since > LONG_OUTAGE
    level = logging.ERROR if needs_somebody else logging.WARNING
    text = f"{sink.label} {sink.trouble}: {clipped(sink.why)}"
    return Finding(level, sink.label, text, advice(sink.why, step), sink.failing_since)


def _of_parked(sink: SinkReport, number: int, reasons: list[Parked]) -> Finding:
    """Describe refused messages by the most frequent reason."""
    text = f"{_messages(number)} refused by {sink.label}"
    if not reasons:
        return Finding(logging.WARNING, sink.label, text, "see cc-slurm-adapter -queue list -state parked")
    most = max(reasons, key=lambda each: each.messages)
    share = f"; {most.messages} of them" if most.messages < number else ""
    step = advice(most.reason, f"correct the cause in {sink.label}")
    return Finding(logging.WARNING, sink.label, f"{text}{share}: {clipped(most.reason)}", f"{step}, {RETRY}")


def _messages(number: int) -> str:
    return counted(number, "message is", "messages are")


def _of_runs(report: StatusReport) -> Iterator[Finding]:
    """Find jobs that cannot be reported, or not yet."""
    runs = report.runs
    if runs.not_understood:
        text = f"{counted(runs.not_understood, 'job is', 'jobs are')} not reported, as Slurm's output is not understood"
        step = "report the lines of the log with `cannot be understood`"
        yield Finding(logging.WARNING, "jobs", text, step)
    if runs.awaiting_layout:
        text = f"{counted(runs.awaiting_layout, 'run waits', 'runs wait')} until sinfo lists the nodes"
        yield Finding(logging.WARNING, "nodes", text, "find out why sinfo fails")
