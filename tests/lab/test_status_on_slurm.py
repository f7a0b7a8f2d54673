"""`-status`, `-queue` and the control socket on a real controller, in good and in bad times."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from examples.practice.cc_backend import refused_jobs

from .installation import CONFIG, USER, Installation
from .many_messages import due, put_messages, waiting
from .namespaces import PATIENCE, child_of, wait_for
from .questions import (
    CONTROL,
    Told,
    get,
    ids,
    leading_sink,
    owners,
    request_as,
    tell,
    wait_for_health,
    wait_for_state,
)
from .slurm_conf import SHIPPED_FILE
from .slurm_jobs import Submission, submit, wait_until_ended
from .slurm_lab import SlurmLab

pytestmark = pytest.mark.slurm

HEALTHY, FAULTS, NOT_RUNNING = 0, 1, 2
CONFIG_ERROR = 78
"""For whoever may not read the configuration."""
MEMBER, STRANGER = "bob:slurm", "alice"
"""Of SlurmUser's group, and not."""
BRIEF = Submission(("-n1",), "sleep 1")
LONG = Submission(("-n1",), "sleep 600")
MANY = range(500_001, 504_001)
FEW = 100
"""So many of them show that it goes on."""


@pytest.fixture
def site(installation: Installation) -> Installation:
    """As `installation`, for a daemon that reports nothing from before: jobs of other tests are in accounting."""
    next_second = int(time.time()) + 1  # after that in which the last of them has ended
    wait_for("the next second", lambda: time.time() >= next_second, seconds=10)
    installation.touch_last_run()
    return installation


def wait_for_code(lab: SlurmLab, code: int) -> Told:
    """Waits until -status exits with this code."""

    def ask() -> Told | None:
        told = tell(lab, "-status")
        return told if told.code == code else None

    told = wait_for(f"-status to exit {code}", ask, seconds=60, every=0.2)
    assert told is not None
    return told


def listed(lab: SlurmLab, user: str = "root") -> set[int]:
    """The jobs with messages that -queue list shows."""
    told = tell(lab, "-queue", "list", "-json", user=user)
    assert (told.code, told.errors) == (0, ""), told
    return ids(json.loads(told.text)["rows"])


def test_a_healthy_site_and_who_may_ask(lab: SlurmLab, site: Installation) -> None:
    site.start()
    wait_for_health(site, "/-/ready", 200)
    told = wait_for_code(lab, HEALTHY)
    assert "all is well" in told.text
    assert max(map(len, told.text.splitlines())) <= 80
    assert tell(lab, "-status", user=USER).code == HEALTHY
    socket = lab.path(CONTROL).stat()
    assert stat.S_IMODE(socket.st_mode) == 0o660
    assert lab.output("stat", "-c", "%U:%G", str(CONTROL)).strip() == USER
    status, answer = request_as(lab, MEMBER, "GET", "/status")
    assert (status, answer["slurm"]["cluster"]) == (200, "lab")
    status, answer = request_as(lab, MEMBER, "POST", "/queue/drop", '{"all": true}')
    assert (status, "may only read" in answer["error"]) == (403, True)
    assert request_as(lab, USER, "POST", "/queue/retry", '{"all": true}')[0] == 200
    stranger = tell(lab, "-status", user=STRANGER)
    assert (stranger.text, len(stranger.errors.splitlines())) == ("", 1), stranger
    assert stranger.code == CONFIG_ERROR, "2 would say that the daemon does not run"


def test_slurmctld_is_stopped_for_a_while(lab: SlurmLab, site: Installation) -> None:
    site.start()
    wait_for_health(site, "/-/ready", 200)
    job = submit(lab, LONG)
    site.wait_for_starts([job], seconds=60)
    site.backend.commit()
    with ThreadPoolExecutor() as threads, lab.stopped_slurmctld():
        asked = threads.submit(tell, lab, "-job", str(job), user=USER)  # Slurm's commands try for long
        reasons = wait_for_health(site, "/-/ready", 503)
        assert "slurmctld" in reasons or "Slurm" in reasons
        told = wait_for_code(lab, FAULTS)
        assert "slurmctld cannot be asked" in told.text
        assert "scontrol ping" in told.text
        about = asked.result()
        assert "slurmctld: cannot be asked" in " ".join(about.paragraphs), about
        assert "cc-backend has it, running" in about.conclusion
        assert get(site, "/-/healthy") == (200, "OK\n")
    wait_for_health(site, "/-/ready", 200)
    wait_for_code(lab, HEALTHY)


def test_cc_backend_is_away_and_the_daemon_is_killed(lab: SlurmLab, site: Installation) -> None:
    """Meanwhile the queue is looked at and changed on the file, as root, and nothing becomes root's."""
    site.start()
    site.server.stop()
    dropped, kept = submit(lab, LONG), submit(lab, LONG)
    for job in (dropped, kept):
        wait_for_state(site, job, "pending")
    told = wait_for_code(lab, FAULTS)
    assert "cc-backend cannot be reached" in " ".join(told.text.split())
    assert "start cc-backend there" in " ".join(told.text.split())
    site.kill()
    before = owners(lab)
    told = tell(lab, "-status")
    assert told.code == NOT_RUNNING
    text = " ".join(told.text.split())
    words = ("does not run", "was killed", "2 pending", "systemctl start")
    assert [word for word in words if word not in text] == [], text
    assert listed(lab) == listed(lab, USER) == {dropped, kept}
    assert tell(lab, "-queue", "retry", "all").code == 0
    assert tell(lab, "-queue", "drop", str(dropped), "-yes").code == 0
    assert listed(lab) == {kept}
    assert owners(lab)[""] == before[""]
    check_owners(owners(lab))
    site.server.start()
    site.start()
    site.wait_for_starts([kept], seconds=60)
    lab.output("scancel", str(dropped), str(kept))
    site.wait_for_stops([kept], seconds=60)
    assert site.backend.rows_of(dropped) == []
    wait_for_code(lab, HEALTHY)


def check_owners(files: dict[str, str]) -> None:
    """All are the daemon's, whoever has used them."""
    assert {owner.rpartition(":")[0] for owner in files.values()} == {USER}, files


def test_refused_messages_are_tried_again_or_dropped_through_the_daemon(lab: SlurmLab, site: Installation) -> None:
    jobs = [submit(lab, Submission(("-n1", "--hold"), "sleep 2")) for _ in range(2)]
    fault = site.backend.add_fault(refused_jobs(jobs))
    site.start()
    lab.output("scontrol", "release", ",".join(map(str, jobs)))
    for job in jobs:
        wait_for_state(site, job, "parked")
    wait_until_ended(lab, jobs)
    told = wait_for_code(lab, FAULTS)
    text = " ".join(told.text.split())
    assert "refused for practice" in text
    assert "systemctl reload" in text
    shown = tell(lab, "-queue", "list", "--state", "parked", user=USER)
    assert [str(job) for job in jobs if str(job) not in shown.text] == []
    dropped, again = jobs
    told = tell(lab, "-queue", "drop", str(dropped), "-yes")
    assert (told.code, told.errors) == (0, ""), told
    site.backend.remove_fault(fault)
    assert tell(lab, "-queue", "retry", "all").code == 0
    site.wait_for_stops([again], seconds=60)
    assert site.backend.rows_of(dropped) == []
    assert listed(lab) == set()
    wait_for_code(lab, HEALTHY)


def test_sigkill_in_the_middle_of_a_drop_and_of_a_retry_leaves_nothing_half_done(
    lab: SlurmLab, site: Installation, tmp_path: Path
) -> None:
    """What is left is a start with its stop or nothing, and is delivered in this order when cc-backend is back."""
    site.start()
    wait_for_health(site, "/-/ready", 200)  # it has noted from when on jobs are reported: those of other tests are not
    site.stop()
    put_messages(lab, tmp_path, MANY, int(time.time()) - 3600)
    site.server.stop()
    site.start()
    wait_for("an outage", lambda: leading_sink(site).get("failing_since"), seconds=60, every=0.2)
    both = {"start", "stop"}
    kill_amid(site, ["-queue", "retry", "all"], "tried again for an administrator")
    assert waiting(lab, MANY) == dict.fromkeys(MANY, both)
    assert tell(lab, "-queue", "retry", "all").code == 0
    assert due(lab, MANY.start) == len(MANY)
    site.start()
    kill_amid(site, ["-queue", "drop", "all", "-yes"], "dropped by an administrator")
    left = waiting(lab, MANY)
    assert 0 < len(left) < len(MANY)
    assert [kinds for kinds in left.values() if kinds != both] == []
    check_owners(owners(lab))
    site.server.start()
    site.start()
    assert site.backend.wait_for(lambda: len(site.stopped() & set(left)) >= FEW, PATIENCE * 60)
    assert site.started() & set(MANY) <= set(left)
    sent = [each for each in site.backend.log if each.job and each.job[1] in left and each.status]
    assert {each.status for each in sent} <= {200, 201}
    assert tell(lab, "-queue", "drop", "all", "-yes").code == 0
    assert listed(lab) == set()


def kill_amid(installation: Installation, words: list[str], first_words: str) -> None:
    """Begins a command that changes the queue, and kills the daemon and the command when it has logged a part of it."""
    lab = installation.lab
    seen = installation.log.stat().st_size
    command = [str(SHIPPED_FILE), "-config", str(CONFIG), *words]
    process = lab.popen(command, user="root", log=installation.log.with_suffix(".command"))
    pid = child_of(process.pid)

    def has_begun() -> bool:
        return first_words in installation.log.read_bytes()[seen:].decode(errors="replace")

    wait_for("a part of the change", has_begun, seconds=60, every=0.001)
    installation.kill()
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        os.kill(pid, signal.SIGKILL)
    process.wait(timeout=60)
