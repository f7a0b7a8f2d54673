"""What is answered on the control socket and on metricsListen, from the report and from the state file.

All of it is read without the main thread. Changes of the queue are made in the state file, and the senders are woken.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from cc_slurm_adapter.config.changes import Changes
from cc_slurm_adapter.daemon.health import why_not_healthy, why_not_ready
from cc_slurm_adapter.daemon.history import Points
from cc_slurm_adapter.daemon.inbox import Item, StopSync
from cc_slurm_adapter.daemon.job_state import JobState, facts_of_daemon
from cc_slurm_adapter.daemon.report import RUNNING, StatusReport
from cc_slurm_adapter.daemon.resend_requests import ResendRequests
from cc_slurm_adapter.daemon.status import StatusBoard
from cc_slurm_adapter.daemon.syncing import NO_ACCOUNTING, subject
from cc_slurm_adapter.errors import ConfigError, StateError, UsageError
from cc_slurm_adapter.hooks.message import MAX_JOB_ID
from cc_slurm_adapter.jobs.report import SyncReport, SyncRequest
from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.outbox.admin import QueueAdmin, answer_drop, answer_queue, answer_retry
from cc_slurm_adapter.slurm.parse.accounting import EARLIEST
from cc_slurm_adapter.system.file_systems import user_name

log = logging.getLogger(__name__)


class Answers:
    """Implements `control.Source`. Used by the thread that serves the sockets. Raises UsageError and StateError."""

    def __init__(
        self,
        board: StatusBoard,
        points: Callable[[], Points],
        ask_to_reload: Callable[[str], Changes],
        put: Callable[[Item], None] = lambda item: None,
        preview: Callable[[], Changes] = lambda: Changes((), ()),
    ) -> None:
        """`points` returns the last hour. `put` passes something on to the main thread.

        `ask_to_reload` is called with who asks, and returns what the reload changes; `preview` only returns that. Both
        raise ConfigError.
        """
        self._preview = preview
        self._board = board
        self._points = points
        self._ask_to_reload = ask_to_reload
        self._put = put

    def collect(self) -> StatusReport:
        """Return how the daemon is."""
        return self._board.collect()

    def queue_list(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return a page of the selected messages."""
        return answer_queue(self._admin(), query)

    def queue_retry(self, selection: Mapping[str, Any], uid: int | None = None) -> dict[str, Any]:
        """Send the selected messages again."""
        answer = answer_retry(self._admin(), selection, uid)
        self._board.wake_senders(retry=True)
        return answer

    def queue_drop(self, selection: Mapping[str, Any], uid: int | None = None) -> dict[str, Any]:
        """Drop the selected messages."""
        answer = answer_drop(self._admin(), selection, uid)
        self._board.wake_senders()
        return answer

    def reload(self, uid: int | None = None) -> dict[str, Any]:
        """Ask the main thread for a reload, and return what it changes, by the file as it is now."""
        changes = self._ask_to_reload(f"POST /reload of uid {uid}")
        return {"in_force": list(changes.in_force), "need_restart": list(changes.need_restart), "next": self._next()}

    def _next(self) -> str:
        if self._board.phase == RUNNING:
            return "it is done within seconds; the log and GET /status say how it went"
        return f"it is done when the start is over ({self._board.phase})"

    def resend(self, words: Mapping[str, Any], uid: int | None = None) -> dict[str, Any]:
        """Let the main thread send some runs anew, or count them: by the configuration as it is in the file."""
        self._require_no_reload()
        return self._resends().answer(self._admin(), words, uid)

    def _require_no_reload(self) -> None:
        """Raise StateError if the configuration has changed since it was read: nothing would be corrected."""
        try:
            changed = self._preview().in_force
        except ConfigError as error:
            raise StateError(f"the configuration cannot be used: {'; '.join(error.problems)}") from None
        if changed:
            raise StateError(
                f"the configuration has changed since the daemon has read it ({', '.join(changed)}): reload it first"
                " (systemctl reload cc-slurm-adapter)"
            )

    def resend_report(self) -> dict[str, Any]:
        """Return what became of that."""
        return self._resends().as_object()

    def job(self, job_id: int) -> dict[str, Any]:
        """Return what the state file and the daemon know about a job."""
        rows = self._admin().rows_of_job(job_id)
        return JobState(job_id, rows, facts_of_daemon(self._board.notes_of(job_id), self.collect())).as_object()

    def sync(self, wanted: Mapping[str, Any], uid: int | None = None) -> SyncReport:
        """Accept a sync, which the main thread begins. Raises UnderWay."""
        request = parse_sync(wanted, time.time())
        syncing = self._board.syncing
        if syncing is None:
            raise StateError(f"the daemon does not report yet: {self._board.phase}")
        if not (request.job or self._board.has_accounting):
            raise UsageError(NO_ACCOUNTING)
        accepted = syncing.accept(request)
        log.log(NOTICE, "sync begins%s: %s", "" if uid is None else f", for {user_name(uid)}", subject(request))
        self._put(request)
        return accepted

    def stop_sync(self) -> SyncReport:
        """Let the sync under way end."""
        syncing = self._board.syncing
        if syncing is None or not syncing.report.is_under_way:
            raise UsageError("no sync is under way")
        self._put(StopSync())
        return syncing.report

    def metrics(self) -> str:
        """Return the metrics. Their module is loaded when somebody asks for them."""
        from cc_slurm_adapter.daemon.metrics import exposition  # noqa: PLC0415

        return exposition(self.collect())

    def page(self) -> str:
        """Return the page. Its module is loaded when somebody asks for it."""
        from cc_slurm_adapter.daemon.status_page import page  # noqa: PLC0415

        return page(self.collect(), self._points())

    def healthy(self) -> list[str]:
        """Return why the daemon does not make progress."""
        return why_not_healthy(self.collect())

    def ready(self) -> list[str]:
        """Return why the daemon cannot report jobs now."""
        return why_not_ready(self.collect())

    def _resends(self) -> ResendRequests:
        requests = self._board.resends
        if requests is None:
            raise StateError(f"the daemon is still starting: {self._board.phase}")
        return requests

    def _admin(self) -> QueueAdmin:
        admin = self._board.queue_admin
        if admin is None:
            raise StateError(f"the daemon has not opened its state file yet: {self._board.phase}")
        return admin


def parse_sync(wanted: Mapping[str, Any], now: float) -> SyncRequest:
    """Return the request that a JSON object holds. Without `until` it is until `now`. Raises UsageError."""
    others = sorted(wanted.keys() - {"since", "until", "job"})
    if others:
        raise UsageError(f"{others[0]!r} is not understood: give since, until and job")
    if "job" not in wanted and "since" not in wanted:
        raise UsageError("since is missing: give the Unix time from which on, or a job")
    since = max(_number(wanted, "since", EARLIEST), EARLIEST)
    until = min(_number(wanted, "until", int(now)), int(now))
    if since >= until:
        raise UsageError(f"since is {since} and until is {until}: since must be earlier, and earlier than now")
    job = _number(wanted, "job", 0)
    if not 0 <= job <= MAX_JOB_ID or ("job" in wanted and not job):
        raise UsageError(f"job is {job}: expected a job id, a whole number from 1 to {MAX_JOB_ID}")
    return SyncRequest(since, until, job)


def _number(wanted: Mapping[str, Any], name: str, default: int) -> int:
    value = wanted.get(name, default)
    if type(value) is not int or value < 0:  # not a bool either
        raise UsageError(f"{name} is {json.dumps(value)[:40]}: expected a whole number")
    return value
