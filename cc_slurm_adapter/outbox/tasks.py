"""What a sender's connection is given to do."""

from __future__ import annotations

from typing import NamedTuple, Union

from cc_slurm_adapter.model import NodeState
from cc_slurm_adapter.sinks.base import Delivery


class NodeStates(NamedTuple):
    """The states of all nodes after a poll; only the newest are worth sending."""

    cluster: str
    nodes: list[NodeState]


class Rows(NamedTuple):
    """Some that are sent together."""

    deliveries: list[Delivery]


Task = Union[Rows, NodeStates]


class Request(NamedTuple):
    """What a connection is busy with, since a time.monotonic()."""

    task: Task
    began: float
    successes: int
    """How many answers had been good by then."""
