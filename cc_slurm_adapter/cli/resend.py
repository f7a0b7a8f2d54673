"""`-resend`: lets the running daemon send runs anew, in place of what cc-backend has of them, and says what changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from cc_slurm_adapter import lines
from cc_slurm_adapter.cli import control_client
from cc_slurm_adapter.cli.control_client import parse_answer
from cc_slurm_adapter.cli.moments import parse_moment
from cc_slurm_adapter.cli.queue import ask_on_terminal, can_be_asked
from cc_slurm_adapter.config.paths import read_paths
from cc_slurm_adapter.daemon.resend_requests import DONE, FAILED, UNDER_WAY
from cc_slurm_adapter.errors import NotRunning, StateError, UsageError
from cc_slurm_adapter.jobs.resend import LEFT, OVER, SAME, SENT, Outcome
from cc_slurm_adapter.lines import log_line, print_line
from cc_slurm_adapter.outbox.selection import parse_job
from cc_slurm_adapter.system.quantities import counted, full_moment

Answer = dict[str, Any]
NAMED = 10
"""The most jobs that a line names."""


class Timing(NamedTuple):
    """How long the daemon is asked for the outcome of a step, in seconds."""

    every: float = 0.5
    limit: float = 900.0


TIMING = Timing()


class Asking(Protocol):
    """Asks the daemon. Each method returns an answer of the control socket. Raises StateError, UsageError."""

    def resend(self, words: Answer) -> Answer:
        """Begin a step, or count with `dry_run`."""
        ...

    def report(self) -> Answer:
        """Return what became of it."""
        ...


class OverSocket:
    """The running daemon."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path

    def resend(self, words: Answer) -> Answer:
        """Begin a step, or count with `dry_run`."""
        try:
            return parse_answer(*control_client.post("/resend", words, self._socket_path))
        except NotRunning as error:
            raise StateError(
                f"{error}. Runs are sent anew by the running daemon, as it asks Slurm and cc-backend for them"
            ) from None

    def report(self) -> Answer:
        """Return what became of it."""
        return parse_answer(*control_client.get("/resend", self._socket_path))


def parse_words(job: str, since: str | None, now: float) -> Answer:
    """Return what is asked of the daemon. Raises UsageError."""
    words: Answer = {}
    if job:
        words["job"] = _job_id(job)
    if since is not None:
        words["since"] = parse_moment("since", since, now)
    if not words:
        raise UsageError("-resend needs a job id, or -since TIME for all runs that began or ended since then")
    return words


def _job_id(text: str) -> int:
    try:
        job_id = parse_job(text)
    except UsageError:
        job_id = None
    if job_id is None:
        raise UsageError(f"-resend {text[:40]!r} is no job id: give a number, or -since TIME for all jobs since then")
    return job_id


def run_resend(job: str, since: str | None, config_path: str, *, explicit: bool, yes: bool) -> bool:
    """Send runs anew, after a question. Return whether nothing is left to look at. Raises AdapterError."""
    words = parse_words(job, since, time.time())
    paths = read_paths(config_path, explicit=explicit)
    ask = None if yes or not can_be_asked() else ask_on_terminal
    return resend(words, OverSocket(paths.control_sock), ask, yes=yes)


def resend(
    words: Answer,
    asking: Asking,
    ask: Callable[[str], bool] | None,
    *,
    yes: bool,
    timing: Timing = TIMING,
) -> bool:
    """Send the runs anew that the words select. `ask` asks a question; None if nobody can be asked.

    Return whether nothing is left to look at. Of a span of time, runs that are over and that Slurm has forgotten are
    nothing to look at: nobody can correct them, and they may be right.
    """
    found = asking.resend({**words, "dry_run": True})
    if not found["runs"]:
        print_line("the daemon knows no such run that has begun: nothing is sent anew (-job ID says what is known)")
        return "job" not in words
    if not yes:
        if ask is None:
            raise UsageError("-resend asks before it begins, and here nobody can be asked: give -yes to begin")
        if not ask(question(found)):
            log_line("nothing is sent anew", lines.NOTICE)
            return False
    outcomes: list[Outcome] = []
    try:
        for some in steps(words, asking, timing):
            outcomes += some
            for line in sent_lines(some):
                print_line(line)
    except KeyboardInterrupt:
        log_line("the daemon ends the step that it has begun: -queue list shows what becomes of it", lines.NOTICE)
        raise
    for line in other_lines(outcomes):
        print_line(line)
    to_look_at = (LEFT, OVER) if "job" in words else (LEFT,)
    return not any(outcome.result in to_look_at for outcome in outcomes)


def question(found: Answer) -> str:
    """Return what is asked before it begins."""
    return (
        f"compare {counted(found['runs'], 'run')} of {counted(found['jobs'], 'job')} with Slurm, and where cc-backend"
        " has something else, remove the run there and send it anew? Its tags in cc-backend are lost then [y/N]"
    )


def steps(words: Answer, asking: Asking, timing: Timing) -> Iterator[list[Outcome]]:
    """Do one step after the other. Yields what became of the runs of each. Raises StateError."""
    after: object = None
    while True:
        began = asking.resend({**words, **({"after": after} if after else {})})
        report = _wait(began["id"], asking, timing)
        yield _outcomes(report)
        if report["state"] == FAILED:
            raise StateError(f"{report['failure']}: what is not named above is as it was; ask again for the rest")
        after = report["next"]
        if after is None:
            return


def _wait(number: int, asking: Asking, timing: Timing) -> Answer:
    deadline = time.monotonic() + timing.limit
    while True:
        report = asking.report()
        if report["id"] != number or report["state"] not in (UNDER_WAY, DONE, FAILED):
            raise StateError(
                "the daemon was restarted, or asked by somebody else: -queue list shows what is still to be sent; ask"
                " again for the rest"
            )
        if report["state"] != UNDER_WAY:
            return report
        if time.monotonic() >= deadline:
            raise StateError(
                f"the daemon is not done within {timing.limit:.0f} s, and goes on: its log says what became of it"
            )
        time.sleep(timing.every)


def _outcomes(report: Answer) -> list[Outcome]:
    try:
        return [Outcome(**run) for run in report["runs"]]
    except TypeError as error:
        raise StateError(
            f"the daemon answers in another form ({error}): restart it, so that it is this version"
        ) from None


def sent_lines(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Return a line for each run that is sent anew."""
    for outcome in outcomes:
        if outcome.result == SENT:
            yield f"job {outcome.job_id}, began {full_moment(outcome.start_time)}: {outcome.text}"


def other_lines(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Return a line for each reason why runs were left alone, and the sum."""
    left: dict[str, list[int]] = {}
    numbers = dict.fromkeys((SENT, SAME, LEFT, OVER), 0)
    for outcome in outcomes:
        numbers[outcome.result] += 1
        if outcome.result in (LEFT, OVER):
            left.setdefault(outcome.text, []).append(outcome.job_id)
    for why, jobs in left.items():
        more = f" and {len(jobs) - NAMED} more" if len(jobs) > NAMED else ""
        named = ", ".join(map(str, jobs[:NAMED]))
        yield f"left alone: {'job' if len(jobs) == 1 else 'jobs'} {named}{more}: {why}"
    alone = numbers[LEFT] + numbers[OVER]
    yield (
        f"{counted(numbers[SENT], 'run')} sent anew, {numbers[SAME]} stored as they are, {alone} left alone"
        + ("; -queue list shows what is still to be sent" if numbers[SENT] else "")
    )
