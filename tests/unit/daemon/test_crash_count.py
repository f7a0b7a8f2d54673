"""Starts after ends that came soon wait ever longer, and a stop or a good life ends that."""

from __future__ import annotations

from pathlib import Path

import pytest

from cc_slurm_adapter.daemon.crash_count import CrashCount


def start(folder: Path) -> CrashCount:
    count = CrashCount(str(folder / "state.sqlite"))
    count.begin()
    return count


def test_waits_grow_and_are_bounded(tmp_path: Path) -> None:
    waits = [start(tmp_path).wait for _ in range(16)]
    assert waits == [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_a_stop_or_a_good_life_forgets_all(tmp_path: Path) -> None:
    for _ in range(8):
        last = start(tmp_path)
    last.clear()
    last.clear()
    assert start(tmp_path).before == 0


def test_a_crash_after_a_good_life_is_the_first_again(tmp_path: Path) -> None:
    start(tmp_path).clear()
    start(tmp_path)
    assert start(tmp_path).before == 1


@pytest.mark.parametrize("content", [b"", b"\0\0", b"9" * 5000], ids=["empty", "power cut", "huge"])
def test_a_damaged_file_is_no_reason_not_to_start(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.sqlite.crashes").write_bytes(content)
    assert 0 <= start(tmp_path).wait <= 300
    assert start(tmp_path).before >= 1


@pytest.mark.parametrize("content", [b"notes on crashes\n", b"\xff\0", b"-5"], ids=["words", "bytes", "negative"])
def test_a_file_of_somebody_else_s_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.sqlite.crashes"
    path.write_bytes(content)
    start(tmp_path).clear()
    assert start(tmp_path).before == 0
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_had_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite.crashes").mkdir()
    assert [start(tmp_path).wait for _ in range(10)] == [0] * 10


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("of somebody else")
    (tmp_path / "state.sqlite.crashes").symlink_to(tmp_path / "precious")
    start(tmp_path).clear()
    assert (tmp_path / "precious").read_text() == "of somebody else"
