"""The tasks that a sender gives to its connections."""

from __future__ import annotations

from typing import NamedTuple, Union

from cc_slurm_adapter.model import NodeState
from cc_slurm_adapter.sinks.base import Delivery


class NodeStates(NamedTuple):
    """The states of all nodes after a poll; only the newest are worth sending."""

    cluster: str
    nodes: list[NodeState]


class Rows(NamedTuple):
    """Deliveries that are sent together."""

    deliveries: list[Delivery]


Task = Union[Rows, NodeStates]


class Request(NamedTuple):
    """The task that a connection is busy with. `began` is a time.monotonic()."""

    task: Task
    began: float
    successes: int
    """How many successes there had been by then."""
