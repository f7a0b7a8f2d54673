"""Logs messages that a destination does not accept: one line for each reason, however many messages there are."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cc_slurm_adapter.outbox.parking import kind_of
from cc_slurm_adapter.sinks.base import Delivery, Kind

log = logging.getLogger(__name__)

SOON, AT_MOST_EVERY = 60.0, 3600.0
"""Seconds from the line about the first message to the line about those after it, and between further lines."""
MAX_REASONS = 100
"""The most reasons that are counted separately."""
_OTHERS = "other reasons"


@dataclass
class _Reason:
    """When a reason was logged, and what came since. Times are of time.monotonic()."""

    next_line: float
    level: int
    count: int = 0
    first: str = ""
    text: str = ""
    hosts: list[str] = field(default_factory=list)


class RowLines:
    """The lines about one destination. Used by several threads; `report_due` is called now and then."""

    def __init__(self, label: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._label = label
        self._clock = clock
        self._lock = threading.Lock()
        self._reasons: dict[tuple[str, str], _Reason] = {}

    def report(self, delivery: Delivery, what: str, reason: str, level: int = logging.WARNING) -> None:
        """Log that a message was not accepted, if the reason is new; else count it. At -debug 3 log it in any case."""
        line = f"{delivery.key}: {delivery.kind.value} {what}: {self._label}: {reason}"
        with self._lock:
            known = self._reasons.get((what, kind_of(reason))) or self._begin(what, kind_of(reason), level)
            if known is None:
                log.log(level, "%s", line)
                return
            log.info("%s", line)
            known.count += 1
            if known.count == 1:
                known.first, known.text, known.hosts = str(delivery.key), reason, _hosts(delivery)

    def _begin(self, what: str, kind: str, level: int) -> _Reason | None:
        """Count a reason separately from now on, and return None. If there are too many, return the shared count."""
        if len(self._reasons) < MAX_REASONS:
            self._reasons[what, kind] = _Reason(self._clock() + SOON, level)
            return None
        return self._reasons.setdefault((what, _OTHERS), _Reason(self._clock() + SOON, level))

    def report_due(self) -> None:
        """Log how many more messages there were, for each reason that is due. Forget reasons without new messages."""
        now = self._clock()
        with self._lock:
            for (what, kind), reason in list(self._reasons.items()):
                if now < reason.next_line:
                    continue
                if not reason.count:
                    del self._reasons[what, kind]
                    continue
                log.log(reason.level, "%s", self._summary(what, reason))
                reason.count, reason.next_line = 0, now + AT_MOST_EVERY

    def _summary(self, what: str, reason: _Reason) -> str:
        on = f", on {_few(reason.hosts)}" if reason.hosts else ""
        return f"{reason.count} more {what}, the first of {reason.first}{on}: {self._label}: {reason.text}"


def _hosts(delivery: Delivery) -> list[str]:
    if delivery.kind is not Kind.START:
        return []
    try:
        return [str(resource["hostname"]) for resource in json.loads(delivery.payload)["resources"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
