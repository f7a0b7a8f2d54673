"""What hook and daemon agree on: socket addresses, the message, its signature, names of event files.

A message is one JSON object of environment values, ended by the end of the stream; there is no
answer. With a shared secret a line stands before it that says when it was made and proves who made
it. An event file is empty, its name says all.

The hook loads this module for every job, so it imports nothing that is slow to load.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping

from cc_slurm_adapter.config_file import presentable, read_secret_file
from cc_slurm_adapter.errors import AdapterError, ConfigError, UnreadableFile

MAX_MESSAGE = 64 * 1024
"""Bytes of a message; a signature comes on top."""
MAX_UNIX_PATH = 107
"""Bytes of a unix socket's path: the kernel's limit without the closing zero byte."""
MAX_JOB_ID = 2**31 - 1
"""squeue refuses a whole list for one larger id, and scontrol takes 2**32 for all jobs."""
MIN_SECRET = 16
"""Bytes of a shared secret."""
CLOCK_TOLERANCE = 60.0
"""Seconds by which the clocks of a node and the daemon's host may differ."""
REMEMBERED_NONCES = 20_000

VARIABLES = (
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
    "CUDA_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_COUNT",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_ARRAY_TASK_MAX",
    "SLURM_ARRAY_TASK_MIN",
    "SLURM_ARRAY_TASK_STEP",
    "SLURM_CLUSTER_NAME",
    "SLURM_JOB_ACCOUNT",
    "SLURM_JOB_COMMENT",
    "SLURM_JOB_CONSTRAINTS",
    "SLURM_JOB_CPUS_PER_NODE",
    "SLURM_JOB_DERIVED_EC",
    "SLURM_JOB_END_TIME",
    "SLURM_JOB_EXIT_CODE",
    "SLURM_JOB_EXIT_CODE2",
    "SLURM_JOB_EXTRA",
    "SLURM_JOB_GID",
    "SLURM_JOB_GROUP",
    "SLURM_JOB_ID",
    "SLURM_JOB_LICENSES",
    "SLURM_JOB_NAME",
    "SLURM_JOB_NODELIST",
    "SLURM_JOB_NUM_NODES",
    "SLURM_JOB_OVERSUBSCRIBE",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_RESERVATION",
    "SLURM_JOB_RESTART_COUNT",
    "SLURM_JOB_START_TIME",
    "SLURM_JOB_STDERR",
    "SLURM_JOB_STDIN",
    "SLURM_JOB_STDOUT",
    "SLURM_JOB_UID",
    "SLURM_JOB_USER",
    "SLURM_JOB_WORK_DIR",
    "SLURM_SCRIPT_CONTEXT",
    "SLURM_WCKEY",
)
"""All keys of a message. The existing adapter's receiver wants to see each of them, so none may be missing."""
_READ_VARIABLES = ("SLURM_JOB_ID", "SLURM_SCRIPT_CONTEXT", "SLURM_CLUSTER_NAME")

_ADDRESS_FORMS = (
    "/path, unix:/path, tcp:127.0.0.1:12345, tcp:[::1]:12345, tcp::12345 (all IPv4 and IPv6) or tcp:host:12345"
)
_ANY_HOST = {"tcp": "", "tcp4": "0.0.0.0", "tcp6": "::"}  # noqa: S104 - for addresses that name it
# Plain texts, because compiling all of them costs a hook two milliseconds; it uses only some.
_HOST = r"[A-Za-z0-9._-]+"
_PORT = r"[0-9]{1,5}"
_CONTEXT = r"[a-z_]{0,64}"
_CLUSTER = r"[A-Za-z0-9_-]{0,64}"
_EVENT_NAME = rf"([0-9]{{1,19}})\.({_CONTEXT})\.({_CLUSTER})\.[0-9]{{1,19}}"
_EVENT_LIKE = r"[0-9]{1,20}\.[a-z_]*\.[A-Za-z0-9_-]*\.[0-9]{1,19}"
_MARKER = r"\.[A-Za-z0-9_-]*\.open"
_SIGNATURE_MARK = b"HMAC-SHA256 "
_SIGNATURE = rb"HMAC-SHA256 ([0-9]{1,12}) ([0-9a-f]{32}) ([0-9a-f]{64})"
MAX_SIGNED_MESSAGE = MAX_MESSAGE + 128


class BadMessage(AdapterError):
    """A message that cannot be understood or must not be trusted."""


class UnixAddress:
    """A unix socket."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __str__(self) -> str:
        return self.path

    __repr__ = __str__


class TcpAddress:
    """A TCP socket. `host` is a name, an address or '' for every IPv4 and IPv6 address."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"

    __repr__ = __str__


class HookMessage:
    """The part of a message that the daemon uses. `context` and `cluster` may be ''."""

    def __init__(self, job_id: int, context: str, cluster: str) -> None:
        self.job_id = job_id
        self.context = context
        self.cluster = cluster


def parse_address(text: str) -> UnixAddress | TcpAddress:
    """Understand prepSockListenPath or prepSockConnectPath. Raises ConfigError with the accepted forms."""
    scheme, colon, rest = text.partition(":")
    if text.startswith("/") or not colon:
        return _unix_address(text, text)
    if scheme.lower() == "unix":
        return _unix_address(rest, text)
    if scheme.lower() in _ANY_HOST:
        address = _tcp_address(rest, text)
        address.host = address.host or _ANY_HOST[scheme.lower()]
        return address
    raise _bad_address(text)


def _bad_address(text: str) -> ConfigError:
    return ConfigError([f"{presentable(repr(text))} is no socket address, expected {_ADDRESS_FORMS}"])


def _unix_address(path: str, text: str) -> UnixAddress:
    if not path or "\0" in path or path.startswith("@"):
        raise _bad_address(text)
    try:
        length = len(os.fsencode(path))
    except UnicodeEncodeError:
        raise _bad_address(text) from None
    if length > MAX_UNIX_PATH:
        raise ConfigError(
            [f"{presentable(repr(path))} has {length} bytes, a unix socket's path can have {MAX_UNIX_PATH} at most"]
        )
    return UnixAddress(path)


def _tcp_address(rest: str, text: str) -> TcpAddress:
    host, colon, port = rest.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ipv6(host):
            raise _bad_address(text)
    elif host and not re.fullmatch(_HOST, host):
        raise _bad_address(text)
    if not colon or not re.fullmatch(_PORT, port) or not 1 <= int(port) <= 65535:
        raise _bad_address(text)
    return TcpAddress(host, int(port))


def _is_ipv6(host: str) -> bool:
    import socket  # noqa: PLC0415 - slow to load, and hooks on the daemon's host need it for nothing else

    try:
        socket.inet_pton(socket.AF_INET6, host)
    except (OSError, ValueError):
        return False
    return True


def encode(environ: Mapping[str, str]) -> bytes:
    """The message of a hook that was called with this environment.

    Only what a receiver needs is sent, as it may go over a network in the clear. The other keys are empty.
    """
    message = dict.fromkeys(VARIABLES, "")
    message.update((name, environ.get(name, "")[:255]) for name in _READ_VARIABLES)
    return json.dumps(message).encode()


def decode(message: bytes) -> HookMessage:
    """Read an unsigned message. Raises BadMessage, whatever the bytes are."""
    try:
        values = json.loads(message)
    except (ValueError, RecursionError):
        raise BadMessage("the message is not JSON") from None
    if not isinstance(values, dict):
        raise BadMessage("the message is not a JSON object")
    return read_environment(values)


def read_environment(values: Mapping[str, object]) -> HookMessage:
    """Pick what the daemon needs. Raises BadMessage without a usable SLURM_JOB_ID.

    A context or cluster of an unexpected form is taken as not given.
    """
    job_id = values.get("SLURM_JOB_ID")
    if not isinstance(job_id, str) or not (job_id.isascii() and job_id.isdigit()) or len(job_id) > 19:
        raise BadMessage(f"SLURM_JOB_ID is no job id: {job_id!r:.40}")
    if not 0 < int(job_id) <= MAX_JOB_ID:
        raise BadMessage(f"SLURM_JOB_ID is out of range: {job_id}")
    context = values.get("SLURM_SCRIPT_CONTEXT")
    cluster = values.get("SLURM_CLUSTER_NAME")
    return HookMessage(
        int(job_id),
        context if isinstance(context, str) and re.fullmatch(_CONTEXT, context) else "",
        cluster if isinstance(cluster, str) and cluster.isprintable() and len(cluster) <= 64 else "",
    )


def event_name(message: HookMessage, pid: int) -> str:
    """The name of the event file; the hook's process id keeps names apart.

    A cluster whose name cannot stand in it is left out, and any daemon takes the event.
    """
    return f"{message.job_id}.{message.context}.{_nameable(message.cluster)}.{pid}"


def _nameable(cluster: str) -> str:
    return cluster if re.fullmatch(_CLUSTER, cluster) else ""


def parse_event_name(name: str) -> HookMessage | None:
    """Read the name of an event file; None when the file is something else."""
    match = re.fullmatch(_EVENT_NAME, name)
    if match is None or not 0 < int(match[1]) <= MAX_JOB_ID:
        return None
    return HookMessage(int(match[1]), match[2], match[3])


def looks_like_event(name: str) -> bool:
    """Whether this can be the name of an event file, also of a job that there cannot be (a hook called by hand)."""
    return re.fullmatch(_EVENT_LIKE, name) is not None


def marker_name(cluster: str) -> str:
    """The file whose time says until when hooks of this cluster may leave events: it lies among them.

    Set to some minutes from now again and again, it bounds what is left while no daemon runs. The shell part can
    only compare the times of two files. So the folder stands for the present: each event moves its time.
    """
    return f".{_nameable(cluster)}.open"


def is_marker_name(name: str) -> bool:
    """Whether this is the name of such a file, of whatever cluster."""
    return re.fullmatch(_MARKER, name) is not None


def is_closed(folder: str, marker: str) -> bool:
    """Whether hooks leave no events any more, because the time in the marker has passed."""
    try:
        return os.stat(folder).st_mtime > os.stat(os.path.join(folder, marker)).st_mtime
    except OSError:
        return False


def read_secret(name: str) -> bytes:
    """The shared secret in prepSecretFile. Raises UnreadableFile."""
    secret = read_secret_file("prepSecretFile", name).encode()
    if len(secret) < MIN_SECRET:
        raise UnreadableFile([f"prepSecretFile: {name} holds fewer than {MIN_SECRET} characters, this is too short"])
    return secret


def sign(message: bytes, secret: bytes, now: float) -> bytes:
    """Put the line before a message that proves knowledge of the secret at this time (Unix seconds)."""
    stamp = f"{int(now)} {os.urandom(16).hex()}".encode()
    return _SIGNATURE_MARK + stamp + b" " + _mac(stamp, message, secret) + b"\n" + message


def _mac(stamp: bytes, message: bytes, secret: bytes) -> bytes:
    # Loading the cryptography takes as long as all the rest: only hooks with a secret pay for it.
    import hmac  # noqa: PLC0415

    return hmac.new(secret, stamp + b"\n" + message, "sha256").hexdigest().encode()


def split_signature(message: bytes) -> tuple[bytes, bytes]:
    """(line of the signature or b'', JSON): a JSON object never begins like the signature does."""
    if not message.startswith(_SIGNATURE_MARK):
        return b"", message
    line, _, body = message.partition(b"\n")
    return line, body


class SignatureCheck:
    """Checks signed messages and takes each of them only once."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._seen: dict[bytes, float] = {}

    def open(self, message: bytes, now: float | None = None) -> bytes:
        """The JSON inside a signed message. Raises BadMessage. `now` is in Unix seconds."""
        now = time.time() if now is None else now
        line, body = split_signature(message)
        match = re.fullmatch(_SIGNATURE, line)
        if match is None:
            raise BadMessage("the message is not signed: the hook needs the same prepSecretFile")
        self._check_mac(match, body)
        made = float(match[1])
        if abs(now - made) > CLOCK_TOLERANCE:
            raise BadMessage(f"the message is {now - made:.0f} s old: repeated, or the clocks differ")
        self._remember(match[2], now)
        return body

    def _check_mac(self, match: re.Match[bytes], body: bytes) -> None:
        import hmac  # noqa: PLC0415 - see _mac

        expected = _mac(match[1] + b" " + match[2], body, self._secret)
        if not hmac.compare_digest(expected, match[3]):
            raise BadMessage("the signature is wrong: hook and daemon have different secrets in prepSecretFile")

    def _remember(self, nonce: bytes, now: float) -> None:
        if nonce in self._seen:
            raise BadMessage("the message was sent twice")
        self._seen[nonce] = now
        # A message is valid for the tolerance on both sides of its time; then it is refused by its time.
        while self._seen:
            oldest = next(iter(self._seen))
            if now - self._seen[oldest] <= 2 * CLOCK_TOLERANCE and len(self._seen) <= REMEMBERED_NONCES:
                return
            del self._seen[oldest]
