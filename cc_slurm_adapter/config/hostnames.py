"""The name under which a node is reported: Slurm's NodeName, or what hostnameRewrite makes of it.

cc-backend gets the metrics of a host under the name that the host has for itself. If that is not its NodeName, jobs
would be shown without metrics.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from cc_slurm_adapter.model import Finding

HostnameRewrites = tuple[tuple["re.Pattern[str]", str], ...]
"""Pairs of a regular expression and its replacement. The first expression that is found in a NodeName counts."""

_HOSTNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}\Z")


class HostNames:
    """The names of the nodes. Several threads may call `learn` and `sent`."""

    def __init__(self, rewrites: HostnameRewrites, report: Callable[[Finding], None]) -> None:
        """Store the patterns. `report` is called with what is wrong with them, in the thread that finds it."""
        self._rewrites = rewrites
        self._report = report
        self._sent: dict[str, str] = {}
        """The reported names by NodeName, for all nodes of the last poll. It is replaced as a whole."""
        self._others: dict[str, str] = {}
        """NodeNames by their reported names, for nodes that no poll had listed when they were reported."""
        self._reported: set[tuple[str, ...]] = set()
        """The nodes that the log has named: one alone for an unusable name, several together for the same name."""

    def learn(self, nodes: Iterable[str]) -> None:
        """Learn all nodes that Slurm lists. Nodes that would get the same name keep Slurm's, and that is reported."""
        if not self._rewrites:
            return
        names = set(nodes)
        if names == self._sent.keys():
            return
        sent = self._usable({node: self._rewritten(node) for node in names})
        while clashing := [group for group in _by_name(sent).values() if len(group) > 1]:
            for group in clashing:
                self._report_clash(group, sent[group[0]])
                sent.update((node, node) for node in group)
        self._sent = sent

    def sent(self, node: str) -> str:
        """Return the name under which a node is reported.

        A node that Slurm has not listed never gets the name of another.
        """
        if not self._rewrites:
            return node
        known = self._sent
        if node in known:
            return known[node]
        name = self._usable({node: self._rewritten(node)})[node]
        is_of_another = name in known.values() or self._others.setdefault(name, node) != node
        return node if is_of_another else name

    def _rewritten(self, node: str) -> str:
        for regex, replacement in self._rewrites:
            if regex.search(node):
                return regex.sub(replacement, node)
        return node

    def _usable(self, made: Mapping[str, str]) -> dict[str, str]:
        """Return the new names by NodeName, with Slurm's name if the new one is not a host name."""
        unusable = sorted(node for node, name in made.items() if name != node and not _HOSTNAME.match(name))
        new = [node for node in unusable if (node,) not in self._reported]
        self._reported.update((node,) for node in new)
        if new:
            others = f", nor are those of {shortened(new[1:])}" if new[1:] else ""
            self._report_error(
                f"hostnameRewrite makes {repr(made[new[0]])[:100]} of the node {new[0]}, which is not a host"
                f" name{others}: Slurm's name is sent",
                "Correct the pattern or the replacement, then reload",
            )
        return {**made, **{node: node for node in unusable}}

    def _report_clash(self, nodes: list[str], name: str) -> None:
        if tuple(nodes) not in self._reported:
            self._reported.add(tuple(nodes))
            self._report_error(
                f"hostnameRewrite gives one name, {name}, to {shortened(nodes)}: they are sent as Slurm calls them",
                "Correct the patterns, then reload",
            )

    def _report_error(self, text: str, next_step: str) -> None:
        self._report(Finding(logging.ERROR, "hostnameRewrite", text, next_step))


def shortened(names: Iterable[str]) -> str:
    """Return names for a log line: at most ten, and how many more there are."""
    listed = sorted(names)
    more = f" and {len(listed) - 10} more" if len(listed) > 10 else ""
    return ", ".join(listed[:10]) + more


def _by_name(sent: dict[str, str]) -> dict[str, list[str]]:
    nodes: dict[str, list[str]] = defaultdict(list)
    for node, name in sorted(sent.items()):
        nodes[name].append(node)
    return nodes
