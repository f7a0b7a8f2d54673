"""What the configuration says about hosts: their names, GPUs and hardware threads, and the messages that have these.

A reload that changes one of these keys makes a new `Hosts`, so that no part goes on with an older value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cc_slurm_adapter.config.config import Config
from cc_slurm_adapter.config.hostnames import HostNames
from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.host_checks import Forget, HostChecks
from cc_slurm_adapter.model import Finding, NodeState
from cc_slurm_adapter.sinks.gpu_addresses import MissingAddresses, count_cards
from cc_slurm_adapter.sinks.messages import CcMessages


class Hosts:
    """Makes the messages of one configuration, and compares it with the nodes of the cluster."""

    def __init__(self, config: Config, counters: Counters, report: Callable[..., None]) -> None:
        """`report` is called with what is found about names."""
        self._config = config
        self._names = HostNames(config.hostname_rewrite, report)
        self.checks = HostChecks(config)
        self._missing_addresses = MissingAddresses(config.gpu_pci_addrs)
        self._nodes: tuple[NodeState, ...] = ()
        """As they were last read."""
        self.encoder = CcMessages(
            config.gpu_pci_addrs,
            config.hwthread_numbering,
            lambda count: counters.count("gpus_without_address", count),
            self._names.sent,
        )

    def is_of(self, config: Config) -> bool:
        """Return whether this is what a configuration says about hosts."""
        return _about_hosts(config) == _about_hosts(self._config)

    def changed(self, config: Config, counters: Counters, report: Callable[..., None]) -> Hosts:
        """Return what another configuration says, with the nodes that are known: no two get the same name."""
        made = Hosts(config, counters, report)
        made._nodes = self._nodes
        made._names.learn(node.hostname for node in self._nodes)
        made.checks.cluster, made.checks.clusters = self.checks.cluster, self.checks.clusters
        return made

    def learn(self, nodes: Sequence[NodeState], forget: Forget = lambda subjects: None) -> list[Finding]:
        """Compare all nodes that Slurm lists with the configuration. For `forget` see `HostChecks.check`."""
        self._nodes = tuple(nodes)
        self._names.learn(node.hostname for node in nodes)
        return self.checks.check(nodes, forget)

    def as_sent(self, nodes: Sequence[NodeState]) -> list[NodeState]:
        """Return nodes under the names that are sent, and log which of them lack addresses of GPUs."""
        self._missing_addresses.check(nodes)
        return [self._as_sent(node) for node in nodes]

    def _as_sent(self, node: NodeState) -> NodeState:
        counted, name = count_cards(node, self._config.gpu_pci_addrs), self._names.sent(node.hostname)
        return counted if name == node.hostname else counted._replace(hostname=name)


def _about_hosts(config: Config) -> tuple[object, ...]:
    return config.gpu_pci_addrs, config.hwthread_numbering, config.hostname_rewrite, config.ignore_hosts
