"""The outbox: order, outcomes, durability."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.model import Phase, RunKey
from cc_slurm_adapter.outbox import queries, rerouting
from cc_slurm_adapter.outbox.foreign_state import refuse_foreign
from cc_slurm_adapter.outbox.outbox import KEEP_DONE, Batch, Message, OpenRun, Outbox, Stage
from cc_slurm_adapter.outbox.run_json import run_from_json, run_to_json
from cc_slurm_adapter.outbox.schema import SCHEMA_VERSION
from cc_slurm_adapter.sinks.base import Delivery, Encoded, Kind
from tests.built import old_state
from tests.fakes.slurm_and_sinks import make_run

FAR = 1e12
FIRST, SECOND, OTHER = RunKey("lab", 1, 100), RunKey("lab", 1, 200), RunKey("lab", 2, 100)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(str(tmp_path / "state.sqlite"))
    yield made
    made.close()


def owe(outbox: Outbox, *rows: tuple[RunKey, Kind]) -> None:
    messages = [Message(("rest",), key, kind, Encoded(b"{}")) for key, kind in rows]
    outbox.commit("lab", Batch(messages=messages))


def due(outbox: Outbox, now: float = FAR) -> list[Delivery]:
    return outbox.deliveries.due("rest", now, 100)


def names(deliveries: list[Delivery]) -> list[tuple[RunKey, Kind]]:
    return [(delivery.key, delivery.kind) for delivery in deliveries]


def test_rows_of_one_job_go_in_order_and_jobs_do_not_wait_for_each_other(outbox: Outbox) -> None:
    owe(outbox, (FIRST, Kind.START), (FIRST, Kind.STOP), (SECOND, Kind.START), (OTHER, Kind.START))
    sent = []
    while due(outbox):
        now = due(outbox)
        sent.append(names(now))
        for delivery in now:
            outbox.deliveries.delivered(delivery)
    assert sent == [
        [(FIRST, Kind.START), (OTHER, Kind.START)],
        [(FIRST, Kind.STOP)],
        [(SECOND, Kind.START)],
    ]


def test_what_is_urgent_goes_before_what_waits_but_in_the_order_of_its_job(outbox: Outbox) -> None:
    owe(outbox, (FIRST, Kind.START), (OTHER, Kind.START))
    late = RunKey("lab", 3, 100)
    messages = [Message(("rest",), key, kind, Encoded(b"{}")) for key, kind in ((FIRST, Kind.STOP), (late, Kind.START))]
    outbox.commit("lab", Batch(messages=messages, urgent=True))
    assert names(due(outbox, now=0)) == [(FIRST, Kind.START), (late, Kind.START), (OTHER, Kind.START)]
    outbox.deliveries.delivered(due(outbox)[0])
    assert names(due(outbox, now=0)) == [(FIRST, Kind.STOP), (late, Kind.START), (OTHER, Kind.START)]


def test_an_urgent_stop_hurries_its_own_start(outbox: Outbox) -> None:
    owe(outbox, (OTHER, Kind.START), (FIRST, Kind.START))
    outbox.commit("lab", Batch(messages=[Message(("rest",), FIRST, Kind.STOP, Encoded(b"{}"))], urgent=True))
    assert names(due(outbox, now=0)) == [(FIRST, Kind.START), (OTHER, Kind.START)]


def test_a_parked_start_holds_its_own_stop_and_nothing_else(outbox: Outbox) -> None:
    owe(outbox, (FIRST, Kind.START), (FIRST, Kind.STOP), (SECOND, Kind.START))
    outbox.deliveries.parked(due(outbox)[0], "400")
    assert names(due(outbox, now=0)) == [(SECOND, Kind.START)]
    assert outbox.retry_all() == 1
    assert names(due(outbox, now=0)) == [(FIRST, Kind.START)]  # the start of the next run yields to it now
    outbox.deliveries.parked(due(outbox)[0], "400")
    assert names(due(outbox, now=0)) == [(SECOND, Kind.START)]
    outbox.retry_all()
    outbox.deliveries.delivered(due(outbox, now=0)[0])
    assert (FIRST, Kind.STOP) in names(due(outbox, now=0))


def test_a_shadowed_run_never_sends_its_stop(outbox: Outbox) -> None:
    owe(outbox, (FIRST, Kind.START), (FIRST, Kind.STOP), (SECOND, Kind.START), (OTHER, Kind.START))
    by_key = {delivery.key: delivery for delivery in due(outbox)}
    outbox.deliveries.conflict(by_key[FIRST], "another run is stored")
    outbox.deliveries.conflict(by_key[OTHER], "another run is stored")
    owe(outbox, (OTHER, Kind.STOP))
    assert names(due(outbox)) == [(SECOND, Kind.START)]
    assert outbox.counts() == {"pending": 1, "conflict": 4}


def test_a_delivered_start_stays_until_the_stop_is_delivered(outbox: Outbox) -> None:
    owe(outbox, (FIRST, Kind.START))
    outbox.deliveries.delivered(due(outbox)[0])
    owe(outbox, (FIRST, Kind.STOP))
    (stop,) = due(outbox)
    assert outbox.deliveries.start_first(stop)
    assert names(due(outbox)) == [(FIRST, Kind.START)]
    outbox.deliveries.delivered(due(outbox)[0])
    outbox.deliveries.delivered(due(outbox)[0])
    assert outbox.counts() == {}


@pytest.mark.parametrize("way", ["lost", "before its stop"])
def test_a_start_that_is_owed_again_is_as_old_as_that(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A job may run for longer than slurmQueryMaxSpan: its start is sent again before it counts as undeliverable."""
    run = OpenRun(FIRST, Stage.STARTED, "node01", None)
    long_ago = time.time() - 8 * 86400
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: long_ago)
        start = Message(("rest",), FIRST, Kind.START, Encoded(b"{}"))
        outbox.commit("lab", Batch(runs={FIRST: run}, messages=[start]))
        outbox.deliveries.delivered(*outbox.deliveries.begin(due(outbox), long_ago))
    if way == "lost":
        assert outbox.resend_starts("rest", "lab", lambda key: True, time.time()) == [FIRST]
    else:
        owe(outbox, (FIRST, Kind.STOP))
        assert outbox.deliveries.start_first(due(outbox)[0])
    assert outbox.tidy(7 * 86400).parked == 0
    assert names(due(outbox, now=0)) == [(FIRST, Kind.START)]


def test_a_stop_without_a_start_cannot_have_it_sent_first(outbox: Outbox) -> None:
    owe(outbox, (FIRST, Kind.STOP))
    assert not outbox.deliveries.start_first(due(outbox)[0])


def test_each_sink_has_its_own_rows(outbox: Outbox) -> None:
    messages = [
        Message((sink,), FIRST, kind, Encoded(b"{}")) for kind in (Kind.START, Kind.STOP) for sink in ("rest", "nats")
    ]
    outbox.commit("lab", Batch(messages=messages))
    outbox.deliveries.delivered(due(outbox)[0])
    outbox.deliveries.delivered(due(outbox)[0])
    assert names(outbox.deliveries.due("nats", FAR, 10)) == [(FIRST, Kind.START)]


def test_the_same_row_is_owed_once(outbox: Outbox) -> None:
    owe(outbox, (FIRST, Kind.START), (FIRST, Kind.START))
    owe(outbox, (FIRST, Kind.START))
    assert outbox.counts() == {"pending": 1}


def test_rows_put_off_wait_and_remember_their_refusals(outbox: Outbox) -> None:
    owe(outbox, (FIRST, Kind.START))
    outbox.deliveries.put_off(due(outbox)[0], 50.0, "500", refused=True)
    assert due(outbox, now=49) == []
    assert outbox.deliveries.next_due("rest", 49.0) == 50.0
    assert outbox.deliveries.next_due("rest", 50.0) is None
    (delivery,) = due(outbox, now=51)
    assert delivery.refusals == 1


def test_the_first_sending_is_remembered(outbox: Outbox) -> None:
    owe(outbox, (FIRST, Kind.START))
    taken = due(outbox)
    assert taken[0].first_sent == 0
    assert outbox.deliveries.begin(taken, 70.0) == taken
    assert outbox.deliveries.begin(due(outbox), 80.0) == due(outbox)
    assert due(outbox)[0].first_sent == 70.0


def test_rows_of_jobs_that_are_busy_are_not_taken(outbox: Outbox) -> None:
    owe(outbox, (FIRST, Kind.START), (OTHER, Kind.START))
    assert names(outbox.deliveries.due("rest", FAR, 1, {("lab", 1)})) == [(OTHER, Kind.START)]
    assert outbox.deliveries.due("rest", FAR, 1, {("lab", 1), ("lab", 2)}) == []


def test_a_row_that_was_due_is_not_sent_when_an_earlier_one_has_become_due_meanwhile(outbox: Outbox) -> None:
    owe(outbox, (FIRST, Kind.START), (SECOND, Kind.START))
    outbox.deliveries.parked(due(outbox)[0], "400")
    now = time.time()
    (later,) = outbox.deliveries.due("rest", now, 9)
    assert later.key == SECOND
    outbox.retry_all()
    assert outbox.deliveries.begin([later], now) == []
    assert names(outbox.deliveries.due("rest", now, 9)) == [(FIRST, Kind.START)]


def test_a_pass_is_written_as_a_whole_or_not_at_all(outbox: Outbox) -> None:
    run = make_run()
    batch = Batch(runs={run.key: OpenRun(run.key, Stage.STARTED, "node01", None)}, checkpoint=7)
    batch.messages = [
        Message(("rest",), run.key, Kind.START, Encoded(b"{}")),
        Message(("rest",), run.key._replace(job_id=2**63), Kind.STOP, Encoded(b"{}")),
    ]
    with pytest.raises(StateError):
        outbox.commit("lab", batch)
    assert outbox.checkpoint("lab") is None
    assert outbox.open_runs("lab") == []
    assert outbox.counts() == {}


def test_open_runs_survive_with_what_was_read_of_them(tmp_path: Path) -> None:
    run = make_run(phase=Phase.CONFIGURING)
    outbox = Outbox(str(tmp_path / "state.sqlite"))
    seen = OpenRun(run.key, Stage.PREPARING, "node01", run)
    outbox.commit("lab", Batch(runs={run.key: seen}, checkpoint=9))
    outbox.close()
    again = Outbox(str(tmp_path / "state.sqlite"))
    assert again.open_runs("lab") == [seen]
    assert again.open_runs("other") == []
    assert again.checkpoint("lab") == 9
    again.close()


def test_a_run_as_json_comes_back_equal() -> None:
    for run in (make_run(), make_run(phase=Phase.ENDED, array_job_id=5, array_task_id=0, walltime=None)):
        assert run_from_json(run_to_json(run)) == run


def test_a_run_that_an_older_version_wrote_comes_back() -> None:
    """It knew no other_gres, the last field of a resource."""
    run = make_run()
    older = json.loads(run_to_json(run))
    older["resources"] = [fields[:5] for fields in older["resources"]]
    assert run_from_json(json.dumps(older)) == run


def test_what_is_still_to_be_told_is_known(outbox: Outbox) -> None:
    owe(outbox, (FIRST, Kind.STOP))
    assert outbox.has_message(["nats", "rest"], FIRST, Kind.STOP)
    assert not outbox.has_message(["nats"], FIRST, Kind.STOP)
    assert not outbox.has_message(["rest"], FIRST, Kind.START)


def test_runs_are_known_in_every_stage(outbox: Outbox) -> None:
    done = OpenRun(FIRST, Stage.DONE, "", None)
    outbox.commit("lab", Batch(runs={FIRST: done}))
    assert outbox.unknown([FIRST, SECOND, OTHER]) == [SECOND, OTHER]
    assert outbox.knows_job("lab", 1)
    assert not outbox.knows_job("lab", 2)


def test_old_rows_are_parked_and_old_runs_forgotten(outbox: Outbox) -> None:
    """A run is remembered for longer than accounting is read back."""
    owe(outbox, (FIRST, Kind.START))
    outbox.commit("lab", Batch(runs={OTHER: OpenRun(OTHER, Stage.DONE, "", None)}))
    outbox.tidy(-10)
    assert outbox.counts() == {"parked": 1}
    assert outbox.unknown([OTHER]) == []
    outbox.tidy(-KEEP_DONE - 10)
    assert outbox.unknown([OTHER]) == [OTHER]


def test_up_to_when_runs_are_forgotten_is_kept_and_never_moves_back(tmp_path: Path) -> None:
    """A longer slurmQueryMaxSpan does not bring back what a shorter one has forgotten, nor does a restart."""
    path, now = str(tmp_path / "state.sqlite"), time.time()
    for max_age, days in [(86400, 2), (7 * 86400, 2), (3600, 25 / 24), (7 * 86400, 25 / 24)]:
        outbox = Outbox(path)
        outbox.tidy(max_age)
        assert outbox.forgotten_until() == pytest.approx(now - days * 86400, abs=60)
        outbox.close()


def test_nothing_is_forgotten_before_the_first_time(outbox: Outbox) -> None:
    outbox.tidy(0, ages_are_right=False)
    assert outbox.forgotten_until() == 0


def test_a_time_in_the_future_that_runs_are_forgotten_up_to_is_corrected(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was ahead: what it said then would count for years."""
    now = time.time()
    monkeypatch.setattr("cc_slurm_adapter.outbox.outbox.time.time", lambda: now + 365 * 86400)
    outbox.tidy(86400)
    monkeypatch.undo()
    outbox.tidy(86400)
    assert outbox.forgotten_until() == pytest.approx(now - 2 * 86400, abs=60)


def test_the_time_that_runs_are_forgotten_up_to_is_no_cluster(outbox: Outbox) -> None:
    outbox.tidy(86400)
    assert outbox.admin.rows_of_job(1).checkpoints == {}
    assert outbox.checkpoint("lab") is None


def test_a_clock_that_was_set_back_while_nobody_watched_delays_nothing(outbox: Outbox) -> None:
    owe(outbox, (FIRST, Kind.START), (OTHER, Kind.START))
    first, second = outbox.deliveries.due("rest", time.time(), 9)
    tomorrow = time.time() + 86400
    outbox.deliveries.begin([first], tomorrow)
    outbox.deliveries.put_off(first, tomorrow, "cc-backend is away")
    outbox.deliveries.parked(second, "refused")
    assert outbox.deliveries.due("rest", time.time(), 9) == []
    assert outbox.retry_all() == 1
    assert [each.key for each in outbox.deliveries.due("rest", time.time(), 9)] == [FIRST, OTHER]
    assert all(each.first_sent <= time.time() for each in outbox.deliveries.due("rest", time.time(), 9))


def test_a_state_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    Outbox(str(path)).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(StateError, match="format 99"):
        Outbox(str(path))


def test_a_state_file_of_the_first_format_is_taken_over(tmp_path: Path) -> None:
    path = str(tmp_path / "state.sqlite")
    old_state.make(Path(path), old_state.FORMATS["1"])
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        rows = [(1, "live", "node01"), (2, "ignored", ""), (3, "seen", "node02"), (4, "done", "")]
        for job_id, stage, hosts in rows:
            database.execute("INSERT INTO run VALUES ('lab', ?, 1000, ?, ?, NULL, 1000)", (job_id, stage, hosts))
    for _ in range(2):
        outbox = Outbox(path)
        assert [run.key.job_id for run in outbox.open_runs("lab")] == [1]
        assert outbox.unknown([RunKey("lab", job_id, 1000) for job_id in (1, 2, 3, 4)]) == [RunKey("lab", 3, 1000)]
        outbox.close()


@pytest.mark.parametrize("damage", [b"no database at all " * 100, b"SQLite format 3\0" + b"\7" * 8000])
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.sqlite"
    path.write_bytes(damage)
    outbox = Outbox(str(path))
    assert outbox.is_rebuilt
    owe(outbox, (FIRST, Kind.START))
    outbox.close()
    (aside,) = tmp_path.glob("state.sqlite.damaged-*")
    assert aside.read_bytes() == damage
    assert "rebuilt from Slurm" in caplog.text


@pytest.mark.parametrize("content", [b"notes\n", b"no database at all " * 100, b"\0" * 5000])
def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"statePath names .*notes\.txt.* is left alone") as refused:
        Outbox(str(path))
    assert "\n" not in str(refused.value)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("notes.txt", content)]


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


@pytest.mark.parametrize("name", ["books.sqlite", "state.sqlite"])
@pytest.mark.parametrize("version", [0, 1, SCHEMA_VERSION - 1, SCHEMA_VERSION, SCHEMA_VERSION + 1, 1000])
@pytest.mark.parametrize("journal_mode", ["DELETE", "WAL"])
def test_a_database_of_somebody_else_is_left_alone(tmp_path: Path, name: str, version: int, journal_mode: str) -> None:
    """Whatever number it has for its own format: by that alone it would be one of ours, older or newer."""
    path = tmp_path / name
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA journal_mode = {journal_mode}")
        database.execute(f"PRAGMA user_version = {version}")
        database.execute("CREATE TABLE run (title TEXT)")
    before = contents(tmp_path)
    with pytest.raises(StateError, match="database of another program, which is left alone: set statePath"):
        Outbox(str(path))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("sign", ["table in the log", "application_id", "user_version"])
def test_a_database_that_seems_empty_and_is_somebody_else_s_is_left_alone(tmp_path: Path, sign: str) -> None:
    source, path = tmp_path / "source.sqlite", tmp_path / "its" / "books.sqlite"
    path.parent.mkdir()
    with closing(sqlite3.connect(source)) as database:
        if sign == "table in the log":  # as a kill leaves it
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE book (title TEXT)")
            shutil.copy(f"{source}-wal", f"{path}-wal")
        else:
            database.execute(f"PRAGMA {sign} = 99")
        shutil.copy(source, path)
    before = contents(path.parent)
    with pytest.raises(StateError, match="database of another program, which is left alone: set statePath"):
        Outbox(str(path))
    assert contents(path.parent) == before


def test_a_damaged_database_that_is_not_known_to_be_ours_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "books.sqlite"
    path.write_bytes(b"SQLite format 3\0" + b"\7" * 8000)
    before = contents(tmp_path)
    with pytest.raises(StateError, match="database of another program, which is left alone: set statePath"):
        Outbox(str(path))
    assert contents(tmp_path) == before


def test_a_folder_is_no_state_file(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").mkdir()
    with pytest.raises(StateError, match="which is not a file: set statePath"):
        Outbox(str(tmp_path / "state.sqlite"))
    assert [each.name for each in tmp_path.rglob("*")] == ["state.sqlite"]


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_where_nothing_is_nothing_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """The folder of the state file may be a file by mistake, which is found and reported later."""
    make(tmp_path / "state")
    refuse_foreign(str(tmp_path / "state" / "state.sqlite"))


@pytest.mark.parametrize("sign", ["first-moment.own.sqlite", "own.sqlite-wal"])
def test_a_damaged_file_of_another_name_is_known_by_what_lies_beside_it(tmp_path: Path, sign: str) -> None:
    path = tmp_path / "own.sqlite"
    path.write_bytes(b"\0" * 8192)
    (tmp_path / sign).write_text("1800000000\n")
    outbox = Outbox(str(path))
    assert outbox.is_rebuilt
    outbox.close()


def test_a_sound_file_is_not_rebuilt(outbox: Outbox) -> None:
    assert not outbox.is_rebuilt


def damage(path: Path) -> None:
    """In the middle of a file with many messages that nobody uses."""
    outbox = Outbox(str(path))
    for job_id in range(300):
        encoded = Encoded(b"x" * 3000)
        outbox.commit("lab", Batch(messages=[Message(("rest",), RunKey("lab", job_id, 1), Kind.START, encoded)]))
    outbox.close()
    pages = path.read_bytes()
    path.write_bytes(pages[:200_000] + b"\7" * 40_000 + pages[240_000:])


def test_damage_is_looked_for_after_an_unclean_end(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    damage(path)
    path.with_name("state.sqlite-wal").touch()
    again = Outbox(str(path))
    assert again.is_rebuilt
    again.close()


def test_damage_that_is_met_later_is_found_by_the_next_start(tmp_path: Path) -> None:
    """After a clean end the file is not read as a whole."""
    path = tmp_path / "state.sqlite"
    damage(path)
    outbox = Outbox(str(path))
    assert not outbox.is_rebuilt
    with pytest.raises(StateError):
        outbox.deliveries.due("rest", FAR, 1000)
    outbox.close()
    again = Outbox(str(path))
    assert again.is_rebuilt
    again.close()


def test_of_the_damaged_files_the_newest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    others = [tmp_path / name for name in ("state.sqlite.damaged-notes", "other.sqlite.damaged-1")]
    for old in [*others, tmp_path / "state.sqlite.damaged-1", tmp_path / "state.sqlite.damaged-2"]:
        old.touch()
    path.write_bytes(b"no database at all " * 100)
    Outbox(str(path)).close()
    (aside,) = tmp_path.glob("state.sqlite.damaged-*[0-9]")
    assert aside.read_bytes().startswith(b"no database")
    assert all(other.exists() for other in others)


def test_a_number_beyond_64_bits_is_an_error_of_the_state(outbox: Outbox) -> None:
    with pytest.raises(StateError):
        outbox.unknown([RunKey("lab", 2**63, 1)])


def test_waiting_for_parked_rows_costs_next_to_nothing(outbox: Outbox) -> None:
    """What is asked at every wake reads no row that cannot be sent: the plan says so."""
    plan = outbox._state.read(f"EXPLAIN QUERY PLAN {queries.NEXT_DUE}", ("rest", 0))
    assert "delivery_next" in str(plan)


def test_a_stop_goes_before_the_start_of_a_later_run_that_was_owed_first(outbox: Outbox) -> None:
    owe(outbox, (FIRST, Kind.START))
    outbox.deliveries.delivered(due(outbox)[0])
    owe(outbox, (SECOND, Kind.START), (FIRST, Kind.STOP))
    assert names(due(outbox)) == [(FIRST, Kind.STOP)]
    outbox.deliveries.delivered(due(outbox)[0])
    assert names(due(outbox)) == [(SECOND, Kind.START)]


# --- sinks that follow another one


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Outbox]:
    """The sink nats follows rest."""
    made = Outbox(str(tmp_path / "pair.sqlite"), {"rest": "", "nats": "rest"})
    yield made
    made.close()


def owe_both(outbox: Outbox, *rows: tuple[RunKey, Kind]) -> None:
    messages = [Message((sink,), key, kind, Encoded(b"{}")) for key, kind in rows for sink in ("rest", "nats")]
    outbox.commit("lab", Batch(messages=messages))


def followers(outbox: Outbox) -> list[tuple[RunKey, Kind]]:
    """What may be sent to nats now."""
    return names(outbox.deliveries.due("nats", FAR, 100))


def test_a_message_follows_the_one_that_was_delivered(pair: Outbox) -> None:
    owe_both(pair, (FIRST, Kind.START), (FIRST, Kind.STOP), (OTHER, Kind.START))
    assert followers(pair) == []
    pair.deliveries.delivered(due(pair)[0])
    assert followers(pair) == [(FIRST, Kind.START)]
    pair.deliveries.delivered(due(pair)[0])
    assert followers(pair) == [(FIRST, Kind.START)]  # its stop has left, but goes after the start here as well
    pair.deliveries.delivered(pair.deliveries.due("nats", FAR, 1)[0])
    assert followers(pair) == [(FIRST, Kind.STOP)]
    pair.deliveries.delivered(pair.deliveries.due("nats", FAR, 1)[0])
    pair.deliveries.delivered(due(pair)[0])
    assert followers(pair) == [(OTHER, Kind.START)]
    pair.deliveries.delivered(pair.deliveries.due("nats", FAR, 1)[0])
    assert pair.counts() == {"delivered": 2}


def test_waits_and_retries_do_not_let_it_go_before(pair: Outbox) -> None:
    owe_both(pair, (FIRST, Kind.START))
    pair.deliveries.parked(due(pair)[0], "refused")
    pair.retry_all()
    pair.deliveries.retry_pending("nats")
    pair.deliveries.shift_times("nats", 1000)
    assert followers(pair) == []
    pair.deliveries.delivered(due(pair)[0])
    assert followers(pair) == [(FIRST, Kind.START)]


def test_what_is_shadowed_is_told_to_nobody(pair: Outbox) -> None:
    owe_both(pair, (FIRST, Kind.START))
    pair.deliveries.conflict(due(pair)[0], "another run is stored")
    owe_both(pair, (FIRST, Kind.STOP))
    assert pair.counts() == {"conflict": 4}
    assert followers(pair) == []


def test_a_clock_that_was_set_moves_only_the_waits_of_one_sink(pair: Outbox) -> None:
    owe_both(pair, (FIRST, Kind.START))
    pair.deliveries.put_off(due(pair)[0], 1000.0, "away")
    pair.deliveries.shift_times("nats", 500)
    assert pair.deliveries.next_due("rest", 0) == 1000.0
    pair.deliveries.shift_times("rest", 500)
    assert pair.deliveries.next_due("rest", 0) == 1500.0


BOTH, REST, NATS = {"cc_rest": "", "cc_nats": "cc_rest"}, {"cc_rest": ""}, {"cc_nats": ""}


def switched(folder: Path, *configurations: dict[str, str], work: Callable[[Outbox], None]) -> Outbox:
    """An outbox with the last of these sinks, after `work` with the first of them."""
    path = str(folder / "switched.sqlite")
    outbox = Outbox(path, configurations[0])
    work(outbox)
    for sinks in configurations[1:]:
        outbox.close()
        outbox = Outbox(path, sinks)
    return outbox


def tell(outbox: Outbox, sink: str, count: int = 1) -> None:
    """So many of the messages that are due are delivered."""
    outbox.deliveries.delivered(*outbox.deliveries.due(sink, FAR, count))


def write_for(*sinks: str) -> Callable[[Outbox], None]:
    """FIRST is told to the first sink and over; OTHER waits."""

    def work(outbox: Outbox) -> None:
        def owe(*rows: tuple[RunKey, Kind]) -> None:
            messages = [Message((sink,), key, kind, Encoded(b"{}")) for key, kind in rows for sink in sinks]
            outbox.commit("lab", Batch(messages=messages))

        owe((FIRST, Kind.START))
        tell(outbox, sinks[0])
        owe((FIRST, Kind.STOP), (OTHER, Kind.START), (OTHER, Kind.STOP))

    return work


ALL_LEFT = [(FIRST, Kind.STOP), (OTHER, Kind.START), (OTHER, Kind.STOP)]


@pytest.mark.parametrize(
    ("before", "after"), [(REST, BOTH), (BOTH, REST), (REST, NATS), (NATS, REST), (NATS, BOTH), (BOTH, NATS)]
)
def test_nothing_is_lost_when_other_sinks_are_configured(
    tmp_path: Path, before: dict[str, str], after: dict[str, str]
) -> None:
    outbox = switched(tmp_path, before, after, work=write_for(*before))
    leading = next(iter(after))
    told = []
    while outbox.deliveries.due(leading, FAR, 1):
        told += names(outbox.deliveries.due(leading, FAR, 1))
        tell(outbox, leading)
    assert set(told) - {(FIRST, Kind.START)} == set(ALL_LEFT)
    assert len(told) == len(set(told))
    while outbox.deliveries.due("cc_nats", FAR, 1):
        tell(outbox, "cc_nats")
    assert outbox.counts() == {}
    outbox.close()


def test_a_sink_that_followed_leaves_nothing_behind_and_gets_nothing_early_when_it_is_back(tmp_path: Path) -> None:
    outbox = switched(tmp_path, BOTH, REST, BOTH, work=write_for(*BOTH))
    assert outbox.deliveries.due("cc_nats", FAR, 100) == []
    assert outbox.counts() == {"delivered": 1, "pending": 3}
    outbox.close()


def test_a_stop_never_goes_before_its_start_whatever_was_configured(tmp_path: Path) -> None:
    path = str(tmp_path / "switched.sqlite")
    for sinks, kinds in ((REST, (Kind.START,)), (BOTH, (Kind.STOP,)), (NATS, ())):
        outbox = Outbox(path, sinks)
        outbox.commit(
            "lab", Batch(messages=[Message((sink,), FIRST, kind, Encoded(b"{}")) for kind in kinds for sink in sinks])
        )
        outbox.close()
    outbox = Outbox(path, NATS)
    told = []
    while outbox.deliveries.due("cc_nats", FAR, 1):
        told += names(outbox.deliveries.due("cc_nats", FAR, 1))
        tell(outbox, "cc_nats")
    assert told == [(FIRST, Kind.START), (FIRST, Kind.STOP)]
    assert outbox.counts() == {}
    outbox.close()


def test_a_start_that_is_owed_again_is_owed_to_the_other_sink(tmp_path: Path) -> None:
    def work(outbox: Outbox) -> None:
        messages = [Message((sink,), FIRST, Kind.START, Encoded(b"{}")) for sink in BOTH]
        run = OpenRun(FIRST, Stage.STARTED, "node01", None)
        outbox.commit("lab", Batch(runs={FIRST: run}, messages=messages))
        tell(outbox, "cc_rest")
        tell(outbox, "cc_nats")
        assert outbox.resend_starts("cc_rest", "lab", lambda key: True, FAR) == [FIRST]

    outbox = switched(tmp_path, BOTH, NATS, work=work)
    assert names(outbox.deliveries.due("cc_nats", FAR, 100)) == [(FIRST, Kind.START)]
    outbox.close()


def test_what_only_nats_is_owed_is_not_told_to_rest_again(tmp_path: Path) -> None:
    """An idle cluster: cc-backend has everything, NATS was away."""

    def work(outbox: Outbox) -> None:
        messages = [Message((sink,), FIRST, kind, Encoded(b"{}")) for kind in (Kind.START, Kind.STOP) for sink in BOTH]
        outbox.commit("lab", Batch(messages=messages))
        tell(outbox, "cc_rest")
        tell(outbox, "cc_rest")

    outbox = switched(tmp_path, BOTH, BOTH, work=work)
    assert outbox.deliveries.due("cc_rest", FAR, 100) == []
    assert outbox.counts() == {"pending": 2}
    outbox.close()
    outbox = Outbox(str(tmp_path / "switched.sqlite"), REST)
    assert outbox.counts() == {}
    outbox.close()


def test_what_was_parked_for_nats_alone_stays_parked_for_both(tmp_path: Path) -> None:
    """Since when and why goes with it: else it would seem to be parked for longer than anything may be."""

    def work(outbox: Outbox) -> None:
        runs = {key: OpenRun(key, Stage.DONE, "", None) for key in (FIRST, OTHER)}
        messages = [
            Message(("cc_nats",), key, kind, Encoded(b"{}")) for key in runs for kind in (Kind.START, Kind.STOP)
        ]
        outbox.commit("lab", Batch(runs=runs, messages=messages))
        for row in outbox.deliveries.due("cc_nats", FAR, 100):
            outbox.deliveries.parked(row, f"too large for {row.key.job_id}")

    outbox = switched(tmp_path, NATS, BOTH, work=work)
    outbox.retry_all()
    tidied = outbox.tidy(30 * 86400)
    assert (tidied.parked, tidied.given_up) == (0, [])
    assert [(each.sink, each.messages) for each in outbox.parked_by_reason()] == [("cc_nats", 2), ("cc_rest", 2)]
    assert len(outbox.deliveries.due("cc_rest", FAR, 100)) == 1  # the probe of their one reason
    outbox.close()


def test_a_row_is_copied_to_another_sink_as_a_whole(outbox: Outbox, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite")) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(delivery)")]
    assert set(rerouting._COLUMNS.split(", ")) == set(columns) - {"id", "sink"}


def test_a_start_that_another_sink_was_told_can_be_told_again(tmp_path: Path) -> None:
    def work(outbox: Outbox) -> None:
        run = OpenRun(FIRST, Stage.STARTED, "node01", None)
        outbox.commit(
            "lab", Batch(runs={FIRST: run}, messages=[Message(("cc_nats",), FIRST, Kind.START, Encoded(b"{}"))])
        )
        tell(outbox, "cc_nats")

    outbox = switched(tmp_path, NATS, REST, work=work)
    assert outbox.resend_starts("cc_rest", "lab", lambda key: True, FAR) == [FIRST]
    outbox.close()


def test_the_same_sinks_write_nothing_at_the_start(tmp_path: Path) -> None:
    outbox = switched(tmp_path, BOTH, work=write_for(*BOTH))
    before = outbox.counts()
    outbox.close()
    path = tmp_path / "switched.sqlite"
    content = path.read_bytes()
    Outbox(str(path), BOTH).close()
    assert path.read_bytes() == content
    again = Outbox(str(path), BOTH)
    assert again.counts() == before
    again.close()


def test_what_nothing_leads_any_more_is_forgotten_with_the_rest(pair: Outbox) -> None:
    owe_both(pair, (FIRST, Kind.START), (OTHER, Kind.START))
    pair.deliveries.conflict(due(pair)[0], "another run is stored")
    pair.tidy(-10)
    assert pair.counts() == {"parked": 1, "following": 1}


# --- another clusterName


def test_open_runs_of_another_cluster_are_told_and_forgotten_when_nobody_watches_them(outbox: Outbox) -> None:
    now = int(time.time())
    for cluster, seen_until in (("lab", now), ("former", now - 1000)):
        key = RunKey(cluster, 1, now)
        message = Message(("rest",), key, Kind.START, Encoded(b"{}"))
        runs = {key: OpenRun(key, Stage.STARTED, "node01", None)}
        outbox.commit(cluster, Batch(runs=runs, messages=[message], checkpoint=seen_until))
    outbox.deliveries.delivered(*due(outbox))
    assert outbox.other_clusters("lab") == {"former": 1}
    outbox.forget_other_clusters("lab", 2000)
    assert outbox.other_clusters("lab") == {"former": 1}
    outbox.forget_other_clusters("lab", 500)
    assert outbox.other_clusters("lab") == {}
    assert [run.key.cluster for run in outbox.open_runs("lab")] == ["lab"]
    assert outbox.counts() == {"delivered": 1}
