"""Asks the running daemon over its control socket: HTTP over a unix socket, with limits on time and size.

Each command that shows a status loads this module, so it imports nothing that is slow to load.
"""

from __future__ import annotations

import json
import socket
import time

from cc_slurm_adapter.config.secrets import reason
from cc_slurm_adapter.errors import NotAllowed, NotRunning, StateError, UsageError

SECONDS = 5.0
"""Longest time of a request and its response together."""
MAX_BODY = 64 * 2**20
MAX_HEAD = 16 * 1024
_RECEIVE_BYTES = 64 * 1024


def get(path: str, socket_path: str, *, seconds: float = SECONDS, limit: int = MAX_BODY) -> tuple[int, bytes]:
    """Ask for a path. Return the status and the body, whatever they are.

    `seconds` limits all of it, `limit` the bytes of the body. Raises NotRunning if nobody listens, NotAllowed
    if this user may not ask, and StateError if the daemon does not answer in time, or what answers is no daemon.
    """
    return _exchange(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("ascii"), socket_path, seconds, limit)


def post(
    path: str, value: dict[str, object], socket_path: str, *, seconds: float = SECONDS, limit: int = MAX_BODY
) -> tuple[int, bytes]:
    """Send a JSON object to a path; else as `get`. The daemon may still do it although it did not answer in time."""
    body = json.dumps(value).encode("ascii")
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return _exchange(head.encode("ascii") + body, socket_path, seconds, limit, _UNKNOWN)


def parse_answer(status: int, body: bytes) -> dict[str, object]:
    """Return the JSON object of a successful response.

    Raises UsageError with the daemon's text if it did not understand the request, and StateError for everything else.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise StateError(f"the daemon answered {status} without a JSON object: is it of another version? Restart it")
    if status in (200, 202):
        return found
    text = str(found.get("error", f"the daemon answered {status}"))
    raise UsageError(text) if status == 400 else StateError(text)


_UNKNOWN = "it is not known whether this was done: see -status and -queue list"


def _exchange(
    request: bytes, socket_path: str, seconds: float, limit: int, next_step: str = "see its log"
) -> tuple[int, bytes]:
    deadline = time.monotonic() + seconds
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            _connect(connection, socket_path, deadline)
            _send(connection, request, deadline)
            return _receive(connection, limit, deadline)
    except (TimeoutError, socket.timeout):
        raise StateError(f"the daemon does not answer within {seconds:g} s on {socket_path}: {next_step}") from None
    except OSError as error:
        raise StateError(f"the daemon cannot be asked on {socket_path}: {reason(error)}") from None


def _connect(connection: socket.socket, socket_path: str, deadline: float) -> None:
    try:
        _limit(connection, deadline)
        connection.connect(socket_path)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise NotRunning(
            f"no daemon answers on {socket_path}: start it, or name its configuration with -config"
        ) from None
    except PermissionError:
        raise NotAllowed(
            f"only root, the daemon's user and members of SlurmUser's group may ask on {socket_path}: run this as root"
        ) from None
    except BlockingIOError:  # the kernel keeps no more connections waiting for it
        raise StateError(f"too many others ask the daemon on {socket_path}: try again in a few seconds") from None


def _send(connection: socket.socket, request: bytes, deadline: float) -> None:
    try:
        _limit(connection, deadline)
        connection.sendall(request)
    except (BrokenPipeError, ConnectionResetError):
        pass  # it was refused before it was read to its end, and the response says why


def _receive(connection: socket.socket, limit: int, deadline: float) -> tuple[int, bytes]:
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0 and len(data) <= MAX_HEAD:
        if not _receive_more(connection, data, deadline):
            break
    if end < 0:
        raise StateError(_BROKEN_OFF if bytes(data[:5]) in (b"", b"HTTP/") else _NO_DAEMON)
    status, length = _parse_head(bytes(data[:end]).decode("latin-1"))
    del data[: end + 4]
    while length is None or len(data) < length:
        if max(length or 0, len(data)) > limit:
            raise StateError(f"the daemon's answer is longer than {limit} bytes: select less")
        if not _receive_more(connection, data, deadline):
            break
    if length is not None and len(data) < length:
        raise StateError(_BROKEN_OFF)
    return status, bytes(data if length is None else data[:length])


_BROKEN_OFF = "the daemon broke off its answer, as if it had ended: see whether it runs (-status), then try again"
_NO_DAEMON = "what listens on the control socket is no daemon of this program: check controlSockPath"


def _receive_more(connection: socket.socket, data: bytearray, deadline: float) -> bool:
    """Append what arrives. Return whether it was anything. Raises OSError, socket.timeout at the deadline."""
    _limit(connection, deadline)
    piece = connection.recv(_RECEIVE_BYTES)
    data += piece
    return bool(piece)


def _parse_head(text: str) -> tuple[int, int | None]:
    """Return the status and the bytes of the body; None if it ends with the connection. Raises StateError."""
    first, *lines = text.split("\r\n")
    version, _, rest = first.partition(" ")
    if version not in ("HTTP/1.0", "HTTP/1.1") or not (rest[:3].isascii() and rest[:3].isdigit()):
        raise StateError(_NO_DAEMON)
    for line in lines:
        name, _, value = line.partition(":")
        if name.lower() == "content-length" and value.strip().isascii() and value.strip().isdigit():
            return int(rest[:3]), int(value.strip()[:18])
    return int(rest[:3]), None


def _limit(connection: socket.socket, deadline: float) -> None:
    """Let the next call on the socket take no longer than until the deadline. Raises socket.timeout."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise socket.timeout
    connection.settimeout(left)
