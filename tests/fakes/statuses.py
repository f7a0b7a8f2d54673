"""Statuses of a daemon, for tests that change one thing of them."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from cc_slurm_adapter.counters import Label, Sample
from cc_slurm_adapter.daemon.report import (
    STEPS,
    DestinationReport,
    HooksReport,
    ProgramReport,
    SlurmReport,
    StatusReport,
)
from cc_slurm_adapter.jobs.report import RunsReport
from cc_slurm_adapter.model import Finding, RunKey
from cc_slurm_adapter.outbox.report import Parked, QueueReport, SinkReport, StateReport
from cc_slurm_adapter.system.backoff import StepReport

REPORT = StatusReport(
    time=1_800_000_000.5,
    program=ProgramReport("0.1.0", "3.11.7", 4711, "slurm", 1_799_000_000.0, "/etc/x.json", "running", 1_800_000_000.0),
    slurm=SlurmReport("alex", "24.11.1", "data_parser/v0.0.42", True, 1_798_000_000, 1_799_999_940),
    steps={
        "poll": StepReport("asking slurmctld for all jobs", 1_799_999_990.0, 0.4),
        "accounting": StepReport(
            "reading accounting", 1_799_990_000.0, 2.0, 1_799_991_000.0, 7, "sacct: Connection refused"
        ),
    },
    destinations=(
        DestinationReport(
            SinkReport("cc_rest", "cc-backend", 1_799_999_000.0, 1_799_999_100.0, why="refused"),
            QueueReport("cc_rest", 12, 3, 1, 1_799_999_100.0),
        ),
    ),
    parked=(Parked("cc_rest", 3, RunKey("alex", 5, 1_799_000_100), 'HTTP 400: "unknown" cluster ä'),),
    state=StateReport("/var/lib/cc-slurm-adapter/state.sqlite", True, 4096, 2**28, 1_800_000_000.0),
    runs=RunsReport(812, 3, 2, 1, 0),
    hooks=HooksReport(37, 1_799_999_999.0, 2),
    nodes={"idle": 3, "allocated": 97},
    samples=(Sample("deliveries", (Label("sink", "cc_rest"), Label("kind", "start")), 19),),
    findings=(Finding(logging.WARNING, "hooks", "no hook is set", "set PrologSlurmctld"),),
    faults=(Finding(logging.ERROR, "cc-backend", "it does not answer", "start it", since=1_799_999_100.0),),
)
"""A daemon of which everything is known, and for which something is wrong."""
JUST_STARTED = StatusReport(
    time=1_800_000_000.5,
    program=ProgramReport(
        "0.1.0", "3.11.7", 4711, "slurm", 1_800_000_000.0, "/etc/x.json", "waiting for slurmctld", 1_799_999_999.5
    ),
    slurm=SlurmReport("", "", "", False, 0, 0),
    steps={},
    destinations=(),
    parked=(),
    state=StateReport("/s", False, 0, 1000, 0.0),
    runs=RunsReport(),
    hooks=HooksReport(),
    nodes={},
    samples=(),
    findings=(),
)
"""A daemon that has just started."""
NOW = 1_800_000_000.0
"""2027-01-15 08:00:00 in UTC."""
REST = SinkReport("cc_rest", "cc-backend", NOW - 4)
NATS = SinkReport("cc_nats", "NATS", NOW - 30)
WELL = replace(
    REPORT,
    time=NOW,
    program=ProgramReport("0.1.0", "3.11.7", 4711, "slurm", NOW - 1_000_000, "/etc/x.json", "running", NOW - 1),
    slurm=REPORT.slurm._replace(poll_interval=60, first_moment=0, accounting_read_until=int(NOW) - 70),
    steps={name: StepReport(name, NOW - 10, 0.4) for name in STEPS},
    destinations=(DestinationReport(REST, QueueReport("cc_rest")), DestinationReport(NATS, QueueReport("cc_nats"))),
    parked=(),
    state=StateReport("/var/lib/x/state.sqlite", True, 4096, 2**28, NOW - 5),
    runs=RunsReport(812, 3, 2),
    samples=(),
    findings=(),
    faults=(),
)
"""A daemon that is well."""


def with_step(name: str, **values: Any) -> StatusReport:
    """A daemon that is well but for one step."""
    return replace(WELL, steps={**WELL.steps, name: WELL.steps[name]._replace(**values)})


def with_rest(queue: QueueReport | None = None, **values: Any) -> StatusReport:
    """A daemon that is well but for cc-backend, or for what waits for it."""
    changed = DestinationReport(REST._replace(**values), queue or QueueReport("cc_rest"))
    return replace(WELL, destinations=(changed, WELL.destinations[1]))
