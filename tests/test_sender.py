"""The sender with a real outbox and the stand-in cc-backend: order, faults, parking, stopping."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter import sender as sender_module
from cc_slurm_adapter.job import End, EndState, NodeState, Run
from cc_slurm_adapter.outbox import Changes, Message, Outbox
from cc_slurm_adapter.sender import Sender
from cc_slurm_adapter.sinks import Kind
from cc_slurm_adapter.sinks.cc_messages import StartMessages
from cc_slurm_adapter.sinks.cc_rest import CcRest
from cc_slurm_adapter.status import Status
from examples.practice.cc_backend import (
    CcBackend,
    CcBackendServer,
    Dropped,
    LostAnswer,
    NoAnswer,
    OtherAnswer,
    refused_jobs,
)
from tests.fakes import make_run

NOW = int(time.time())
PATIENCE = 10.0


class Site:
    """An outbox, a sender and a stand-in cc-backend."""

    def __init__(self, folder: Path) -> None:
        self.backend = CcBackend()
        self.server = CcBackendServer(self.backend)
        self.server.start()
        self.sink = CcRest(self.server.url, lambda: self.backend.token, StartMessages(()))
        self.outbox = Outbox(str(folder / "state.sqlite"))
        self.status = Status()
        self.sender = Sender(self.sink, self.outbox, self.status)

    def close(self) -> None:
        self.sender.stop(2)
        self.outbox.close()
        self.server.close()

    def owe(self, *runs: Run, kinds: tuple[Kind, ...] = (Kind.START, Kind.STOP)) -> None:
        messages = []
        for run in runs:
            end = End(EndState.COMPLETED, run.key.start_time + 5, "COMPLETED")
            payloads = {Kind.START: self.sink.encode_start(run), Kind.STOP: self.sink.encode_stop(run.key, end)}
            messages += [Message(self.sink.name, run.key, kind, payloads[kind]) for kind in kinds]
        self.outbox.commit("lab", Changes(messages=messages))
        self.sender.wake()

    def settled(self, **outcomes: int) -> bool:
        """Whether the outbox comes to hold just these."""
        deadline = time.monotonic() + PATIENCE
        while self.outbox.counts() != outcomes and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.outbox.counts() == outcomes

    def states(self) -> dict[int, str]:
        return {row.job_id: row.state for row in self.backend.rows}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(sender_module, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(sender_module, "LONGEST_WAIT", 0.1)
    made = Site(tmp_path)
    yield made
    made.close()


def runs(*job_ids: int) -> list[Run]:
    return [make_run(job_id, start=NOW - 1000) for job_id in job_ids]


def test_everything_owed_arrives_once_and_in_order(site: Site) -> None:
    site.owe(*runs(*range(1, 101)))
    site.sender.start()
    assert site.settled()
    assert len(site.backend.rows) == 100
    assert set(site.states().values()) == {"completed"}
    assert all(row.starts == 1 and row.stops == 1 for row in site.backend.rows)


def test_rows_added_later_are_sent_at_once(site: Site) -> None:
    site.sender.start()
    site.owe(*runs(1), kinds=(Kind.START,))
    assert site.settled(delivered=1)
    site.owe(*runs(1), kinds=(Kind.STOP,))
    assert site.settled()


def test_a_refused_job_is_parked_and_the_others_arrive(site: Site) -> None:
    fault = site.backend.add_fault(refused_jobs([2]))
    site.owe(*runs(1, 2, 3))
    site.sender.start()
    assert site.settled(parked=1, owed=1)
    assert site.states() == {1: "completed", 3: "completed"}
    site.backend.remove_fault(fault)
    assert site.outbox.retry_all() == 1
    site.sender.retry_now()
    assert site.settled()
    assert site.states()[2] == "completed"


def test_nothing_is_lost_or_doubled_while_the_destination_is_away(site: Site) -> None:
    site.server.stop()
    site.owe(*runs(*range(1, 21)))
    site.sender.start()
    while site.status.counts().get("start_sink_trouble", 0) < 3:
        time.sleep(0.005)
    assert site.outbox.counts() == {"owed": 40}
    site.server.start()
    assert site.settled()
    assert set(site.states().values()) == {"completed"}
    assert len(site.backend.rows) == 20


def test_lost_answers_double_nothing(site: Site) -> None:
    site.backend.add_fault(LostAnswer(fraction=0.4, seed=1))
    site.backend.add_fault(Dropped(fraction=0.4, seed=2))
    site.owe(*runs(*range(1, 41)))
    site.sender.start()
    assert site.settled()
    assert len(site.backend.rows) == 40
    assert set(site.states().values()) == {"completed"}


def test_a_wrong_token_holds_everything_and_parks_nothing(site: Site) -> None:
    right, site.backend.token = site.backend.token, "eyJ.other.token"
    site.sink = CcRest(site.server.url, lambda: right, StartMessages(()))
    site.sender = Sender(site.sink, site.outbox, site.status)
    site.owe(*runs(1, 2))
    site.sender.start()
    while site.status.counts().get("start_held", 0) < 2:
        time.sleep(0.005)
    assert site.outbox.counts() == {"owed": 4}
    site.backend.token = right
    assert site.settled()


def test_a_row_that_fails_while_others_succeed_is_parked(site: Site) -> None:
    site.backend.add_fault(OtherAnswer(status=500, body=b'{"error":"odd"}', job_ids=frozenset([2])))
    site.owe(*runs(2))
    site.sender.start()
    while not site.status.counts().get("start_row_trouble"):
        time.sleep(0.005)
    site.owe(*runs(1, 3))
    assert site.settled(parked=1, owed=1)
    assert site.states() == {1: "completed", 3: "completed"}


@pytest.mark.parametrize("status", [403, 500])
def test_half_of_all_requests_refused_park_nobody(site: Site, status: int) -> None:
    """cc-backend's database is locked at times, or one of two proxies is set up wrong."""
    site.backend.add_fault(OtherAnswer(fraction=0.5, seed=status, status=status, body=b'{"error":"not now"}'))
    site.owe(*runs(*range(1, 41)))
    site.sender.start()
    assert site.settled()
    assert site.states() == dict.fromkeys(range(1, 41), "completed")
    counts = site.status.counts()
    assert counts.get("start_row_trouble", 0) + counts.get("start_held", 0) > 5
    assert "start_parked" not in counts
    assert "stop_parked" not in counts


def test_a_destination_that_asks_for_a_pause_gets_it_from_all(site: Site) -> None:
    site.owe(*runs(1, 2, 3))
    site.sender.start()
    assert site.settled()
    site.backend.add_fault(OtherAnswer(status=429, headers={"Retry-After": "1"}, count=1))
    site.owe(*runs(4))
    while not site.status.counts().get("start_sink_trouble"):
        time.sleep(0.005)
    asked = len(site.backend.log)
    site.owe(*runs(*range(5, 10)))
    assert site.settled()
    assert site.backend.log[asked].time >= site.backend.log[asked - 1].time + 1


def test_errors_for_everybody_park_nobody(site: Site) -> None:
    fault = site.backend.add_fault(OtherAnswer(status=500, body=b'{"error":"disk full"}'))
    site.owe(*runs(*range(1, 11)))
    site.sender.start()
    while len(site.backend.log) < 60:
        time.sleep(0.005)
    assert "parked" not in site.outbox.counts()
    site.backend.remove_fault(fault)
    assert site.settled()


def test_rows_that_always_fail_do_not_hold_up_the_others(site: Site) -> None:
    bad = frozenset(range(1, 13))
    site.backend.add_fault(OtherAnswer(status=500, body=b'{"error":"odd"}', job_ids=bad))
    site.owe(*runs(*range(1, 26)))
    site.sender.start()
    assert site.backend.wait_for(lambda: len(site.states()) == 13, PATIENCE)
    for job_id in range(26, 29):
        site.owe(*runs(job_id))
        assert site.backend.wait_for(lambda number=job_id: number in site.states(), PATIENCE)  # type: ignore[misc]
    assert site.settled(parked=12, owed=12)
    assert sorted(site.states()) == list(range(13, 29))


def test_one_row_that_a_proxy_refuses_does_not_hold_the_sink(site: Site) -> None:
    site.backend.add_fault(OtherAnswer(status=403, body=b"<html>", job_ids=frozenset([1])))
    site.owe(*runs(1, 2, 3))
    site.sender.start()
    deadline = time.monotonic() + PATIENCE
    while len(site.states()) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert site.states().keys() == {2, 3}


@pytest.mark.parametrize("seconds", ["0", "99999999999", "-5", "soon"])
def test_no_time_that_a_destination_names_ends_the_sender(site: Site, seconds: str) -> None:
    site.backend.add_fault(OtherAnswer(status=503, headers={"Retry-After": seconds}, count=1))
    site.owe(*runs(1))
    site.sender.start()
    while not site.status.counts().get("start_sink_trouble"):
        time.sleep(0.005)
    site.sender.retry_now()
    site.outbox.retry_all()
    if seconds == "99999999999":
        assert site.outbox.counts() == {"owed": 2}
        assert all(thread.is_alive() for thread in site.sender._threads)
    else:
        assert site.settled()


def test_a_destination_that_lost_a_run_gets_its_start_again(site: Site) -> None:
    site.sender.start()
    site.owe(*runs(1), kinds=(Kind.START,))
    assert site.settled(delivered=1)
    site.backend.forget()
    site.owe(*runs(1), kinds=(Kind.STOP,))
    assert site.settled()
    assert site.states() == {1: "completed"}


def test_a_run_behind_another_stored_run_is_shadowed_and_its_stop_not_sent(site: Site) -> None:
    site.sender.start()
    site.owe(*runs(1))
    assert site.settled()
    later = make_run(1, start=NOW - 500)
    site.owe(later)
    assert site.settled(shadowed=2)
    (row,) = site.backend.rows
    assert (row.start_time, row.stop_time) == (NOW - 1000, NOW - 995)


def test_a_start_that_is_too_large_is_cut_and_sent(site: Site) -> None:
    site.backend.add_fault(OtherAnswer(status=413, count=1))
    site.owe(make_run(1, start=NOW - 1000, job_script="x" * 1000))
    site.sender.start()
    assert site.settled()
    (row,) = site.backend.rows
    assert "left out" in row.start["metaData"]["jobScript"]


def test_only_the_newest_node_states_are_sent(site: Site) -> None:
    for number in range(3):
        site.sender.post_nodes("lab", [NodeState("node01", ("idle",), number, 0, 0)])
    site.sender.start()
    assert site.backend.wait_for(lambda: ("lab", "node01") in site.backend.node_states, PATIENCE)
    assert site.backend.node_states["lab", "node01"].payload["cpusAllocated"] == 2
    assert len(site.backend.log) == 1


def test_a_stop_ends_a_request_that_hangs(site: Site) -> None:
    fault = site.backend.add_fault(NoAnswer())
    site.owe(*runs(1, 2, 3, 4, 5))
    site.sender.start()
    while len(site.sender._under_way) < 4:
        time.sleep(0.005)
    began = time.monotonic()
    site.sender.stop(2)
    assert time.monotonic() - began < 1
    assert site.outbox.counts() == {"owed": 10}
    site.backend.remove_fault(fault)


def test_a_stop_ends_a_wait(site: Site) -> None:
    site.sender.start()
    began = time.monotonic()
    site.sender.stop(2)
    assert time.monotonic() - began < 1


def test_a_stop_that_the_destination_does_not_know_is_told_to_whoever_compares(site: Site) -> None:
    called: list[bool] = []
    site.sender = Sender(site.sink, site.outbox, site.status, on_unknown=lambda: called.append(True))
    site.sender.start()
    (run,) = runs(1)
    site.owe(run, kinds=(Kind.START,))
    assert site.settled(delivered=1)
    assert not called
    site.backend.forget()
    site.owe(run, kinds=(Kind.STOP,))
    assert site.settled()
    assert called
    assert site.states() == {1: "completed"}
