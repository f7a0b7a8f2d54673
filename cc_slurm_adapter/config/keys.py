"""The table of settings: one row for each key of the configuration.

Keys, defaults and meaning are those of the existing adapter, so its config.json works unchanged. The parser, the fields
of `Config` and the reference for people are made from this table.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from cc_slurm_adapter.config import values
from cc_slurm_adapter.config.file import DEFAULT_EVENTS_PATH, DEFAULT_LAST_RUN_PATH, DEFAULT_SOCKET_PATH


class Setting(NamedTuple):
    """One key of the configuration. `default` is the JSON value that counts if the key is not set."""

    key: str
    parse: values.Parser
    default: Any
    help: str
    old_names: tuple[str, ...] = ()
    secret: bool = False
    plural: bool = False
    """Whether one text holds several values. Then its field has an s at the end."""
    reload: bool = False
    """Whether a reload puts a change in force. Else it needs a restart: the key is about what is opened or decided once
    at the start, such as sockets, files, the cluster and the address of a destination."""
    other_types: tuple[type, ...] = ()
    """What else than the type of the default it may be, as Python reads JSON."""

    @property
    def types(self) -> tuple[type, ...]:
        """Return what it may be, as Python reads JSON, the type of the default first."""
        return (type(self.default), *self.other_types)

    @property
    def field(self) -> str:
        """Return the name of its field in `Config`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.key).lower() + ("s" if self.plural else "")


SETTINGS = (
    Setting(
        "pidFilePath",
        values.path,
        "/run/cc-slurm-adapter/daemon.pid",
        "File that holds the daemon's process id and keeps a second daemon from starting.",
    ),
    Setting(
        "prepSockListenPath",
        values.address,
        DEFAULT_SOCKET_PATH,
        "Socket on which the daemon takes hook events: /path, unix:/path, tcp:127.0.0.1:12345, "
        "tcp:[::1]:12345, tcp::12345 (all IPv4 and IPv6) or tcp:host:12345.",
    ),
    Setting(
        "prepSockConnectPath",
        values.hook_address,
        DEFAULT_SOCKET_PATH,
        "Socket to which the hook sends its events; same forms as prepSockListenPath.",
        reload=True,
    ),
    Setting(
        "controlSockPath",
        values.unix_socket,
        "",
        "Unix socket on which the daemon says how it is and what waits. Empty: 'control.sock' beside pidFilePath.",
    ),
    Setting(
        "metricsListen",
        values.listen_address,
        "",
        "Address at which the daemon shows its metrics for Prometheus and a page for people: 127.0.0.1:9517, "
        "[::1]:9517, localhost:9517, :9517 (all IPv4 and IPv6) or /path of a unix socket. Empty: none.",
    ),
    Setting(
        "prepSecretFile",
        values.secret_file,
        "",
        "File with a secret shared by hooks and daemon (at least 16 characters). Events over TCP must then "
        "be signed with it.",
    ),
    Setting(
        "prepAllow",
        values.networks,
        [],
        "IP addresses and networks that may send events over TCP.",
    ),
    Setting(
        "prepEventsPath",
        values.optional_path,
        DEFAULT_EVENTS_PATH,
        "Folder in which hooks leave event files, and nothing else. Hooks that are called without arguments know the "
        "default one only.",
    ),
    Setting(
        "lastRunPath",
        values.path,
        DEFAULT_LAST_RUN_PATH,
        "File whose modification time is the time of the last complete poll. Its folder is the state folder.",
    ),
    Setting(
        "statePath",
        values.optional_path,
        "",
        "Database of what is known and not yet delivered. Empty: 'state.sqlite' beside lastRunPath.",
    ),
    Setting(
        "stateMaxBytes",
        values.whole_number(0),
        256 * 2**20,
        "Bytes of the state file above which job scripts and Slurm's texts are left out of starts that wait. Messages "
        "are always kept.",
    ),
    Setting(
        "clusterName",
        values.word,
        "",
        "Name of the cluster as cc-backend knows it. Empty: Slurm is asked for its ClusterName.",
    ),
    Setting(
        "slurmConf",
        values.optional_path,
        "",
        "slurm.conf for the Slurm commands (SLURM_CONF). Empty: as in the daemon's environment.",
    ),
    Setting("slurmPollInterval", values.at_least(1), 60, "Seconds between two polls of Slurm.", reload=True),
    Setting(
        "slurmQueryDelay",
        values.at_least(1),
        1,
        "Longest time in seconds between a hook event and the first question to Slurm, apart from a question under "
        "way. With Slurm 22.05, where each reads all jobs, longer: as long as the last one took.",
        reload=True,
    ),
    Setting(
        "slurmQueryMaxSpan",
        values.at_least(60 * 60, 365 * 24 * 60 * 60),
        7 * 24 * 60 * 60,
        "Seconds: how far back jobs are looked for after the daemon was away, from an hour to a year.",
        reload=True,
    ),
    Setting(
        "slurmMaxRetries",
        values.at_least(0),
        10,
        "How often Slurm is asked again about one hook event before the job is left to the next poll.",
        old_names=("slurmQueryMaxRetries",),
        reload=True,
    ),
    Setting(
        "parkedMaxAge",
        values.whole_number(1),
        30 * 24 * 60 * 60,
        "Seconds: for how long messages that are refused are tried again, ever more seldom, before they are given up.",
        reload=True,
    ),
    Setting(
        "ccPollInterval",
        values.seconds_or_every_poll,
        6 * 60 * 60,
        "Seconds between two comparisons with cc-backend's list of running jobs.",
        reload=True,
    ),
    Setting(
        "ccRestSubmitJobs",
        values.boolean,
        True,
        "Whether starts and stops are sent to cc-backend over REST. false: they are published to NATS only, and "
        "ccRestUrl serves for comparisons or is empty.",
    ),
    Setting(
        "requeuedRuns",
        values.one_of("first", "last"),
        "first",
        "Which run of a requeued job cc-backend keeps, as it takes one of a job in 24 hours: first, and nothing is "
        "removed, or last, and the row of the run before is removed.",
    ),
    Setting(
        "ccRestUrl",
        values.rest_url,
        "",
        "Address of cc-backend, for example https://cc-backend.example.org, without"
        " /api. A path, as behind a proxy, is kept: /api/ follows it.",
    ),
    Setting("ccRestJwt", values.token, "", "Token for cc-backend's REST API.", secret=True, reload=True),
    Setting(
        "ccRestJwtFile",
        values.secret_file,
        "",
        "File with the token, or the name of a systemd credential; wins over ccRestJwt.",
        reload=True,
    ),
    Setting(
        "ccRestCaFile",
        values.optional_path,
        "",
        "File with the certificates (PEM) that cc-backend's certificate is checked against. Empty: the system's.",
    ),
    Setting(
        "ccRestProxy",
        values.proxy,
        "",
        "Proxy for cc-backend, as http://proxy.example.org:3128. Empty: HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the "
        "environment count. none: no proxy.",
        secret=True,
    ),
    Setting(
        "gpuPciAddrs",
        values.gpu_pci_addrs,
        {},
        "PCI addresses of the GPUs in Slurm's order, by regular expression on host names; the first match counts.",
        reload=True,
    ),
    Setting(
        "acceleratorGres",
        values.gres_names,
        ["gpu"],
        "Names of the GRES whose devices are reported as accelerators. gpuPciAddrs lists the devices of the first "
        "name, then those of the next.",
    ),
    Setting(
        "hwthreadNumbering",
        values.hwthread_numbering,
        "block",
        "How the operating system numbers hardware threads: block, interleaved, cores to list cores only, or a list "
        "with the number, or the list of numbers, of each of Slurm's CPUs; for all hosts, or by regular expression on "
        "host names, the first match counts.",
        reload=True,
        other_types=(list, dict),
    ),
    Setting(
        "hostnameRewrite",
        values.hostname_rewrite,
        [],
        "What nodes are called in what is sent, if not by Slurm's NodeName: pairs of a regular expression and its "
        "replacement as in Python's re.sub; the first match counts.",
        reload=True,
    ),
    Setting(
        "jobScriptMaxBytes",
        values.whole_number(0),
        2**20,
        "Bytes of a job script that are reported at most. 0: none.",
        reload=True,
    ),
    Setting(
        "ignoreHosts",
        values.regex,
        "",
        "Regular expression on host names: a job is not reported when all its hosts match.",
        reload=True,
    ),
    Setting(
        "ignorePartitions",
        values.names,
        "",
        "Regular expression on partitions, or a list of exact names: jobs in them are not reported.",
        reload=True,
        other_types=(list,),
    ),
    Setting(
        "ignoreUsers",
        values.names,
        "",
        "Regular expression on user names, or a list of exact names: their jobs are not reported.",
        reload=True,
        other_types=(list,),
    ),
    Setting(
        "natsServer",
        values.nats_servers,
        "",
        "Host or URL (nats:// or tls://) of the NATS server, several separated by commas; a port in it wins over "
        "natsPort. Empty: no NATS.",
        plural=True,
    ),
    Setting("natsPort", values.whole_number(1, 65535), 4222, "Port of the NATS servers."),
    Setting("natsSubject", values.subject, "jobs", "NATS subject under which starts and stops are published."),
    Setting(
        "natsNodeSubject",
        values.optional_subject,
        "",
        "NATS subject under which node states are published. Empty: they are not.",
    ),
    Setting("natsUser", values.text, "", "User name for the NATS server, together with natsPassword.", reload=True),
    Setting("natsPassword", values.text, "", "Password for the NATS server.", secret=True, reload=True),
    Setting(
        "natsCredsFile",
        values.secret_file,
        "",
        "File with credentials for the NATS server, or the name of a systemd credential.",
        reload=True,
    ),
    Setting(
        "natsNKeySeedFile",
        values.secret_file,
        "",
        "File with the seed of an NKey for the NATS server, or the name of a systemd credential.",
        reload=True,
    ),
    Setting(
        "natsTlsCaFile",
        values.optional_path,
        "",
        "File with the certificates (PEM) that the NATS server's certificate is checked against. Empty: the system's.",
        reload=True,
    ),
    Setting(
        "natsTlsCertFile",
        values.optional_path,
        "",
        "File with the certificate (PEM) that is shown to the NATS server, together with natsTlsKeyFile.",
        reload=True,
    ),
    Setting(
        "natsTlsKeyFile",
        values.secret_file,
        "",
        "File with the private key (PEM) of natsTlsCertFile, or the name of a systemd credential.",
        reload=True,
    ),
    Setting(
        "natsJetStream",
        values.boolean,
        False,
        "Whether publishing waits until a stream of the NATS server has acknowledged the message.",
    ),
    Setting(
        "natsStopDelay",
        values.at_least(0),
        5,
        "Seconds between the start of a job and its stop on NATS when ccRestSubmitJobs is false.",
    ),
)

BY_NAME = {name.lower(): setting for setting in SETTINGS for name in (setting.key, *setting.old_names)}
"""The rows by key in lower case, including old names."""

REMOVED = {
    "ipcsockpath": "it was removed: use prepSockListenPath for the daemon and prepSockConnectPath for the hook",
}
"""What to do about keys, in lower case, that were removed."""
