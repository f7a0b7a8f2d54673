"""What the log at its default level shows of an outage of half a day, and of a thousand equal jobs: lines are counted.

The clock is simulated. An outage is one line at its beginning, a reminder an hour, and one line when it is over,
however many parts of the program notice it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon import running_list
from cc_slurm_adapter.daemon.activities import LoopSettings, Timing
from cc_slurm_adapter.daemon.announcer import Announcer
from cc_slurm_adapter.daemon.assembly import make_activities
from cc_slurm_adapter.daemon.destinations import Destinations
from cc_slurm_adapter.daemon.inbox import Inbox, Item
from cc_slurm_adapter.daemon.main_loop import MainLoop
from cc_slurm_adapter.daemon.report import RUNNING
from cc_slurm_adapter.daemon.running_list import RunningListPoller
from cc_slurm_adapter.daemon.state_files import LastRun
from cc_slurm_adapter.daemon.status import StatusBoard
from cc_slurm_adapter.errors import CommandFailed, SinkError
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.log import NOTICE
from cc_slurm_adapter.model import HookEvent, NodeState, RunKey
from cc_slurm_adapter.outbox import sink_health, state_file
from cc_slurm_adapter.outbox.late_runs import LateRuns
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.outbox.report import SinkReport
from cc_slurm_adapter.outbox.row_lines import RowLines
from cc_slurm_adapter.outbox.sink_health import SinkHealth
from cc_slurm_adapter.outbox.tasks import Request, Rows
from cc_slurm_adapter.sinks.base import Answer, AskableSink, Delivery, Kind, RunningRow, RunningRows, Verdict
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.sinks.rest import CcRest
from cc_slurm_adapter.system import backoff
from cc_slurm_adapter.system.outages import Outages
from tests.fakes.slurm_and_sinks import FakeSlurm, make_run
from tests.unit.outbox.test_database import add, no_space

MINUTE, HOUR = 60, 3600
OUTAGE = 12 * HOUR
LINES = 1 + 11
"""The line at the beginning, and the reminders. Each of them comes with the first failure after an hour, so in twelve
hours the twelfth reminder would come when the outage is over."""
SLURMCTLD = "Unable to contact slurm controller (connect failure)"
SLURMDBD = "Problem talking to the database: Connection refused"
ASK_SLURMCTLD = {
    "list_jobs": "squeue -h -a: slurm_load_jobs error",
    "read_details": "squeue -a -t: slurm_load_jobs error",
    "node_states": "sinfo -h -N: slurm_load_node",
    "is_forgotten": "scontrol show job: slurm_load_jobs error",
    "accounting_backlog": "sdiag: slurm_get_statistics",
    "with_texts": "scontrol: slurm_load_jobs error",
}
ASK_SLURMDBD = dict.fromkeys(("ended_between", "ends_of", "read_accounted", "launches_of"), "sacct -X -a: sacct: error")


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class AwaySlurm(FakeSlurm):
    """Some of its commands fail, each with words of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.away: dict[str, str] = {}

    def _ask(self, question: str) -> None:
        super()._ask(question)
        if question in self.away:
            raise CommandFailed(self.away[question])


class SimulatedInbox(Inbox):
    """Lets the time pass that the main loop waits, and has some items every ten minutes."""

    def __init__(self, clock: Clock, make_items: Callable[[], list[Item]], at: dict[float, Callable[[], None]]) -> None:
        super().__init__(Counters())
        self._clock = clock
        self._make_items = make_items
        self._next = clock.now
        self._at = at
        """What happens when."""

    def pop_all(self, wait: float) -> list[Item]:
        self._clock.now += max(wait, 0.01)
        for when in [when for when in self._at if when <= self._clock.now]:
            self._at.pop(when)()
        if self._clock.now < self._next:
            return []
        self._next = self._clock.now + 10 * MINUTE
        return self._make_items()


def partitioned(notices: list[str]) -> tuple[list[str], list[str]]:
    """The lines that say that all is well, and the others."""
    well = [line for line in notices if "; all is well; " in line]
    return well, [line for line in notices if line not in well]


class NoSenders:
    """Sends nothing."""

    def post_nodes(self, cluster: str, nodes: list[NodeState]) -> None: ...

    def retry_now(self) -> None: ...


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Site:
    """The main loop of a daemon over a Slurm that is away for a time."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.clock = clock
        self.slurm = AwaySlurm()
        self.outbox = Outbox(str(folder / "state.sqlite"), timing=state_file.Timing(clock=clock))
        sink = CcRest("http://127.0.0.1:9", lambda: "token")
        began = time.time() - clock.now
        settings = WatchSettings(
            "lab",
            IgnoreRules(),
            True,
            HOUR,
            clock=lambda: began + clock.now,
            monotonic=clock,
            outages=Outages(clock),
        )
        counters = Counters()
        watch = JobWatch(self.slurm, self.outbox, CcMessages(()), [sink], counters, settings)
        self._activities = make_activities(
            LoopSettings("lab", 5 * MINUTE, HOUR, 10, int(time.time()), 1.0),
            watch,
            self.outbox,
            NoSenders(),
            LastRun(str(folder / "lastrun")),
            counters,
            timing=self.timing,
        )
        board = StatusBoard("", str(folder / "state.sqlite"), 0, counters)
        board.phase = RUNNING
        board.add(outbox=self.outbox, cluster="lab", watch=watch, activities=self._activities)
        self._announcer = Announcer(board, counters, lambda line: None, clock)
        self.watch = watch
        self.slurm.put(make_run(1, int(time.time()) - 100))

    @property
    def timing(self) -> Timing:
        return Timing(tick=HOUR, retries=backoff.Timing(longest_retry=5 * MINUTE, clock=self.clock))

    def items(self) -> list[Item]:
        """A hook event of a job that was requeued, and a list with a row about which accounting is asked.

        The thread that says how the daemon is has looked at it meanwhile.
        """
        self._announcer.announce_due()
        self.slurm.put(make_run(1, int(time.time() + self.clock.now)))
        return [
            HookEvent(1, "prolog_slurmctld", self.clock.now),
            RunningRows("cc_rest", [RunningRow(7, int(time.time()) - HOUR)], time.time() + 10 * OUTAGE),
        ]

    def run(self, away: dict[str, str]) -> None:
        """An hour without a fault, twelve hours with one, and an hour without."""
        began = self.clock.now
        inbox = SimulatedInbox(
            self.clock,
            self.items,
            {
                began + HOUR: lambda: self.slurm.away.update(away),
                began + HOUR + OUTAGE: self.slurm.away.clear,
                began + 2 * HOUR + OUTAGE: lambda: loop.stop(),
            },
        )
        loop = MainLoop(inbox, self._activities, timing=self.timing)
        loop.run()
        self.outbox.close()


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Site]:
    yield Site(tmp_path, clock)


@pytest.mark.parametrize(
    ("commands", "cause"),
    [(ASK_SLURMCTLD, SLURMCTLD), (ASK_SLURMDBD, SLURMDBD)],
    ids=["slurmctld", "slurmdbd"],
)
def test_half_a_day_without_slurm_is_a_line_an_hour(
    site: Site, caplog: pytest.LogCaptureFixture, commands: dict[str, str], cause: str
) -> None:
    caplog.set_level(NOTICE)
    site.run({question: f"{text}: {cause}" for question, text in commands.items()})
    assert len([line for line in lines(caplog) if cause in line]) == LINES
    assert len(lines(caplog, logging.ERROR)) == LINES
    assert ", for 11 h now (" in lines(caplog, logging.ERROR)[-1]
    (over,) = [line for line in lines(caplog, NOTICE) if "works again" in line]
    assert over.endswith((" after 12 h", " after 11 h"))
    well, ill = partitioned([line for line in lines(caplog, NOTICE) if "; since the start: " in line])
    assert LINES - 2 <= len(ill) <= LINES  # it is looked at every ten minutes here
    assert 2 <= len(well) <= 3  # before, when it is over, and an hour after that


def test_slurmctld_and_slurmdbd_are_two_faults(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(NOTICE)
    site.run(
        {
            **{question: f"{text}: {SLURMCTLD}" for question, text in ASK_SLURMCTLD.items()},
            **{question: f"{text}: {SLURMDBD}" for question, text in ASK_SLURMDBD.items()},
        }
    )
    for cause in (SLURMCTLD, SLURMDBD):
        assert len([line for line in lines(caplog) if cause in line]) == LINES
    assert len([line for line in lines(caplog, NOTICE) if "works again" in line]) == 2


class AwayBackend:
    """cc-backend's REST interface, at an address at which nothing listens while it is away."""

    name = "cc_rest"

    def __init__(self) -> None:
        self.is_away = True
        self._connection = CcRest("http://127.0.0.1:9", lambda: "token").connect()
        self._delivery = Delivery(1, RunKey("lab", 1, 1000), Kind.START, b"{}", 0, 0.0)

    def connect(self, progress: Callable[[], None]) -> AwayBackend:
        return self

    def deliver(self) -> Answer:
        return self._connection.deliver(self._delivery) if self.is_away else Answer(Verdict.DELIVERED)

    def post_nodes(self) -> Answer:
        return self._connection.post_nodes("lab", []) if self.is_away else Answer(Verdict.DELIVERED)

    def running_rows(self, cluster: str) -> list[RunningRow]:
        return list(self._connection.running_rows(cluster)) if self.is_away else []

    def close(self) -> None:
        self._connection.close()


def test_half_a_day_without_cc_backend_is_a_line_an_hour(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Messages, node states and the list of running jobs fail for the same reason."""
    caplog.set_level(NOTICE)
    backend, shared = AwayBackend(), Outages(clock)
    report = SinkReport("cc_rest", "cc-backend")
    health = SinkHealth(report, 4, timing=sink_health.Timing(clock=clock), outages=shared)
    poller = RunningListPoller(
        cast("AskableSink", backend),
        "cc_rest",
        "lab",
        MINUTE,
        lambda rows: None,
        timing=running_list.Timing(clock=clock),
        outages=shared,
    )
    for second in range(0, OUTAGE + HOUR, 20):
        clock.now = 1000.0 + second
        backend.is_away = second < OUTAGE
        request = Request(Rows([]), clock.now, 0)
        if second % MINUTE == 0:
            health.nodes_answered(backend.post_nodes())
            poller._poll()
        answer = backend.deliver()
        if answer.verdict is Verdict.DELIVERED:
            health.answers(1, request)
        else:
            health.pause_after(answer, request)
    backend.close()
    about = lines(caplog)
    assert len(about) == LINES, about
    assert all("connection refused" in line for line in about)
    assert len(lines(caplog, NOTICE)) == LINES + 1
    assert lines(caplog, NOTICE)[-1].endswith("again after 12 h")


def test_the_check_at_the_start_is_a_part_of_the_same_outage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {
        "ccRestUrl": "http://127.0.0.1:9",
        "ccRestJwt": "token",
        "prepSockListenPath": str(tmp_path / "socket"),
        "lastRunPath": str(tmp_path / "lastrun"),
    }
    destinations = Destinations(parse_config(settings)[0], Counters())
    for _ in range(3):
        assert destinations.cluster_names() == []
    (line,) = lines(caplog)
    assert line.startswith("cc-backend cannot be asked for its clusters, going on: 127.0.0.1:9: connection refused")


def test_half_a_day_with_a_full_disk_is_a_line_an_hour(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(NOTICE)
    timing = state_file.Timing(busy_briefly=0.01, clock=clock)
    outbox = Outbox(str(tmp_path / "state.sqlite"), timing=timing)
    add(outbox, 1)
    with no_space():
        for second in range(0, OUTAGE, 30):
            clock.now = 1000.0 + second
            add(outbox, 1 + second)
            assert not outbox.is_durable
    clock.now = 1000.0 + OUTAGE
    add(outbox, 2)
    assert outbox.is_durable
    outbox.close()
    about = lines(caplog)
    assert len(about) == LINES, about
    assert all("cannot be written" in line for line in about)
    assert about[-1].endswith(", for 11 h now (1,321 failures)")  # every 30 s, and the first one
    (over,) = [line for line in lines(caplog, NOTICE) if line not in about]
    assert over.endswith("can be written again and has everything after 12 h")


JOBS = 1000


def test_a_thousand_jobs_that_are_not_understood_are_two_lines(
    site: Site, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for job_id in range(1, JOBS + 1):
        site.slurm.put(make_run(job_id, int(time.time()) - 100))
        site.slurm.broken[job_id] = f"squeue jobs[job_id={job_id}].cpus: it is not a number"
    for _ in range(3):
        list(site.watch.poll())
        clock.now += MINUTE
    site.outbox.close()
    first, others = lines(caplog, logging.ERROR)
    assert first.startswith("job 1 cannot be understood and is left out")
    assert others.startswith("999 more jobs cannot be understood and are left out, the first is job 2:")


def test_a_thousand_equal_refusals_are_two_lines(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    rows = RowLines("cc-backend", clock)
    for job_id in range(1, JOBS + 1):
        delivery = Delivery(job_id, RunKey("lab", job_id, 1000), Kind.START, b"{}", 0, 0.0)
        rows.report(delivery, "refused and parked", f"HTTP 400: no subcluster for host node{job_id}")
        clock.now += 1
        rows.report_due()
    clock.now += HOUR
    rows.report_due()
    # The first, the 59 after it in the first minute, and the rest an hour later.
    assert [line.partition(" ")[0] for line in lines(caplog)] == ["job", "59", "940"]


def test_runs_that_were_too_short_to_be_seen_are_a_line_an_hour(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    late_runs = LateRuns(clock)
    for number in range(OUTAGE // MINUTE):
        for job_id in range(10 * number, 10 * number + 10):
            late_runs.found(RunKey("lab", job_id, 1000))
            late_runs.start_delivered(RunKey("lab", job_id, 1000), is_new=True)
        late_runs.report()
        clock.now += MINUTE
    assert len(lines(caplog)) == OUTAGE // HOUR
    assert [line.partition(" ")[0] for line in lines(caplog)[:2]] == ["10", "600"]


def test_a_failure_to_ask_for_the_running_list_needs_no_senders(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Jobs are reported to NATS, and cc-backend is only compared with: then nobody else logs that it is away."""
    shared = Outages(clock)
    for second in range(0, OUTAGE, MINUTE):
        clock.now = 1000.0 + second
        note = shared.failed(running_list.RUNNING_LIST, str(SinkError("cc-backend:443: connection refused: nothing")))
        if note is not None:
            logging.getLogger(__name__).warning("x%s", note)
    assert len(lines(caplog)) == LINES
