"""Compares what the configuration and cc-backend say about hosts with the nodes that Slurm lists.

Only when the nodes are known does it show whether a pattern is right, and whether cc-backend has all hosts. Each
problem is reported once.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence

from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.config.hostnames import shortened
from cc_slurm_adapter.daemon.checks.cluster_hosts import SUBJECT
from cc_slurm_adapter.daemon.checks.cluster_topology import compare_topology, find_refused
from cc_slurm_adapter.log import log_findings
from cc_slurm_adapter.model import Finding, NodeState, Numbering
from cc_slurm_adapter.sinks.clusters import Cluster, ClusterList
from cc_slurm_adapter.sinks.hwthreads import fits, numbering_of
from cc_slurm_adapter.slurm.parse.gres import GPU

_GRES = re.compile(r"(?:\A|, )[0-9]+ ([^\s:,]+)")
"""The names in `4 gpu:h100, 2 npu`."""

Forget = Callable[[Collection[str]], None]
"""Called with subjects of which what was found before does not count any more."""


class HostChecks:
    """Finds patterns and GRES of no node, lists of CPUs that do not fit, and nodes that cc-backend does not have."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.cluster = ""
        """The name under which jobs are reported."""
        self.clusters = ClusterList(())
        """What cc-backend knows, as far as it was asked. Another thread replaces it as a whole."""
        self._compared: ClusterList | None = None
        """Those that were compared last."""
        self._patterns = _patterns(config)
        self._accelerators = config.accelerator_gres
        self._numberings = config.hwthread_numbering
        self._has_lists = any(not isinstance(numbering, Numbering) for _, numbering in self._numberings)
        self._patterns_checked = False
        self._fitted: dict[str, int] = {}
        """How many CPUs each node had when it was compared with its list."""

    def check(self, nodes: Sequence[NodeState], forget: Forget = lambda subjects: None) -> list[Finding]:
        """Compare all nodes of a poll.

        `forget` is called with the subjects of which what was found before does not count any more.

        Patterns are checked once, as soon as there are nodes. cc-backend's clusters are compared once for each time
        that it was asked for them, and what costs no job is only logged. A list of CPUs is checked for each new node.
        """
        found: list[Finding] = []
        if nodes and not self._patterns_checked:
            self._patterns_checked = True
            found += self._unused_patterns([node.hostname for node in nodes])
            if self._accelerators != GPU:
                found += self._unused_accelerators(nodes)
        clusters = self.clusters
        cluster = clusters.get(self.cluster)
        if nodes and cluster is not None and clusters is not self._compared:
            self._compared = clusters
            forget([SUBJECT])
            found += self._refused(cluster, nodes)
        if self._has_lists:
            changed = [node for node in nodes if node.cpus not in (0, self._fitted.get(node.hostname))]
            found += self._unfit_lists(changed)
        return found

    def _refused(self, cluster: Cluster, nodes: Sequence[NodeState]) -> list[Finding]:
        """Return what costs jobs, and log what else does not fit the cluster as cc-backend describes it."""
        refused = find_refused(self._config, cluster, nodes)
        others = [each for each in compare_topology(self._config, cluster, nodes) if each not in refused]
        log_findings(*(each for each in others if each.level > logging.INFO))  # no fault: they cost no job
        return refused

    def _unused_patterns(self, names: Sequence[str]) -> Iterator[Finding]:
        for key, patterns in self._patterns.items():
            unused = [regex.pattern for regex in patterns if not any(map(regex.search, names))]
            if unused:
                listed = ", ".join(map(repr, unused))
                text = f"{key}: {listed} matches none of Slurm's {len(names)} nodes"
                yield Finding(logging.WARNING, key, text, "correct or remove it, then reload")

    def _unused_accelerators(self, nodes: Sequence[NodeState]) -> Iterator[Finding]:
        found = set(_GRES.findall(", ".join({node.gpu_types for node in nodes})))
        unused = [name for name in self._accelerators if name not in found]
        if unused:
            yield Finding(
                logging.WARNING,
                "acceleratorGres",
                f"acceleratorGres: {', '.join(map(repr, unused))} is a GRES of none of Slurm's {len(nodes)} nodes",
                "correct or remove it, then restart. Devices of a GRES that is not named there are not reported; `sinfo"
                " -o %G` prints what there is",
            )

    def _unfit_lists(self, nodes: Sequence[NodeState]) -> Iterator[Finding]:
        unfit: dict[tuple[int, int], list[str]] = defaultdict(list)
        for node in nodes:
            self._fitted[node.hostname] = node.cpus
            numbering = numbering_of(node.hostname, self._numberings)
            if not fits(numbering, node.cpus) and not isinstance(numbering, Numbering):
                unfit[len(numbering), node.cpus].append(node.hostname)
        for (listed, cpus), names in unfit.items():
            yield Finding(
                logging.WARNING,
                "hwthreadNumbering",
                f"hwthreadNumbering lists {listed} CPUs for nodes that have {cpus} in Slurm: the hardware threads of"
                f" {shortened(names)} are left out",
                "Run cc-slurm-adapter -topology there for the right list, then reload",
            )


def _patterns(config: Config) -> dict[str, list[re.Pattern[str]]]:
    """Return the patterns on host names of each key."""
    return {
        "gpuPciAddrs": [regex for regex, _ in config.gpu_pci_addrs],
        "hwthreadNumbering": [regex for regex, _ in config.hwthread_numbering],
        "hostnameRewrite": [regex for regex, _ in config.hostname_rewrite],
        "ignoreHosts": [config.ignore_hosts] if config.ignore_hosts else [],
    }
