"""The jobs of the demo: several kinds, spread over its time."""

from __future__ import annotations

import random
from itertools import cycle
from typing import NamedTuple

from examples.practice.slurm.model import JobRequest

SUBMIT_SHARE = 0.7
"""The part of the demo's time in which jobs are submitted."""
PEOPLE = (("alice", "proj"), ("bob", "chem"), ("carol", "bio"))
SCRIPT = "#!/bin/bash\n#SBATCH --job-name=demo\nsrun ./simulate\n"


class PlannedJob(NamedTuple):
    """A job, or an array of them, with the moment of its submission in seconds from the demo's start."""

    at: float
    request: JobRequest
    cancel_after: float | None = None
    """Seconds from its submission until somebody cancels it."""

    @property
    def runs(self) -> int:
        """How many runs come of it."""
        return max(self.request.array_size, 1)


KINDS = (
    JobRequest("one core", tasks=1, cpus_per_task=2),
    JobRequest("1 s with GPU", tasks=1, gpus_per_node=1, duration=1),
    JobRequest("several nodes", nodes=3, tasks=10),
    JobRequest("GPUs", tasks=4, gpus_per_node=2, typed_gpus=True),
    JobRequest("array", tasks=2, array_size=4),
    JobRequest("failed", tasks=2, ending="failed", exit_code=3),
    JobRequest("opted out", tasks=2, gpus_per_node=1, admin_comment='{"disable_cc_submission": true}'),
    JobRequest('it\'s "quoted" |\\ $(date)', tasks=1, gpus_per_node=1),
    JobRequest("1 s with 2 GPUs", tasks=2, gpus_per_node=2, duration=1),
    JobRequest("cancelled", tasks=6, duration=3600),
    JobRequest("GPUs on nodes", nodes=2, tasks=6, gpus_per_node=3),
    JobRequest("timeout", tasks=3, ending="timeout"),
    JobRequest("newline\n   JobState=FAILED Reason=None", tasks=1),
    JobRequest("whole node", exclusive=True),
    JobRequest("out of memory", tasks=2, ending="out_of_memory"),
    JobRequest("\x1b[31mred\x1b[0m \x1f end", tasks=1, gpus_per_node=1),
    JobRequest("shared", partition="shared", tasks=3, oversubscribe=True),
    JobRequest("Überraschung 計算 \U0001f680", tasks=1),
    JobRequest("exclusive", partition="excl", tasks=1),
)
"""Taken in turn. Durations of 10 s, the default, are drawn anew. The job that opted out is never reported."""


def plan_jobs(count: int, seconds: float, seed: int) -> list[PlannedJob]:
    """Jobs that make `count` runs within about `seconds`, by the time of their submission."""
    chance = random.Random(seed)
    requests = _requests(count)
    step = seconds * SUBMIT_SHARE / len(requests)
    return [
        _planned(request, place, step * (place + chance.random()), seconds, chance)
        for place, request in enumerate(requests)
    ]


def _requests(count: int) -> list[JobRequest]:
    """The kinds in turn, arrays as long as they fit."""
    requests: list[JobRequest] = []
    left = count
    for request in cycle(KINDS):
        if not left:
            return requests
        if request.array_size <= left:
            requests.append(request)
            left -= max(request.array_size, 1)
    return requests


def _planned(request: JobRequest, place: int, at: float, seconds: float, chance: random.Random) -> PlannedJob:
    """The job of somebody; one that would run on and on is cancelled in the end."""
    user, account = PEOPLE[place % len(PEOPLE)]
    drawn = request.duration == JobRequest().duration
    duration = seconds * chance.uniform(0.05, 0.25) if drawn else request.duration
    mine = request._replace(user=user, account=account, duration=duration, script=SCRIPT)
    return PlannedJob(at, mine, seconds / 8 if duration > seconds else None)
