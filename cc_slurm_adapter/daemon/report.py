"""How the daemon is: one frozen value for the control socket, the metrics, the page, systemd and the log.

`StatusReport` is collected from what each part reports about itself, see `status`. All times are in Unix seconds, all
durations in seconds. `as_json` and `from_json` are the form in which it goes over the control socket.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cc_slurm_adapter.counters import HistogramSample, Sample, TimingSample
from cc_slurm_adapter.jobs.report import RunsReport, SyncReport
from cc_slurm_adapter.log import Work
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.outbox.report import Parked, QueueReport, SinkReport, StateReport
from cc_slurm_adapter.system.backoff import StepReport

VERSION = 1
"""The version of the JSON form. It grows if a field is removed, renamed or changes its meaning."""
RUNNING = "running"
"""The phase of a daemon that has started."""
STEPS = ("poll", "lookup", "nodes", "accounting", "comparison", "upkeep")
"""What the main thread does again and again: polls of all jobs, lookups of jobs that hook events name, queries for the
nodes, catching up with accounting, comparing with cc-backend's running jobs, and tidying the state file."""


class ProgramReport(NamedTuple):
    """What runs, and since when."""

    version: str
    python: str
    pid: int
    user: str
    started: float
    config_path: str
    phase: str
    """What the daemon does: RUNNING, or what a start waits for, in words."""
    progress_at: float
    """When the main thread last made progress."""


class SlurmReport(NamedTuple):
    """The cluster that is watched. All texts are '' until Slurm has answered."""

    cluster: str
    """Its name in everything that is sent."""
    version: str
    format: str
    """The JSON format of squeue, as `data_parser/v0.0.41`."""
    has_accounting: bool
    first_moment: int
    """What ended before it and was not known then is not reported; 0 for no limit."""
    accounting_read_until: int
    """0 if accounting was not read since the start."""
    poll_interval: int = 0
    """slurmPollInterval: the seconds between two polls; 0 if that is not known."""


SLURMCTLD_HOOKS = ("epilog_slurmctld", "prolog_slurmctld")
"""SLURM_SCRIPT_CONTEXT of slurmctld's own hooks, which report every job."""


class HooksReport(NamedTuple):
    """The hook events since the start."""

    events: int = 0
    last_event: float = 0.0
    """0 if there was none."""
    a_minute: int = 0
    """In the last full minute."""
    from_slurmctld: tuple[str, ...] = ()
    """Which of SLURMCTLD_HOOKS have called since the start."""


class DestinationReport(NamedTuple):
    """A destination and the messages for it."""

    sink: SinkReport
    queue: QueueReport


@dataclass(frozen=True)
class StatusReport:
    """Everything that is known about a running daemon at a moment."""

    time: float
    program: ProgramReport
    slurm: SlurmReport
    steps: dict[str, StepReport]
    """What is done again and again, by STEPS; those that do not exist yet are missing."""
    destinations: tuple[DestinationReport, ...]
    """The leading one first."""
    parked: tuple[Parked, ...]
    """Refused messages by destination and reason, the reason with most messages first."""
    state: StateReport
    runs: RunsReport
    hooks: HooksReport
    nodes: dict[str, int]
    """Slurm's nodes by the word that is reported of them."""
    samples: tuple[Sample, ...]
    """All counters since the start."""
    findings: tuple[Finding, ...]
    """What was found at the start or since, and stays until an administrator acts."""
    faults: tuple[Finding, ...] = ()
    """What is wrong now, the worst first, each with the next step."""
    timings: tuple[TimingSample, ...] = ()
    """How often things were done since the start, and how long that took."""
    histograms: tuple[HistogramSample, ...] = ()
    """How long things took, by its distribution since the start."""
    work: tuple[Work, ...] = ()
    """What is under way now and may take long: the first read of all jobs, and the catch-up."""
    sync: SyncReport = field(default_factory=SyncReport)
    """The sync that somebody has asked for, or the last one."""

    def as_json(self) -> str:
        """Return this as one JSON object."""
        return to_json(self)


def to_json(report: Any) -> str:
    """Return a dataclass or named tuple as one JSON object, with the version of the form."""
    return json.dumps({"version": VERSION, **plain(report)})


def from_json(text: str) -> StatusReport:
    """Return the report that `as_json` wrote. Raises ValueError for anything else, also for another version."""
    try:
        plain = json.loads(text)
        if plain.pop("version") == VERSION:
            report: StatusReport = _built(StatusReport, plain)
            return report
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"this is not a daemon's status: {type(error).__name__}: {error}") from error
    raise ValueError("the daemon is of another version: restart it, so that both are the same")


def plain(value: Any) -> Any:
    """Return a value as JSON has it: dataclasses and named tuples as objects, tuples as lists."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        names = getattr(value, "_fields", None)
        return dict(zip(names, map(plain, value))) if names else [plain(each) for each in value]
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value


def _built(kind: Any, plain: Any) -> Any:
    """Build a value of a type from what `plain` made of it. Raises KeyError and TypeError."""
    if typing.get_origin(kind) is tuple:
        return tuple(_built(typing.get_args(kind)[0], each) for each in plain)
    if typing.get_origin(kind) is dict:
        return {name: _built(typing.get_args(kind)[1], each) for name, each in plain.items()}
    if hasattr(kind, "_fields") or dataclasses.is_dataclass(kind):
        types = typing.get_type_hints(kind)
        return kind(**{name: _built(types[name], plain[name]) for name in types if name in plain})
    return plain
