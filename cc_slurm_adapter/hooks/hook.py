"""The hook: reports one job to the daemon, from Slurm's prolog or epilog.

A PrologSlurmctld that fails requeues the job, a Prolog or Epilog that fails drains the node, and Slurm waits for all of
them (https://slurm.schedmd.com/prolog_epilog.html). So the hook always exits with 0, within a second, and writes
nothing to the job's output: problems are logged to syslog. If no hook reports a job, the daemon's poll finds it, only
later.
"""

from __future__ import annotations

import _socket
import _thread
import os
import time
from _collections_abc import Callable, Mapping, Sequence

from cc_slurm_adapter.config.address import TcpAddress, UnixAddress, parse_address
from cc_slurm_adapter.config.file import (
    DEFAULT_CONFIG_PATH,
    DEFAULT_EVENTS_PATH,
    DEFAULT_LAST_RUN_PATH,
    DEFAULT_SOCKET_PATH,
    ConfigFile,
    events_path,
    read_config_file,
)
from cc_slurm_adapter.config.secrets import read_secret, reason
from cc_slurm_adapter.errors import AdapterError, ConfigError
from cc_slurm_adapter.hooks.message import HookMessage, encode, event_name, read_environment
from cc_slurm_adapter.system.event_files import is_closed, marker_name

REPORT_SECONDS = 0.7
"""Longest time, in seconds, for everything that a hook does ..."""
SYSLOG_SECONDS = 0.1
"""... and for logging afterwards that this took too long."""
SEND_SECONDS = 0.4
"""Longest time for the socket, including the lookup of its name. It leaves some time for the event file."""


class _Settings:
    """The few settings that a hook needs, and the problems found while reading them."""

    def __init__(self) -> None:
        self.address: UnixAddress | TcpAddress = UnixAddress(DEFAULT_SOCKET_PATH)
        self.secret_file = ""
        self.events_path = DEFAULT_EVENTS_PATH
        self.problems: list[str] = []


def run_hook(argv: Sequence[str], environ: Mapping[str, str], log: Callable[[str], None] | None = None) -> int:
    """Report the job that the environment names. Return 0 in any case, after 0.8 s at most.

    `argv` are the arguments after the program's name. `log` is called with one line about a problem. Without `log` the
    line is written to syslog.
    """
    log = log or _log_to_syslog
    if not _within(REPORT_SECONDS, lambda: _report(argv, environ, log)):
        _within(SYSLOG_SECONDS, lambda: log(f"gave up reporting after {REPORT_SECONDS} s; the next poll finds the job"))
    return 0


def _within(seconds: float, work: Callable[[], None]) -> bool:
    """Do the work in a thread of its own and return whether it ended in time. Raises what the work raises.

    A signal could not limit the time: Python's signal handlers interrupt neither the lookup of a name nor a file system
    that hangs. A thread that is late does not keep the process alive.
    """
    finished = _thread.allocate_lock()
    finished.acquire(blocking=False)
    failures: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a thread would print it, for the job to see
            failures.append(error)
        finished.release()

    try:
        _thread.start_new_thread(run, ())
    except RuntimeError:  # no more threads for this user: do it without a limit
        run()
    ended = finished.acquire(timeout=seconds)
    if failures:
        raise failures[0]
    return ended


def _report(argv: Sequence[str], environ: Mapping[str, str], log: Callable[[str], None]) -> None:
    try:
        for problem in _deliver(argv, environ):
            log(problem)
    except Exception as error:  # noqa: BLE001 - nothing that goes wrong here may fail a job
        log(f"the hook failed ({type(error).__name__}: {error}); the next poll finds the job")


def _deliver(argv: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Report over the socket or, if that fails, by an event file. Return the problems to log."""
    try:
        message = read_environment(environ)
    except AdapterError as error:
        return [f"nothing reported: {error}"]
    settings = _read_settings(argv)
    failure = _send(settings, environ)
    if not failure:
        return settings.problems
    file_failure = _leave_event_file(settings.events_path, message)
    if not file_failure:
        return settings.problems
    return [
        *settings.problems,
        f"job {message.job_id} not reported: {failure}; {file_failure}; is the daemon running, and do"
        " prepSockConnectPath and prepEventsPath match its configuration? The next poll finds the job",
    ]


def _read_settings(argv: Sequence[str]) -> _Settings:
    settings = _Settings()
    path = _config_argument(argv)
    try:
        file = read_config_file(path or DEFAULT_CONFIG_PATH)
    except (OSError, ValueError) as error:
        # The default file may be missing, and often hooks are not allowed to read it.
        if path is not None:
            settings.problems.append(f"cannot read {path}: {reason(error)}; using the defaults")
        return settings
    except ConfigError as error:
        settings.problems.append(f"{path or DEFAULT_CONFIG_PATH}: {error}; using the defaults")
        return settings
    _apply(file, settings)
    return settings


def _config_argument(argv: Sequence[str]) -> str | None:
    for position, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name in ("-config", "--config"):
            return value if equals else "".join(argv[position + 1 : position + 2])
    return None


def _apply(file: ConfigFile, settings: _Settings) -> None:
    last_run_path = _text(file, "lastRunPath", settings) or DEFAULT_LAST_RUN_PATH
    settings.events_path = events_path(_text(file, "prepEventsPath", settings), last_run_path)
    settings.secret_file = _text(file, "prepSecretFile", settings)
    address = _text(file, "prepSockConnectPath", settings)
    try:
        settings.address = parse_address(address or DEFAULT_SOCKET_PATH)
    except ConfigError as error:
        settings.problems.append(f"prepSockConnectPath: {error}; using {DEFAULT_SOCKET_PATH}")


def _text(file: ConfigFile, key: str, settings: _Settings) -> str:
    value = file.get(key)
    if value is None or isinstance(value, str):
        return value or ""
    settings.problems.append(f"{key}: expected text in quotes; using the default")
    return ""


def _send(settings: _Settings, environ: Mapping[str, str]) -> str:
    """Send the message. Return why that failed, or ''."""
    failure = [f"{settings.address}: no connection within {SEND_SECONDS} s"]

    def send() -> None:
        try:
            message = encode(environ)
            if settings.secret_file and isinstance(settings.address, TcpAddress):
                from cc_slurm_adapter.hooks.signature import sign  # noqa: PLC0415 - few hooks have a secret

                message = sign(message, read_secret(settings.secret_file), time.time())
            _send_to(settings.address, message)
            failure[0] = ""
        except (OSError, ValueError) as error:
            failure[0] = f"{settings.address}: {reason(error)}"
        except AdapterError as error:
            failure[0] = str(error)

    _within(SEND_SECONDS, send)
    return failure[0]


def _send_to(address: UnixAddress | TcpAddress, message: bytes) -> None:
    connection = _connect_tcp(address) if isinstance(address, TcpAddress) else _connect_unix(address)
    try:
        connection.sendall(message)
        connection.shutdown(_socket.SHUT_WR)
    finally:
        connection.close()


# The bare sockets below the module `socket`, because loading that module takes longer than everything else.


def _connect_unix(address: UnixAddress) -> _socket.socket:
    return _connect(_socket.AF_UNIX, address.path)


def _connect_tcp(address: TcpAddress) -> _socket.socket:
    """Connect to the first of the host's addresses that takes the connection. Raises OSError, that of the last one."""
    # As bytes, because a text would have Python load its rules for international names.
    host = (address.host or "localhost").encode()
    failure = OSError("the name has no address")
    for family, _, _, _, place in _socket.getaddrinfo(host, address.port, 0, _socket.SOCK_STREAM):
        try:
            return _connect(family, place)
        except OSError as error:
            failure = error
    raise failure


def _connect(family: int, place: str | tuple[object, ...]) -> _socket.socket:
    connection = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        connection.settimeout(SEND_SECONDS)
        connection.connect(place)
    except OSError:
        connection.close()
        raise
    return connection


def _leave_event_file(folder: str, message: HookMessage) -> str:
    """Leave an event file for a daemon that is down only for a short time. Return why that failed, or ''."""
    if is_closed(folder, marker_name(message.cluster)):
        return f"{folder}: no daemon has read it for a while, so nothing more is left there"
    name = event_name(message, os.getpid())
    flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        os.close(os.open(os.path.join(folder, name), flags, 0o660))
    except (OSError, ValueError) as error:
        return f"{folder}: {reason(error)}"
    return ""


def _log_to_syslog(line: str) -> None:
    # Few hooks have something to tell.
    import syslog  # noqa: PLC0415

    from cc_slurm_adapter.lines import printable  # noqa: PLC0415

    syslog.openlog("cc-slurm-adapter", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_WARNING, printable(line))
