"""Everything between this host and cc-backend: address, token, clock, cluster, and its hosts and hardware.

One GET is sent, of the list of clusters. It changes nothing there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from cc_slurm_adapter.config.config import Config, read_token
from cc_slurm_adapter.daemon.checks.accelerators import find_surplus
from cc_slurm_adapter.daemon.checks.clock import find_clock
from cc_slurm_adapter.daemon.checks.cluster_name import find_cluster
from cc_slurm_adapter.daemon.checks.cluster_topology import compare_topology
from cc_slurm_adapter.daemon.checks.configuration import IN_UNIT, ONLY_DAEMON
from cc_slurm_adapter.daemon.checks.token import find_refused, find_token, key_of
from cc_slurm_adapter.daemon.destinations import connect_for_questions
from cc_slurm_adapter.daemon.faults import advice
from cc_slurm_adapter.errors import ConfigError, SinkError, TokenRefused
from cc_slurm_adapter.model import Finding, NodeState
from cc_slurm_adapter.sinks.base import AskableConnection
from cc_slurm_adapter.sinks.clusters import ClusterList
from cc_slurm_adapter.sinks.gpu_addresses import find_missing_addresses


def find_cc_backend(  # noqa: PLR0913 - whom to ask how, and what to compare
    config: Config,
    cluster: str,
    nodes: Sequence[NodeState] | None,
    now: float,
    hidden: Collection[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> Iterator[Finding]:
    """Look at everything that concerns cc-backend.

    `cluster` is the name under which jobs are reported, and `nodes` are all nodes of Slurm; None if they are not known.
    `now` is in Unix seconds. `hidden` are the keys whose files only the daemon can read, and `environment` is the
    daemon's, which may name a proxy.
    """
    if nodes is not None:
        yield from _of_gpus(config, nodes)
    if config.cc_rest_url and key_of(config) in hidden:
        yield Finding(logging.INFO, "ccRestUrl", f"cc-backend is not asked: {key_of(config)} {ONLY_DAEMON}", IN_UNIT)
        return
    try:
        connection = connect_for_questions(config, environment)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding(logging.ERROR, problem.partition(":")[0], problem, "correct that: cc-backend was not asked")
        return
    if connection is None:
        yield Finding(logging.INFO, "ccRestUrl", "ccRestUrl is not set: cc-backend is not asked for anything")
        return
    token = _token_to_ask_with(config)
    if not token:
        text = f"cc-backend is not asked, as there is no token to ask it with: see what is said of {key_of(config)}"
        yield Finding(logging.INFO, "ccRestUrl", text)
        connection.close()
        return
    try:
        found = _ask(config, connection)
    except TokenRefused as error:
        yield find_refused(token, key_of(config), now, str(error))
        return
    if isinstance(found, Finding):
        yield found
        yield from find_token(token, key_of(config), now, is_accepted=False)
        return
    yield Finding(logging.INFO, "ccRestUrl", f"cc-backend at {config.cc_rest_url} answers, and accepts the token")
    yield from find_token(token, key_of(config), now, is_accepted=True)
    yield find_clock(found.clock)
    yield from _of_cluster(config, cluster, found, nodes)


def _of_gpus(config: Config, nodes: Sequence[NodeState]) -> Iterator[Finding]:
    """Compare gpuPciAddrs with the GPUs that Slurm has, which needs no cc-backend."""
    problems = [
        *find_missing_addresses(nodes, config.gpu_pci_addrs),
        *find_surplus(nodes, config.gpu_pci_addrs),
    ]
    yield from problems
    if not problems and any(node.gpus for node in nodes):
        yield Finding(logging.INFO, "gpuPciAddrs", "gpuPciAddrs has an address for each GPU of Slurm's nodes")


def _token_to_ask_with(config: Config) -> str:
    """Return the token; '' if there is none. What is wrong with its file is found with the configuration."""
    try:
        return read_token(config)
    except ConfigError:
        return ""


def _ask(config: Config, connection: AskableConnection) -> ClusterList | Finding:
    """Ask cc-backend for its clusters. Return why that fails if it does. Raises TokenRefused."""
    try:
        return connection.clusters()
    except TokenRefused:
        raise
    except SinkError as error:
        text = f"cc-backend at {config.cc_rest_url} cannot be asked: {error}"
        step = advice(str(error), "see that it runs, and that this host reaches it")
        if "is ccRestUrl right?" in str(error) or "HTTP 404" in str(error):
            step = _without_path(config.cc_rest_url) or step
        return Finding(logging.ERROR, "ccRestUrl", text, step)
    finally:
        connection.close()


def _without_path(url: str) -> str:
    """Return what to do where something else than cc-backend answers below the path of its address; '' without one."""
    parts = urlsplit(url)
    if not parts.path:
        return ""
    return (
        f"write {parts.scheme}://{parts.netloc} and restart, unless cc-backend is behind the path {parts.path} there:"
        f" it is asked at {url}/api/"
    )


def _of_cluster(config: Config, name: str, known: ClusterList, nodes: Sequence[NodeState] | None) -> Iterator[Finding]:
    """Compare the cluster with what cc-backend has of it."""
    if not name:
        text = "the cluster's name is not known, as Slurm does not tell it: it is not looked for in cc-backend"
        yield Finding(logging.WARNING, "clusterName", text, "make Slurm answer (scontrol show config)")
        return
    cluster = known.get(name)
    yield find_cluster(config.cc_rest_url, name, known.names)
    if cluster is None:
        return
    if nodes is None:
        text = "Slurm's nodes are not known: they are not compared with cc-backend's hosts, GPUs and hardware threads"
        yield Finding(logging.WARNING, "subclusters", text, "make Slurm answer (sinfo -N)")
    else:
        yield from compare_topology(config, cluster, nodes)
