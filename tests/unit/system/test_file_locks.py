"""Who has locked a file, found out without touching the lock."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from cc_slurm_adapter.system.file_locks import holder_of_lock


def test_the_holder_is_named_while_it_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as file:
        assert holder_of_lock(str(path)) == 0
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert holder_of_lock(str(path)) == os.getpid()
        fcntl.flock(file, fcntl.LOCK_UN)
        assert holder_of_lock(str(path)) == 0


def test_other_locks_and_what_waits_for_one_are_not_taken_for_it(tmp_path: Path) -> None:
    path, locks = tmp_path / "lock", tmp_path / "locks"
    path.touch()
    inode = path.stat().st_ino
    other = [
        f"1: POSIX  ADVISORY  WRITE 1 00:19:{inode} 0 EOF",
        f"2: -> FLOCK  ADVISORY  WRITE 2 00:19:{inode} 0 EOF",
        f"3: FLOCK  ADVISORY  WRITE 3 00:19:1{inode} 0 EOF",
        "",
        "something else",
    ]
    locks.write_text("\n".join(other))
    assert holder_of_lock(str(path), str(locks)) == 0
    locks.write_text("\n".join([*other, f"4: FLOCK  ADVISORY  WRITE 4711 00:19:{inode} 0 EOF"]))
    assert holder_of_lock(str(path), str(locks)) == 4711
    assert holder_of_lock(str(path), str(tmp_path / "missing")) == 0
    assert holder_of_lock(str(tmp_path / "missing"), str(locks)) == 0
