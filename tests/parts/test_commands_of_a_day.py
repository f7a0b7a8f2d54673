"""How often Slurm is asked in a day: each kind of step is measured, and docs/costs.md has the sums."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.hooks.pending_events import MAX_BATCH
from cc_slurm_adapter.jobs.accounting_windows import AccountingWindows
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.sinks.base import Kind
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.sinks.rest import CcRest
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.cluster_nodes import ALL_EVERY, ClusterNodes
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.details import CHUNK
from cc_slurm_adapter.slurm.json_formats import FORMAT_SECONDS
from cc_slurm_adapter.slurm.parse.accounting import users_command
from cc_slurm_adapter.slurm.parse.nodes import SCONTROL_ALL
from tests.bench.big_cluster import CLUSTER, BigCluster
from tests.bench.site import read_calls
from tests.project.test_documents import COSTS, code, rows, section

DAY, JOBS_A_DAY, POLL_INTERVAL, MAX_SPAN = 86400, 10_000, 60, 604800
FORMATS = "squeue --json=list"
ALL_NODES = "scontrol show node"
SINK = CcRest("http://127.0.0.1:1", lambda: "token")


def named(argv: list[str]) -> str:
    """The command as docs/costs.md calls it."""
    if argv == SCONTROL_ALL:
        return ALL_NODES
    return FORMATS if argv == FORMATS.split() else argv[0]


class Site:
    """A stand-in cluster that notes each command, and a watch over it with a real outbox."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self.cluster = BigCluster(folder / "slurm", sys.executable, nodes=3, jobs=jobs)
        self.commands = Commands(self.cluster.environ)
        self.client = SlurmClient(self.commands, CLUSTER, str(folder), 100_000)
        self.outbox = Outbox(str(folder / "state.sqlite"))
        self.now = int(time.time())
        settings = WatchSettings(CLUSTER, IgnoreRules(), has_accounting=True, max_span=MAX_SPAN, clock=lambda: self.now)
        self.watch = JobWatch(self.client, self.outbox, CcMessages(()), [SINK], Counters(), settings)

    def close(self) -> None:
        """Give the files back."""
        self.commands.close()
        self.outbox.close()

    def poll(self) -> None:
        """A whole pass over slurmctld."""
        self.watch.read_nodes()
        for _ in self.watch.poll():
            pass

    def catch_up(self) -> None:
        """Accounting since the poll before."""
        for _ in self.watch.catch_up(self.now - POLL_INTERVAL):
            pass

    def asked(self) -> list[list[str]]:
        """The commands since the last call, as lists of words."""
        return [list(call.argv) for call in read_calls(self.cluster.folder)]

    def count(self, step: Callable[[], object]) -> Counter[str]:
        """How many commands a step takes, by name."""
        self.asked()
        step()
        return Counter(named(argv) for argv in self.asked())

    def owed(self) -> list[tuple[Kind, int]]:
        """What is to be sent, by job; it counts as delivered then."""
        found: list[tuple[Kind, int]] = []
        while due := self.outbox.deliveries.due(SINK.name, 1e12, 1000):
            for delivery in due:
                found.append((delivery.kind, delivery.key.job_id))
                self.outbox.deliveries.delivered(delivery)
        return found


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[[int], Site]]:
    """Makes a site with so many jobs that run."""
    sites: list[Site] = []

    def make(jobs: int) -> Site:
        sites.append(Site(tmp_path, jobs))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


def start_a_job(site: Site) -> int:
    """A job begins, and its prolog calls the hook: Slurm is asked while its nodes are made ready, and when it runs."""
    (job_id,) = site.cluster.begin(1, configuring=True)
    site.watch.look_up([job_id])
    assert not site.watch.is_settled(job_id, over=False)
    site.cluster.make_ready([job_id])
    site.watch.look_up([job_id])
    assert site.watch.is_settled(job_id, over=False)
    return job_id


def stop_a_job(site: Site, job_id: int) -> None:
    """It ends, and its epilog calls the hook."""
    site.cluster.end([job_id])
    site.watch.look_up([job_id])
    assert site.watch.is_settled(job_id, over=True)


def windows_of_a_day() -> int:
    """Windows of accounting that are read in a day, audits included.

    It is the second day: the first audit of all that may be read is one day after the start.
    """
    begin = 1_800_000_000
    windows, read = AccountingWindows(MAX_SPAN, begin), 0
    for now in range(begin, begin + 2 * DAY, POLL_INTERVAL):
        for window in windows.next(now - POLL_INTERVAL, now):
            windows.was_read(window)
            read += now >= begin + DAY
    return read


def test_all_nodes_are_named_once_an_hour(make_site: Callable[[int], Site]) -> None:
    site, now = make_site(1), 0.0
    nodes = ClusterNodes(site.commands, clock=lambda: now)
    for now in (0.0, ALL_EVERY - 1, ALL_EVERY, ALL_EVERY + 1):  # noqa: B007 - the clock reads it
        nodes.read()
    assert Counter(map(named, site.asked())) == {"sinfo": 4, ALL_NODES: 2}


def test_slurm_is_asked_as_often_as_the_readme_says(make_site: Callable[[int], Site]) -> None:
    site = make_site(3)
    site.poll()
    site.owed()
    job_ids: list[int] = []
    start = site.count(lambda: job_ids.append(start_a_job(site)))
    stop = site.count(lambda: stop_a_job(site, job_ids[0]))
    assert site.owed() == [(Kind.START, job_ids[0]), (Kind.STOP, job_ids[0])]
    poll = site.count(site.poll)
    windows = AccountingWindows(MAX_SPAN, site.now).next(site.now - POLL_INTERVAL, site.now)
    assert site.count(site.catch_up) == {"sacct": len(windows)}  # one for each window, and no other command
    assert site.owed() == []

    in_a_day = Counter(
        {FORMATS: round(DAY / FORMAT_SECONDS), "sacct": windows_of_a_day(), ALL_NODES: round(DAY / ALL_EVERY)}
    )
    for step, times in ((poll, DAY // POLL_INTERVAL), (start, JOBS_A_DAY), (stop, JOBS_A_DAY)):
        in_a_day.update({name: count * times for name, count in step.items()})
    assert in_the_document() == {name: f"{count:,}" for name, count in in_a_day.items()}


def in_the_document() -> dict[str, str]:
    """How often each command is run in a day at most, as docs/costs.md has it."""
    return {code(command)[0]: times for command, _, times in rows(section(COSTS, "What Slurm is asked in a day"))}


def test_sacct_has_a_begin_and_an_end_and_no_question_has_more_than_a_chunk_of_jobs(
    make_site: Callable[[int], Site],
) -> None:
    site = make_site(2 * CHUNK + 50)
    site.poll()
    job_ids = site.cluster.begin(MAX_BATCH)
    site.watch.look_up(job_ids)
    site.cluster.end(job_ids)
    (site.cluster.folder / "changed.txt").write_text("", encoding="utf-8")  # slurmctld has forgotten them
    site.poll()
    site.catch_up()
    owed = Counter(kind for kind, job_id in site.owed() if job_id in job_ids)
    assert owed == {Kind.START: MAX_BATCH, Kind.STOP: MAX_BATCH}
    # The stand-in has no accounting as JSON, but notes the question.
    answers = list(site.client.read_accounted(job_ids, site.now - DAY, site.now))
    assert {job_id for answer in answers for job_id in answer.failed} == set(job_ids)

    asked = [*site.asked(), users_command(job_ids, site.now - DAY, site.now)]
    accounting = [argv for argv in asked if argv[0] == "sacct"]
    assert [argv for argv in accounting if not {"-S", "-E"} <= set(argv) or not {"-s", "-j"} & set(argv)] == []
    sizes = {
        name: [jobs_in(argv) for argv in asked if argv[0] == name and "-j" in argv] for name in ("squeue", "sacct")
    }
    assert sizes["squeue"] == [CHUNK, CHUNK, 50, MAX_BATCH]
    assert sizes["sacct"][:2] == [CHUNK, CHUNK]  # then the question that failed, in halves
    assert max(sizes["sacct"]) == CHUNK


def jobs_in(argv: list[str]) -> int:
    """How many jobs a command names."""
    return len(argv[argv.index("-j") + 1].split(","))
