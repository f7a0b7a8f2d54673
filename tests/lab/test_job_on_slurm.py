"""`-job`: why a job is missing in cc-backend, and what to do, as root and as the daemon's user are told."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from .installation import USER
from .missing_jobs import UNKNOWN_ID, Missing, users_of

pytestmark = pytest.mark.slurm

FINE, LOOK, NO_SUCH_JOB = 0, 1, 2


class Reason(NamedTuple):
    """What must be said about a job."""

    code: int
    words: tuple[str, ...]
    """In the conclusion."""
    steps: tuple[str, ...]
    """In what is said last."""


REASONS = {
    "runs": Reason(FINE, (" there:", "cc-backend has it, running"), ("Nothing",)),
    "over": Reason(FINE, (" there:", "cc-backend has it, completed"), ("Nothing",)),
    "task": Reason(FINE, (" there:", "cc-backend has it, running"), ("Nothing",)),
    "component": Reason(FINE, (" there:", "cc-backend has it, running"), ("Nothing",)),
    "away": Reason(
        LOOK, (" destination away:", "start waits to be sent to cc-backend since", "cannot be reached"), ("Make",)
    ),
    "refused": Reason(LOOK, (" refused:", "refuses everything", "token"), ("ccRestJwtFile",)),
    "parked": Reason(
        LOOK,
        (" parked:", "no subcluster found for cluster lab and host node06", "tried again", "(in "),
        ("-queue retry", "subcluster"),
    ),
    "user": Reason(FINE, (" left out:", "ignoreUsers"), ("ignoreUsers", "config.json", "reload")),
    "partition": Reason(FINE, (" left out:", "ignorePartitions"), ("ignorePartitions", "config.json", "reload")),
    "early": Reason(LOOK, (" before the first moment:",), ("Another program had to report it",)),
    "conflict": Reason(
        LOOK,
        (" conflict:", "another run of this job", "cancelled there"),
        ("requeuedRuns", "deleted in cc-backend", "-queue retry"),
    ),
    "cancelled": Reason(FINE, (" never ran:",), ("Nothing",)),
    "pending": Reason(FINE, (" not begun:", "JobHeldUser"), ("it is reported when it begins",)),
    "unknown": Reason(NO_SUCH_JOB, (" no such job:",), ("Check the id",)),
    "stopped_runs": Reason(LOOK, (" there:", "no daemon runs"), ("systemctl start cc-slurm-adapter",)),
    "stopped_waits": Reason(LOOK, (" daemon away:", "waits to be sent"), ("systemctl start cc-slurm-adapter",)),
    "stopped_late": Reason(LOOK, (" daemon away:", "does not know it"), ("systemctl start cc-slurm-adapter",)),
    "late": Reason(LOOK, (" incomplete:", "without its", "gpus", "ended before it was seen"), ("hooks",)),
}


@pytest.mark.parametrize(("about", "user"), [(about, user) for about in REASONS for user in users_of(about)])
def test_the_reason_and_the_next_step_are_named(missing: Missing, about: str, user: str) -> None:
    told, reason = missing.told[about, user], REASONS[about]
    assert (told.code, told.errors) == (reason.code, ""), told
    assert [word for word in reason.words if word not in told.conclusion] == [], told.text
    assert [word for word in reason.steps if word not in told.next_step] == [], told.text


def test_the_run_that_cc_backend_has_instead_is_named(missing: Missing) -> None:
    """By when it began: the same as in its row."""
    lines = missing.told["conflict", "root"].text
    assert lines.count("Run that began") == 2
    assert "cancelled" in lines


def test_the_next_step_of_a_conflict_has_the_later_run_stored(missing: Missing) -> None:
    (start,) = missing.replaced_by
    assert start > missing.first_run


def test_what_cc_backend_has_is_shown(missing: Missing) -> None:
    (shown,) = [part for part in missing.told["over", "root"].paragraphs if part.startswith("cc-backend now")]
    assert "a run of bob" in shown
    assert "completed" in shown


def test_a_task_that_is_none_is_one_line(missing: Missing) -> None:
    told = missing.told["no_task", "root"]
    assert (told.code, told.text, len(told.errors.splitlines())) == (NO_SUCH_JOB, "", 1), told


def test_slurm_hiding_the_job_from_the_daemons_user_is_named(missing: Missing) -> None:
    """Root sees the job and what the daemon's user lacks; the daemon's user sees nothing, and that root may."""
    shown, hidden = missing.told["hidden", "root"], missing.told["hidden", USER]
    assert shown.code == LOOK
    assert " no permission:" in shown.conclusion, shown.text
    assert "sacctmgr -i modify user cc-slurm-adapter set adminlevel=operator" in shown.next_step
    assert hidden.code != FINE
    assert "PrivateData" in hidden.text, hidden


def test_the_id_is_repeated_as_it_was_typed(missing: Missing) -> None:
    assert f"Job {UNKNOWN_ID}:" in missing.told["unknown", "root"].conclusion
    assert f"Job {missing.jobs['array']}_1:" in missing.told["task", "root"].conclusion


def test_nothing_beside_the_state_file_is_made_or_given_to_root(missing: Missing) -> None:
    """The file of a daemon that was killed is read, by root too, while it is as it was left."""
    running, before, after = missing.owners
    assert before == after
    assert {owner.rpartition(":")[0] for owner in [*running.values(), *before.values()]} == {USER}
