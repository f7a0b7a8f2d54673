"""Slurm as it is found: what works, what does not, and that one failure does not hide what else can be asked."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.daemon.checks.slurm import SlurmChecks
from cc_slurm_adapter.errors import CommandFailed
from cc_slurm_adapter.model import Finding
from cc_slurm_adapter.slurm.commands import Commands
from tests.fakes.programs import FakePrograms
from tests.fakes.slurm_and_sinks import FakeSlurm, make_run
from tests.recorded.fixture_files import FIXTURES

RECORDED = FIXTURES / "slurm-24.11.5"
CLUSTER = RECORDED / "cluster"
NEEDED = {"ccRestUrl": "https://cc.example.org", "ccRestJwt": "token"}
USER = "cc-slurm-adapter"


class Slurm(FakeSlurm):
    """It also has the rights of users."""

    level: str | None = "Operator"

    def admin_level(self, user: str) -> str | None:
        self._ask("admin_level")
        return self.level


class Site:
    """Programs that print what was recorded, and what is found with them."""

    def __init__(self, folder: Path) -> None:
        self.programs = FakePrograms(folder)
        self.client = Slurm()
        self.clock = time.monotonic
        version = f"cat {CLUSTER / 'sinfo-version.txt'}"
        for name in ("sinfo", "sacct", "sacctmgr"):
            self.programs.make(name, version)
        self.with_version("squeue", f"cat {CLUSTER / 'squeue-json-list.txt'}")
        self.with_version("scontrol", f"cat {CLUSTER / 'scontrol-show-config.txt'}")
        self.sdiag()

    def with_version(self, name: str, script: str, version: str = "slurm-wlm 24.11.5") -> None:
        """A command that also prints its version."""
        self.programs.make(name, f'if [ "$1" = --version ]; then echo {version}; else {script}; fi')

    def sdiag(self, ahead: int = 0, backlog: int = 0) -> None:
        """A slurmctld whose clock is so many seconds ahead."""
        time_ahead = f"$(($(date +%s) + {ahead}))"
        script = f'echo "sdiag output at today ({time_ahead})"; echo "DBD Agent queue size: {backlog}"'
        self.with_version("sdiag", script)

    def find(self, **settings: object) -> list[Finding]:
        config, _ = parse_config({**NEEDED, **settings})
        commands = Commands()
        try:
            self.checks = SlurmChecks(config, commands, lambda cluster: self.client, USER, clock=self.clock)
            return list(self.checks.find())
        finally:
            commands.close()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = Site(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.programs.folder}:/usr/bin:/bin")
    yield made


def bad(found: list[Finding]) -> dict[str, int]:
    """The subjects of what is no good news, with their levels."""
    return {each.subject: each.level for each in found if each.level > logging.INFO}


def texts(found: list[Finding]) -> str:
    return "\n".join(f"{each.subject}: {each}" for each in found)


def test_a_site_where_all_is_well_is_told_so(site: Site) -> None:
    site.client.put(make_run(7))
    found = site.find(slurmPollInterval=30)
    assert bad(found) == {}
    text = texts(found)
    for expected in (
        "squeue, scontrol, sinfo, sdiag, sacct, sacctmgr are of Slurm 24.11.5",
        "slurmctld: answers for the cluster lab (Slurm 24.11.5)",
        "its clock is that of this host",
        "squeue is asked with --json=v0.0.40",
        "jobs: squeue lists 1 running or just ended job",
        "the details of job 7 are understood",
        "nodes: sinfo lists 1 node",
        f"Slurm hides nothing from {USER}",
        "slurmdbd: answers sacct",
        "slurmdbd: its clock cannot be seen",
        "rl_enable",
        "MinJobAge",
        "PrologFlags",
    ):
        assert expected in text
    assert site.checks.cluster == "lab"
    assert site.checks.nodes is not None
    assert [node.hostname for node in site.checks.nodes] == ["node01"]


def test_the_name_in_the_configuration_is_that_of_the_cluster(site: Site) -> None:
    site.find(clusterName="other")
    assert site.checks.cluster == "other"


def test_nothing_is_concluded_from_a_slurmctld_that_is_away(site: Site) -> None:
    site.programs.replay("scontrol", RECORDED / "errors", "slurmctld-down.show-config")
    site.with_version("scontrol", f"cat {RECORDED / 'errors' / 'slurmctld-down.show-config.stderr'} >&2; exit 1")
    found = site.find()
    assert bad(found) == {"slurmctld": logging.ERROR}
    assert "slurmctld: does not answer" in texts(found)
    assert site.client.asked == ["admin_level"]
    assert (site.checks.cluster_config, site.checks.nodes, site.checks.cluster) == (None, None, "")


def test_commands_that_are_missing_are_one_finding(site: Site) -> None:
    for name in ("sacct", "sacctmgr"):
        (site.programs.folder / name).unlink()
    found = site.find()
    assert bad(found)["Slurm's commands"] == logging.ERROR
    assert "sacct, sacctmgr: not found" in texts(found)
    assert "slurmdbd: cannot be seen: sacct or sacctmgr does not work here" in texts(found)


def test_without_scontrol_the_rest_is_not_tried(site: Site) -> None:
    site.programs.make("scontrol", "exit 1")
    found = site.find()
    assert "scontrol does not work: scontrol --version: exit code 1" in texts(found)
    assert "slurmctld: cannot be seen" in texts(found)
    assert site.client.asked == []


@pytest.mark.parametrize(
    ("squeue", "said"), [("slurm 25.05.1", "squeue are newer (25.05.1)"), ("slurm 23.11.1", "squeue 23.11.1, scontrol")]
)
def test_commands_of_another_release_are_a_warning(site: Site, squeue: str, said: str) -> None:
    site.with_version("squeue", f"cat {CLUSTER / 'squeue-json-list.txt'}", squeue)
    found = site.find()
    assert bad(found)["Slurm's commands"] == logging.WARNING
    assert said in texts(found)


@pytest.mark.parametrize(("ahead", "word"), [(100, "ahead of"), (-100, "behind")])
def test_a_clock_that_differs_is_a_warning_with_how_much_it_does_at_least(site: Site, ahead: int, word: str) -> None:
    site.sdiag(ahead)
    (found,) = [each for each in site.find() if "its clock" in each.text and each.subject == "slurmctld"]
    assert found.level == logging.WARNING
    assert word in found.text
    seconds = int(found.text.split("at least ")[1].split()[0])
    assert 85 <= seconds <= 101


def test_accounting_that_is_far_behind_is_a_warning(site: Site) -> None:
    site.sdiag(backlog=20_000)
    assert bad(site.find()) == {"slurmdbd": logging.WARNING, "MinJobAge": logging.WARNING}


@pytest.mark.parametrize(
    ("question", "subject", "level"),
    [
        ("list_jobs", "jobs", logging.ERROR),
        ("read_details", "jobs", logging.ERROR),
        ("node_states", "nodes", logging.ERROR),
        ("ended_between", "slurmdbd", logging.ERROR),
        ("admin_level", "privileges", logging.WARNING),
    ],
)
def test_a_question_that_fails_is_one_finding_and_the_others_are_asked(
    site: Site, question: str, subject: str, level: int
) -> None:
    site.client.put(make_run(7))
    site.client.failing.add(question)
    found = site.find(slurmPollInterval=30)
    assert bad(found) == {subject: level}
    assert f"{question} fails" in texts(found)
    assert {"node_states", "ended_between", "admin_level"} <= set(site.client.asked)


@pytest.mark.parametrize(("question", "subject"), [("node_states", "nodes"), ("list_jobs", "jobs")])
def test_what_private_data_refuses_is_told_with_the_right_that_is_missing(
    site: Site, monkeypatch: pytest.MonkeyPatch, question: str, subject: str
) -> None:
    """In the words of Slurm 22.05, 24.11 and 26.05, whose sinfo fails with PrivateData=nodes."""

    def refuse(*_: object) -> NoReturn:
        raise CommandFailed("sinfo -N -h: slurm_load_node: Access/permission denied")

    monkeypatch.setattr(site.client, question, refuse)
    (found,) = (each for each in site.find() if each.level == logging.ERROR)
    assert (found.subject, found.next_step[:12]) == (subject, "PrivateData ")
    assert "Operator" in found.next_step


def test_a_job_that_is_not_understood_says_why(site: Site) -> None:
    site.client.put(make_run(7))
    site.client.broken[7] = "jobs[7].nodes: it is missing"
    assert "the details of job 7 are not understood: jobs[7].nodes: it is missing" in texts(site.find())


def test_a_slurm_that_would_print_all_jobs_is_not_asked_for_one(site: Site) -> None:
    site.client.put(make_run(7))
    refusal = "echo \"squeue: option '--json' doesn't allow an argument\" >&2; exit 1"
    site.with_version("squeue", refusal, "slurm-wlm 22.05.8")
    assert "this Slurm would print all of them" in texts(site.find())
    assert "read_details" not in site.client.asked


def test_rights_that_are_missing_and_patterns_without_a_node_are_warnings(site: Site) -> None:
    site.client.level = None
    found = site.find(slurmPollInterval=30, ignoreHosts="^gpu")
    assert bad(found) == {"privileges": logging.WARNING, "ignoreHosts": logging.WARNING}
    assert "sacctmgr -i add user" in texts(found)


def test_slurmdbd_that_does_not_answer_either_is_told(site: Site) -> None:
    site.with_version("scontrol", "exit 1")
    site.client.failure = CommandFailed("sacctmgr: Connection refused")
    found = site.find()
    assert bad(found) == {"slurmctld": logging.ERROR, "slurmdbd": logging.WARNING}


def test_a_slurm_that_takes_too_long_is_not_asked_for_more(site: Site) -> None:
    passed = iter([*[0] * 7, *range(0, 1000, 20)])  # the deadline, six commands, then each step
    site.clock = lambda: float(next(passed))
    found = site.find()
    assert "its answers have taken longer than 45 s" in texts(found)
    assert "list_jobs" in site.client.asked
    assert "admin_level" not in site.client.asked


def test_commands_that_take_too_long_are_not_all_tried(site: Site) -> None:
    passed = iter(range(0, 1000, 20))
    site.clock = lambda: float(next(passed))
    text = texts(site.find())
    assert "sdiag: cannot be seen: other commands have taken longer" in text
    assert "sacctmgr: cannot be seen" in text
