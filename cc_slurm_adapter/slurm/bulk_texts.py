"""slurmInfo of very many jobs from one `scontrol show job`: a question for each would keep slurmctld busy for long.

Users write much of a job's text, and some may imitate other jobs in it. So the answer counts for a job only when
its id begins a line there once, and when slurmctld knew the job before the question and after it: then that line is
the job's own. What is left out is asked for by itself, and so is everything when this question fails.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import tempfile
from collections.abc import Collection
from typing import IO

from cc_slurm_adapter.errors import CommandCancelled, SlurmError, UnexpectedOutput
from cc_slurm_adapter.model import RunKey
from cc_slurm_adapter.slurm.commands import Commands
from cc_slurm_adapter.slurm.output import failure

log = logging.getLogger(__name__)

COMMAND = ["scontrol", "--all", "show", "job"]
MAX_BYTES = 64 * 1024 * 1024
"""More than that is not kept: waiting jobs, which may be very many, are in the answer as well."""
_FIRST_LINE = re.compile(rb"\nJobId=([0-9]{1,10}) ")
_LONGEST = len(b"\nJobId=4294967295 ")


class BulkTexts:
    """The texts, in a file without a name; close it."""

    def __init__(self, file: IO[bytes], places: dict[int, tuple[int, int]], keys: Collection[RunKey]) -> None:
        self._file = file
        self._places = places
        """Where the text of a job begins and ends."""
        self._keys = frozenset(keys)

    def get(self, key: RunKey) -> str | None:
        """The text of a run that slurmctld still knows; None when it must be asked for, as for a later run of a job."""
        place = self._places.get(key.job_id)
        if place is None or key not in self._keys:
            return None
        self._file.seek(place[0])
        return self._file.read(place[1] - place[0]).decode("utf-8", errors="replace").rstrip()

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


class _Writer:
    """Takes the output in pieces."""

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
        """The next piece."""
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
        """No more will come."""
        self._end(self._written)

    def _end(self, at: int) -> None:
        if self._job_id in self._seen:
            self.places.pop(self._job_id, None)  # one of the two is imitated, and nobody can tell which
        elif self._job_id in self._wanted:
            self.places[self._job_id] = (self._begin, at)
            self._seen.add(self._job_id)


def read_job_infos(commands: Commands, folder: str, keys: Collection[RunKey]) -> BulkTexts | None:
    """The texts of these runs, which slurmctld has listed just now; None when they cannot be had at once.

    The file lies in `folder`, the state folder.
    """
    with contextlib.ExitStack() as undo:
        try:
            file = undo.enter_context(tempfile.TemporaryFile(dir=folder, buffering=0))
            writer = _Writer(file, {key.job_id for key in keys})
            _ask(commands, writer)
        except CommandCancelled:
            raise
        except (OSError, SlurmError) as error:
            log.warning("slurmInfo is asked for job by job, which takes longer: %s", error)
            return None
        undo.pop_all()
        return BulkTexts(file, writer.places, keys)


def _ask(commands: Commands, writer: _Writer) -> None:
    with commands.begin(COMMAND) as command:
        answer = command.hand_on(writer.feed)
    if answer.exit_code != 0:
        raise failure(COMMAND, answer)
    writer.finish()
