"""`-job` asks each source, and what fails is a line of what it tells."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.cli.job import ask_here, choose_cluster, explain_job, owner_of, read_first_moment
from cc_slurm_adapter.cli.job_facts import SlurmFacts, SlurmRun
from cc_slurm_adapter.cli.job_sources import (
    BACKEND_SECONDS,
    UnknownName,
    Windows,
    find_id,
    hidden_from,
    read_backend,
    read_slurm,
    windows_of,
)
from cc_slurm_adapter.config.config import Config, load_config
from cc_slurm_adapter.daemon.job_state import JobState
from cc_slurm_adapter.errors import CommandFailed, SinkError, SlurmError, UsageError
from cc_slurm_adapter.jobs import notes
from cc_slurm_adapter.jobs.ignore_rules import IgnoreRules
from cc_slurm_adapter.model import End, EndState, Phase, RunKey
from cc_slurm_adapter.outbox.job_rows import JobRows, RunRow
from cc_slurm_adapter.outbox.outbox import Batch, OpenRun, Outbox, Stage
from cc_slurm_adapter.sinks.base import StoredRun
from cc_slurm_adapter.slurm.cluster_config import ClusterConfig
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.one_job import JobName
from tests.fakes.job_rows import make_row
from tests.fakes.programs import FakePrograms
from tests.fakes.slurm_and_sinks import NOW, FakeSlurm, make_run

DAY = 86400
NO_RULES = IgnoreRules()
SITE = ClusterConfig("lab", "24.11.5", "slurm", "jobs", has_accounting=True, records_steps=True, question_rate=None)
REQUEUED = End(EndState.CANCELLED, NOW - 100, "REQUEUED")


def ask(slurm: FakeSlurm, failure: str = "", site: ClusterConfig | None = SITE) -> SlurmFacts:
    return read_slurm(slurm, 1, NO_RULES, NOW, failure, site)


# --- Slurm


def test_what_slurmctld_and_accounting_show_is_put_together() -> None:
    slurm = FakeSlurm()
    slurm.close(make_run(1, NOW - 300, Phase.ENDED, end=REQUEUED))
    current = slurm.put(make_run(1, NOW - 50))
    slurm.close(current)
    found = ask(slurm)
    assert [(run.source, run.start, run.phase, run.state) for run in found.runs] == [
        ("slurmctld", NOW - 50, "running", ""),
        ("accounting", NOW - 300, "ended", "REQUEUED"),
    ]
    assert found.runs[1].end == NOW - 100
    assert (found.cluster, found.private_data, found.is_forgotten) == ("lab", "jobs", False)


def test_a_run_that_launched_nothing_is_recognized() -> None:
    slurm = FakeSlurm()
    idle = slurm.close(make_run(1, NOW - 300, Phase.ENDED, end=REQUEUED))
    slurm.close(make_run(1, NOW - 50, Phase.ENDED))
    slurm.idle.add(idle.key)
    assert {run.start: run.has_launched for run in ask(slurm).runs} == {NOW - 300: False, NOW - 50: True}


def test_parts_of_a_resized_run_are_one_run() -> None:
    slurm = FakeSlurm()
    run = slurm.close(make_run(1, NOW - 300, Phase.ENDED))
    slurm.rests[run.key] = RunKey("lab", 1, NOW - 200)
    (found,) = [each for each in ask(slurm).runs if each.phase == "ended"]
    assert (found.start, found.end) == (NOW - 300, NOW - 250)


def test_a_run_that_was_resized_and_still_runs_is_one_run() -> None:
    slurm = FakeSlurm()
    current = slurm.put(make_run(1, NOW - 300))
    for start in (NOW - 300, NOW - 200):
        slurm.close(make_run(1, start))
    assert [run.start for run in ask(slurm).runs] == [current.key.start_time]


def test_a_job_that_waits_has_no_start() -> None:
    slurm = FakeSlurm()
    slurm.put(make_run(1, NOW + 500, Phase.WAITING, resources=()))
    (run,) = ask(slurm).runs
    assert (run.start, run.phase) == (0, "waiting")


def test_the_rules_of_the_configuration_are_applied() -> None:
    slurm = FakeSlurm()
    slurm.put(make_run(1, opted_out=True))
    assert ask(slurm).runs[0].left_out == "its AdminComment has disable_cc_submission"


def test_a_job_that_cannot_be_understood_says_why() -> None:
    slurm = FakeSlurm()
    slurm.broken[1] = "jobs[1].nodes: it is missing"
    found = ask(slurm)
    assert (found.not_understood, found.is_forgotten) == ("jobs[1].nodes: it is missing", False)


def test_a_forgotten_job_is_one_only_if_slurmctld_says_so() -> None:
    slurm = FakeSlurm()
    assert not ask(slurm).is_forgotten
    slurm.forgotten.add(1)
    assert ask(slurm).is_forgotten


def test_each_half_of_slurm_may_fail() -> None:
    slurm = FakeSlurm()
    slurm.put(make_run(1, NOW - 50))
    slurm.failing = {"read_accounted"}
    found = ask(slurm)
    assert (len(found.runs), found.slurmctld_failure, found.accounting_failure) == (1, "", "read_accounted fails")
    slurm.failing = {"read_details"}
    assert ask(slurm).slurmctld_failure == "read_details fails"
    slurm.failing = set()
    slurm.asked.clear()
    assert ask(slurm, "scontrol: connect failure").slurmctld_failure == "scontrol: connect failure"
    assert "read_details" not in slurm.asked


def test_a_site_without_accounting_is_not_asked_for_it() -> None:
    slurm = FakeSlurm()
    slurm.forgotten.add(1)
    site = ClusterConfig("lab", "24.11.5", "slurm", "", has_accounting=False, records_steps=False, question_rate=None)
    assert not ask(slurm, site=site).has_accounting
    assert "read_accounted" not in slurm.asked


class Levels:
    """Rights in accounting, or none that can be had."""

    def __init__(self, level: str | None) -> None:
        self._level = level

    def admin_level(self, user: str) -> str | None:
        if self._level == "away":
            raise CommandFailed("sacctmgr fails")
        return self._level


def test_what_slurm_hides_from_the_daemon_s_user_is_told() -> None:
    assert hidden_from(Levels("Operator"), SITE, "adapter") == ()
    assert hidden_from(Levels("None"), SITE, "slurm") == ()
    (line,) = hidden_from(Levels("None"), SITE, "adapter")
    assert "by PrivateData=jobs, their jobs" in line
    assert "sacctmgr -i modify user adapter set adminlevel=operator" in line
    assert "not known" in hidden_from(Levels("away"), SITE, "adapter")[0]
    assert hidden_from(Levels("None"), None, "adapter") == hidden_from(Levels("None"), SITE, "") == ()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePrograms:
    made = FakePrograms(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.folder}:/usr/bin:/bin")
    return made


@pytest.fixture
def commands(programs: FakePrograms) -> Iterator[Commands]:
    made = Commands()
    yield made
    made.close()


def test_a_task_that_squeue_does_not_show_is_looked_for_in_accounting(
    commands: Commands, programs: FakePrograms
) -> None:
    programs.make("sacct", "echo '12|10_3'")
    assert find_id(commands, JobName(10, "_", 3), [], "") == 12
    assert find_id(commands, JobName(10), [], "") == 10
    with pytest.raises(UnknownName, match="the job id of 10_4 is not known, Slurm knows none of this name"):
        find_id(commands, JobName(10, "_", 4), [], "")
    with pytest.raises(SlurmError, match="Slurm cannot be asked for it"):
        find_id(commands, JobName(10, "_", 4), [], "connect failure")


# --- cc-backend


class Backend:
    """A cc-backend with these runs, which remembers what it was asked for."""

    def __init__(self, *starts: int) -> None:
        self.runs = [StoredRun(1, start, "completed") for start in starts]
        self.asked: list[tuple[int, int]] = []
        self.failure: SinkError | None = None

    def find(self, first: int, last: int) -> list[StoredRun]:
        self.asked.append((first, last))
        if self.failure:
            raise self.failure
        return [run for run in self.runs if first <= run.start_time <= last]


def test_cc_backend_is_asked_around_each_known_start() -> None:
    slurm = SlurmFacts(runs=(SlurmRun("slurmctld", NOW, "running"), SlurmRun("slurmctld", 0, "waiting")))
    run = RunRow("lab", NOW - DAY, "done", "", NOW, "")
    rows = JobRows((run, run._replace(cluster="other", start_time=5)), (make_row(NOW - DAY, state="conflict"),), {})
    windows = windows_of("lab", slurm, rows)
    assert windows == Windows((NOW, NOW - DAY), (NOW - DAY,))


def test_the_runs_that_are_found_are_told_the_latest_first() -> None:
    backend = Backend(NOW - DAY + 3, NOW, NOW - 2 * DAY)
    found = read_backend(backend.find, Windows((NOW, NOW - DAY), ()), lambda: 0.0)
    assert [run.start_time for run in found.runs] == [NOW, NOW - DAY + 3]
    assert found.searched == ((NOW - 300, NOW + 300), (NOW - DAY - 300, NOW - DAY + 300))


def test_the_run_that_another_one_is_refused_for_is_searched_for_a_day_around() -> None:
    backend = Backend(NOW - 7200)
    found = read_backend(backend.find, Windows((NOW,), (NOW,)), lambda: 0.0)
    assert [run.start_time for run in found.runs] == [NOW - 7200]
    assert backend.asked == [(NOW - 300, NOW + 300), (NOW - DAY, NOW + DAY)]
    known = Backend(NOW - 7200)
    read_backend(known.find, Windows((NOW, NOW - 7200), (NOW,)), lambda: 0.0)
    assert len(known.asked) == 2


def test_a_cc_backend_that_fails_or_is_slow_is_told_with_what_was_found_before() -> None:
    backend = Backend(NOW)
    backend.failure = SinkError("connection refused")
    assert read_backend(backend.find, Windows((NOW,), ()), lambda: 0.0).failure == "connection refused"
    ticks = iter([0.0, 0.0, BACKEND_SECONDS])
    slow = Backend(NOW, NOW - DAY)
    found = read_backend(slow.find, Windows((NOW, NOW - DAY), ()), lambda: next(ticks))
    assert [run.start_time for run in found.runs] == [NOW]


# --- this program, and the command as a whole


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    folder = tmp_path / "daemon"
    folder.mkdir()
    path = folder / "config.json"
    settings = {
        "ccRestUrl": "http://127.0.0.1:1",
        "ccRestJwt": "a.b.c",
        "pidFilePath": str(folder / "pid"),
        "lastRunPath": str(folder / "last_run"),
        "prepSockListenPath": f"unix:{folder}/hooks.sock",
        "prepEventsPath": str(folder / "events"),
    }
    path.write_text(json.dumps(settings))
    path.chmod(0o600)
    return path


@pytest.fixture
def config(config_path: Path) -> Config:
    return load_config(str(config_path), explicit=True)[0]


def fill(config: Config) -> None:
    key = RunKey("lab", 1, NOW - 600)
    outbox = Outbox(config.state_path)
    run = OpenRun(key, Stage.IGNORED, "n1", None, note=f"{notes.LEFT_OUT}ignoreUsers")
    outbox.commit("lab", Batch(runs={key: run}, checkpoint=NOW))
    outbox.close()


def test_without_a_daemon_the_state_file_is_read(config: Config) -> None:
    state, away, unreadable = ask_here(config, 1)
    assert (state.rows.runs, state.daemon, away) == ((), None, "does not run")
    assert "there is no state file" in unreadable
    fill(config)
    state, away, unreadable = ask_here(config, 1)
    assert ([run.stage for run in state.rows.runs], away, unreadable) == (["ignored"], "does not run", "")
    assert choose_cluster(config, None, state) == "lab"
    assert choose_cluster(config, SITE, JobState(1, JobRows((), (), {}), None)) == "lab"
    assert choose_cluster(config, None, JobState(1, JobRows((), (), {}), None)) == ""


def test_a_daemon_whose_socket_is_gone_runs(config: Config) -> None:
    with open(config.pid_file_path, "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        away = ask_here(config, 1)[1]
    assert away == f"runs (pid {os.getpid()}), but does not answer on its control socket"
    assert ask_here(config, 1)[1] == "does not run"


def test_the_first_moment_and_the_daemon_s_user_are_found_beside_the_state(config: Config) -> None:
    assert read_first_moment(config.state_path) == 0
    Path(config.state_path).with_name("first-moment").write_text(f"{NOW}\n")
    assert read_first_moment(config.state_path) == NOW
    assert owner_of("/no/such/file") == ""
    assert owner_of("/proc/self") in ("root", str(os.geteuid())) or owner_of("/proc/self")


def test_a_job_is_explained_although_nothing_answers(
    config: Config, config_path: Path, programs: FakePrograms, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("squeue", "sacct", "scontrol", "sinfo", "sacctmgr"):
        programs.make(name, "echo away >&2; exit 1")
    fill(config)
    assert explain_job("1", str(config_path), explicit=True, debug=0, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("slurmctld: cannot be asked: scontrol show config: away" in line for line in lines)
    assert any("cannot be asked: 127.0.0.1:1" in line for line in lines)
    assert " ".join(lines).rpartition("Next: ")[2].startswith("If not meant: change ignoreUsers in")
    assert explain_job("2", str(config_path), explicit=True, debug=0, as_json=True) == 1
    assert json.loads(capsys.readouterr().out)["conclusion"]["word"] == "cannot tell"


def test_a_name_that_slurm_does_not_know_ends_in_one_line(
    config_path: Path, programs: FakePrograms, capsys: pytest.CaptureFixture[str]
) -> None:
    show = "printf 'ClusterName             = lab\\nSlurmUser               = slurm(64030)\\n'"
    programs.make("scontrol", show)
    programs.make("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    programs.make("sacct", "exit 0")
    assert explain_job("10_4", str(config_path), explicit=True, debug=0, as_json=False) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "the job id of 10_4 is not known, Slurm knows none of this name" in err
    with pytest.raises(UsageError):
        explain_job("10_[1-4]", str(config_path), explicit=True, debug=0, as_json=False)
