"""slurmInfo of very many jobs from one `scontrol show job`: a question for each would keep slurmctld busy for long.

Users write much of a job's text, and some may imitate other jobs in it. So the answer counts for a job only when
its id begins a line there once, and when slurmctld knew the job before the question and after it: then that line is
the job's own. What is left out is asked for by itself.
"""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
from collections.abc import Collection
from typing import IO

from cc_slurm_adapter.slurm.answers import failure
from cc_slurm_adapter.slurm.commands import Commands

log = logging.getLogger(__name__)

COMMAND = ["scontrol", "--all", "show", "job"]
_FIRST_LINE = re.compile(rb"\nJobId=([0-9]{1,10}) ")
_LONGEST = len(b"\nJobId=4294967295 ")


class JobInfos:
    """The texts, in a file without a name; close it."""

    def __init__(self, file: IO[bytes], places: dict[int, tuple[int, int]]) -> None:
        self._file = file
        self._places = places
        """Where the text of a job begins and ends."""

    def get(self, job_id: int) -> str | None:
        """The text of a job that slurmctld still knows; None when it must be asked for."""
        place = self._places.get(job_id)
        if place is None:
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
        self._file.write(piece)
        self._written += len(piece)
        self._tail = text[1 - _LONGEST :]

    def finish(self) -> None:
        """No more will come."""
        self._end(self._written)
        self._file.flush()

    def _end(self, at: int) -> None:
        if self._job_id in self._seen:
            self.places.pop(self._job_id, None)  # one of the two is imitated, and nobody can tell which
        elif self._job_id in self._wanted:
            self.places[self._job_id] = (self._begin, at)
            self._seen.add(self._job_id)


def read_job_infos(commands: Commands, folder: str, job_ids: Collection[int]) -> JobInfos | None:
    """The texts of these jobs, which slurmctld has listed just now; None when there is no room. Raises SlurmError.

    The file lies in `folder`, the state folder.
    """
    with contextlib.ExitStack() as undo:
        try:
            file = undo.enter_context(tempfile.TemporaryFile(dir=folder))
            writer = _Writer(file, job_ids)
            with commands.begin(COMMAND) as command:
                answer = command.hand_on(writer.feed)
            writer.finish()
        except OSError as error:
            log.info("slurmInfo is asked for job by job: no room in %s: %s", folder, error.strerror)
            return None
        if answer.exit_code != 0:
            raise failure(COMMAND, answer)
        undo.pop_all()
        return JobInfos(file, writer.places)
