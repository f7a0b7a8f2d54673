"""The configuration: the settings of the table, read, checked and frozen into `Config`."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from cc_slurm_adapter.config import values
from cc_slurm_adapter.config.address import MAX_UNIX_PATH, TcpAddress, UnixAddress
from cc_slurm_adapter.config.file import (
    DEFAULT_EVENTS_PATH,
    ConfigFile,
    beside,
    events_path,
    former_events_paths,
)
from cc_slurm_adapter.config.hostnames import HostnameRewrites
from cc_slurm_adapter.config.keys import BY_NAME, REMOVED, SETTINGS, Setting
from cc_slurm_adapter.config.paths import read_named_file
from cc_slurm_adapter.config.secrets import presentable, read_secret, read_secret_file, reason, secret_path
from cc_slurm_adapter.errors import ConfigError, ForbiddenFile, MissingFile, UnreadableFile
from cc_slurm_adapter.model import Finding, NumberingByHost
from cc_slurm_adapter.system.nearest import nearest

_WITH_PATTERNS = frozenset(
    {"gpuPciAddrs", "hostnameRewrite", "hwthreadNumbering", "ignoreHosts", "ignorePartitions", "ignoreUsers"}
)
_TOGETHER = (("natsUser", "natsPassword"), ("natsTlsCertFile", "natsTlsKeyFile"))
CONFIGURATION = "configuration"
"""What a finding is about if it is about no key."""
_ONE_OF = ("natsUser", "natsCredsFile", "natsNKeySeedFile")
_NEED_REST = frozenset({"ccRestJwt", "ccRestJwtFile", "ccRestCaFile", "ccRestProxy"})
_NEED_NATS = frozenset(setting.key for setting in SETTINGS if setting.key.startswith("nats")) - {"natsServer"}


@dataclass(frozen=True)
class Config:
    """All settings, checked, with a field for each row of `SETTINGS`. Times are in seconds."""

    pid_file_path: str
    prep_sock_listen_path: UnixAddress | TcpAddress
    prep_sock_connect_path: UnixAddress | TcpAddress
    control_sock_path: str
    """The default is filled in already."""
    metrics_listen: UnixAddress | TcpAddress | None
    prep_secret_file: str
    prep_allow: tuple[values.Network, ...]
    prep_events_path: str
    """The default is filled in already."""
    last_run_path: str
    state_path: str
    state_max_bytes: int
    """The default is filled in already."""
    cluster_name: str
    slurm_conf: str
    slurm_poll_interval: int
    slurm_query_delay: int
    slurm_query_max_span: int
    slurm_max_retries: int
    parked_max_age: int
    cc_poll_interval: int
    cc_rest_submit_jobs: bool
    requeued_runs: str
    """`first` or `last`."""
    cc_rest_url: str
    """It has no slash at the end and no /api. It may be '' only without cc_rest_submit_jobs."""
    cc_rest_jwt: str = field(repr=False)
    cc_rest_jwt_file: str
    cc_rest_ca_file: str
    cc_rest_proxy: str = field(repr=False)
    """A URL, 'none', or '' for the proxy that the environment names."""
    gpu_pci_addrs: values.GpuPciAddrs
    accelerator_gres: tuple[str, ...]
    hwthread_numbering: NumberingByHost
    hostname_rewrite: HostnameRewrites
    job_script_max_bytes: int
    ignore_hosts: re.Pattern[str] | None
    ignore_partitions: re.Pattern[str] | None
    ignore_users: re.Pattern[str] | None
    nats_servers: tuple[str, ...]
    """Complete URLs, as nats://host:4222 and tls://[::1]:4222; () for no NATS."""
    nats_port: int
    """This port is already in the URLs."""
    nats_subject: str
    nats_node_subject: str
    nats_user: str
    nats_password: str = field(repr=False)
    nats_creds_file: str
    """A path, as are the next field and `nats_tls_key_file`: the folder of systemd's credentials is already filled
    in."""
    nats_nkey_seed_file: str
    nats_tls_ca_file: str
    nats_tls_cert_file: str
    nats_tls_key_file: str
    nats_jet_stream: bool
    nats_stop_delay: int


class _Draft:
    """What was found while the settings are read. All problems are reported together."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.wrong: set[str] = set()
        self.problems: list[str] = []
        self.warnings: list[Finding] = []
        self.uses_rest = True
        """Whether cc-backend is used over REST, even if only for comparisons."""
        self.serves_nats = False

    def warn(self, key: str, text: str, next_step: str = "") -> None:
        """Add a warning about what happens to a value that can be used."""
        self.warnings.append(_warning(key, text, next_step))

    def given(self, key: str) -> bool:
        """Return whether a key has a value other than its default. A wrong value does not count."""
        setting = BY_NAME[key.lower()]
        return bool(self.fields[setting.field] != setting.default)


def load_config(path: str, *, explicit: bool) -> tuple[Config, list[Finding]]:
    """Read and check the configuration. Return it with what the administrator should know about it.

    `explicit` tells whether the caller gave the path or it is the default. Raises ConfigError with all problems
    together: an unreadable file or secret, wrong values, missing settings. The error is UnreadableFile if nothing in
    the configuration has to be changed.
    """
    file = read_named_file(path, explicit=explicit)
    draft, config = _parse(file)
    unreadable = _unreadable_files(config, draft)
    if draft.problems or unreadable:
        # With the warnings, so that nobody sees them only at the next start.
        problems = [f"{path}: {line}" for line in [*draft.problems, *unreadable]]
        raise (ConfigError if draft.problems else UnreadableFile)(
            problems, [f"{path}: {each}" for each in draft.warnings]
        )
    warnings = draft.warnings + _warnings_of_files(config, path, file)
    return config, [replace(warning, text=f"{path}: {warning.text}") for warning in warnings]


def examine_config(path: str, *, explicit: bool) -> tuple[Config, list[Finding]]:
    """Return the configuration, with the default for whatever is wrong in it, and everything that is wrong.

    What the daemon would not start with is an ERROR, and so is a key that there is not: nobody wants to write one.
    Raises nothing: if the file itself cannot be read, all settings have their defaults.
    """
    try:
        file = read_named_file(path, explicit=explicit)
    except ConfigError as error:
        step = "let the daemon's user read it" if isinstance(error, ForbiddenFile) else "correct that first"
        if isinstance(error, MissingFile):
            step = "cc-slurm-adapter -install prints one to begin with"
        problems = [Finding(logging.ERROR, CONFIGURATION, each, step) for each in error.problems]
        return _parse(ConfigFile({}, []))[1], problems
    draft, config = _parse(file)
    unreadable = _unreadable_files(config, draft)
    errors = [_error(line, f"correct it in {path}") for line in draft.problems]
    errors += [_error(line, _step_for_file(line)) for line in unreadable]
    warnings = [*draft.warnings, *_warnings_of_files(config, path, file)]
    step = f"write it right or remove it in {path}"
    return config, errors + [
        replace(each, level=logging.ERROR, next_step=step) if is_unknown_key(each.subject) else each
        for each in warnings
    ]


def _step_for_file(line: str) -> str:
    """Return what to do about a file that the line says cannot be used."""
    what = "a token of cc-backend with the role api" if line.startswith("ccRestJwtFile:") else "the secret alone"
    if "cannot read " not in line:
        return f"write {what} into it, in one line"
    if os.strerror(errno.ENOENT) in line:
        return "make that file, or correct the path"
    return "let the daemon's user read it, or correct the path"


def is_unknown_key(key: str) -> bool:
    """Return whether there is no such key and never was one."""
    return key.lower() not in BY_NAME and key.lower() not in REMOVED


def _error(line: str, next_step: str) -> Finding:
    """Return the finding about a problem, which begins with its key."""
    return Finding(logging.ERROR, line.partition(":")[0], line, next_step)


def _warnings_of_files(config: Config, path: str, file: ConfigFile) -> list[Finding]:
    return _exposed_secrets(config, path, file.mode) + _leftover_events_folder(config)


def parse_config(settings: Mapping[str, object]) -> tuple[Config, list[Finding]]:
    """Check settings that were read already. No file is read. Raises ConfigError."""
    entries = {key.lower(): (key, value) for key, value in settings.items() if value is not None}
    draft, config = _parse(ConfigFile(entries, []))
    if draft.problems:
        raise ConfigError(draft.problems)
    return config, draft.warnings


def _parse(file: ConfigFile) -> tuple[_Draft, Config]:
    draft = _Draft()
    for key in file.repeated:
        draft.warn(key, "occurs more than once: the last one is used")
    draft.uses_rest = file.get("ccRestSubmitJobs") is not False or file.get("ccRestUrl") not in (None, "")
    draft.serves_nats = file.get("natsServer") not in (None, "")
    for setting in SETTINGS:
        draft.fields[setting.field] = _parse_setting(setting, file, draft)
    _warn_of_unknown_keys(file, draft)
    config = _with_defaults(dict(draft.fields))
    _warn_of_former_events_path(draft, config)
    _check_paths(config, draft)
    _check_control_socket(config, draft)
    _warn_of_open_metrics(config, draft)
    if draft.uses_rest:
        _check_rest(config, draft)
    else:
        _warn_of_ignored(_NEED_REST, "ccRestUrl", draft)
    if draft.serves_nats:
        _check_nats(draft)
    else:
        _warn_of_ignored(_NEED_NATS, "natsServer", draft)
    if not config.cc_rest_submit_jobs and draft.given("requeuedRuns"):
        draft.warn("requeuedRuns", "ignored because ccRestSubmitJobs is false")
    if not (config.cc_rest_submit_jobs or draft.serves_nats):
        draft.problems.append("natsServer: is missing and ccRestSubmitJobs is false: set it, or that to true")
    return draft, config


def _parse_setting(setting: Setting, file: ConfigFile, draft: _Draft) -> object:
    given = [file.entries[name.lower()] for name in (*setting.old_names, setting.key) if name.lower() in file.entries]
    if len(given) > 1:
        draft.warn(given[0][0], f"ignored because {setting.key} is set")
    return _parse_value(setting, *given[-1], draft) if given else _parse_default(setting, draft)


def _parse_value(setting: Setting, key: str, value: object, draft: _Draft) -> object:
    try:
        return setting.parse(value, partial(draft.warn, key))
    except values.WrongValue as error:
        problem = f"got {_shown(setting, value)}, {error}"
    if key.startswith("nats") and not draft.serves_nats:
        draft.warn(key, f"{problem}; ignored because natsServer is not set")
        return _parse_default(setting, draft)
    draft.problems.append(f"{key}: {problem}")
    # The default stands in for a wrong value, so that the other settings can be checked as well.
    draft.wrong.add(setting.key)
    return _parse_default(setting, draft)


def _parse_default(setting: Setting, draft: _Draft) -> object:
    return setting.parse(setting.default, partial(draft.warn, setting.key))


def _shown(setting: Setting, value: object) -> str:
    if setting.secret:
        return _type_name(value)
    text = json.dumps(value)
    # In a regular expression a question mark is harmless.
    return _shorten(text if setting.key in _WITH_PATTERNS else presentable(text))


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _type_name(value: object) -> str:
    names = {str: "an unusable text", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "an object")


def _warn_of_unknown_keys(file: ConfigFile, draft: _Draft) -> None:
    for lower, (key, _) in file.entries.items():
        if lower in REMOVED:
            draft.warn(key, REMOVED[lower])
        elif is_unknown_key(key):
            found = nearest(lower, BY_NAME)
            hint = f"did you mean {BY_NAME[found].key}?" if found else "-settings lists all keys"
            draft.warn(key, f"unknown key, ignored; {hint}")


def _with_defaults(fields: dict[str, Any]) -> Config:
    last_run_path = fields["last_run_path"]
    fields["prep_events_path"] = events_path(fields["prep_events_path"], last_run_path)
    fields["cc_poll_interval"] = fields["cc_poll_interval"] or fields["slurm_poll_interval"]
    fields["control_sock_path"] = fields["control_sock_path"] or beside(fields["pid_file_path"], "control.sock")
    fields["state_path"] = fields["state_path"] or beside(last_run_path, "state.sqlite")
    fields["nats_servers"] = tuple(values.with_port(url, fields["nats_port"]) for url in fields["nats_servers"])
    for name in ("nats_creds_file", "nats_nkey_seed_file", "nats_tls_key_file"):
        fields[name] = fields[name] and secret_path(fields[name])
    return Config(**fields)


def _check_paths(config: Config, draft: _Draft) -> None:
    """Find files that the daemon writes and that the configuration also names for something else."""
    socket, metrics = config.prep_sock_listen_path, config.metrics_listen
    written = {
        "pidFilePath": config.pid_file_path,
        "prepSockListenPath": socket.path if isinstance(socket, UnixAddress) else "",
        "controlSockPath": config.control_sock_path,
        "metricsListen": metrics.path if isinstance(metrics, UnixAddress) else "",
        "lastRunPath": config.last_run_path,
        "statePath": config.state_path,
    }
    read = {setting.key: getattr(config, setting.field) for setting in SETTINGS if setting.key.endswith("File")}
    named: dict[str, str] = {}
    for key, path in [*read.items(), *written.items()]:
        place = os.path.normpath(path) if path else ""
        other = named.setdefault(place, key) if place else key
        if other != key and key in written:
            draft.problems.append(f"{key}: is the same file as {other}: give it one of its own")


def _check_control_socket(config: Config, draft: _Draft) -> None:
    """Find a default that is too long for a unix socket. A configured path was checked already."""
    length = len(os.fsencode(config.control_sock_path))
    if length > MAX_UNIX_PATH:
        draft.problems.append(
            f"controlSockPath: {presentable(repr(config.control_sock_path))}, beside pidFilePath, has {length} bytes, a"
            f" unix socket's path can have {MAX_UNIX_PATH} at most: set it"
        )


def _warn_of_open_metrics(config: Config, draft: _Draft) -> None:
    address = config.metrics_listen
    if isinstance(address, TcpAddress) and not values.is_loopback(address):
        draft.warn(
            "metricsListen",
            f"anybody who reaches {address} can read the metrics and the page",
            "Listen on 127.0.0.1, or let a firewall admit only the hosts that may read them",
        )


def _check_rest(config: Config, draft: _Draft) -> None:
    if config.cc_rest_jwt and config.cc_rest_jwt_file:
        draft.warn("ccRestJwt", "ignored because ccRestJwtFile is set")
    if not config.cc_rest_url and not draft.wrong & {"ccRestUrl", "ccRestSubmitJobs"}:
        draft.problems.append("ccRestUrl: is missing, expected the address of cc-backend")
    if not (config.cc_rest_jwt or config.cc_rest_jwt_file) and not draft.wrong & {"ccRestJwt", "ccRestJwtFile"}:
        draft.problems.append("ccRestJwt: is missing, expected a token here or the name of its file in ccRestJwtFile")


def _check_nats(draft: _Draft) -> None:
    """Find keys of NATS that exclude or need each other. A key with a wrong value is already a problem."""
    for pair in _TOGETHER:
        for key, other in (pair, pair[::-1]):
            if draft.given(key) and not draft.given(other) and other not in draft.wrong:
                draft.problems.append(f"{key}: needs {other} as well: set both or none of them")
    many = [key for key in _ONE_OF if draft.given(key)]
    if len(many) > 1:
        draft.problems.append(f"{many[-1]}: {' and '.join(many)} are set, expected only one of them: remove the others")
    subject, node_subject = draft.fields["nats_subject"], draft.fields["nats_node_subject"]
    if subject == node_subject and "natsSubject" not in draft.wrong:
        draft.problems.append(f"natsNodeSubject: got {json.dumps(node_subject)}, expected another one than natsSubject")


def _warn_of_ignored(keys: frozenset[str], missing: str, draft: _Draft) -> None:
    for setting in SETTINGS:
        if setting.key in keys and draft.given(setting.key):
            draft.warn(setting.key, f"ignored because {missing} is not set")


def read_token(config: Config) -> str:
    """Return the token for cc-backend, read again at each call if it is in a file. Raises ConfigError."""
    if not config.cc_rest_jwt_file:
        return config.cc_rest_jwt
    found = read_secret_file("ccRestJwtFile", config.cc_rest_jwt_file)
    try:
        values.check_token(found)
    except values.WrongValue as error:
        raise UnreadableFile([f"ccRestJwtFile: {secret_path(config.cc_rest_jwt_file)}: {error}"]) from None
    return found


def read_nats_creds(config: Config) -> str:
    """Return the text of natsCredsFile, read again at each call; '' if it is not set. Raises ConfigError."""
    return read_secret_file("natsCredsFile", config.nats_creds_file) if config.nats_creds_file else ""


def read_nats_seed(config: Config) -> str:
    """Return the seed in natsNKeySeedFile, read again at each call; '' if it is not set. Raises ConfigError."""
    return read_secret_file("natsNKeySeedFile", config.nats_nkey_seed_file) if config.nats_nkey_seed_file else ""


def read_prep_secret(config: Config) -> bytes | None:
    """Return the secret with which hooks sign their events; None without prepSecretFile. Raises ConfigError."""
    return read_secret(config.prep_secret_file) if config.prep_secret_file else None


def _unreadable_files(config: Config, draft: _Draft) -> list[str]:
    reads: list[Callable[[Config], object]] = [read_prep_secret]
    others = {}
    if draft.uses_rest:
        reads.append(read_token)
        others["ccRestCaFile"] = config.cc_rest_ca_file
    if draft.serves_nats:
        reads += [read_nats_creds, read_nats_seed]
        others["natsTlsCaFile"] = config.nats_tls_ca_file
        others["natsTlsCertFile"] = config.nats_tls_cert_file
        others["natsTlsKeyFile"] = config.nats_tls_key_file
    problems = []
    for read in reads:
        try:
            read(config)
        except ConfigError as error:
            problems += error.problems
    return problems + [line for key, path in others.items() if path for line in _unreadable(key, path)]


def _unreadable(key: str, path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        return [f"{key}: cannot read {presentable(path)}: {reason(error)}"]
    return []


def _exposed_secrets(config: Config, path: str, mode: int) -> list[Finding]:
    """Return a warning for each file with a secret that all can read. `path` and `mode` are the configuration's."""
    warnings = []
    held = [setting.key for setting in SETTINGS if setting.secret and _holds_secret(setting, config)]
    if held and mode & stat.S_IROTH:
        text = f"everyone on this host can read {path}, and {' and '.join(held)} in it"
        warnings.append(_warning(held[0], text, f"run chmod o-r {path}"))
    files = {"ccRestJwtFile": config.cc_rest_jwt_file, "prepSecretFile": config.prep_secret_file}
    if config.nats_servers:
        files["natsCredsFile"] = config.nats_creds_file
        files["natsNKeySeedFile"] = config.nats_nkey_seed_file
        files["natsTlsKeyFile"] = config.nats_tls_key_file
    for key, name in files.items():
        if name and _others_can_read(secret_path(name)):
            text = f"everyone on this host can read {secret_path(name)}"
            warnings.append(_warning(key, text, f"run chmod o-r {secret_path(name)}"))
    return warnings


def _holds_secret(setting: Setting, config: Config) -> bool:
    """Return whether the value is secret. The address of a proxy is secret only if it has a password."""
    value = str(getattr(config, setting.field))
    return "@" in value if setting.key == "ccRestProxy" else bool(value)


def _others_can_read(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        return False


def _warn_of_former_events_path(draft: _Draft, config: Config) -> None:
    configured = draft.fields["prep_events_path"]
    if configured and os.path.normpath(configured) in former_events_paths(config.last_run_path):
        draft.warn(
            "prepEventsPath",
            f"{DEFAULT_EVENTS_PATH} is used, since a disk may keep hooks waiting. What hooks leave in {configured} is"
            " still read",
            "Remove the key",
        )


def _leftover_events_folder(config: Config) -> list[Finding]:
    """Return a warning if hooks may leave events that nobody reads: without arguments they know one folder only."""
    used, known = config.prep_events_path, DEFAULT_EVENTS_PATH
    if os.path.realpath(used) == os.path.realpath(known) or not os.path.isdir(known):
        return []
    text = (
        f"{used} is used, but {known} exists: hooks that are called without arguments leave their events there, and"
        " unless another daemon uses it nobody reads them"
    )
    next_step = f"Remove {known}, or call the hooks with -config, or set CC_SLURM_ADAPTER_EVENTS={used} for them"
    return [_warning("prepEventsPath", text, next_step)]


def _warning(key: str, text: str, next_step: str = "") -> Finding:
    return Finding(logging.WARNING, key, f"{key}: {text}", next_step)


def settings_reference() -> list[tuple[str, str, str, str]]:
    """Return (key, default as JSON, what puts a change in force, help) of every setting, for the documents."""
    return [
        (setting.key, json.dumps(setting.default), "reload" if setting.reload else "restart", setting.help)
        for setting in SETTINGS
    ]
