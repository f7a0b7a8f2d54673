"""The daemon on a controller: as its own user, with its files, its stop, and never twice."""

from __future__ import annotations

import pytest

from examples.practice.cc_backend import NoAnswer

from .installation import COMMAND, RUN_FOLDER, USER, Installation
from .namespaces import wait_for
from .slurm_jobs import Submission, submit, wait_until_ended, wait_until_running
from .slurm_lab import SlurmLab

pytestmark = pytest.mark.slurm

LONG = Submission(script="sleep 600")


def names(lab: SlurmLab) -> set[str]:
    """The daemon's own; the folder of events stays."""
    return {path.name for path in lab.path(RUN_FOLDER).iterdir()} - {"events"}


def test_it_runs_as_its_own_user_with_group_slurm(lab: SlurmLab, installation: Installation) -> None:
    installation.start()
    ids = lab.output("id", "-u", "cc-slurm-adapter") + lab.output("id", "-g", "slurm")
    inside = lab.path(RUN_FOLDER / "daemon.pid").read_text(encoding="ascii").strip()
    assert lab.output("stat", "-c", "%u\n%g", f"/proc/{inside}") == ids
    assert lab.output("stat", "-c", "%U:%G", str(RUN_FOLDER / "daemon.sock")).strip() == USER


def test_sigterm_ends_it_within_two_seconds_and_leaves_no_pid_file_or_socket(
    lab: SlurmLab, installation: Installation
) -> None:
    installation.start()
    assert names(lab) == {"daemon.pid", "daemon.sock", "control.sock"}
    seconds, code = installation.stop()
    assert (seconds <= 2, code, names(lab)) == (True, 0, set())


def test_sigterm_ends_it_within_two_seconds_while_cc_backend_does_not_answer(
    lab: SlurmLab, installation: Installation
) -> None:
    jobs = [submit(lab, LONG) for _ in range(5)]
    wait_until_running(lab, jobs)
    silence = installation.backend.add_fault(NoAnswer(path="/api/jobs/", count=1000))
    installation.start()
    wait_for("a request", lambda: silence.count != 1000, seconds=60)
    seconds, code = installation.stop()
    assert (seconds <= 2, code, names(lab)) == (True, 0, set())


def test_a_second_daemon_says_so_and_leaves_the_first_alone(lab: SlurmLab, installation: Installation) -> None:
    installation.start()
    pid_file = lab.path(RUN_FOLDER / "daemon.pid").read_bytes()
    second = lab.run(*COMMAND, user=USER, seconds=60)
    assert second.returncode not in (0, 124)
    (line,) = second.stderr.splitlines()
    assert "already" in line
    assert lab.path(RUN_FOLDER / "daemon.pid").read_bytes() == pid_file
    job = submit(lab, Submission(script="sleep 1"))
    wait_until_ended(lab, [job])
    installation.wait_for_stops([job], seconds=15)


def test_jobs_run_as_ever_while_nothing_is_installed(lab: SlurmLab, installation: Installation) -> None:
    """A hook that fails would requeue the job. Here there is no daemon, no socket and no events folder."""
    assert not installation.running
    job = submit(lab, Submission(script="sleep 1"))
    assert wait_until_ended(lab, [job])[job].state == "COMPLETED"
    assert "Restarts=0 " in lab.output("scontrol", "show", "job", str(job))
