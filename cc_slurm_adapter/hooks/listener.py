"""Opens listening sockets, for hooks and for others, and closes them without leaving a file behind."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
import stat
import struct
from typing import NamedTuple

from cc_slurm_adapter.config.address import TcpAddress, UnixAddress
from cc_slurm_adapter.config.secrets import reason
from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.hooks.access import AllowedSenders, access_warning
from cc_slurm_adapter.system.own_files import identity, remove_socket, share_socket, share_with_group_alone

logger = logging.getLogger(__name__)

BACKLOG = 1024
"""Connections that the kernel keeps waiting: an array job starts many hooks at the same time."""
_PEER = struct.Struct("3i")
_WILDCARDS = ("", "::", "0.0.0.0")  # noqa: S104 - recognised here, not bound
_CONNECT_TEST_SECONDS = 0.5
_NOT_ON_THIS_HOST = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""Errors of bind(2) on a host without IPv6. One of several addresses may be missing."""


class Use(NamedTuple):
    """What listening sockets are for."""

    setting: str
    """The key of the configuration that names their address, for messages."""
    what: str
    """What they accept, for the log."""
    needs_slurm_user: bool = False
    """Whether the log warns if SlurmUser cannot use the unix socket."""
    needs_protection: bool = False
    """Whether it listens beyond loopback only with a secret or with allowed networks."""


HOOKS = Use("prepSockListenPath", "hook events", needs_slurm_user=True, needs_protection=True)


class Listeners:
    """The listening sockets of one address: two for IPv4 and IPv6 together, one otherwise."""

    def __init__(self, sockets: list[socket.socket], unix_path: str = "", use: Use = HOOKS) -> None:
        self.sockets = sockets
        self.use = use
        self._unix_path = unix_path
        self._made = identity(unix_path) if unix_path else None

    def grant_access(self, allowed_senders: AllowedSenders) -> None:
        """Give SlurmUser's group access to the unix socket. If hooks need it, the log warns if it still cannot be used.

        A socket that another process has put in its place is not touched.
        """
        if self._unix_path and identity(self._unix_path) == self._made:
            _share(self._unix_path, allowed_senders, self.use)

    def close(self) -> None:
        """Close the sockets and remove the unix socket's file, unless another process has replaced it."""
        for listener in self.sockets:
            listener.close()
        if self._unix_path:
            try:
                remove_socket(self._unix_path, self._made)
            except OSError as error:
                logger.warning("cannot remove the socket %s: %s", self._unix_path, reason(error))


def open_listeners(address: UnixAddress | TcpAddress, allowed_senders: AllowedSenders, use: Use = HOOKS) -> Listeners:
    """Listen on an address. Raises StateError if that is not possible."""
    if isinstance(address, UnixAddress):
        return _open_unix(address.path, allowed_senders, use)
    return _open_tcp(address, allowed_senders, use)


def _open_unix(path: str, allowed_senders: AllowedSenders, use: Use) -> Listeners:
    _remove_stale_socket(path, use.setting)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        _share(path, allowed_senders, use)  # before it listens: until then nobody can connect
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise StateError(f"{use.setting}: {_why_not_bound(path, error)}") from None
    return Listeners([listener], path, use)


def _share(path: str, allowed_senders: AllowedSenders, use: Use) -> None:
    warning = ""
    try:
        if use.needs_slurm_user:
            share_socket(path, allowed_senders.group)
            warning = access_warning(path, 2, allowed_senders)
        elif not share_with_group_alone(path, allowed_senders.group):
            warning = (
                f"{path} is for root and the daemon's user only, since the daemon is not a member of SlurmUser's group:"
                " set Group= in its systemd unit if that group is to use it"
            )
    except OSError as error:
        warning = f"{path}: {reason(error)}"
    if warning:
        logger.warning("%s: %s", use.setting, warning)


def _why_not_bound(path: str, error: OSError) -> str:
    folder = os.path.dirname(path) or "."
    if error.errno == errno.ENOENT:
        return (
            f"the folder {folder} of the socket {path} does not exist: create it, or have systemd do so with"
            " RuntimeDirectory="
        )
    return f"cannot create the socket {path}: {reason(error)}; the daemon must be able to write to the folder {folder}"


def _remove_stale_socket(path: str, setting: str) -> None:
    """Remove the socket of a daemon that was killed, and nothing else. Raises StateError."""
    try:
        stale = identity(path)
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise StateError(f"{setting}: {path} exists and is not a socket: remove it, or configure another path")
        owner = _who_serves(path)
        if owner:
            raise StateError(f"{setting}: {path} is in use, {owner} serves it: stop that, or configure another path")
        remove_socket(path, stale)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StateError(f"{setting}: cannot replace {path}: {reason(error)}") from None


def _who_serves(path: str) -> str:
    """Return a description of the process that listens on a unix socket, '' if there is none. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_TEST_SECONDS)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return ""
        except (BlockingIOError, TimeoutError, socket.timeout):
            return "a busy process"
        pid, _ = peer_ids(probe)
        return f"process {pid}"


def peer_ids(connection: socket.socket) -> tuple[int, int]:
    """Return the process id and user id at the other end of a unix socket, as the kernel reports them."""
    pid, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return pid, uid


def _open_tcp(address: TcpAddress, allowed_senders: AllowedSenders, use: Use) -> Listeners:
    opened: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, host in _hosts_to_bind(address, allowed_senders, use):
            try:
                opened.append(_bind_tcp(family, host, address.port))
            except OSError as error:
                if error.errno not in _NOT_ON_THIS_HOST:
                    raise
                absent = error
        if absent and not opened:
            raise absent
    except OSError as error:
        for listener in opened:
            listener.close()
        hint = ": another process has the port" if error.errno == errno.EADDRINUSE else ""
        raise StateError(f"{use.setting}: cannot listen on {address}: {reason(error)}{hint}") from None
    for listener in opened:
        logger.info("accepting %s on %s", use.what, listener.getsockname()[:2])
    return Listeners(opened, use=use)


def _hosts_to_bind(address: TcpAddress, allowed_senders: AllowedSenders, use: Use) -> list[tuple[int, str]]:
    """Return the (family, numeric address) pairs to listen on.

    For hooks these are loopback addresses only, without a secret and prepAllow.
    """
    wildcard = address.host in _WILDCARDS
    open_to_all = use.needs_protection and allowed_senders.secret is None and not allowed_senders.networks
    if wildcard and open_to_all:
        _warn_unprotected(address, "it listens on loopback only")
    if wildcard:
        v4, v6 = ("127.0.0.1", "::1") if open_to_all else ("0.0.0.0", "::")  # noqa: S104 - protected, or meant for all
        both: list[tuple[int, str]] = [(socket.AF_INET, v4), (socket.AF_INET6, v6)]
        return both[:1] if address.host == "0.0.0.0" else both  # noqa: S104 - compared, not bound
    try:
        hosts = _resolve(address)
    except OSError:
        if not open_to_all:
            raise
        _warn_unprotected(address, "it does not listen there (and the name has no address)")
        return []
    if not open_to_all:
        return hosts
    local = [(family, host) for family, host in hosts if ipaddress.ip_address(host).is_loopback]
    if local != hosts:
        _warn_unprotected(address, "it does not listen there")
    return local


def _resolve(address: TcpAddress) -> list[tuple[int, str]]:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a part of the name is empty or too long
        raise OSError(errno.EINVAL, "this is not a host name") from None
    return list(dict.fromkeys((int(entry[0]), str(entry[4][0]).partition("%")[0]) for entry in found))


def _warn_unprotected(address: TcpAddress, consequence: str) -> None:
    logger.warning(
        "prepSockListenPath %s would accept hook events from anyone who can reach it: %s, and jobs are found by"
        " polling. Set prepSecretFile (hooks sign with the same secret) or prepAllow (addresses that may send)",
        address,
        consequence,
    )


def _bind_tcp(family: int, host: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
