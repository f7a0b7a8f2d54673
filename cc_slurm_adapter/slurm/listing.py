"""squeue's short listing: which jobs there are and how they stand, from columns that no user controls.

A poll reads a line for each running job, so each line costs little.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import lru_cache

from cc_slurm_adapter.job import EndState, Phase, Sighting
from cc_slurm_adapter.slurm.json_values import read_digits, read_job_id
from cc_slurm_adapter.slurm.states import LISTED, is_known, read_states

log = logging.getLogger(__name__)

LISTING = ["squeue", "-h", "-a", "-t", LISTED, "-o", "%A|%T|%S|%e"]
"""To be run under SLURM_TIME_FORMAT=%s."""


def parse_listing(text: str) -> Iterator[Sighting]:
    """Sightings from the output of LISTING. A line that does not fit is logged."""
    for line in text.splitlines():
        columns = line.split("|")
        job_id = read_job_id(columns[0])
        if len(columns) != 4 or job_id is None:
            log.error("a line of squeue cannot be understood and is left out: %r", line[:100])
            continue
        _, state, start, end = columns
        phase, end_state = _read_state(state)
        end_time = read_digits(end) if phase is Phase.ENDED else None
        yield Sighting(job_id, phase, read_digits(start), end_time, end_state, state)


@lru_cache(maxsize=100)
def _read_state(word: str) -> tuple[Phase, EndState | None]:
    """A word that is new here may stand for a job that runs: its details tell."""
    return read_states([word]) if is_known(word) else (Phase.ENDED, None)
