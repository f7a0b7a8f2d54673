"""The unit under a real systemd, beside Slurm's own: installed as docs/install.md says, killed, frozen, rebooted."""

from __future__ import annotations

import contextlib
import re
import signal
import time

import pytest

from examples.practice.cc_backend import DEFAULT_TOKEN
from tests.built.asking import ask
from tests.nats.nats_server import free_port

from .controller import POLL_SECONDS, RUN_FOLDER, TEST_FILE, UNIT, Controller
from .namespaces import LabError, wait_for
from .replaced_file import call_while_replaced, file_without_archive
from .slurm_jobs import PCI_ADDRESSES, Submission, running_job, wait_until_ended, wait_until_running

pytestmark = pytest.mark.slurm


MOST_EXPOSURE = 2.0
"""Of `systemd-analyze security`: 0 is nothing, 10 is all."""
CRASHES = 10
LAST_RUN = "/var/lib/cc-slurm-adapter/lastrun"
STOP_SECONDS = 2.0


def report_a_job(controller: Controller) -> None:
    """Runs a job and waits until cc-backend has its end."""
    job = controller.run_job()
    controller.wait_for_stops([job])
    ended = wait_until_ended(controller.machine, [job])[job]
    row = controller.only_row(job)
    assert (row.start_time, row.stop_time, row.state) == (ended.start_time, ended.end_time, ended.state.lower())


def restarts(controller: Controller) -> int:
    return int(controller.machine.property_of(UNIT, "NRestarts"))


# --- as installed


def test_installed_by_the_readme_s_commands_it_reports_jobs(controller: Controller) -> None:
    report_a_job(controller)
    assert controller.machine.output("ps", "-o", "user:20=,group=", str(controller.pid)).split() == [
        "cc-slurm-adapter",
        "slurm",
    ]


def test_a_job_s_gpus_arrive_by_their_addresses(controller: Controller) -> None:
    """With the third key of step 2."""
    controller.configure(gpuPciAddrs={"^node": PCI_ADDRESSES})
    controller.machine.output("systemctl", "reload", UNIT)
    controller.wait_for_line("in force now: gpuPciAddrs")
    job = Submission(("-n1", "--gres=gpu:2"), "sleep 4")
    submitted = controller.run_job(job)
    wait_until_running(controller.machine, [submitted])
    held = running_job(controller.machine, submitted, job).held
    controller.wait_for_stops([submitted])
    (resource,) = controller.only_row(submitted).start["resources"]
    assert resource["accelerators"] == [PCI_ADDRESSES[gpu] for gpu in held["node01"].gpus]
    assert len(resource["accelerators"]) == 2


def test_slurmctld_s_hooks_reach_it(controller: Controller) -> None:
    """Whatever is reported after the first poll came by them: the next one is an hour away."""
    controller.configure(slurmPollInterval=3600)
    controller.machine.path(LAST_RUN).unlink(missing_ok=True)
    controller.machine.output("systemctl", "restart", UNIT)
    wait_for("the first poll", controller.machine.path(LAST_RUN).exists, seconds=60)
    report_a_job(controller)


def test_the_unit_is_hardly_exposed(controller: Controller) -> None:
    said = controller.machine.output("systemd-analyze", "security", "--no-pager", UNIT)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+) ", said)
    assert found and float(found[1]) <= MOST_EXPOSURE, said


def test_what_the_unit_forbids_is_forbidden_to_the_running_daemon(controller: Controller) -> None:
    status = controller.machine.path(f"/proc/{controller.pid}/status").read_text(encoding="ascii")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {name: fields[name].strip() for name in ("NoNewPrivs", "Seccomp", "CapBnd")} == {
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "CapBnd": "0" * 16,
    }
    as_daemon = ["nsenter", f"--target={controller.pid}", "--mount", "--root", "--wd", "--", "touch"]
    for folder, is_writable in (("/run/cc-slurm-adapter", True), ("/var/lib/cc-slurm-adapter", True), ("/etc", False)):
        done = controller.machine.run(*as_daemon, f"{folder}/.written")
        assert (done.returncode == 0, "Read-only" in done.stderr) == (is_writable, not is_writable)
        controller.machine.path(f"{folder}/.written").unlink(missing_ok=True)


IN_HOME = "[Service]\nEnvironment=PATH=/home/slurm/bin\n"


def test_slurm_may_lie_in_home_with_the_line_that_the_readme_names(controller: Controller) -> None:
    controller.machine.output("sh", "-ec", "mkdir -p /home/slurm/bin; cd /home/slurm/bin; ln -sf /usr/bin/s[a-z]* .")
    controller.drop_in(TEST_FILE, IN_HOME)
    controller.machine.run("systemctl", "restart", UNIT)
    controller.wait_for_line("is not in PATH")
    controller.change_unit(f"{IN_HOME}ProtectHome=read-only\n")
    report_a_job(controller)


def test_the_list_of_system_calls_is_taken_back_with_the_line_that_the_readme_names(controller: Controller) -> None:
    controller.change_unit("[Service]\nSystemCallFilter=\n")
    assert controller.machine.property_of(UNIT, "SystemCallFilter") in ("", "~")
    report_a_job(controller)


# --- it says how it is


def status_of(controller: Controller, *words: str, user: str = "root") -> tuple[int, str]:
    """The exit code of -status and what it prints, on lines that are joined."""
    done = controller.machine.run(controller.program, "-status", *words, user=user)
    return done.returncode, " ".join(done.stdout.split())


def test_systemctl_status_shows_the_first_line_of_the_status(controller: Controller) -> None:
    report_a_job(controller)

    def is_shown() -> bool:
        first = status_of(controller)[1].partition(" program ")[0]
        return f'Status: "{first}"' in controller.machine.output("systemctl", "status", "--no-pager", "--full", UNIT)

    wait_for("the first line", is_shown, seconds=90)
    assert controller.machine.property_of(UNIT, "StatusText").startswith("reports lab to cc-backend: ")


def test_root_and_the_members_of_slurms_group_may_ask_how_it_is(controller: Controller) -> None:
    report_a_job(controller)
    with contextlib.suppress(LabError):  # what is wrong is said below
        wait_for("a good status", lambda: status_of(controller)[0] == 0, seconds=60)
    for user in ("root", "slurm:slurm", "nobody:slurm"):
        code, said = status_of(controller, user=user)
        assert (code, "; all is well" in said) == (0, True), said
        queue = controller.machine.output(controller.program, "-queue", "list", user=user)
        assert queue == "no message waits\n"
    assert status_of(controller, user="nobody:nogroup")[0] != 0
    control = controller.machine.path(f"{RUN_FOLDER}/control.sock")
    assert (control.stat().st_mode & 0o777, control.stat().st_gid) == (0o660, control.parent.stat().st_gid)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_metrics_and_the_page_are_served_under_the_unit(controller: Controller, kind: str) -> None:
    """A port of the machine is one of this host: only its files and its processes are its own."""
    path = f"{RUN_FOLDER}/metrics.sock"
    place = f"127.0.0.1:{free_port()}" if kind == "tcp" else path
    controller.configure(metricsListen=place)
    controller.machine.output("systemctl", "restart", UNIT)
    controller.wait_until_ready()
    asked = place if kind == "tcp" else controller.machine.path(path)

    def is_ready() -> bool:
        with contextlib.suppress(OSError):
            return ask(asked, "/-/ready").status == 200
        return False

    wait_for("readiness", is_ready, seconds=60)
    assert "\ncc_slurm_adapter_started 1\n" in ask(asked, "/metrics").body
    assert ask(asked, "/").content_type == "text/html; charset=utf-8"
    report_a_job(controller)


# --- ended in every way


def test_a_killed_daemon_is_there_again_and_nothing_is_lost(controller: Controller) -> None:
    killed, before = controller.pid, restarts(controller)
    running = controller.run_job()
    controller.signal(signal.SIGKILL)
    meanwhile = controller.run_job()
    controller.wait_until_ready(other_than=killed)
    controller.wait_for_stops([running, meanwhile])
    assert restarts(controller) == before + 1


def test_a_daemon_that_somebody_has_asked_to_end_is_there_again(controller: Controller) -> None:
    ended = controller.pid
    controller.signal(signal.SIGTERM)
    controller.wait_until_ready(other_than=ended)
    report_a_job(controller)


def test_a_reload_is_heard_by_the_same_process(controller: Controller) -> None:
    before = controller.pid
    controller.machine.output("systemctl", "reload", UNIT)
    controller.wait_for_line("SIGHUP")
    assert controller.pid == before
    report_a_job(controller)


def test_stop_takes_less_than_two_seconds_and_start_goes_on(controller: Controller) -> None:
    before = float(controller.machine.output("cat", "/proc/uptime").split()[0])
    controller.machine.output("systemctl", "stop", UNIT)
    exited = int(controller.machine.property_of(UNIT, "ExecMainExitTimestampMonotonic")) / 1e6
    assert exited - before < STOP_SECONDS
    assert controller.machine.property_of(UNIT, "Result") == "success"
    meanwhile = controller.run_job()
    controller.machine.output("systemctl", "start", UNIT)
    controller.wait_for_stops([meanwhile])


# --- reboots


def test_slurmctld_begins_long_after_the_boot_and_the_boot_waits_for_nobody(controller: Controller) -> None:
    controller.begin_slurmctld_late()
    controller.reboot()
    controller.machine.wait_for_target()
    assert controller.machine.state_of(UNIT) == "active"
    assert controller.machine.state_of("slurmctld.service") != "active"
    wait_for("what it waits for", lambda: "Slurm" in controller.machine.property_of(UNIT, "StatusText"), seconds=30)
    controller.wait_for_slurmctld()
    began = {unit: int(controller.machine.property_of(unit, name)) for unit, name in ORDER}
    assert sorted(began, key=lambda unit: began[unit]) == [unit for unit, _ in ORDER]
    report_a_job(controller)


ORDER = (
    (UNIT, "ActiveEnterTimestampMonotonic"),
    ("multi-user.target", "ActiveEnterTimestampMonotonic"),
    ("slurmctld.service", "ExecMainStartTimestampMonotonic"),
)
"""Units in the order in which they must have got there."""


def test_hooks_leave_their_events_from_the_first_moment_after_a_boot(controller: Controller) -> None:
    """slurmctld is first here: the daemon begins when jobs have come and gone."""
    with controller.disabled():
        controller.reboot()
        controller.wait_for_slurmctld()
        job = controller.run_job()
        wait_until_ended(controller.machine, [job])
        contexts = {"prolog_slurmctld", "epilog_slurmctld"}
        wait_for("both events", lambda: controller.events_of(job) == contexts, seconds=30)
        assert controller.machine.state_of(UNIT) == "inactive"
    controller.machine.output("systemctl", "start", UNIT)
    controller.wait_for_stops([job])
    wait_for("the events to be taken", lambda: not controller.events_of(job), seconds=30)


def test_hooks_leave_their_events_while_the_daemon_is_stopped(controller: Controller) -> None:
    controller.machine.output("systemctl", "stop", UNIT)
    job = controller.run_job()
    wait_until_ended(controller.machine, [job])
    assert "prolog_slurmctld" in controller.events_of(job)
    controller.machine.output("systemctl", "start", UNIT)
    controller.wait_for_stops([job])


# --- a frozen daemon, and one that waits


WATCHDOG_SECONDS = 4
WATCHDOG = f"[Service]\nWatchdogSec={WATCHDOG_SECONDS}\nTimeoutAbortSec=1\n"


def test_the_watchdog_restarts_a_frozen_daemon_and_nothing_is_lost(controller: Controller) -> None:
    controller.change_unit(WATCHDOG)
    frozen = controller.pid
    running = controller.run_job()
    controller.signal(signal.SIGSTOP)
    meanwhile = controller.run_job()
    controller.wait_until_ready(other_than=frozen)
    assert "Watchdog timeout" in controller.journal()
    controller.wait_for_stops([running, meanwhile])


def test_a_daemon_that_waits_for_slurm_or_for_work_is_not_taken_for_frozen(controller: Controller) -> None:
    controller.change_unit(WATCHDOG)
    waiting = controller.pid
    with controller.frozen_slurmctld():
        controller.machine.output("systemctl", "reload", UNIT)  # it asks at once
        time.sleep(2 * WATCHDOG_SECONDS)
    controller.wait_for_slurmctld()
    time.sleep(2 * WATCHDOG_SECONDS)
    report_a_job(controller)
    assert controller.pid == waiting


# --- the file is replaced, secrets, the journal


REPLACEMENTS = 20


def test_no_hook_fails_while_the_file_is_replaced(controller: Controller) -> None:
    job = controller.run_job()
    controller.wait_for_stops([job])
    calls = call_while_replaced(controller, job, REPLACEMENTS)
    assert {"bare 0", "python 0"} == set(calls.exit_codes)
    assert calls.words == ""
    assert "the hook failed" not in controller.machine.journal()


def test_the_daemon_goes_on_although_its_file_was_replaced(controller: Controller) -> None:
    """It has loaded all it needs: polls, hooks, a reload, a Slurm that does not answer, errors and their lines."""
    before = controller.pid
    with file_without_archive(controller):
        with controller.frozen_slurmctld():
            controller.machine.output("systemctl", "reload", UNIT)
            time.sleep(POLL_SECONDS)
        controller.wait_for_slurmctld()
        controller.server.stop()
        job = controller.run_job()
        wait_until_ended(controller.machine, [job])
        time.sleep(POLL_SECONDS)
        controller.server.start()
        controller.wait_for_stops([job])
    assert controller.pid == before
    assert not re.search("Traceback|[Ii]mport", controller.journal())


# --- secrets and the journal


def test_a_token_can_be_a_credential_of_systemd(controller: Controller) -> None:
    """Which only systemd reads: the daemon's user cannot."""
    secret = controller.machine.path("/root/token")
    secret.write_text(DEFAULT_TOKEN, encoding="ascii")
    secret.chmod(0o600)
    controller.configure(ccRestJwtFile="token")
    controller.change_unit("[Service]\nLoadCredential=token:/root/token\n")
    report_a_job(controller)


def test_every_line_has_the_priority_of_its_level(controller: Controller) -> None:
    controller.server.stop()
    job = controller.run_job()
    wait_until_ended(controller.machine, [job])
    controller.machine.output("systemctl", "restart", UNIT)
    controller.wait_for_line("cannot be")
    controller.server.start()
    controller.wait_for_stops([job])
    levels = [
        (message.split()[0], priority) for priority, message in controller.lines() if message.split()[0].isupper()
    ]
    assert {"WARNING"} <= {level for level, _ in levels}
    assert set(levels) <= {("CRITICAL", 2), ("ERROR", 3), ("WARNING", 4), ("NOTICE", 5), ("INFO", 6), ("DEBUG", 7)}


@pytest.mark.parametrize(("cause", "code"), [("configuration", 78), ("arguments", 64)])
def test_what_only_a_person_can_mend_is_said_as_an_error_and_not_tried_again(
    controller: Controller, cause: str, code: int
) -> None:
    if cause == "configuration":
        controller.configure(slurmPollInterval="often")
    else:
        controller.drop_in(TEST_FILE, f"[Service]\nExecStart=\nExecStart={controller.program} -demon\n")
    before = len(controller.lines())
    controller.machine.run("systemctl", "restart", UNIT)
    controller.wait_for_end()
    assert controller.machine.state_of(UNIT) == "failed"
    assert int(controller.machine.property_of(UNIT, "ExecMainStatus")) == code
    said = [(priority, text) for priority, text in controller.lines()[before:] if text.startswith("cc-slurm-adapter: ")]
    assert [priority for priority, _ in said] == [3], said


def test_a_secret_that_cannot_be_read_for_a_while_is_waited_for(controller: Controller) -> None:
    token = controller.machine.path("/etc/cc-slurm-adapter/token")
    away = token.rename(token.with_name("away"))
    controller.machine.run("systemctl", "restart", UNIT)
    controller.wait_for_line("Scheduled restart job")
    away.rename(token)
    controller.wait_until_ready()
    report_a_job(controller)


# --- it cannot live


def test_ten_crashes_in_a_row_and_it_is_still_alive(controller: Controller) -> None:
    for _ in range(CRASHES):
        crashed = controller.pid
        controller.signal(signal.SIGKILL)
        controller.wait_until_ready(other_than=crashed, seconds=120)
    report_a_job(controller)
