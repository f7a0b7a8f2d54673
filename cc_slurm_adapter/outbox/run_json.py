"""Converts a Run to JSON and back, for runs that must survive a restart before their start is pending."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cc_slurm_adapter.model import End, EndState, Missing, Phase, Resource, Run, RunKey, Sharing


def run_to_json(run: Run) -> str:
    """Return a text from which `run_from_json` makes an equal Run, without what is true only for a moment."""
    plain: dict[str, Any] = {**vars(run), "key": list(run.key), "phase": run.phase.value}
    del plain["awaits_layout"]
    plain["end"] = [run.end.end_state.value, run.end.end_time, run.end.raw_state] if run.end else None
    plain["sharing"] = run.sharing.value
    plain["resources"] = [list(vars(each).values()) for each in run.resources]
    plain["missing"] = [missing.value for missing in run.missing]
    return json.dumps(plain)


def run_from_json(text: str) -> Run:
    """Return the Run that `run_to_json` wrote. Raises ValueError, KeyError or TypeError for anything else."""
    plain = json.loads(text)
    end = plain["end"]
    plain["key"] = RunKey(*plain["key"])
    plain["phase"] = Phase(plain["phase"])
    plain["end"] = End(EndState(end[0]), end[1], end[2]) if end else None
    plain["sharing"] = Sharing(plain["sharing"])
    plain["resources"] = tuple(_resource(*each) for each in plain["resources"])
    plain["missing"] = frozenset(Missing(each) for each in plain["missing"])
    return Run(**plain)


def _resource(  # noqa: PLR0913 - the fields of a Resource in their order
    hostname: str, cores: list[int], gpus: list[int], node_cores: int, threads: int, other_gres: Sequence[str] = ()
) -> Resource:
    """Return a Resource. An older version wrote it without `other_gres`."""
    return Resource(hostname, tuple(cores), tuple(gpus), node_cores, threads, tuple(other_gres))
