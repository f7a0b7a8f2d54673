"""What the configuration says of hosts, held against the nodes that Slurm lists.

Whether a pattern is right shows only when the nodes are known. Each thing is said once.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Sequence

from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.config.hostnames import shortened
from cc_slurm_adapter.model import NodeState, Numbering
from cc_slurm_adapter.sinks.hwthreads import fits, numbering_of
from cc_slurm_adapter.slurm.parse.gres import GPU

log = logging.getLogger(__name__)

_GRES = re.compile(r"(?:\A|, )[0-9]+ ([^\s:,]+)")
"""The names in `4 gpu:h100, 2 npu`."""


class HostChecks:
    """Warns of patterns that match no node, GRES that no node has, and lists of CPUs that do not fit their nodes."""

    def __init__(self, config: Config) -> None:
        self._patterns = _patterns(config)
        self._accelerators = config.accelerator_gres
        self._numberings = config.hwthread_numbering
        self._has_lists = any(not isinstance(numbering, Numbering) for _, numbering in self._numberings)
        self._patterns_checked = False
        self._fitted: dict[str, int] = {}
        """The CPUs with which each node was held against its list."""

    def check(self, nodes: Sequence[NodeState]) -> None:
        """All nodes of a poll. Patterns are looked at once, as soon as there are nodes; lists for each new node."""
        if nodes and not self._patterns_checked:
            self._patterns_checked = True
            self._check_patterns([node.hostname for node in nodes])
            if self._accelerators != GPU:
                self._check_accelerators(nodes)
        if self._has_lists:
            self._check_lists([node for node in nodes if node.cpus not in (0, self._fitted.get(node.hostname))])

    def _check_patterns(self, names: Sequence[str]) -> None:
        for key, patterns in self._patterns.items():
            unused = [regex.pattern for regex in patterns if not any(map(regex.search, names))]
            if unused:
                listed = ", ".join(map(repr, unused))
                log.warning("%s: %s matches none of Slurm's %d nodes: correct or remove it", key, listed, len(names))

    def _check_accelerators(self, nodes: Sequence[NodeState]) -> None:
        found = set(_GRES.findall(", ".join({node.gpu_types for node in nodes})))
        unused = [name for name in self._accelerators if name not in found]
        if unused:
            log.warning(
                "acceleratorGres: %s is a GRES of none of Slurm's %d nodes: correct or remove it. Devices of a GRES"
                " that is not named there are not reported; `sinfo -o %%G` prints what there is",
                ", ".join(map(repr, unused)),
                len(nodes),
            )

    def _check_lists(self, nodes: Sequence[NodeState]) -> None:
        unfit: dict[tuple[int, int], list[str]] = defaultdict(list)
        for node in nodes:
            self._fitted[node.hostname] = node.cpus
            numbering = numbering_of(node.hostname, self._numberings)
            if not fits(numbering, node.cpus) and not isinstance(numbering, Numbering):
                unfit[len(numbering), node.cpus].append(node.hostname)
        for (listed, cpus), names in unfit.items():
            log.warning(
                "hwthreadNumbering lists %d CPUs for nodes that have %d in Slurm: the hardware threads of %s are left"
                " out. Run cc-slurm-adapter -topology there for the right list, then restart",
                listed,
                cpus,
                shortened(names),
            )


def _patterns(config: Config) -> dict[str, list[re.Pattern[str]]]:
    """The patterns on host names of each key."""
    return {
        "gpuPciAddrs": [regex for regex, _ in config.gpu_pci_addrs],
        "hwthreadNumbering": [regex for regex, _ in config.hwthread_numbering],
        "hostnameRewrite": [regex for regex, _ in config.hostname_rewrite],
        "ignoreHosts": [config.ignore_hosts] if config.ignore_hosts else [],
    }
