"""The commands of docs/operating.md, taken out of the text and run on a machine with systemd and Slurm."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

import pytest

from examples.practice.cc_backend import refused_jobs
from tests.project.test_documents import TEXTS, blocks, section

from .controller import PACKAGED, UNIT
from .namespaces import wait_for
from .slurm_jobs import Submission, wait_until_running

if TYPE_CHECKING:
    from .controller import Controller

pytestmark = pytest.mark.slurm

OPERATING = TEXTS["docs/operating.md"]
SHOWN_JOB = "4711"
"""The job that the document names."""
LONG = Submission(("-n1", "--mem=10"), "sleep 600")
LONGEST = 120
SHORTER = {"-since 30d": "-since 1d", "-until 2026-02-01": "-until 2026-01-02"}
"""A month has 720 hours, each a query after which slurmdbd rests."""
STATE_FOLDER = "/var/lib/cc-slurm-adapter"


class Said(NamedTuple):
    """What came of a command, with what it printed to both outputs."""

    code: int
    text: str


def commands_of(title: str) -> list[str]:
    """The commands that a section shows, without what is said beside them."""
    lines = [line for block in blocks(section(OPERATING, title), "sh") for line in block.splitlines()]
    return [re.sub(r" +# .*", "", line) for line in lines]


def run(controller: Controller, command: str, job: int = 0, user: str = "root", answer: str = "") -> Said:
    """Runs a command about another job than the one that is shown. With an answer it gets a terminal and this."""
    line = command.replace(SHOWN_JOB, str(job)).replace(PACKAGED, controller.program)
    asked = f"(sleep 2; echo {answer}) | script -qec {shlex.quote(line)} /dev/null"
    words = ["sh", "-c", asked if answer else f"cd /tmp && {line} </dev/null"]
    as_user = ["runuser", "-u", user, "-g", "slurm", "--"] if user != "root" else []
    done = controller.machine.run(*as_user, *words, seconds=LONGEST)
    return Said(done.returncode, done.stdout + done.stderr)


def report_running(controller: Controller) -> int:
    job = controller.run_job(LONG)
    wait_until_running(controller.machine, [job])
    assert controller.backend.wait_for(lambda: bool(controller.backend.rows_of(job)), 180)
    return job


def reports(controller: Controller) -> bool:
    """Whether the daemon has begun: before that it takes no requests."""
    return run(controller, "cc-slurm-adapter -status").text.startswith("reports lab to cc-backend")


def test_every_section_with_commands_is_tried_here() -> None:
    titles = [each for each in re.findall(r"^## (.*)$", OPERATING, re.MULTILINE) if commands_of(each)]
    assert titles == [
        "Does it work?",
        "The queue: look, try again, drop",
        "Correct what cc-backend has",
        "See what would be sent",
        "One round",
        "Bring what is missing",
        "The first start",
    ]


def test_how_it_is_seen_whether_it_works(controller: Controller) -> None:
    status, journal = commands_of("Does it work?")
    what = "the status of a daemon that has begun"
    wait_for(what, lambda: "reports lab to cc-backend" in run(controller, status).text, seconds=30, every=0.5)
    assert reports(controller)
    logged = run(controller, f"{journal} --no-pager")
    assert (logged.code, " reports the cluster lab " in logged.text) == (0, True), logged.text


def test_a_refused_message_is_looked_at_tried_again_and_dropped(controller: Controller) -> None:
    everything, by_reason, show, retry, retry_all, drop = commands_of("The queue: look, try again, drop")
    following = controller.run_job(LONG) + 1
    refusal = controller.backend.add_fault(refused_jobs([following]))
    job = controller.run_job(LONG)
    assert job == following
    wait_for("the refusal", lambda: "parked" in run(controller, everything).text, seconds=30, every=0.5)
    for command in (everything, show):
        said = run(controller, command, job)
        assert (said.code, f"{job} " in said.text) == (0, True), said.text
    assert run(controller, by_reason).code == 0
    for command in (retry, retry_all):
        assert run(controller, command, job).code == 0
    controller.backend.remove_fault(refusal)
    refused = run(controller, drop, job)
    assert (refused.code, "-yes" in refused.text) != (0, True)
    controller.machine.output("scancel", "--user=bob")


def test_what_cc_backend_has_is_corrected(controller: Controller) -> None:
    one, since = commands_of("Correct what cc-backend has")
    job = report_running(controller)
    controller.backend.commit()
    for command in (one, since):
        said = run(controller, command, job, answer="y")
        assert said.code == 0, said.text
    assert controller.only_row(job)
    controller.machine.output("scancel", str(job))
    controller.wait_for_stops([job])


def test_what_would_be_sent_is_printed(controller: Controller) -> None:
    job = report_running(controller)
    *whole, one = commands_of("See what would be sent")
    assert len(whole) == 2
    for command in whole:
        said = run(controller, command)
        assert (said.code, "1 start for cc-backend" in said.text or "starts for cc-backend" in said.text) == (0, True)
        assert f'"jobId": {job}' in controller.machine.path("/tmp/requests.jsonl").read_text(encoding="utf-8")
    printed = run(controller, one, job)
    assert (printed.code, f'"jobId": {job}' in printed.text) == (0, True), printed.text
    controller.machine.output("scancel", str(job))
    controller.wait_for_stops([job])


def test_one_round_is_for_the_daemon_s_user_while_no_daemon_runs(controller: Controller) -> None:
    commands = commands_of("One round")
    assert run(controller, commands[0], user="cc-slurm-adapter").code == 1  # the daemon runs
    controller.machine.output("systemctl", "stop", UNIT)
    assert "runuser -u cc-slurm-adapter -g slurm -- " in run(controller, commands[0]).text
    job = controller.run_job()
    controller.backend.wait_for(lambda: False, 3)
    for command in commands:
        said = run(controller, command, user="cc-slurm-adapter")
        assert said.code == 0, said.text
    controller.wait_for_stops([job])


def test_older_jobs_are_brought(controller: Controller) -> None:
    job = controller.run_job()
    controller.wait_for_stops([job])
    wait_for("a daemon that has begun", lambda: reports(controller), seconds=30, every=0.5)
    for command in commands_of("Bring what is missing"):
        span = next((shown for shown in SHORTER if shown in command), "")
        said = run(controller, command.replace(span, SHORTER[span]) if span else command, job)
        assert (said.code, "sync complete" in said.text) == (0, True), said.text
    assert controller.only_row(job)


def test_the_first_start_looks_back_to_the_time_of_the_file(controller: Controller) -> None:
    controller.machine.output("systemctl", "stop", UNIT)
    controller.machine.output("mv", STATE_FOLDER, f"{STATE_FOLDER}.before")
    for command in commands_of("The first start"):
        said = run(controller, command)
        assert said.code == 0, said.text
    controller.machine.output("systemctl", "start", UNIT, seconds=60)
    controller.wait_until_ready()
    wait_for("a daemon that has begun", lambda: reports(controller), seconds=30, every=0.5)
    two_hours_ago = controller.machine.output("date", "-d", "2 hours ago", "+%H:%M").strip()
    status = " ".join(run(controller, "cc-slurm-adapter -status").text.split())
    found = re.search(r"nothing is reported that ended before (?:\d{4}-\d\d-\d\d )?(\d\d:\d\d)", status)
    assert found is not None, status
    assert (minutes(found[1]) - minutes(two_hours_ago)) % 1440 in (0, 1, 1438, 1439)


def minutes(moment: str) -> int:
    """Of the day."""
    hours, rest = moment.split(":")
    return int(hours) * 60 + int(rest)
