"""A new version takes over from an older one: its state file, and the program file while the daemon runs."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

import build
from cc_slurm_adapter.outbox.database import StateDatabase
from cc_slurm_adapter.outbox.schema import SCHEMA_VERSION
from examples.practice.cc_backend import OtherAnswer, html_page, refused_jobs
from examples.practice.programs import write_program
from examples.practice.site import Site
from examples.practice.slurm.model import JobRequest, Settings
from tests.built import killed_migration, old_state
from tests.built.installed import JOB, call
from tests.built.old_state import FORMATS

LONG = JobRequest("long", gpus_per_node=1, duration=600)
SHORT = JobRequest("short", duration=0.3)
OPTED_OUT = '{"disable_cc_submission": true}'
START_PATH = "/api/jobs/start_job/"
KILLED_AMID = (
    "CREATE VIEW",
    "INSERT INTO checkpoint",
    "INSERT INTO run",
    "INSERT INTO message",
    "INSERT INTO delivery",
    "COMMIT",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
    "os.link",
    "os.rename",
)
WRAPPER = """\
#!/bin/sh
exec {python} -I -S -B -X utf8 {driver} {adapter} {words} -- "$@"
"""
VERBOSE = """\
#!/bin/sh
exec {python} -v "$@"
"""
IMPORT = re.compile(r"^import '?([\w.]+)", re.MULTILINE)


# --- the state file


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_every_older_format_becomes_one_of_the_present_format(name: str, tmp_path: Path) -> None:
    old, new = tmp_path / "old.sqlite", tmp_path / "new.sqlite"
    old_state.make(old, FORMATS[name])
    for path in (old, new):
        StateDatabase(str(path)).close()
    assert old_state.number_of(old) == SCHEMA_VERSION
    assert old_state.schema_of(old) == old_state.schema_of(new)


class OldSite:
    """A site whose daemon has left a state file of format 1 with something in every state that a run can have."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.state = site.daemon.state_folder / "state.sqlite"
        jobs = site.cluster.submit_all([LONG] * 5)
        self.running, self.ending, self.stopping, self.parked, self.requeued = jobs
        site.wait_for("the jobs to run", lambda: len(site.cluster.truth()) == len(jobs))
        with site.backend.fault(refused_jobs([self.parked])):
            site.daemon.start()
            site.wait_for("the starts", lambda: site.has_started(*set(jobs) - {self.parked}))
            site.wait_for("the refusal", lambda: "parked" in site.daemon.log())
            site.cluster.requeue(self.requeued)
            site.wait_for("the other refusal", lambda: "not stored, another run of this job is" in site.daemon.log())
        site.server.stop()
        self.owed, self.over = site.cluster.submit_all([LONG] * 2)
        site.wait_for("two starts in the outbox", lambda: site.daemon.waiting_messages() == 3)
        cancel(site, self.stopping, self.over)
        site.wait_for("two stops in the outbox", lambda: site.daemon.waiting_messages() == 5)
        assert site.daemon.stop()[0] == 0
        old_state.turn_into(self.state, FORMATS["1"])

    def go_on(self) -> None:
        """What happens while no daemon runs; of two jobs the older version has seen something already."""
        site = self.site
        cancel(site, self.ending)
        self.missed, self.seen, self.left_out = site.cluster.submit_all(
            [SHORT, LONG, LONG._replace(admin_comment=OPTED_OUT)]
        )
        site.wait_for("the short job to end", lambda: self.missed in ended(site))
        site.wait_for("the others to run", lambda: {self.seen, self.left_out} <= set(starts(site)))
        for job_id, stage in ((self.seen, "seen"), (self.left_out, "ignored")):
            start = starts(site)[job_id]
            row = ("lab", job_id, start, stage, "node01", '{"of": "an older version"}', start)
            old_state.change(self.state, "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?)", *row)

    @property
    def all(self) -> list[int]:
        """Every job that was submitted."""
        return [run.job_id for run in self.site.cluster.truth()]


def cancel(site: Site, *job_ids: int) -> None:
    for job_id in job_ids:
        site.cluster.cancel(job_id)
    site.wait_for("the end", lambda: set(job_ids) <= ended(site))


def ended(site: Site) -> set[int]:
    """Jobs of which no run holds its nodes any more."""
    truth = site.cluster.truth()
    return {run.job_id for run in truth} - {run.job_id for run in truth if run.end is None}


def starts(site: Site) -> dict[int, int]:
    return {run.job_id: run.start for run in site.cluster.truth()}


def state_file_of_an_older_version(adapter: Path) -> None:
    """Killed amid the change of its format first. What was delivered is not sent again, what was owed is."""
    with Site(adapter, cluster=Settings(requeue_delay=2), hook="", slurmPollInterval=1) as site:
        old = OldSite(site)
        old.go_on()
        kill_amid_migration(site, adapter, old.state)
        site.server.start()
        site.daemon.adapter = adapter
        site.daemon.start()
        assert old_state.number_of(old.state) == SCHEMA_VERSION
        site.wait_for("all starts", lambda: site.has_started(*set(old.all) - {old.left_out}))
        over = {old.ending, old.stopping, old.over, old.missed}
        site.wait_for("the stops", lambda: site.has_stopped(*over))
        reported = set(old.all) - {old.left_out}
        cancel(site, *set(old.all) - over)
        site.wait_for("all stops", lambda: site.has_stopped(*reported))
        site.wait_for("an empty outbox", lambda: site.daemon.waiting_messages() == 0)
        second = [run for run in site.cluster.truth() if run.job_id == old.requeued][1]
        assert site.differences() == [f"job {old.requeued} of {second.user}, started {second.start}: is missing"]
        assert len(site.backend.rows) == len(reported)
        assert_no_start_was_accepted_twice(site)


def kill_amid_migration(site: Site, adapter: Path, state: Path) -> None:
    """At every step of it: the file stays what it was."""
    for words in KILLED_AMID:
        parts = [sys.executable, killed_migration.__file__, str(adapter), words]
        names = ("python", "driver", "adapter", "words")
        text = WRAPPER.format(**dict(zip(names, map(shlex.quote, parts))))
        site.daemon.adapter = write_program(site.folder / "killed", text)
        site.daemon.launch()
        assert site.daemon.wait(20) == -signal.SIGKILL
        assert old_state.number_of(state) == 1


def assert_no_start_was_accepted_twice(site: Site) -> None:
    taken = [request.job for request in site.backend.log if request.path == START_PATH and request.status == 201]
    assert max(Counter(taken).values()) == 1


# --- the program file


def write_other_build(adapter: Path, target: Path) -> None:
    """The same program, packed so that none of its parts lies where it was."""
    head = (build.PACKAGE / "hooks" / "head.sh").read_bytes()
    with zipfile.ZipFile(adapter) as parts, target.open("wb") as output:
        output.write(head)
        with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("0", b"0" * 12_345)
            for name in reversed(parts.namelist()):
                archive.writestr(name, parts.read(name))
    target.chmod(0o755)


def move(new: Path, target: Path) -> None:
    """As `mv` and package managers do."""
    new.replace(target)


def copy_in_place(new: Path, target: Path) -> None:
    """As `cp` does."""
    shutil.copyfile(new, target)


def do_everything(site: Site) -> None:
    """What the daemon has not done before: most faults, and jobs of all kinds."""
    jobs: list[int] = []
    site.daemon.signal(signal.SIGHUP)
    for fault in (OtherAnswer(status=429, headers={"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}), html_page(502)):
        with site.backend.fault(fault):
            jobs += site.cluster.submit_all([SHORT, LONG])
            site.wait_for("a failure", partial(fault_was_met, site, fault))
    for daemon in ("slurmdbd", "slurmctld"):
        site.cluster.set_down(daemon, down=True)
        site.wait_for("a failed question", lambda: "nothing is concluded" in site.daemon.log())
        site.cluster.set_down(daemon, down=False)
    site.server.stop()
    jobs += site.cluster.submit_all([SHORT._replace(array_size=2), LONG._replace(nodes=2, tasks=4)])
    site.wait_for("messages in the outbox", lambda: site.daemon.waiting_messages() >= 5)
    site.server.start()
    refused = call(site.daemon.command(), site.daemon.environ)
    assert "runs already with the pid" in refused.stderr
    assert call([site.daemon.adapter, "-version"]).returncode == 0
    config = site.daemon.config_path
    assert call([site.daemon.adapter, "-config", config], {**JOB, "SLURM_JOB_ID": str(jobs[1])}).returncode == 0
    site.wait_for("the starts", lambda: site.has_started(*jobs))
    for run in site.cluster.truth():
        site.cluster.cancel(run.job_id)
    site.wait_for("all to be reported", site.is_reported)
    assert site.differences() == []


def fault_was_met(site: Site, fault: OtherAnswer) -> bool:
    return any(request.status == fault.status for request in site.backend.log)


def program_file_is_replaced(adapter: Path, replace: Callable[[Path, Path], None]) -> None:
    """The daemon has all it needs in memory, and the next one starts from the new file."""
    with tempfile.TemporaryDirectory(prefix="cc-slurm-adapter-") as folder, ExitStack() as open_sites:
        copy, new = Path(folder) / "cc-slurm-adapter", Path(folder) / "new"
        shutil.copy(adapter, copy)
        write_other_build(copy, new)
        site = open_sites.enter_context(Site(copy, slurmPollInterval=1))
        site.daemon.start()
        replace(new, copy)
        do_everything(site)
        assert site.daemon.stop()[0] == 0
        assert "traceback" not in site.daemon.log().lower()
        assert list(site.daemon.run_folder.iterdir()) == []
        site.daemon.start()
        job = site.cluster.submit(SHORT)
        site.wait_for("a job", lambda: site.has_stopped(job))


def nothing_is_imported_once_it_reports(adapter: Path) -> None:
    """So that neither a new program file nor a new Python changes what it does."""
    with Site(adapter, slurmPollInterval=1) as site:
        python = shlex.quote(sys.executable)
        wrapper = write_program(site.folder / "python", VERBOSE.format(python=python))
        site.daemon.environ["CC_SLURM_ADAPTER_PYTHON"] = str(wrapper)
        site.daemon.start()
        began = len(site.daemon.log())
        do_everything(site)
        log = site.daemon.log()
        assert "cc_slurm_adapter.daemon.daemon" in IMPORT.findall(log[:began])
        assert IMPORT.findall(log[began:]) == []


SCENARIOS: dict[str, Callable[[Path], None]] = {
    "the state file is an older version's": state_file_of_an_older_version,
    "the program file is replaced by mv": partial(program_file_is_replaced, replace=move),
    "the program file is replaced by cp": partial(program_file_is_replaced, replace=copy_in_place),
    "nothing is imported once it reports": nothing_is_imported_once_it_reports,
}


@pytest.fixture(scope="module")
def played(adapter: Path) -> Iterator[dict[str, Future[None]]]:
    """Side by side, as each waits most of the time."""
    with ThreadPoolExecutor(len(SCENARIOS)) as pool:
        yield {name: pool.submit(scenario, adapter) for name, scenario in SCENARIOS.items()}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_new_version_takes_over(played: dict[str, Future[None]], name: str) -> None:
    played[name].result()
