"""The built file says how it is: its commands, its sockets, systemd's line and the log, whatever happens to it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.daemon.control import CONTROL_ROUTES, METRICS_ROUTES
from cc_slurm_adapter.daemon.report import from_json
from cc_slurm_adapter.daemon.status_text import first_line
from examples.practice.cc_backend import Fault, NoAnswer, refused_jobs
from examples.practice.site import Site
from examples.practice.slurm.model import JobRequest
from tests.built.asking import Terminal, ask, command, control_socket
from tests.built.test_daemon_life import Systemd, assert_stops_in_time, let_hang, site_of_nobody

SHORT = JobRequest(name="secret-name", user="alice", duration=1)
AWAY = "cc-backend cannot be reached"
CONNECTIONS = 32
"""The most that the control socket serves at a time."""
NOTICE_SECONDS = 180
"""Within which a line at NOTICE comes after a fault has ended: it comes a minute after the one before, or the start."""


@pytest.fixture
def site(adapter: Path) -> Iterator[Site]:
    """A site whose daemon is not started yet."""
    with Site(adapter) as new:
        new.daemon.configure(metricsListen=str(metrics_socket(new)))
        yield new


def metrics_socket(site: Site) -> Path:
    return site.daemon.run_folder / "metrics.sock"


@pytest.fixture
def systemd(site: Site) -> Iterator[Systemd]:
    made = Systemd(site)
    yield made
    made.close()


def start(site: Site) -> None:
    """Starts the daemon, and waits until the start is over and it can be asked."""
    site.daemon.start()
    site.wait_for("the first poll", (site.daemon.state_folder / "lastrun").exists)
    site.wait_for("the control socket", control_socket(site).exists)
    site.wait_for(
        "the other socket", lambda: "metricsListen" not in site.daemon.config or metrics_socket(site).exists()
    )


def report_a_job(site: Site) -> int:
    """Runs a job and waits until cc-backend has all of it."""
    job = site.cluster.submit(SHORT)
    site.wait_for("the job", lambda: site.has_stopped(job))
    return job


def statuses(systemd: Systemd) -> list[str]:
    """The lines for `systemctl status` that have come so far."""
    return [line[len("STATUS=") :] for line in systemd.told() if line.startswith("STATUS=")]


def plain(shown: str) -> list[str]:
    """The lines on a terminal without colours and other escape sequences."""
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", shown).replace("\r", "").splitlines()


# --- -status


def test_exit_codes_say_well_wrong_and_not_running(copy: Path) -> None:
    """The daemon runs as an ordinary user, since root is a fault."""
    with site_of_nobody(copy) if os.geteuid() == 0 else Site(copy) as site:
        site.daemon.start()
        report_a_job(site)
        site.wait_for("a good end", lambda: command(site, "-status").returncode == 0)
        said = command(site, "-status")
        first = " ".join(said.stdout.partition("\n\n")[0].split())
        assert first == "reports lab to cc-backend: 0 open runs, 0 pending; all is well"
        assert said.stderr == ""
        assert "\x1b" not in said.stdout
        assert max(map(len, said.stdout.splitlines())) <= 80
        site.server.stop()
        job = site.cluster.submit(SHORT)
        site.wait_for("the fault", lambda: command(site, "-status").returncode == 1)
        said = command(site, "-status", "-json")
        assert (said.returncode, said.stderr) == (1, "")
        (fault,) = json.loads(said.stdout)["faults"]
        assert fault["text"].startswith(AWAY)
        assert fault["next_step"]
        site.server.start()
        site.wait_for("the job", lambda: site.has_stopped(job))
        site.wait_for("a good end", lambda: command(site, "-status").returncode == 0)
        assert_stops_in_time(site)
        said = command(site, "-status")
        assert said.returncode == 2
        assert said.stdout.startswith("the daemon does not run: ")
        assert "cc-backend   0 pending; 0 parked; 0 in conflict" in said.stdout
        said = command(site, "-status", "-json")
        assert said.returncode == 2
        assert json.loads(said.stdout)["state"]["open_runs"] == 0


@pytest.mark.parametrize("columns", [80, 50])
def test_colours_are_for_terminals_whose_user_wants_them(site: Site, columns: int) -> None:
    start(site)
    with Terminal(site, "-status", columns=columns) as coloured:
        assert coloured.wait_for_end() in (0, 1)
    with Terminal(site, "-status", columns=columns, NO_COLOR="1") as bare:
        assert bare.wait_for_end() in (0, 1)
    assert "\x1b[3" in coloured.shown
    assert "\x1b" not in bare.shown
    for shown in (coloured.shown, bare.shown):
        assert "".join(plain(shown)).startswith("reports lab to cc-backend: ")
        assert max(map(len, plain(shown))) <= columns
    report_a_job(site)


def test_watch_shows_a_fault_when_it_comes_and_ends_with_ctrl_c(site: Site) -> None:
    start(site)
    with Terminal(site, "-status", "-watch") as watch:
        watch.wait_for("Ctrl-C ends")
        site.server.stop()
        job = site.cluster.submit(SHORT)
        watch.wait_for(AWAY)
        watch.type("\x03")
        assert watch.wait_for_end() == 1
    assert watch.shown.count("\x1b[2J") == 1, "it is drawn in one place"
    assert max(map(len, plain(watch.shown))) <= 80
    assert "Traceback" not in watch.shown
    site.server.start()
    site.wait_for("the job", lambda: site.has_stopped(job))


def test_a_frozen_daemon_is_said_to_be_one(site: Site) -> None:
    start(site)
    job = site.cluster.submit(SHORT)
    site.daemon.signal(signal.SIGSTOP)
    try:
        said = command(site, "-status")
        queue = command(site, "-queue", "list")
    finally:
        site.daemon.signal(signal.SIGCONT)
    assert said.returncode == 2
    words = " ".join(said.stdout.split())
    assert words.startswith("a daemon runs, but does not answer: the daemon does not answer within 5 s on ")
    assert f"is locked by the process {site.daemon.pid}" in words
    assert "systemctl restart cc-slurm-adapter" in words
    assert (queue.returncode, queue.stdout) == (1, "")
    assert "the daemon does not answer within 5 s" in queue.stderr
    site.wait_for("the job", lambda: site.has_stopped(job))


def test_while_a_start_waits_for_slurm_that_is_what_is_said(site: Site) -> None:
    scontrol = Path(site.cluster.bin) / "scontrol"
    kept = scontrol.rename(scontrol.with_name("kept"))
    let_hang(scontrol, site.folder / "hanging")
    job = site.cluster.submit(SHORT)
    site.daemon.launch()
    waiting = "waiting for Slurm's answer (scontrol show config)"
    site.wait_for("the daemon", control_socket(site).exists)
    site.wait_for("the wait", lambda: waiting in command(site, "-status").stdout)
    said = command(site, "-status")
    assert said.returncode == 1
    assert said.stdout.splitlines()[0] == waiting
    assert (ready := ask(control_socket(site), "/-/ready")).status == 503
    assert ready.body == f"{waiting}\n"
    assert ask(control_socket(site), "/-/healthy").status == 200
    assert_stops_in_time(site)
    kept.replace(scontrol)
    start(site)
    site.wait_for("the job", lambda: site.has_stopped(job))
    assert ask(control_socket(site), "/-/ready").status == 200


# --- -check


def test_check_looks_at_a_site_whose_daemon_runs_and_leaves_it_as_it_is(site: Site) -> None:
    start(site)
    report_a_job(site)
    said = command(site, "-check", "-json")
    assert said.stderr == ""
    found = json.loads(said.stdout)
    levels = {each["level"] for each in found["findings"]}
    assert said.returncode == (2 if "FAIL" in levels else 1 if "WARN" in levels else 0)
    texts = {each["subject"]: each["text"] for each in reversed(found["findings"])}
    assert "answers for the cluster lab" in texts["slurmctld"]
    assert "reports lab to cc-backend" in texts["daemon"]
    assert {"configuration", "pidFilePath", "slurmdbd", "privileges", "hooks", "events folder", "unit"} <= texts.keys()
    assert "an error of this program" not in said.stdout
    shown = command(site, "-check")
    assert shown.returncode == said.returncode
    assert len(shown.stdout.splitlines()) == len(found["findings"]) + 1
    assert_stops_in_time(site)


# --- -queue and -job


def park(site: Site, *job_ids: int) -> Fault:
    """Lets cc-backend refuse these jobs, which are the next ones, and waits until they are parked."""
    fault = site.backend.add_fault(refused_jobs(job_ids))
    assert tuple(site.cluster.submit(SHORT) for _ in job_ids) == job_ids
    site.wait_for("refused messages", lambda: queue_of(site, "-state", "parked") == set(job_ids))
    return fault


def queue_of(site: Site, *words: str) -> set[int]:
    """The jobs in the queue."""
    said = command(site, "-queue", "list", "-json", *words)
    assert (said.returncode, said.stderr) == (0, "")
    return {row["job_id"] for row in json.loads(said.stdout)["rows"]}


@pytest.mark.parametrize("running", [True, False], ids=["through the daemon", "on the file"])
def test_messages_are_listed_shown_tried_again_and_dropped(site: Site, running: bool) -> None:
    start(site)
    fault = park(site, 1, 2)
    site.wait_for(
        "their ends", lambda: command(site, "-queue", "list").stdout.endswith("4 messages: 2 starts, 2 stops\n")
    )
    if not running:
        assert_stops_in_time(site)
    listed = command(site, "-queue", "list", "-reason", "REFUSED for practice").stdout
    assert [line.split()[:1] for line in listed.splitlines() if " parked " in line] == [["1"], ["2"]]
    shown = command(site, "-queue", "show", "1").stdout
    assert "start to cc-backend: parked" in shown
    assert "secret-name" in shown
    lasting = site.backend.add_fault(refused_jobs([2]))
    site.backend.remove_fault(fault)
    said = command(site, "-queue", "retry", "1")
    amount = "2 messages of 1 run (1 start, 1 stop)"
    due = f"due now: {amount}; -queue list shows the answers\n"
    later = f"no daemon runs: {amount} are sent when it starts (systemctl start cc-slurm-adapter)\n"
    assert (said.returncode, said.stdout) == (0, due if running else later)
    refused = command(site, "-queue", "drop", "2")
    assert (refused.returncode, refused.stdout) == (64, "")
    assert "give -yes" in refused.stderr
    for answer, code, text in (("n", 1, "nothing was dropped"), ("y", 0, "dropped: 2 messages of 1 run")):
        with Terminal(site, "-queue", "drop", "2") as terminal:
            terminal.wait_for("[y/N]")
            terminal.type(f"{answer}\n")
            terminal.wait_for(text)
            assert terminal.wait_for_end() == code
    if not running:
        start(site)
    site.wait_for("the job that was tried again", lambda: site.has_stopped(1))
    site.wait_for("an empty queue", lambda: command(site, "-queue", "list").stdout == "no message waits\n")
    site.backend.remove_fault(lasting)
    job = report_a_job(site)
    assert {row.job_id for row in site.backend.rows} == {1, job}


def test_a_job_is_explained_from_slurm_to_cc_backend(site: Site) -> None:
    start(site)
    fault = park(site, 1)
    job = report_a_job(site)
    for job_id, code, words in (
        (str(job), 0, f"Job {job}: there: "),
        ("1", 1, "Job 1: parked: "),
        ("4711", 2, "Job 4711: no such job: "),
    ):
        said = command(site, "-job", job_id)
        assert (said.returncode, said.stderr) == (code, ""), said.stdout
        conclusion, next_step = (line for line in said.stdout.splitlines() if line.startswith(("Job ", "Next: ")))
        assert conclusion.startswith(words)
        assert next_step
        assert "runs, but cannot be asked" not in said.stdout
    site.backend.remove_fault(fault)
    assert command(site, "-queue", "retry", "all").returncode == 0
    site.wait_for("the refused job", lambda: site.has_stopped(1))


# --- the sockets


def test_every_route_answers_on_its_socket(site: Site) -> None:
    start(site)
    job = report_a_job(site)
    site.wait_for("readiness", lambda: ask(control_socket(site), "/-/ready").status == 200)
    for place, routes in ((control_socket(site), CONTROL_ROUTES), (metrics_socket(site), METRICS_ROUTES)):
        readable = {route.path for route in routes if route.method == "GET"}
        for route in routes:
            path = route.path.replace("ID", str(job))
            answer = ask(place, path)
            assert answer.status == (200 if route.path in readable else 405), f"{path}: {answer.body}"
            if answer.content_type == "application/json":
                assert json.loads(answer.body)["version"] == 1
        assert ask(place, "/-/healthy").body == ask(place, "/-/ready").body == "OK\n"
        assert "\ncc_slurm_adapter_started 1\n" in ask(place, "/metrics").body
        assert ask(place, "/elsewhere").status == 404
    for path in ("/status", "/queue", f"/jobs/{job}"):
        assert ask(metrics_socket(site), path).status == 404
    assert ask(metrics_socket(site), "/queue/drop", "POST", '{"all": true}').status == 404
    page = ask(metrics_socket(site), "/")
    assert page.content_type == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    for name in (SHORT.name, SHORT.user):
        assert name not in page.body + ask(metrics_socket(site), "/metrics").body
    said = command(site, "-metrics")
    assert (said.returncode, said.stderr) == (0, "")
    assert "\ncc_slurm_adapter_started 1\n" in said.stdout


def test_changes_go_over_the_socket_too(site: Site) -> None:
    start(site)
    fault = park(site, 1)
    site.backend.remove_fault(fault)
    answer = ask(control_socket(site), "/queue/retry", "POST", '{"state": "parked", "cluster": "lab"}')
    assert (answer.status, json.loads(answer.body)["starts"]) == (200, 1)
    site.wait_for("the job", lambda: site.has_stopped(1))
    assert ask(control_socket(site), "/queue/drop", "POST", "{}").status == 400


def test_the_sockets_of_a_killed_daemon_are_replaced(site: Site) -> None:
    start(site)
    before = [place.stat().st_ctime_ns for place in (control_socket(site), metrics_socket(site))]
    site.daemon.kill()
    said = command(site, "-status")
    assert said.returncode == 2
    assert "which does not hold its lock: the daemon was killed or crashed" in " ".join(said.stdout.split())
    site.daemon.start()
    for place, made in zip((control_socket(site), metrics_socket(site)), before):
        site.wait_for(f"another {place}", lambda: place.exists() and place.stat().st_ctime_ns > made)  # noqa: B023
        assert ask(place, "/-/healthy").body == "OK\n"
    report_a_job(site)
    assert_stops_in_time(site)


@pytest.mark.parametrize("taken", ["a file", "no folder"])
def test_a_control_socket_that_cannot_be_had_costs_only_itself(site: Site, taken: str) -> None:
    place = site.folder / "elsewhere" / "control.sock"
    if taken == "a file":
        place.parent.mkdir()
        place.write_text("")
    site.daemon.configure(controlSockPath=str(place))
    site.daemon.start()
    site.wait_for("the other socket", metrics_socket(site).exists)
    report_a_job(site)
    site.wait_for("the warning", lambda: "All else goes on" in site.daemon.log())
    (line,) = (line for line in site.daemon.log().splitlines() if str(place) in line)
    assert " WARNING " in line
    assert ask(metrics_socket(site), "/-/healthy").body == "OK\n"
    said = command(site, "-status")
    assert said.returncode == 2
    assert said.stdout.startswith("a daemon runs (pid ")
    assert_stops_in_time(site)


def test_sigterm_ends_it_in_time_while_many_hang_on_its_sockets(site: Site) -> None:
    start(site)
    with contextlib.ExitStack() as until_the_end:
        for place in (control_socket(site), metrics_socket(site)):
            for number in range(CONNECTIONS):
                connection = until_the_end.enter_context(socket.socket(socket.AF_UNIX))
                connection.connect(str(place))
                connection.sendall(b"GET /status HTTP/1.1\r\n"[: 3 * (number % 8)])
        report_a_job(site)
        assert_stops_in_time(site)


def test_it_stops_in_time_while_cc_backend_hangs_and_somebody_watches(site: Site) -> None:
    start(site)
    fault = site.backend.add_fault(NoAnswer())
    site.cluster.submit(SHORT)
    with Terminal(site, "-status", "-watch") as watch:
        watch.wait_for("Ctrl-C ends")
        assert_stops_in_time(site)
        watch.wait_for("the daemon does not run")
        watch.type("\x03")
        assert watch.wait_for_end() == 2
    site.backend.remove_fault(fault)


# --- without being asked


def test_systemd_and_the_log_have_the_first_line_of_the_status(site: Site, systemd: Systemd) -> None:
    """At a change, again within a minute, and at NOTICE after a fault has ended."""
    start(site)

    def is_told() -> bool:
        return first_line(from_json(command(site, "-status", "-json").stdout)) in statuses(systemd)

    site.wait_for("the line", is_told)
    assert statuses(systemd)[-1].startswith("reports lab to cc-backend: ")
    site.server.stop()
    job = site.cluster.submit(SHORT)
    site.wait_for("the fault", lambda: AWAY in statuses(systemd)[-1])
    site.server.start()
    site.wait_for("its end", lambda: AWAY not in statuses(systemd)[-1])
    site.wait_for("the job", lambda: site.has_stopped(job))
    site.wait_for("the line", is_told)
    number = len(statuses(systemd))
    notice = " NOTICE reports lab to cc-backend: "
    site.wait_for("the notice", lambda: notice in site.daemon.log(), NOTICE_SECONDS)
    assert AWAY not in next(line for line in site.daemon.log().splitlines() if notice in line)
    site.wait_for("the line once more", lambda: len(statuses(systemd)) > number)
