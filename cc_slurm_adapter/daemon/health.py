"""Whether the daemon makes progress, and whether it can do its work: for those who only want to know yes or no."""

from __future__ import annotations

from cc_slurm_adapter.daemon.report import RUNNING, StatusReport

LONGEST_STEP = 60.0
"""Seconds without progress of the main thread, which makes progress once a second even while it waits for a command."""


def why_not_healthy(report: StatusReport) -> list[str]:
    """Return why the daemon does not make progress; nothing if it does."""
    idle = report.time - report.program.progress_at
    return [f"the main thread has made no progress for {idle:.0f} s"] if idle > LONGEST_STEP else []


def why_not_ready(report: StatusReport) -> list[str]:
    """Return why the daemon cannot report jobs now; nothing while Slurm and the leading destination answer."""
    if report.program.phase != RUNNING:
        return [report.program.phase]
    poll = report.steps.get("poll")
    reasons = why_not_healthy(report)
    if poll is not None and poll.failing_since:
        reasons.append(f"slurmctld does not answer: {poll.why}")
    elif poll is None or not poll.last_success:
        reasons.append("the first poll of slurmctld is not over yet")
    leading = report.destinations[0].sink if report.destinations else None
    if leading is None:
        reasons.append("nothing is sent yet")
    elif leading.failing_since:
        reasons.append(f"{leading.label} {leading.trouble}: {leading.why}")
    return reasons
