"""Where jobs and node states are reported to, by the configuration: cc-backend over REST, NATS, or both."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cc_slurm_adapter.config.config import Config, read_nats_creds, read_nats_seed, read_token
from cc_slurm_adapter.config.hostnames import HostNames
from cc_slurm_adapter.config.proxy import NONE, parse_proxy, proxy_variable
from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.host_checks import HostChecks
from cc_slurm_adapter.daemon.running_list import RunningListPoller
from cc_slurm_adapter.errors import ConfigError, UnreadableFile
from cc_slurm_adapter.log import log_findings
from cc_slurm_adapter.model import NodeState, Proxy
from cc_slurm_adapter.outbox.late_runs import LateRuns
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.outbox.sender import Sender
from cc_slurm_adapter.outbox.sink_health import TIMING, Timing
from cc_slurm_adapter.sinks.base import CC_NATS, CC_REST, RunningRows, Sink
from cc_slurm_adapter.sinks.gpu_addresses import MissingAddresses, count_cards
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.sinks.rest import CcRest
from cc_slurm_adapter.system.threads import Worker, stop_all

if TYPE_CHECKING:
    from cc_slurm_adapter.sinks.nats.client import NatsAccess
    from cc_slurm_adapter.sinks.nats.sink import CcNats


def sinks_of(config: Config) -> dict[str, str]:
    """Return the sinks that jobs are reported to, each with the sink that it follows, or ''.

    If REST is used, too, NATS is sent only what cc-backend has accepted.
    """
    rest = {CC_REST: ""} if config.cc_rest_submit_jobs else {}
    return {**rest, CC_NATS: CC_REST if rest else ""} if config.nats_servers else rest


def choose_proxy(config: Config, environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for cc-backend: what the configuration says, else the environment. Raises ConfigError."""
    if config.cc_rest_proxy:
        return None if config.cc_rest_proxy == NONE else parse_proxy(config.cc_rest_proxy)
    variable = proxy_variable(config.cc_rest_url, environment)
    if not variable:
        return None
    try:
        return parse_proxy(environment[variable])
    except ValueError as error:
        raise ConfigError(
            [f"the environment's {variable} cannot be used, {error}: mend it, or set ccRestProxy"]
        ) from None


class Destinations:
    """The sinks, and from `start` to `stop` the threads that serve them."""

    def __init__(self, config: Config, counters: Counters) -> None:
        self._config = config
        self._names = HostNames(config.hostname_rewrite, log_findings)
        self._checks = HostChecks(config)
        self.late_runs = LateRuns()
        self.encoder = CcMessages(
            config.gpu_pci_addrs,
            config.hwthread_numbering,
            lambda count: counters.count("gpus_without_address", count),
            self._names.sent,
        )
        self._proxy: Proxy | None = None
        self.rest: CcRest | None = None
        """cc-backend's REST interface: for the jobs, or only for the comparison."""
        if config.cc_rest_url:
            self._proxy = choose_proxy(config, os.environ)
            self.rest = CcRest(
                config.cc_rest_url,
                lambda: read_token(config),
                config.cc_rest_ca_file,
                self._proxy,
                withdraws=config.requeued_runs == "last",
            )
        self.sinks: list[Sink] = [self.rest] if self.rest and config.cc_rest_submit_jobs else []
        """The sinks that jobs are reported to, the leading one first."""
        if config.nats_servers:
            self.sinks.append(_make_nats(config))
        self._missing_addresses = MissingAddresses(config.gpu_pci_addrs)
        self._counters = counters
        self._senders: list[Sender] = []
        self._poller: RunningListPoller | None = None

    @property
    def label(self) -> str:
        """A text for the log: where everything is sent."""
        through = f" through the proxy {self._proxy}" if self._proxy else ""
        places = [self._config.cc_rest_url + through] if self._config.cc_rest_submit_jobs else []
        return " and ".join([*places, *filter(None, [", ".join(self._config.nats_servers)])])

    @property
    def workers(self) -> list[Worker]:
        """Its threads: none before `start`."""
        return [worker for part in self._parts for worker in part.workers]

    @property
    def _parts(self) -> list[Sender | RunningListPoller]:
        return [*self._senders, *([self._poller] if self._poller else [])]

    def start(
        self,
        outbox: Outbox,
        cluster: str,
        deliver: Callable[[RunningRows], None],
        *,
        timing: Timing = TIMING,
    ) -> None:
        """Begin to send, and to poll what cc-backend believes to be running. The lists are passed to `deliver`."""
        if self.rest is not None:
            reported_to = self.sinks[0].name
            self._poller = RunningListPoller(self.rest, reported_to, cluster, self._config.cc_poll_interval, deliver)
        on_unknown = self._poller.poll_soon if self._poller else lambda: None
        leading, *followers = self.sinks
        self._senders = [
            Sender(leading, outbox, self._counters, on_unknown, self._wake_followers, self.late_runs, timing=timing),
            *(Sender(sink, outbox, self._counters, timing=timing) for sink in followers),
        ]
        for sender in self._senders:
            sender.start()
        if self._poller:
            self._poller.start()

    def stop(self, time_limit: float) -> None:
        """End all threads within `time_limit` seconds."""
        stop_all(self._parts, time_limit)

    def wake(self) -> None:
        """Tell all senders that something new is pending."""
        for sender in self._senders:
            sender.wake()

    def _wake_followers(self) -> None:
        for sender in self._senders[1:]:
            sender.wake()

    def retry_now(self) -> None:
        """End every wait: the configuration or a destination has changed."""
        for sender in self._senders:
            sender.retry_now()

    def post_nodes(self, cluster: str, nodes: list[NodeState]) -> None:
        """Send these node states in place of those that were not sent yet, and log which nodes lack GPU addresses."""
        self._missing_addresses.check(nodes)
        reported = [self._as_sent(node) for node in nodes]
        for sender in self._senders:
            sender.post_nodes(cluster, reported)

    def _as_sent(self, node: NodeState) -> NodeState:
        counted, name = count_cards(node, self._config.gpu_pci_addrs), self._names.sent(node.hostname)
        return counted if name == node.hostname else replace(counted, hostname=name)

    def learn(self, nodes: Sequence[NodeState]) -> None:
        """Compare what the configuration says about hosts with all nodes that Slurm lists; called after each poll."""
        self._names.learn(node.hostname for node in nodes)
        log_findings(*self._checks.check(nodes))

    def cluster_names(self) -> list[str]:
        """Return the clusters that cc-backend knows: `none` if it knows none; an empty list without REST.

        Raises SinkError.
        """
        if self.rest is None:
            return []
        connection = self.rest.connect()
        try:
            return connection.cluster_names() or ["none"]
        finally:
            connection.close()


def _make_nats(config: Config) -> CcNats:
    """Make the sink, whose modules are imported only where NATS is configured. Raises ConfigError."""
    from cc_slurm_adapter.sinks.nats.client import NatsClient, make_tls_context  # noqa: PLC0415
    from cc_slurm_adapter.sinks.nats.sink import CcNats  # noqa: PLC0415

    try:  # so that what is wrong with its files is reported at the start
        access = _read_nats_access(config)
        if any(map(access.needs_tls, access.servers)):
            make_tls_context(access)
    except OSError as error:
        raise UnreadableFile([f"natsTlsCaFile, natsTlsCertFile or natsTlsKeyFile cannot be used: {error}"]) from None
    return CcNats(
        NatsClient(lambda: _read_nats_access(config)),
        os.uname().nodename,
        config.nats_subject,
        config.nats_node_subject,
        0 if config.cc_rest_submit_jobs else config.nats_stop_delay,
    )


def _read_nats_access(config: Config) -> NatsAccess:
    """Return what gives access to NATS, from the files as they are now. Raises ConfigError."""
    from cc_slurm_adapter.sinks.nats.client import NatsAccess  # noqa: PLC0415
    from cc_slurm_adapter.sinks.nats.keys import Credentials, public_key, read_credentials  # noqa: PLC0415

    creds, key = read_nats_creds(config), "natsCredsFile"
    try:
        credentials = read_credentials(creds) if creds else Credentials("", "")
        seed, key = credentials.seed or read_nats_seed(config), key if creds else "natsNKeySeedFile"
        if seed:
            public_key(seed)
    except ValueError as error:
        file = config.nats_creds_file if key == "natsCredsFile" else config.nats_nkey_seed_file
        raise UnreadableFile([f"{key}: {file}: {error}"]) from None
    return NatsAccess(
        servers=config.nats_servers,
        user=config.nats_user,
        password=config.nats_password,
        seed=seed,
        jwt=credentials.jwt,
        tls_ca_file=config.nats_tls_ca_file,
        tls_cert_file=config.nats_tls_cert_file,
        tls_key_file=config.nats_tls_key_file,
        jet_stream=config.nats_jet_stream,
    )
