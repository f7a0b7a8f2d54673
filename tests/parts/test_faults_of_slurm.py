"""Every fault of Slurm, put into what its commands print: nothing ends of a failure, and nothing is lost by it."""

from __future__ import annotations

import contextlib
import json
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon import activities as loop_activities
from cc_slurm_adapter.daemon.activities import LoopSettings
from cc_slurm_adapter.daemon.assembly import make_activities
from cc_slurm_adapter.daemon.inbox import Inbox, Stop
from cc_slurm_adapter.daemon.main_loop import MainLoop
from cc_slurm_adapter.daemon.state_files import LastRun
from cc_slurm_adapter.errors import SlurmError
from cc_slurm_adapter.jobs.accounting_windows import AUDIT_EVERY, AUDIT_SPAN, OVERLAP, WIDE_AUDIT_EVERY
from cc_slurm_adapter.jobs.catch_up import FIRST_WAIT
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.jobs.settings import WatchSettings
from cc_slurm_adapter.jobs.watch import JobWatch
from cc_slurm_adapter.model import HookEvent, Phase
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.outbox.sender import Sender
from cc_slurm_adapter.outbox.stored_messages import Stored, texts_of, whole
from cc_slurm_adapter.sinks.base import Kind
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.sinks.rest import CcRest
from cc_slurm_adapter.slurm.client import SlurmClient
from cc_slurm_adapter.slurm.commands import TIMING, Timing
from cc_slurm_adapter.slurm.parse.accounting import EndedParser
from cc_slurm_adapter.slurm.parse.listing import parse_listing
from cc_slurm_adapter.slurm.postponed_jobs import TIMING as WAITS
from cc_slurm_adapter.slurm.postponed_jobs import PostponedJobs
from cc_slurm_adapter.slurm.postponed_jobs import Timing as Waits
from cc_slurm_adapter.system import backoff
from tests.fakes.programs import CountedCommands, FakePrograms, conversation
from tests.fakes.slurm_and_sinks import NOW, make_run
from tests.recorded.fixture_files import FIXTURES, sinfo_row
from tests.unit.jobs.test_watch import Lab

PATIENCE = 60.0
RECORDED = FIXTURES / "slurm-24.11.5"
FORMATS = RECORDED / "cluster" / "squeue-json-list.txt"
DOCUMENT = json.loads((RECORDED / "jobs" / "one-core" / "running.squeue.v0.0.40.json").read_text())
START = DOCUMENT["jobs"][0]["start_time"]["number"]
PING = RECORDED / "cluster" / "scontrol-ping.txt"
TALK = conversation('echo "JobId=$3 JobName=x"')
NAMES = ("squeue", "scontrol", "sinfo", "sacct")
FIRST, SECOND, THIRD = 101, 102, 103


class Cluster:
    """Commands that print what a recorded Slurm printed, for jobs that run on its node01."""

    def __init__(self, folder: Path, programs: FakePrograms) -> None:
        self.folder = folder
        self.programs = programs
        (folder / "sinfo").write_text(f"{sinfo_row(NodeList='node01')}\n")
        (folder / "sacct").write_text("")
        self.runs()
        details = f"*--json=v*) cat {folder}/details;;"
        self._scripts = {
            "squeue": f'case "$*" in *=list*) cat {FORMATS};; {details} *) cat {folder}/listing;; esac',
            "scontrol": f'case "$*" in {details} ping) cat {PING};; "") {TALK};; esac',
            "sinfo": f"cat {folder}/sinfo",
            "sacct": f"cat {folder}/sacct",
        }
        self.repair()

    def runs(self, *job_ids: int) -> None:
        """These jobs run, and slurmctld knows no others."""
        jobs = [{**DOCUMENT["jobs"][0], "job_id": job_id} for job_id in job_ids]
        (self.folder / "details").write_text(json.dumps({**DOCUMENT, "jobs": jobs}, indent=2))
        listed = [f"{job_id}|RUNNING|{START}|{START + 3600}|n\n" for job_id in job_ids]
        (self.folder / "listing").write_text("".join(listed))

    def repair(self) -> None:
        for name in NAMES:
            self.programs.make(name, self._scripts[name])

    def spoil(self, name: str, script: str) -> None:
        """The command does this; REAL stands for what it did before."""
        self.programs.make(name, script.replace("REAL", f"eval {shlex.quote(self._scripts[name])}"))


class Site:
    """A cluster and what watches it; nothing is sent."""

    def __init__(
        self,
        folder: Path,
        programs: FakePrograms,
        *,
        timing: Timing = TIMING,
        waits: Waits = WAITS,
        loop: loop_activities.Timing = loop_activities.TIMING,
    ) -> None:
        self.cluster = Cluster(folder, programs)
        self.commands = CountedCommands(timing=timing)
        self.outbox = Outbox(str(folder / "state.sqlite"))
        self.status = Counters()
        self.inbox = Inbox(self.status)
        sink = CcRest("http://127.0.0.1:9", lambda: "token")
        self.later = 0.0
        """Seconds by which the clock of what is set aside is ahead."""
        postponed = PostponedJobs(lambda: time.monotonic() + self.later, timing=waits)
        slurm = SlurmClient(self.commands, "lab", str(folder), 1 << 20, postponed=postponed)
        self.watch = JobWatch(
            slurm, self.outbox, CcMessages(()), [sink], self.status, WatchSettings("lab", IgnoreRules(), True, 3600)
        )
        settings = LoopSettings("lab", 60, 3600, 10, int(time.time()), 1.0)
        last_run = LastRun(str(folder / "lastrun"))
        sender = Sender(sink, self.outbox, self.status)
        activities = make_activities(settings, self.watch, self.outbox, sender, last_run, self.status, timing=loop)
        self.loop = MainLoop(self.inbox, activities, timing=loop)
        self.thread = threading.Thread(target=self.loop.run, daemon=True)

    def stop(self) -> None:
        """What SIGTERM does."""
        self.commands.cancel()
        self.loop.stop()
        self.inbox.put(Stop())
        if self.thread.ident is not None:
            self.thread.join(PATIENCE)

    def close(self) -> None:
        self.stop()
        self.commands.close()
        self.outbox.close()

    def poll(self) -> None:
        with contextlib.suppress(SlurmError):
            self.watch.read_nodes()
        for _ in self.watch.poll():
            pass

    def owed(self) -> list[tuple[str, int]]:
        """Kind and job of all that was ever owed: nothing is delivered here."""
        return sorted(self.outbox._state.read("SELECT kind, job_id FROM delivery", ()))

    def payloads(self, kind: str) -> list[bytes]:
        """The messages of a kind."""
        question = (
            "SELECT payload, texts_at, texts FROM message WHERE id IN (SELECT message FROM delivery WHERE kind = ?)"
        )
        stored = [Stored(*row) for row in self.outbox._state.read(question, (kind,))]
        with self.outbox._state.reading() as database:
            return [whole(database, each, texts_of(each), 0) for each in stored]

    def starts(self) -> list[bytes]:
        """The start messages."""
        return self.payloads("start")


@pytest.fixture
def site(tmp_path: Path, programs: FakePrograms) -> Iterator[Site]:
    made = Site(tmp_path, programs)
    yield made
    made.close()


def comes(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def says(name: str, script: str) -> Callable[[Cluster], None]:
    return lambda cluster: cluster.spoil(name, script)


def details(name: str, script: str) -> Callable[[Cluster], None]:
    return says(name, f'case "$*" in *--json=v*) {script};; *) REAL;; esac')


def recorded(name: str, answer: str) -> Callable[[Cluster], None]:
    return lambda cluster: cluster.programs.replay(name, RECORDED / "errors", answer)


def missing(name: str) -> Callable[[Cluster], None]:
    return lambda cluster: (cluster.programs.folder / name).unlink()


def half_written(cluster: Cluster) -> None:
    (cluster.programs.folder / "squeue").write_bytes(b"\x7fELF")


FAULTS = {
    "slurmctld is down for squeue": recorded("squeue", "slurmctld-down.squeue"),
    "squeue says nothing": says("squeue", "exit 0"),
    "squeue fails": says("squeue", "exit 1"),
    "squeue is missing": missing("squeue"),
    "squeue is half written": half_written,
    "the listing is half a line": says("squeue", "REAL | head -c 5"),
    "the listing is rubbish": says(
        "squeue", r"printf '\000\377|||\n-1|RUNNING|5|6|n\n99999999999999999999|RUNNING|5|6|n\n'"
    ),
    "squeue knows no format": says("squeue", 'case "$*" in *=list*) ;; *) REAL;; esac'),
    "details are cut": details("squeue", "REAL | head -c 9000"),
    "details are cut in the first job": details("squeue", "REAL | head -c 900"),
    "details say nothing": details("squeue", "exit 0"),
    "details are no document": details("squeue", "echo [1]"),
    "details have no jobs": details("squeue", """printf '{"jobs": [], "errors": []}'"""),
    "details name errors": details("squeue", """printf '{"jobs": [], "errors": [{"error": "down"}]}'"""),
    "details fail at their end": details("squeue", "REAL; exit 1"),
    "texts fail": says("scontrol", "exit 1"),
    "texts have no command": missing("scontrol"),
    "slurmctld is down for sinfo": recorded("sinfo", "slurmctld-down.sinfo"),
    "sinfo is missing": missing("sinfo"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_a_question_that_failed_ends_nothing_and_loses_nothing(site: Site, fault: Callable[[Cluster], None]) -> None:
    site.cluster.runs(FIRST)
    site.poll()
    assert site.owed() == [("start", FIRST)]
    site.cluster.runs(FIRST, SECOND, THIRD)
    fault(site.cluster)
    with contextlib.suppress(SlurmError):
        site.poll()
    assert {kind for kind, _ in site.owed()} == {"start"}
    site.cluster.repair()
    site.poll()
    assert site.owed() == [("start", FIRST), ("start", SECOND), ("start", THIRD)]
    assert not site.status.counts().get("jobs_not_understood")
    assert all(b'"hwthreads":[' in payload for payload in site.starts())


def scontrol_says(cluster: Cluster, case: str) -> None:
    """What was recorded of scontrol, as JSON and as text; a slurmctld that is down is so for squeue too."""
    for name in ("scontrol-json", "scontrol"):
        cluster.programs.replay(f"recorded-{name}", RECORDED / "errors", f"{case}.{name}")
    cluster.spoil("scontrol", 'case "$*" in *--json*) recorded-scontrol-json;; *) recorded-scontrol;; esac')
    if case == "slurmctld-down":
        recorded("squeue", f"{case}.squeue")(cluster)


@pytest.mark.parametrize("case", ["slurmctld-down", "unknown-id"])
def test_no_jobs_with_exit_code_0_is_nothing_to_conclude_from(site: Site, case: str) -> None:
    """scontrol's JSON is the same when slurmctld is down and when it does not know the job."""
    site.cluster.runs(FIRST)
    scontrol_says(site.cluster, case)
    with contextlib.suppress(SlurmError):
        assert site.watch.look_up([FIRST]) == set()
    site.cluster.repair()
    site.watch.look_up([FIRST])
    assert site.owed() == [("start", FIRST)]
    scontrol_says(site.cluster, case)
    with contextlib.suppress(SlurmError):
        assert site.watch.look_up([FIRST]) == set()
    assert site.owed() == [("start", FIRST)]


def test_a_frozen_slurmctld_does_not_hold_up_a_stop(site: Site, tmp_path: Path) -> None:
    site.cluster.spoil("squeue", f"echo $$ > {tmp_path}/asked; exec sleep 60")
    site.thread.start()
    assert comes((tmp_path / "asked").exists)
    began = time.monotonic()
    site.stop()
    assert time.monotonic() - began < 2
    assert not site.thread.is_alive()


def test_a_slurmctld_that_was_frozen_is_asked_again(
    tmp_path: Path, programs: FakePrograms, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.closing(Site(tmp_path, programs, timing=Timing(time_limit=0.2))) as site:
        site.cluster.runs(FIRST)
        site.cluster.spoil("squeue", "exec sleep 60")
        site.thread.start()
        assert comes(lambda: "squeue: slurmctld gave no answer within" in caplog.text)
        site.cluster.repair()
        assert comes(lambda: site.owed() == [("start", FIRST)])
        assert caplog.text.count("asking slurmctld for all jobs failed") == 1


def test_a_hook_event_is_served_while_a_poll_waits_after_failures(
    tmp_path: Path, programs: FakePrograms, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path, programs, loop=loop_activities.Timing(retries=backoff.Timing(first_retry=60.0)))
    site.cluster.spoil("squeue", "exit 1")
    site.thread.start()
    assert comes(lambda: "asking slurmctld for all jobs failed" in caplog.text)
    site.cluster.runs(FIRST)
    site.cluster.repair()
    site.inbox.put(HookEvent(FIRST, "prolog_slurmctld", 0))
    assert comes(lambda: site.owed() == [("start", FIRST)])
    assert not site.loop.activities.polls.polled
    site.close()


def test_an_event_whose_question_always_fails_holds_up_no_other(tmp_path: Path, programs: FakePrograms) -> None:
    """As on 23.02, where scontrol crashes when it is asked for the JSON of a job that nobody knows."""
    site = Site(tmp_path, programs, loop=loop_activities.Timing(retries=backoff.Timing(first_retry=0.01)))
    site.cluster.runs(FIRST)
    site.cluster.spoil("scontrol", 'case "$*" in *"job 7 "*) kill -SEGV $$;; *) REAL;; esac')
    site.cluster.spoil("squeue", 'case "$*" in *"-j 7,"*) kill -SEGV $$;; *) REAL;; esac')
    site.thread.start()
    assert comes(lambda: site.loop.activities.polls.polled)
    for job_id in (7, SECOND, THIRD):
        site.inbox.put(HookEvent(job_id, "epilog_slurmctld", 0))
    site.cluster.runs(FIRST, SECOND, THIRD)
    assert comes(lambda: ("start", SECOND) in site.owed() and ("start", THIRD) in site.owed())
    site.close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.outbox.close()


def test_a_run_that_was_seen_gets_its_stop_however_late_its_record_comes(lab: Lab) -> None:
    """slurmdbd was down for days; slurmctld has forgotten the job long ago. It is asked for ever more seldom."""
    run = lab.slurm.put(make_run())
    lab.poll()
    lab.pop_pending()
    lab.slurm.jobs.clear()
    lab.catch_up(NOW - 100)
    lab.now += 3 * 86400
    lab.poll()
    lab.catch_up(lab.now - 60)
    assert lab.pop_pending() == []
    lab.slurm.close(make_run(phase=Phase.ENDED))
    lab.now += FIRST_WAIT
    lab.poll()
    lab.catch_up(lab.now - 60)
    assert lab.pop_pending() == [(Kind.STOP, run.key)]


@pytest.mark.parametrize("age", [OVERLAP - 10, OVERLAP + 600, AUDIT_SPAN - AUDIT_EVERY - 60])
def test_records_that_come_late_are_found_within_an_hour(lab: Lab, age: int) -> None:
    """Of a run that nobody saw while it ran, and that accounting does not know when it is asked the first time."""
    lab.catch_up(NOW - 3600)
    lab.now += 60
    end = lab.now - age
    run = lab.slurm.close(make_run(start=end - 50, phase=Phase.ENDED))
    catch_up_for(lab, AUDIT_EVERY)
    assert lab.pop_pending() == [(Kind.START, run.key), (Kind.STOP, run.key)]


def catch_up_for(lab: Lab, seconds: int) -> None:
    """Every minute, as with the default poll interval."""
    for _ in range(seconds // 60 + 1):
        lab.catch_up(lab.now - 60)
        lab.now += 60


def test_records_that_come_later_than_all_others_are_found_within_a_day(lab: Lab) -> None:
    lab.catch_up(NOW - 3600)
    lab.now += 60
    end = lab.now - AUDIT_SPAN - 60
    run = lab.slurm.close(make_run(start=end - 50, phase=Phase.ENDED))
    catch_up_for(lab, WIDE_AUDIT_EVERY)
    assert lab.pop_pending() == [(Kind.START, run.key), (Kind.STOP, run.key)]


def test_records_of_a_long_outage_that_come_after_the_first_answer_are_found_within_an_hour(lab: Lab) -> None:
    """slurmdbd and the adapter were away for a day; slurmdbd answers before slurmctld has sent it what it kept."""
    lab.slurm.failure = SlurmError("down")
    with pytest.raises(SlurmError):
        lab.catch_up(NOW - 86400)
    lab.slurm.failure = None
    lab.catch_up(NOW - 86400)
    lab.now += 60
    run = lab.slurm.close(make_run(start=NOW - 50000, phase=Phase.ENDED))
    catch_up_for(lab, AUDIT_EVERY + 600)
    assert lab.pop_pending() == [(Kind.START, run.key), (Kind.STOP, run.key)]


def test_a_day_of_catching_up_costs_few_questions(lab: Lab) -> None:
    """Each catch-up asks for the last minutes, one an hour for six hours more, one a day for all."""
    lab.catch_up(NOW - 60)
    lab.slurm.asked.clear()
    catch_up_for(lab, WIDE_AUDIT_EVERY)
    assert len(lab.slurm.asked) <= 24 * 60 + 24 * 6 + 7 * 24 + 2


@pytest.mark.parametrize("output", ["exit 0", "REAL | head -c 40"])
def test_sinfo_that_says_too_little_costs_no_run_its_cores(site: Site, output: str) -> None:
    site.cluster.runs(FIRST)
    site.poll()
    site.cluster.runs(FIRST, SECOND, THIRD)
    site.cluster.spoil("sinfo", output)
    with contextlib.suppress(SlurmError):
        site.poll()
    site.cluster.repair()
    site.poll()
    assert [kind for kind, _ in site.owed()] == ["start"] * 3
    assert all(b'"hwthreads":[' in payload for payload in site.starts())


def test_a_listing_that_was_cut_gives_no_run_a_wrong_end(site: Site) -> None:
    site.cluster.runs(FIRST)
    site.poll()
    (site.cluster.folder / "listing").write_text(f"{FIRST}|COMPLETED|{START}|{START // 10}|n")
    with contextlib.suppress(SlurmError):
        site.poll()
    assert site.owed() == [("start", FIRST)]
    (site.cluster.folder / "listing").write_text(f"{FIRST}|COMPLETED|{START}|{START + 7}|n\n")
    site.poll()
    (stop,) = site.payloads("stop")
    assert json.loads(stop)["stopTime"] == START + 7


@pytest.mark.parametrize("job_id", ["0", "-1", "4294967296", str(2**63), "9" * 5000])
def test_an_id_that_is_none_costs_only_its_line(job_id: str) -> None:
    good = "5|COMPLETED|10|20|30|1"
    assert [each.key.job_id for each in EndedParser("lab").parse([good, good.replace("5", job_id, 1)])] == [5]
    line = "5|RUNNING|10|20|n"
    assert [each.job_id for each in parse_listing([line.replace("5", job_id, 1).encode(), line.encode()])] == [5]
