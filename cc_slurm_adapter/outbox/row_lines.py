"""Logs messages that a destination does not accept: one line for each reason, however many messages there are."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence

from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.sinks.base import Delivery, Kind
from cc_slurm_adapter.system.grouped_lines import GroupedLines
from cc_slurm_adapter.system.outages import kind_of

log = logging.getLogger(__name__)


class RowLines:
    """The lines about one destination. Used by several threads; `report_due` is called now and then."""

    def __init__(self, label: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._label = label
        self._lines = GroupedLines(log, clock)

    def report(self, delivery: Delivery, what: str, reason: str, level: int = logging.WARNING) -> None:
        """Log that a message was not accepted, if the reason is new; else count it. At -debug 3 log it in any case."""

        def more() -> str:
            hosts = _hosts(delivery)
            on = f", on {_few(hosts)}" if hosts else ""
            return f"more {what}, the first of {delivery.key}{on}: {self._label}: {reason}"

        self._lines.report(
            what,
            kind_of(reason),
            f"{delivery.key}: {delivery.kind.value} {what}: {self._label}: {reason}",
            more,
            level=level,
        )

    def report_run(self, key: RunKey, text: str, reason: str = "", level: int = logging.WARNING) -> None:
        """Log what happened to a run, if that and its reason are new; else count it. At -debug 3 log it in any case."""
        line = f"{key}: {text}: {reason}" if reason else f"{key}: {text}"
        self._lines.report(text, kind_of(reason), line, lambda: f"more runs, the first is {line}", level=level)

    def report_due(self) -> None:
        """Log how many more messages there were, for each reason that is due."""
        self._lines.report_due()


def _hosts(delivery: Delivery) -> list[str]:
    if delivery.kind is not Kind.START:
        return []
    try:
        return [str(resource["hostname"]) for resource in json.loads(delivery.payload)["resources"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
