"""Whether slurmctld can call this program as its hook, and how runs without an event are counted."""

from __future__ import annotations

import logging
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from cc_slurm_adapter.daemon.hook_check import ENDS_SLURMCTLD, find_gaps, hook_gaps
from cc_slurm_adapter.daemon.hook_coverage import EVERY, LATEST, MARGIN, HookCoverage
from cc_slurm_adapter.slurm.cluster_config import Hooks, parse_cluster_config
from tests.fakes.slurm_and_sinks import make_run
from tests.recorded.fixture_files import FIXTURES, VERSIONS

ME = pwd.getpwuid(os.geteuid()).pw_name
HERE = ("controller", "standby.example.org")
NOW = 1_800_000_000


def hook(folder: Path, name: str, text: str = "#!/bin/sh\n", mode: int = 0o755) -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def gaps(*files: str, epilogs: tuple[str, ...] | None = None, user: str = ME, machine: str = "standby") -> list[str]:
    """Of these files as both hooks."""
    hooks = Hooks(files, files if epilogs is None else epilogs, controllers=HERE)
    return hook_gaps(hooks, user, machine)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cluster_without_hooks_is_told_so(version: str) -> None:
    setup = parse_cluster_config((FIXTURES / f"slurm-{version}" / "cluster" / "scontrol-show-config.txt").read_text())
    assert setup.hooks == Hooks(controllers=("vm",))
    told = hook_gaps(setup.hooks, setup.slurm_user, "elsewhere")
    assert told == ["PrologSlurmctld is not set", "EpilogSlurmctld is not set"]


# As Slurm 22.05.8 and 24.11.5 print their configuration; from 24.05 on there may be several of each.
CONFIG = """\
ClusterName             = lab
EpilogMsgTime           = 2000 usec
{epilogs}
PrologEpilogTimeout     = 65534
{prologs}
PrologFlags             = (null)
SlurmUser               = slurm(64030)
SlurmctldHost[0]        = lab(127.0.0.1)
SlurmctldHost[1]        = other
SrunProlog              = /opt/srun
"""


@pytest.mark.parametrize(
    ("prologs", "epilogs", "hooks"),
    [
        (
            "Prolog                  = (null)\nPrologSlurmctld         = /etc/slurm/pd/*",
            "Epilog                  = /opt/e\nEpilogSlurmctld         = (null)",
            Hooks(("/etc/slurm/pd/*",), (), (), ("/opt/e",), ("lab", "other")),
        ),
        (
            "Prolog[0]               = /opt/p\nPrologSlurmctld[0]      = /opt/a\nPrologSlurmctld[1]      = /opt/b",
            "EpilogSlurmctld[0]      = /opt/cc/cc-slurm-adapter",
            Hooks(("/opt/a", "/opt/b"), ("/opt/cc/cc-slurm-adapter",), ("/opt/p",), (), ("lab", "other")),
        ),
    ],
)
def test_hooks_are_read_as_slurm_prints_them(prologs: str, epilogs: str, hooks: Hooks) -> None:
    assert parse_cluster_config(CONFIG.format(prologs=prologs, epilogs=epilogs)).hooks == hooks


def test_this_file_and_a_script_that_names_it_are_good_hooks(tmp_path: Path) -> None:
    itself = hook(tmp_path, "cc-slurm-adapter", "#!/bin/sh\n# whatever")
    script = hook(tmp_path, "prolog", "#!/bin/bash\n/opt/site/power-up\n/usr/local/sbin/cc-slurm-adapter\n")
    other = hook(tmp_path, "other")
    assert gaps(itself) == []
    assert gaps(script) == []
    assert gaps(other, script) == []
    assert gaps(str(tmp_path / "pro*"), epilogs=(itself,)) == []


def test_a_hook_that_slurmctld_cannot_call_is_named(tmp_path: Path) -> None:
    good = hook(tmp_path, "cc-slurm-adapter")
    plain = hook(tmp_path, "plain-cc-slurm-adapter", mode=0o644)
    gone = str(tmp_path / "gone")
    assert gaps(good, epilogs=(plain,)) == [f"{plain} (EpilogSlurmctld) is not executable for {ME}{ENDS_SLURMCTLD}"]
    assert gaps(good, epilogs=(good, gone)) == [f"{gone} (EpilogSlurmctld) does not exist{ENDS_SLURMCTLD}"]
    assert gaps(good, epilogs=()) == ["EpilogSlurmctld is not set"]
    found = find_gaps(Hooks((gone,), (plain,), controllers=HERE), ME, "controller")
    assert [(each.missing, each.forbidden) for each in found] == [(gone, ""), ("", plain)]


def test_a_hook_that_calls_something_else_only_is_named(tmp_path: Path) -> None:
    other = hook(tmp_path, "other", "#!/bin/sh\nexec /opt/site/prolog\n")
    assert gaps(other, epilogs=(hook(tmp_path, "cc-slurm-adapter"),)) == [
        f"{other} (PrologSlurmctld) does not call cc-slurm-adapter"
    ]


def test_what_cannot_be_seen_from_here_is_no_trouble(tmp_path: Path) -> None:
    other = hook(tmp_path, "other", mode=0o600)
    assert gaps(other, machine="login1") == []
    assert gaps("/home/slurm/hook") == []
    good = hook(tmp_path, "cc-slurm-adapter", mode=0o600)
    assert gaps(good, user="nobody-knows-this-user") == []


def test_a_prolog_of_the_nodes_may_be_the_hook(tmp_path: Path) -> None:
    assert hook_gaps(Hooks(prolog=("/opt/p",), epilog=("/opt/e",), controllers=HERE), ME, "controller") == []
    plain = hook(tmp_path, "plain", mode=0o644)
    hooks = Hooks((plain,), (), ("/opt/p",), ("/opt/e",), HERE)
    assert hook_gaps(hooks, ME, "controller") == [
        f"{plain} (PrologSlurmctld) is not executable for {ME}{ENDS_SLURMCTLD}"
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(
    ("mode", "owner", "group", "may"),
    [
        (0o700, "root", "root", False),
        (0o701, "root", "root", True),
        (0o710, "root", "daemon", True),
        (0o700, "daemon", "root", True),
        (0o611, "daemon", "root", False),
        (0o601, "root", "daemon", False),
    ],
)
def test_whether_slurmuser_may_execute_a_hook_is_judged_by_its_mode(
    tmp_path: Path, mode: int, owner: str, group: str, may: bool
) -> None:
    path = hook(tmp_path, "cc-slurm-adapter", mode=mode)
    account = pwd.getpwnam("daemon")
    os.chown(path, account.pw_uid if owner == "daemon" else 0, account.pw_gid if group == "daemon" else 0)
    assert (gaps(path, user="daemon") == []) is may


class Hour:
    """A coverage on a clock that the test moves."""

    def __init__(self, *, only_batch: bool = False) -> None:
        self.now = 0.0
        self.coverage = HookCoverage(NOW, only_batch=only_batch, clock=lambda: self.now)

    def begins(self, job_id: int, *, start: int = NOW + MARGIN, **changes: Any) -> None:
        self.coverage.began(make_run(job_id, start=start, **changes))

    def pass_to(self, now: float) -> None:
        self.now = now
        self.coverage.log_missed()


def test_runs_without_an_event_are_told_once_an_hour_with_the_first_jobs(caplog: pytest.LogCaptureFixture) -> None:
    hour = Hour()
    hour.coverage.announced(1)
    for job_id in range(1, 15):
        hour.begins(job_id)
    hour.coverage.announced(2)
    hour.pass_to(EVERY - 1)
    assert caplog.messages == []
    hour.pass_to(EVERY)
    (line,) = caplog.messages
    assert line.startswith(
        "12 runs began without a hook event in the last hour (jobs 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, ...)"
    )
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    hour.pass_to(2 * EVERY)
    assert len(caplog.messages) == 1


def test_an_event_may_come_after_its_run_was_found_or_an_hour_before(caplog: pytest.LogCaptureFixture) -> None:
    hour = Hour()
    hour.coverage.announced(1)
    hour.now = EVERY - LATEST + 1
    hour.begins(2)
    hour.pass_to(EVERY)
    hour.begins(1)
    hour.coverage.announced(2)
    hour.pass_to(2 * EVERY)
    assert caplog.messages == []


def test_runs_that_no_prolog_could_announce_are_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    hour = Hour(only_batch=True)
    hour.begins(1, start=NOW + MARGIN - 1)
    hour.begins(2, het_job_id=1, het_job_offset=1)
    hour.begins(3, has_script=False)
    hour.pass_to(EVERY)
    assert caplog.messages == []
    hour.begins(4)
    hour.pass_to(2 * EVERY)
    assert len(caplog.messages) == 1
