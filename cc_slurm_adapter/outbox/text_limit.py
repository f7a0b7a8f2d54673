"""Decides which texts of starts are stored: those for which there is room, since a start can be sent without them."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from cc_slurm_adapter.log import NOTICE, Reminder, Repeated
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.outbox import stored_messages
from cc_slurm_adapter.outbox.database import StateDatabase
from cc_slurm_adapter.sinks.base import Text

log = logging.getLogger(__name__)

BYTES_IN_MEMORY = 16 * 1024 * 1024
"""Texts are left out if the state has more bytes than this while it is kept in memory."""


class NewStart(NamedTuple):
    """A start that was just stored, without its texts."""

    message: int
    key: RunKey
    texts: Sequence[Text]


class TextLimit:
    """Keeps the state file below `max_bytes`, as far as that depends on texts."""

    def __init__(self, state: StateDatabase, max_bytes: int) -> None:
        self._state = state
        self._max_bytes = max_bytes
        self._starts_without_texts = 0
        self._leaving_out, self._dropping = Reminder(), Repeated()

    def store(self, database: sqlite3.Connection, starts: Sequence[NewStart]) -> None:
        """Store the texts for which there is room: the first text of every start, then the second text of every start.

        Texts of the same size fill the pages of the file better.
        """
        room = self._room(database) if starts else 0
        left_out = {}
        for place in range(max((len(start.texts) for start in starts), default=0)):
            for start in starts:
                if place < len(start.texts):
                    if room <= 0:
                        left_out[start.message] = start.key
                    else:
                        room -= stored_messages.keep_text(database, start.message, start.texts[place])
        for key in left_out.values():
            self._leave_out(key)
        if starts and not left_out and self._leaving_out.over():
            log.log(NOTICE, "starts are stored with job script and slurmInfo again%s", self._leaving_out.note)

    def has_room(self, database: sqlite3.Connection, size: int) -> bool:
        """Return whether so many bytes may be added, texts included."""
        return self._most - used_bytes(database) > size

    @property
    def _most(self) -> int:
        return self._max_bytes if self._state.is_durable else min(self._max_bytes, BYTES_IN_MEMORY)

    def _room(self, database: sqlite3.Connection) -> int:
        """Return how many bytes of texts may be added. If there are far too many already, forget the oldest texts."""
        most = self._most
        room = most - used_bytes(database)
        if room < -most // 8:
            dropped = stored_messages.drop_oldest_texts(database, -room)
            if dropped and self._dropping.is_due():
                text = "above stateMaxBytes: %d texts of starts that wait are dropped%s"
                log.warning(text, dropped, self._dropping.note)
        return room

    def _leave_out(self, key: RunKey) -> None:
        self._starts_without_texts += 1
        if self._leaving_out.is_due():
            log.warning(
                "the state file has stateMaxBytes (%d MB): starts are stored without job script and slurmInfo, %d until"
                " now, the last of %s; see what keeps messages from being delivered%s",
                self._max_bytes >> 20,
                self._starts_without_texts,
                key,
                self._leaving_out.note,
            )


def used_bytes(database: sqlite3.Connection) -> int:
    """Return the bytes of the state, without free pages."""
    names = ("page_count", "freelist_count", "page_size")
    pages, free, size = (database.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return int((pages - free) * size)
