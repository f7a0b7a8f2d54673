"""Slurm's job states: every combination that slurmctld makes, and what it means for a run.

Bases and flags are `enum job_states` and the JOB_ bits below it in slurm/slurm.h. Each row says where in
src/slurmctld the combination is made; unless another release is named, that is 24.11.5, and 22.05.8 and
25.11.7 do the same. LAUNCH_FAILED, RECONFIG_FAIL and GETENV_FAILED are flags of a request and never of a job.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

import pytest

from cc_slurm_adapter.model import EndState, Phase
from cc_slurm_adapter.slurm.parse import states
from cc_slurm_adapter.slurm.parse.listing import parse_listing
from cc_slurm_adapter.slurm.parse.states import read_shown, read_states

Meaning = tuple[Phase, Optional[EndState]]
WAITING: Meaning = (Phase.WAITING, None)
CONFIGURING: Meaning = (Phase.CONFIGURING, None)
RUNNING: Meaning = (Phase.RUNNING, None)
ASKS: Meaning = (Phase.ENDED, None)
"""The details of the job must tell."""


class Row(NamedTuple):
    """A combination, what it means, and where it is made."""

    words: str
    meaning: Meaning
    made: str

    def __str__(self) -> str:
        return self.words.replace(" ", "+")


ROWS = [
    Row("PENDING", WAITING, "job_mgr.c, _copy_job_desc_to_job_record"),
    Row("PENDING COMPLETING", WAITING, "job_mgr.c, job_requeue: the next run waits while the nodes are cleaned"),
    Row("PENDING REQUEUED", WAITING, "job_mgr.c, job_requeue: JOB_REQUEUE alone"),
    Row("PENDING SPECIAL_EXIT", WAITING, "job_mgr.c, batch_requeue_fini; scontrol requeuehold State=SpecialExit"),
    Row("PENDING COMPLETING SPECIAL_EXIT", WAITING, "job_mgr.c, _job_requeue_op on a completing job"),
    Row("PENDING REQUEUE_HOLD", WAITING, "job_mgr.c, _handle_requeue_limit: requeued too often"),
    Row("PENDING RESV_DEL_HOLD", WAITING, "reservation.c: its reservation was deleted"),
    Row("PENDING REQUEUE_FED", WAITING, "job_mgr.c, job_requeue in a federation"),
    Row("PENDING COMPLETING REQUEUE_FED", WAITING, "job_mgr.c, job_requeue in a federation"),
    Row("PENDING REVOKED", WAITING, "fed_mgr.c: it may run in other clusters only"),
    Row("PENDING STAGE_OUT", WAITING, "job_mgr.c, batch_requeue_fini keeps all flags; burst_buffer_lua.c speaks of it"),
    Row("PENDING UPDATE_DB", WAITING, "job_mgr.c, _job_array_comp, up to 24.05: an array whose tasks start"),
    Row("PENDING EXPEDITING", WAITING, "job_mgr.c, _set_requeued_job_pending_completing, from 25.11 on"),
    Row("PENDING COMPLETING EXPEDITING", WAITING, "job_mgr.c, _set_requeued_job_pending_completing, from 25.11 on"),
    Row("RUNNING", RUNNING, "node_scheduler.c, select_nodes"),
    Row("RUNNING CONFIGURING", CONFIGURING, "node_scheduler.c, select_nodes"),
    Row("RUNNING CONFIGURING POWER_UP_NODE", CONFIGURING, "node_scheduler.c, select_nodes: nodes are switched on"),
    Row("RUNNING SIGNALING", RUNNING, "job_mgr.c, _job_signal: scancel -s STOP or CONT"),
    Row("RUNNING STOPPED", RUNNING, "agent.c: scancel -s STOP has arrived"),
    Row("RUNNING SIGNALING STOPPED", RUNNING, "job_mgr.c, _job_signal: scancel -s CONT of a stopped one"),
    Row("RUNNING RESIZING", RUNNING, "job_mgr.c, job_pre_resize_acctg"),
    Row("RUNNING REQUEUE_FED", RUNNING, "fed_mgr.c, fed_mgr_job_requeue_test: its origin is to requeue it"),
    Row("SUSPENDED", RUNNING, "job_mgr.c, _job_suspend"),
    Row("SUSPENDED STOPPED", RUNNING, "agent.c: stopped, and suspended before the answer came"),
    *(
        Row(f"{word}{flags}", (Phase.ENDED, end), made)
        for word, end in states.ENDS.items()
        for flags, made in {
            "": "job_mgr.c, job_complete and others",
            " COMPLETING": "job_mgr.c, job_complete: its nodes are cleaned",
            " COMPLETING STAGE_OUT": "burst_buffer_lua.c, _pre_queue_stage_out from job_completion_logger",
            " STAGE_OUT": "the same when its nodes are clean",
        }.items()
    ),
    Row("CANCELLED COMPLETING REQUEUED", (Phase.ENDED, EndState.CANCELLED), "job_mgr.c, _job_signal, KILL_FED_REQUEUE"),
    Row("FAILED COMPLETING REQUEUED", (Phase.ENDED, EndState.FAILED), "job_mgr.c, RequeueExit"),
    Row("FAILED COMPLETING REQUEUED SPECIAL_EXIT", (Phase.ENDED, EndState.FAILED), "job_mgr.c, RequeueExitHold"),
    Row("FAILED COMPLETING REQUEUED EXPEDITING", (Phase.ENDED, EndState.FAILED), "job_mgr.c, from 25.11 on"),
    Row("NODE_FAIL COMPLETING REQUEUED", (Phase.ENDED, EndState.NODE_FAIL), "read_config.c: its nodes are gone"),
    Row("CANCELLED REVOKED", (Phase.ENDED, EndState.CANCELLED), "fed_mgr.c: it ran in another cluster"),
    Row("COMPLETED REVOKED", (Phase.ENDED, EndState.COMPLETED), "fed_mgr.c, fed_mgr_job_revoke"),
    Row("COMPLETED STOPPED", (Phase.ENDED, EndState.COMPLETED), "agent.c: over before the answer to STOP came"),
    Row("COMPLETED SIGNALING", (Phase.ENDED, EndState.COMPLETED), "job_mgr.c: the same while it is under way"),
]
FLAGS_BY_RANK = (
    *("COMPLETING", "STAGE_OUT", "CONFIGURING", "EXPEDITING", "RESIZING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD"),
    *("SPECIAL_EXIT", "STOPPED", "REVOKED", "RESV_DEL_HOLD", "SIGNALING"),
)
"""job_state_string in src/common/slurm_protocol_defs.c: the first of them that is set is what text shows.

25.11.7; 22.05.8 has the same order without EXPEDITING. JSON up to 23.02 prints this one word as well.
"""
SHOWN_AS_RUNNING = {"COMPLETED STOPPED", "COMPLETED SIGNALING"}
"""For as long as slurmctld remembers them. Accounting, which is asked at each poll, has their end."""
OF_A_FEDERATION = {"RUNNING REQUEUE_FED", "CANCELLED REVOKED", "COMPLETED REVOKED"}
_CODES = (
    "BF=BOOT_FAIL CA=CANCELLED CD=COMPLETED CF=CONFIGURING CG=COMPLETING DL=DEADLINE F=FAILED NF=NODE_FAIL"
    " OOM=OUT_OF_MEMORY PR=PREEMPTED R=RUNNING RS=RESIZING S=SUSPENDED SE=SPECIAL_EXIT SI=SIGNALING SO=STAGE_OUT"
    " ST=STOPPED TO=TIMEOUT"
)
CODES: dict[str, str] = dict(pair.split("=") for pair in _CODES.split())
"""job_state_string_compact in the same file."""


def shown(row: Row) -> str:
    """The one word of the combination that squeue's text shows."""
    words = row.words.split()
    return next((flag for flag in FLAGS_BY_RANK if flag in words), words[0])


by_row = pytest.mark.parametrize("row", ROWS, ids=str)


@by_row
def test_a_combination_means_what_slurm_means_by_it(row: Row, caplog: pytest.LogCaptureFixture) -> None:
    words = row.words.split()
    assert read_states(words) == row.meaning
    assert read_states(reversed(words)) == row.meaning
    assert not caplog.messages


@by_row
def test_the_one_word_that_is_shown_tells_the_truth_or_asks_for_more(row: Row) -> None:
    if row.words in SHOWN_AS_RUNNING:
        assert read_shown(shown(row)) == RUNNING
    else:
        assert read_shown(shown(row)) in (row.meaning, ASKS)


@by_row
def test_the_listing_has_every_job_that_holds_nodes_or_is_over(row: Row) -> None:
    """As _filter_job in src/squeue/print.c lets it pass: any flag that was asked for, or the base without flags."""
    listed = {CODES[code] for code in states.LISTED.split(",")}
    base, *flags = row.words.split()
    passes = bool(listed & set(flags)) or (base in listed and not flags)
    assert passes or row.meaning == WAITING or row.words in OF_A_FEDERATION


@pytest.mark.parametrize("word", ["COMPLETING", "STAGE_OUT", "SPECIAL_EXIT", "REQUEUED", "REVOKED", "DANCING"])
def test_a_word_that_hides_how_the_job_stands_ends_nothing_in_the_listing(word: str) -> None:
    (sighting,) = parse_listing([f"7|{word}|1795351693|1795351993|n".encode()])
    assert (sighting.phase, sighting.start_time) == (Phase.ENDED, 1795351693)
    assert (sighting.end_state, sighting.end_time) == (None, None)


@pytest.mark.parametrize(
    ("word", "end"),
    [
        ("REQUEUED", EndState.CANCELLED),
        ("REVOKED", EndState.CANCELLED),
        *((word, end) for word, end in states.ENDS.items()),
    ],
)
def test_in_accounting_a_word_is_a_whole_state(word: str, end: EndState) -> None:
    """as_mysql_job_complete keeps REQUEUED, REVOKED, RESIZING or the base, each alone, in all releases."""
    assert read_states([word]) == (Phase.ENDED, end)


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        (["DANCING"], (Phase.ENDED, EndState.FAILED)),
        (["RUNNING", "DANCING"], RUNNING),
        (["PENDING", "DANCING"], WAITING),
        (["TIMEOUT", "DANCING"], (Phase.ENDED, EndState.TIMEOUT)),
        (["COMPLETING"], ASKS),
        (["SPECIAL_EXIT"], (Phase.ENDED, EndState.FAILED)),
        (["LAUNCH_FAILED"], (Phase.ENDED, EndState.FAILED)),
        (["PENDING", "LAUNCH_FAILED"], WAITING),
        (["RUNNING", "RECONFIG_FAIL"], RUNNING),
    ],
)
def test_words_that_no_slurm_makes_yet(words: list[str], meaning: Meaning) -> None:
    assert read_states(words) == meaning


def test_an_unknown_state_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        read_states(["SINGING"])
    assert len([line for line in caplog.messages if "SINGING" in line]) == 1
