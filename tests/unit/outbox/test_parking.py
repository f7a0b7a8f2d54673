"""What is refused is tried ever more seldom, one message of each reason first, and given up in the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox import deliveries as deliveries_module
from cc_slurm_adapter.outbox import outbox as outbox_module
from cc_slurm_adapter.outbox.outbox import Batch, Message, OpenRun, Outbox, Stage
from cc_slurm_adapter.sinks.base import Delivery, Encoded, Kind
from tests.fakes.slurm_and_sinks import NOW

HOUR, DAY = 3600, 86400
SPAN, MONTH = 7 * DAY, 30 * DAY


class Clock:
    """The outbox's clock."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def time(self) -> float:
        return self.now


class Site:
    """An outbox with one sink that refuses what it is told to."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.clock = clock
        self.outbox = Outbox(str(folder / "state.sqlite"), {"rest": ""})
        self.sent: list[RunKey] = []

    def lose(self) -> None:
        """The destination loses all that runs; that is noticed long after it was sent."""
        self.outbox.resend_starts("rest", "lab", lambda key: True, self.clock.now + 1)

    def begin(self, *job_ids: int, stage: Stage = Stage.DONE) -> None:
        """Starts are owed, and stops of those that are over."""
        batch = Batch()
        kinds = (Kind.START, Kind.STOP) if stage is Stage.DONE else (Kind.START,)
        for job_id in job_ids:
            key = RunKey("lab", job_id, NOW)
            batch.messages += [Message(("rest",), key, kind, Encoded(b"{}")) for kind in kinds]
            batch.runs[key] = OpenRun(key, stage, "", None)
        self.outbox.commit("lab", batch)

    def end(self, job_id: int) -> None:
        key = RunKey("lab", job_id, NOW)
        batch = Batch(runs={key: OpenRun(key, Stage.DONE, "", None)})
        batch.messages = [Message(("rest",), key, Kind.STOP, Encoded(b"{}"))]
        self.outbox.commit("lab", batch)

    def due(self) -> list[Delivery]:
        return self.outbox.deliveries.due("rest", self.clock.now, 10_000)

    def send_all(self, reasons: dict[int, str]) -> int:
        """All that may be sent now; jobs in `reasons` are refused. Returns how many requests that were."""
        requests = 0
        while rows := self.due():
            for row in rows:
                requests += 1
                self.sent.append(row.key)
                if row.key.job_id in reasons:
                    self.outbox.deliveries.parked(row, reasons[row.key.job_id])
                else:
                    self.outbox.deliveries.delivered(row)
        return requests

    def pass_time(self, seconds: float, reasons: dict[int, str]) -> int:
        """Minute by minute or, for long times, hour by hour; returns the requests of that time."""
        requests, end = 0, self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now += 60 if seconds <= DAY else HOUR
            requests += self.send_all(reasons)
            self.outbox.tidy(SPAN, MONTH)
        return requests


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    clock = Clock()
    monkeypatch.setattr(outbox_module, "time", clock)
    monkeypatch.setattr(deliveries_module, "time", clock)
    made = Site(tmp_path, clock)
    yield made
    made.outbox.close()


def refuse(*job_ids: int, reason: str = "HTTP 400: host 'node{}' is in no subcluster") -> dict[int, str]:
    return {job_id: reason.format(job_id) for job_id in job_ids}


def test_a_refused_message_is_tried_again_after_an_hour_two_hours_and_so_on_a_day_at_most(site: Site) -> None:
    site.begin(1)
    refused = refuse(1)
    assert site.send_all(refused) == 1
    waits = []
    for _ in range(8):
        before = site.clock.now
        while not site.due():
            site.clock.now += 60
        waits.append(round((site.clock.now - before) / HOUR))
        site.send_all(refused)
    assert waits == [1, 2, 4, 8, 16, 24, 24, 24]


def test_of_many_that_are_refused_for_one_reason_one_is_tried(site: Site) -> None:
    """However many there are, and though each names another host."""
    many = range(1, 1001)
    site.begin(*many)
    assert site.send_all(refuse(*many)) == 1000
    assert site.pass_time(DAY, refuse(*many)) == 4  # after 1, 3, 7 and 15 hours
    assert site.pass_time(10 * DAY, refuse(*many)) <= 11


def test_each_reason_is_tried_by_itself(site: Site) -> None:
    refused = {**refuse(*range(1, 50)), **refuse(*range(50, 100), reason="HTTP 400: no resources")}
    site.begin(*refused)
    site.send_all(refused)
    assert site.pass_time(HOUR + 60, refused) == 2


def test_when_one_is_taken_the_others_follow(site: Site) -> None:
    many = range(1, 101)
    site.begin(*many)
    site.send_all(refuse(*many))
    assert site.pass_time(HOUR + 60, {}) == 200
    assert site.outbox.counts() == {}


def test_each_gets_its_turn(site: Site) -> None:
    """What keeps one from being taken need not be what kept the others, though the words are the same."""
    site.begin(1, 2, 3)
    site.send_all(refuse(1, 2, 3))
    site.pass_time(8 * HOUR, refuse(1, 2))
    assert [key.job_id for key in site.sent].count(3) == 3  # refused, then start and stop


def test_those_that_are_refused_again_after_one_was_taken_wait_again(site: Site) -> None:
    many, still = range(1, 101), refuse(*range(51, 101))
    site.begin(*many)
    site.send_all(refuse(*many))
    requests = site.pass_time(HOUR + 60, still)
    assert requests <= 2 * 50 + 2 * 50
    assert site.outbox.counts() == {"parked": 50, "pending": 50}
    assert site.pass_time(12 * HOUR, still) <= 4


def test_a_message_that_meets_a_reason_which_is_known_waits_with_the_others(site: Site) -> None:
    site.begin(1)
    site.send_all(refuse(1))
    site.clock.now += HOUR / 2
    site.begin(2)
    site.send_all(refuse(1, 2))
    assert site.pass_time(HOUR, refuse(1, 2)) == 1


def test_a_probe_that_meets_a_destination_in_trouble_keeps_nothing_waiting_for_ever(site: Site) -> None:
    site.begin(1, 2)
    site.send_all(refuse(1, 2))
    site.clock.now += HOUR + 1
    (probe,) = site.due()
    site.outbox.deliveries.put_off(probe, site.clock.now + 20, "cc-backend is away")
    site.pass_time(2 * HOUR, {})
    assert site.outbox.counts() == {}


def test_after_a_reload_one_of_each_reason_is_tried_at_once(site: Site) -> None:
    site.begin(*range(1, 11))
    site.send_all(refuse(*range(1, 11)))
    assert site.outbox.retry_all() == 10
    assert len(site.due()) == 1
    assert site.send_all({}) == 20


def test_what_is_refused_for_too_long_is_given_up_and_told_by_reason(site: Site) -> None:
    refused = {**refuse(1, 2, 3), **refuse(4, reason="HTTP 400: no resources")}
    site.begin(*refused)
    site.send_all(refused)
    site.clock.now += MONTH + DAY
    given_up = site.outbox.tidy(SPAN, MONTH).given_up
    assert [(each.messages, each.first.job_id) for each in given_up] == [(3, 1), (1, 4)]
    assert "host 'node1' is in no subcluster" in str(given_up[0])
    assert site.outbox.counts() == {}
    assert site.due() == []


@pytest.mark.parametrize("is_accepted", [True, False])
def test_the_answer_to_a_message_that_was_given_up_meanwhile_changes_nothing(site: Site, *, is_accepted: bool) -> None:
    site.begin(1, 2)
    site.send_all(refuse(1))
    site.clock.now += MONTH + HOUR
    (probe,) = (row for row in site.due() if row.key.job_id == 1 and row.kind is Kind.START)
    site.outbox.tidy(SPAN, MONTH)
    if is_accepted:
        site.outbox.deliveries.delivered(probe)
    else:
        site.outbox.deliveries.parked(probe, "HTTP 400: no")
    assert site.outbox.counts() == {}


def test_messages_of_an_open_run_are_not_given_up(site: Site) -> None:
    """Else its stop would be sent for a run that nobody knows."""
    site.begin(1, stage=Stage.STARTED)
    site.send_all(refuse(1))
    site.clock.now += MONTH + DAY
    assert site.outbox.tidy(SPAN, MONTH).given_up == []
    site.end(1)
    assert len(site.outbox.tidy(SPAN, MONTH).given_up) == 1
    assert site.outbox.counts() == {}


def test_a_probe_that_is_refused_for_another_reason_leaves_the_others_a_new_probe(site: Site) -> None:
    site.begin(1, 2, 3)
    site.send_all(refuse(1, 2, 3))
    site.clock.now += HOUR
    assert site.send_all(refuse(1, reason="HTTP 400: no resources")) == 1
    site.clock.now += HOUR
    assert [row.key.job_id for row in site.due()] == [2]
    assert site.send_all(refuse(1, reason="HTTP 400: no resources")) == 4
    assert site.outbox.counts() == {"parked": 1, "pending": 1}


def test_where_ages_are_wrong_nothing_is_too_old(site: Site) -> None:
    """The clock was set forward by years: each kind of row stays, and what was told of each run is remembered."""
    keys = [RunKey("lab", job_id, NOW) for job_id in range(1, 6)]
    site.outbox.commit("lab", Batch(messages=[Message(("rest",), keys[0], Kind.WITHDRAW, Encoded(b"{}"))]))
    site.begin(1, 2)
    site.send_all({})
    site.begin(3)
    site.send_all(refuse(3))
    site.begin(4)
    site.outbox.deliveries.conflict(site.due()[0], "another run is stored")
    site.begin(5)
    rows = {"retained": 3, "parked": 1, "conflict": 2, "pending": 3}
    site.clock.now += 1000 * DAY
    tidied = site.outbox.tidy(SPAN, MONTH, ages_are_right=False)
    assert (tidied.parked, tidied.given_up, site.outbox.counts()) == (0, [], rows)
    assert site.outbox.unknown(keys) == []
    site.outbox.tidy(SPAN, MONTH)
    assert site.outbox.counts() == {"parked": 2}
    assert site.outbox.unknown(keys) == keys


def test_what_is_parked_and_the_stops_that_wait_for_it_do_not_count_as_waiting(site: Site) -> None:
    """However many: they keep accounting from nothing. Not whether the stop came before the refusal or after it."""
    site.begin(1, 2)
    site.begin(3, stage=Stage.STARTED)
    assert site.outbox.has_waiting(more_than=4)
    site.send_all(refuse(1, 2, 3))
    site.end(3)
    assert not site.outbox.has_waiting(more_than=0)
    assert site.outbox.waiting() == 6
    assert site.pass_time(HOUR + 60, {}) == 6
    assert site.outbox.counts() == {}


def test_what_was_delivered_and_is_refused_again_later_is_as_old_as_the_later_refusal(site: Site) -> None:
    """A long run that was refused once, and that cc-backend loses weeks later."""
    site.begin(1, stage=Stage.STARTED)
    site.send_all(refuse(1))
    assert site.pass_time(DAY, {}) == 1
    site.pass_time(40 * DAY, {})
    site.lose()
    site.send_all(refuse(1))
    site.end(1)
    assert site.outbox.tidy(SPAN, MONTH).given_up == []
    site.clock.now += HOUR  # as after a first refusal
    assert site.send_all({}) == 2
    assert site.outbox.counts() == {}


def test_a_refused_message_that_then_waits_for_too_long_is_as_old_as_its_refusal(site: Site) -> None:
    """The probe meets a destination that is away for weeks."""
    site.begin(1)
    site.send_all(refuse(1))
    site.clock.now += HOUR
    (probe,) = site.due()
    site.outbox.deliveries.put_off(probe, site.clock.now + MONTH, "cc-backend is away")
    site.clock.now += MONTH - DAY
    assert site.outbox.tidy(SPAN, MONTH).parked == 2
    site.clock.now += DAY
    assert len(site.outbox.tidy(SPAN, MONTH).given_up) == 1
    assert site.outbox.counts() == {}


def test_what_could_not_be_delivered_for_too_long_is_told_and_tried_like_what_was_refused(site: Site) -> None:
    site.begin(*range(1, 11))
    site.clock.now += SPAN + DAY
    assert site.outbox.tidy(SPAN, MONTH).parked == 20
    assert site.due() == []
    site.clock.now += HOUR + 1
    assert len(site.due()) == 1
    assert site.send_all({}) == 20


def test_a_shadowed_start_is_kept_as_long_as_its_run_is_open(site: Site) -> None:
    site.begin(1, stage=Stage.STARTED)
    (start,) = site.due()
    site.outbox.deliveries.conflict(start, "another run is stored")
    site.clock.now += SPAN + DAY
    site.outbox.tidy(SPAN, MONTH)
    site.end(1)
    assert site.due() == []
    assert site.outbox.counts() == {"conflict": 2}
    site.clock.now += SPAN + DAY
    site.outbox.tidy(SPAN, MONTH)
    assert site.outbox.counts() == {}


def test_a_clock_that_was_far_off_gives_nothing_up(site: Site) -> None:
    site.clock.now = 1000.0
    site.begin(1, 2)
    (first, *_) = site.due()
    site.outbox.deliveries.parked(first, "HTTP 400: no resources")
    site.clock.now += NOW
    site.outbox.deliveries.shift_times("rest", NOW)
    tidied = site.outbox.tidy(SPAN, MONTH)
    assert (tidied.parked, tidied.given_up) == (0, [])


def test_what_is_parked_is_told_by_reason(site: Site) -> None:
    refused = {**refuse(9, reason="HTTP 400: no resources"), **refuse(1, 2, 3)}
    site.begin(*refused)
    site.send_all(refused)
    first, second = site.outbox.parked_by_reason()
    assert (first.messages, first.first.job_id, second.messages) == (3, 1, 1)
    assert str(second) == f"1 for rest, the first of job 9 of lab (start {NOW}): HTTP 400: no resources"
