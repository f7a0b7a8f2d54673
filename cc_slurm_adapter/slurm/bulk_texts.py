"""The slurmInfo of very many jobs from one `scontrol show job`.

A query for each job would keep slurmctld busy for a long time.

Users write much of a job's text, and some may imitate other jobs in it. So the output counts for a job only if exactly
one line in it begins with the job's id, and if slurmctld knew the job both before and after the query. Then that line
is the job's own. Jobs that are left out are queried one by one. If this query fails, all jobs are.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import re
import tempfile
from collections.abc import Callable, Collection
from typing import IO

from cc_slurm_adapter.errors import CommandCancelled, SlurmError, UnexpectedOutput
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.output import failure

log = logging.getLogger(__name__)

COMMAND = ["scontrol", "--all", "show", "job"]
MAX_BYTES = 64 * 1024 * 1024
"""Most bytes of the output that are kept. Pending jobs, of which there may be very many, are in the output, too."""
_FIRST_LINE = re.compile(rb"\nJobId=([0-9]{1,10}) ")
_LONGEST = len(b"\nJobId=4294967295 ")


class BulkTexts:
    """The texts, in a file without a name or in memory. It must be closed."""

    def __init__(self, file: IO[bytes], places: dict[int, tuple[int, int]], keys: Collection[RunKey]) -> None:
        self._file = file
        self._places = places
        """Where the text of each job begins and ends."""
        self._keys = frozenset(keys)

    def get(self, key: RunKey) -> str | None:
        """Return the text of a run; None if it must be queried by itself, like that of a later run of the job."""
        place = self._places.get(key.job_id)
        if place is None or key not in self._keys:
            return None
        self._file.seek(place[0])
        return self._file.read(place[1] - place[0]).decode("utf-8", errors="replace").rstrip()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Writer:
    """Writes the output to the file, piece by piece, and records where each wanted job begins and ends."""

    def __init__(self, file: IO[bytes], wanted: Collection[int]) -> None:
        self._file = file
        self._wanted = wanted
        self.places: dict[int, tuple[int, int]] = {}
        self._seen: set[int] = set()
        self._job_id = 0
        self._begin = 0
        self._written = 0
        self._tail = b"\n"  # so that the first line of all is found

    def feed(self, piece: bytes) -> None:
        """Write the next piece. Raises UnexpectedOutput and OSError."""
        text = self._tail + piece
        offset = self._written - len(self._tail)
        for match in _FIRST_LINE.finditer(text):
            if match.end() > len(self._tail):
                self._end(offset + match.start())
                self._job_id, self._begin = int(match.group(1)), offset + match.start() + 1
        if self._written + len(piece) > MAX_BYTES:
            raise UnexpectedOutput(" ".join(COMMAND), f"it has more than {MAX_BYTES} bytes")
        if self._file.write(piece) != len(piece):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._written += len(piece)
        self._tail = text[1 - _LONGEST :]

    def finish(self) -> None:
        """Record that the output is complete."""
        self._end(self._written)

    def _end(self, at: int) -> None:
        if self._job_id in self._seen:
            self.places.pop(self._job_id, None)  # one of the two is imitated, and nobody can tell which
        elif self._job_id in self._wanted:
            self.places[self._job_id] = (self._begin, at)
            self._seen.add(self._job_id)


def read_job_infos(
    commands: Commands, folder: str, keys: Collection[RunKey], failed: Callable[[Exception], None] = lambda error: None
) -> BulkTexts | None:
    """Read the texts of these runs, which slurmctld has just listed, in one query. Return None if that fails.

    The file is made in `folder`, the state folder; if that is '', the texts are kept in memory. `failed` is called with
    what goes wrong.
    """
    with contextlib.ExitStack() as undo:
        try:
            file = undo.enter_context(_open(folder))
            writer = _Writer(file, {key.job_id for key in keys})
            _read_all(commands, writer)
        except CommandCancelled:
            raise
        except (OSError, SlurmError) as error:
            failed(error)
            return None
        undo.pop_all()
        return BulkTexts(file, writer.places, keys)


def _open(folder: str) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=folder, buffering=0) if folder else io.BytesIO()


def _read_all(commands: Commands, writer: _Writer) -> None:
    with commands.begin(COMMAND) as command:
        finished = command.drain(writer.feed)
    if finished.exit_code != 0:
        raise failure(COMMAND, finished)
    writer.finish()
