"""Where jobs and node states are reported to, by the configuration: cc-backend over REST, NATS, or both."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cc_slurm_adapter.config.changes import OF_NATS, OF_REST
from cc_slurm_adapter.config.config import Config, read_nats_creds, read_nats_seed, read_token
from cc_slurm_adapter.config.proxy import NONE, parse_proxy, proxy_variable
from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.held_secret import HeldSecret
from cc_slurm_adapter.daemon.host_checks import Forget
from cc_slurm_adapter.daemon.hosts import Hosts
from cc_slurm_adapter.daemon.running_list import RUNNING_LIST, RunningListPoller
from cc_slurm_adapter.errors import ConfigError, SinkError, UnreadableFile
from cc_slurm_adapter.log import log_findings
from cc_slurm_adapter.model import Finding, NodeState, Proxy
from cc_slurm_adapter.outbox.event_latency import EventLatency
from cc_slurm_adapter.outbox.late_runs import LateRuns
from cc_slurm_adapter.outbox.outbox import Outbox
from cc_slurm_adapter.outbox.report import SinkReport
from cc_slurm_adapter.outbox.sender import Sender
from cc_slurm_adapter.outbox.sink_health import TIMING, Timing
from cc_slurm_adapter.sinks import rest, timeouts
from cc_slurm_adapter.sinks.base import CC_NATS, CC_REST, AskableConnection, DescribableSink, Encoder, RunningRows
from cc_slurm_adapter.sinks.clusters import ClusterList
from cc_slurm_adapter.sinks.rest import CcRest
from cc_slurm_adapter.system.threads import Worker, stop_all

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from cc_slurm_adapter.sinks.nats.client import NatsAccess
    from cc_slurm_adapter.sinks.nats.questions import Questions
    from cc_slurm_adapter.sinks.nats.sink import CcNats


QUESTIONS = rest.Timing(requests=timeouts.Timing(time_limit=10.0, slow_time_limit=10.0))
"""For a person who waits."""


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
            [f"the environment's {variable} cannot be used, {error}: correct it, or set ccRestProxy"]
        ) from None


def make_rest(
    config: Config, proxy: Proxy | None, token: Callable[[], str] | None = None, *, timing: rest.Timing = rest.TIMING
) -> CcRest | None:
    """Make the sink of cc-backend's REST interface; None where the configuration has no address of it.

    `token` reads the token, if its place may change.
    """
    if not config.cc_rest_url:
        return None
    return CcRest(
        config.cc_rest_url,
        token or (lambda: read_token(config)),
        config.cc_rest_ca_file,
        proxy,
        withdraws=config.requeued_runs == "last",
        timing=timing,
    )


def connect_for_questions(config: Config, environment: Mapping[str, str] = os.environ) -> AskableConnection | None:
    """Return a connection for a command that only asks cc-backend; None if its address is not configured.

    `environment` may name a proxy. Raises ConfigError.
    """
    sink = make_rest(config, choose_proxy(config, environment), timing=QUESTIONS) if config.cc_rest_url else None
    return sink.connect() if sink else None


def check_access(config: Config) -> None:
    """Find what keeps a destination from being used: a proxy, a certificate, or credentials that cannot be used.

    Nothing is connected. Raises ConfigError.
    """
    found = make_rest(config, choose_proxy(config, os.environ) if config.cc_rest_url else None)
    if found is not None:
        found.connect().close()  # which reads the certificates
    if config.nats_servers:
        _make_nats(config, lambda: _read_nats_access(config))


def connect_to_nats_for_questions(config: Config, server: str) -> Questions:
    """Make a client for a command that only asks one of the servers; it opens nothing yet."""
    from cc_slurm_adapter.sinks.nats.client import NatsClient  # noqa: PLC0415

    return NatsClient(lambda: replace(_read_nats_access(config), servers=(server,)))


class Destinations:
    """The sinks, and from `start` to `stop` the threads that serve them."""

    def __init__(self, config: Config, counters: Counters, report: Callable[..., None] = log_findings) -> None:
        """`report` is called with what is found about the site."""
        self._config = config
        self.hosts = Hosts(config, counters, report)
        """What the configuration says about hosts; replaced as a whole by a reload."""
        self.late_runs = LateRuns()
        self._proxy = choose_proxy(config, os.environ) if config.cc_rest_url else None
        self._secrets: list[tuple[HeldSecret[Any], Callable[[], None]]] = []
        """The secret of each destination, and what lets it be read again."""
        token = HeldSecret(lambda: read_token(self._config), OF_REST)
        self.rest = make_rest(config, self._proxy, token)
        """cc-backend's REST interface: for the jobs, or only for the comparison."""
        self.sinks: list[DescribableSink] = [self.rest] if self.rest and config.cc_rest_submit_jobs else []
        """The sinks that jobs are reported to, the leading one first."""
        if self.rest:
            self._secrets.append((token, self.rest.renew_token))
        if config.nats_servers:
            access = HeldSecret(lambda: _read_nats_access(self._config), OF_NATS)
            nats = _make_nats(config, access)
            self.sinks.append(nats)
            self._secrets.append((access, nats.renew_access))
        self._report = report
        self._counters = counters
        self._senders: list[Sender] = []
        self._poller: RunningListPoller | None = None

    def use(self, config: Config, waiting: Collection[str] = ()) -> None:
        """Put a configuration in force that differs only in keys that a reload changes, and read the secrets again.

        Not those of a destination of which one of the keys `waiting` waits for a restart.
        """
        before, self._config = self._config, config
        if not self.hosts.is_of(config):
            self.hosts = self.hosts.changed(config, self._counters, self._report)
        if self._poller and config.cc_poll_interval != before.cc_poll_interval:
            self._poller.change_interval(config.cc_poll_interval)
        if self._poller:
            self._poller.ask_clusters()  # after the hosts were replaced: the answer is for those in use
        for secret, renew in self._secrets:
            if not secret.hold(waiting):
                renew()

    @property
    def encoder(self) -> Encoder:
        """What makes the messages now."""
        return self.hosts.encoder

    @property
    def label(self) -> str:
        """A text for the log: where everything is sent."""
        through = f" through the proxy {self._proxy}" if self._proxy else ""
        places = [self._config.cc_rest_url + through] if self._config.cc_rest_submit_jobs else []
        return " and ".join([*places, *filter(None, [", ".join(self._config.nats_servers)])])

    @property
    def reports(self) -> tuple[SinkReport, ...]:
        """Whether each destination answers, the leading one first. Any thread may read it."""
        return tuple(sender.report for sender in self._senders)

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
        event_latency: EventLatency | None = None,
        *,
        timing: Timing = TIMING,
    ) -> None:
        """Begin to send, and to poll what cc-backend believes to be running. The lists are passed to `deliver`.

        `event_latency` learns of each start and stop that the leading sink has.
        """
        self.hosts.checks.cluster = cluster
        if self.rest is not None:
            reported_to = self.sinks[0].name
            interval, outages = self._config.cc_poll_interval, self.rest.outages
            self._poller = RunningListPoller(
                self.rest, reported_to, cluster, interval, deliver, outages=outages, on_clusters=self._learn_clusters
            )
            if not self.hosts.checks.clusters.names:  # cc-backend did not answer yet
                self._poller.ask_clusters()
        on_unknown = self._poller.poll_soon if self._poller else lambda: None
        leading, *followers = self.sinks
        self._senders = [
            Sender(
                leading,
                outbox,
                self._counters,
                on_unknown,
                self._wake_followers,
                self.late_runs,
                event_latency,
                timing=timing,
                outages=self.rest.outages if self.rest and leading is self.rest else None,
            ),
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

    def is_idle(self) -> bool:
        """Return whether no sender has anything to send now. Raises StateError."""
        return all(sender.is_idle() for sender in self._senders)

    def _wake_followers(self) -> None:
        for sender in self._senders[1:]:
            sender.wake()

    def retry_now(self) -> None:
        """End every wait: the configuration or a destination has changed."""
        for sender in self._senders:
            sender.retry_now()

    def post_nodes(self, cluster: str, nodes: list[NodeState]) -> None:
        """Send these node states in place of those that were not sent yet, and log which nodes lack GPU addresses."""
        reported = self.hosts.as_sent(nodes)
        for sender in self._senders:
            sender.post_nodes(cluster, reported)

    def learn(self, nodes: Sequence[NodeState], forget: Forget = lambda subjects: None) -> list[Finding]:
        """Compare what the configuration says about hosts with all nodes that Slurm lists; called after each poll.

        `forget` is called with the subjects of which what was found before does not count any more.
        """
        return self.hosts.learn(nodes, forget)

    def _learn_clusters(self, known: ClusterList) -> None:
        """Let the next poll compare its nodes with these clusters. The thread that has asked for them calls this."""
        self.hosts.checks.clusters = known

    def cluster_names(self) -> list[str]:
        """Return the clusters that cc-backend knows: `none` if it knows none; an empty list if it cannot be asked."""
        if self.rest is None:
            return []
        connection = self.rest.connect()
        try:
            known = connection.clusters()
            self._learn_clusters(known)
            return known.names or ["none"]
        except SinkError as error:
            note = self.rest.outages.failed(RUNNING_LIST, str(error))  # which is read next, and shows when this is over
            if note is not None:
                log.error("cc-backend cannot be asked for its clusters, going on: %s%s", error, note)
            return []
        finally:
            connection.close()


def _make_nats(config: Config, read_access: Callable[[], NatsAccess]) -> CcNats:
    """Make the sink, whose modules are imported only where NATS is configured. Raises ConfigError.

    `read_access` reads what gives access, whose place may change.
    """
    from cc_slurm_adapter.sinks.nats.client import NatsClient, make_tls_context  # noqa: PLC0415
    from cc_slurm_adapter.sinks.nats.sink import CcNats  # noqa: PLC0415

    try:  # so that what is wrong with its files is reported at the start
        access = read_access()
        if any(map(access.needs_tls, access.servers)):
            make_tls_context(access)
    except OSError as error:
        raise UnreadableFile([f"natsTlsCaFile, natsTlsCertFile or natsTlsKeyFile cannot be used: {error}"]) from None
    return CcNats(
        NatsClient(read_access),
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
