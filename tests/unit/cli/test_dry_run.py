"""`-dry-run`: what it refuses, what it says of the rights of whoever calls it, and of a Slurm that does not answer."""

from __future__ import annotations

import json
import re
from itertools import count
from pathlib import Path

import pytest

from cc_slurm_adapter.cli import dry_run
from cc_slurm_adapter.cli.main import USAGE, run_command
from cc_slurm_adapter.system.owner import Account
from tests.fakes.programs import FakePrograms
from tests.recorded.fixture_files import FIXTURES

CLUSTER = FIXTURES / "slurm-24.11.5" / "cluster"
SITE = (CLUSTER / "scontrol-show-config.txt").read_text()


class Host:
    """A host with a Slurm that has no jobs, and with a configuration."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.programs = FakePrograms(folder / "bin")
        monkeypatch.setenv("PATH", f"{self.programs.folder}:/usr/bin:/bin")
        self.config = folder / "config.json"
        self.config.write_text(json.dumps({"ccRestUrl": "http://127.0.0.1:1", "ccRestJwt": "aaa.bbb.ccc"}))
        self.config.chmod(0o600)
        shown = folder / "config.txt"
        shown.write_text(re.sub(r"(?m)^(PrivateData +=).*", r"\1 jobs", SITE))
        self.programs.make("scontrol", f"cat {shown}")
        formats = f'[ "$1" = --json=list ] && exec cat {CLUSTER / "squeue-json-list.txt"}\n'
        unknown = 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1'
        self.programs.make("squeue", formats + unknown)
        for name in ("sinfo", "sacct"):
            self.programs.make(name, "exit 0")
        self.level("None")

    def level(self, level: str) -> None:
        """Give every user this AdminLevel; '' for no user at all."""
        self.programs.make("sacctmgr", f'echo "$4|{level}|"' if level else "exit 0")

    def call(self, *flags: str) -> int:
        return run_command(["-dry-run", *flags, "-config", str(self.config)])


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def be(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "own_account", lambda: Account(name, 4711, 4711, ()))


@pytest.mark.parametrize(
    ("name", "level", "said"),
    [
        ("alice", "None", "the user alice has the AdminLevel None in Slurm, which hides other users' job scripts and,"),
        ("alice", "", "the user alice is not known to Slurm's accounting, which hides"),
        ("alice", "Operator", ""),
        ("root", "None", ""),
        ("slurm", "None", ""),
    ],
)
def test_who_does_not_see_all_jobs_is_told_so_before_the_summary(
    name: str,
    level: str,
    said: str,
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    be(name, monkeypatch)
    host.level(level)
    host.call("-job", "4711")
    *before, summary = capsys.readouterr().err.splitlines()
    warnings = [line for line in before if "which hides" in line]
    assert len(warnings) == bool(said)
    for line in warnings:
        assert line.startswith(f"cc-slurm-adapter: dry run: {said}")
        assert "by PrivateData=jobs, their jobs: what is hidden is not printed; run sacctmgr -i " in line
        assert line.endswith(", or call this as root")
    assert summary == "cc-slurm-adapter: dry run: no request; nothing was sent, and no file was changed"


def test_a_job_and_a_time_together_are_refused_as_a_job_is_printed_whenever_it_ran(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.call("-job", "4711", "-since", "2h") == USAGE
    assert capsys.readouterr().err == (
        "cc-slurm-adapter: -dry-run -job prints the job whenever it ran: leave out -since\n"
    )


def test_while_slurm_does_not_answer_it_says_what_it_waits_for(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    be("root", monkeypatch)
    moments = count(0.0, 6.0)
    path = str(host.config)
    dry_run.dry_run(path, explicit=True, debug=2, job="4711", since=None, clock=lambda: next(moments))
    assert "cc-slurm-adapter: -dry-run: slurmctld: waiting for 6 s\n" in capsys.readouterr().err
