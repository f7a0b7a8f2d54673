"""Opening the listening sockets, and the addresses that cannot be had."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from cc_slurm_adapter.config.address import TcpAddress, UnixAddress
from cc_slurm_adapter.errors import StateError
from cc_slurm_adapter.hooks import listener
from cc_slurm_adapter.hooks.access import AllowedSenders
from cc_slurm_adapter.hooks.listener import Use, open_listeners

OWN = frozenset({os.geteuid()})
SECRET = b"a shared secret of some length"


def test_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StateError, match=f"tcp:127.0.0.1:{port}.*another process has the port"):
            open_listeners(TcpAddress("127.0.0.1", port), AllowedSenders(OWN))
        with pytest.raises(StateError, match="another process"):
            open_listeners(TcpAddress("", port), AllowedSenders(OWN, secret=SECRET))


def test_address_of_another_host() -> None:
    with pytest.raises(StateError, match=r"cannot listen on tcp:192\.0\.2\.1:12345"):
        open_listeners(TcpAddress("192.0.2.1", 12345), AllowedSenders(OWN, secret=SECRET))


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 64])
def test_host_name_without_an_address(
    host: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(*_: object, **__: object) -> None:
        host.encode("idna")
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    listeners = open_listeners(TcpAddress(host, 12345), AllowedSenders(OWN))
    assert listeners.sockets == []
    (warning,) = caplog.messages
    assert "Set prepSecretFile" in warning
    assert "has no address" in warning
    with pytest.raises(StateError, match="cannot listen on"):
        open_listeners(TcpAddress(host, 12345), AllowedSenders(OWN, secret=SECRET))


def test_host_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    bind = listener._bind_tcp

    def only_ipv4(family: int, host: str, port: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return bind(family, host, port)

    monkeypatch.setattr(listener, "_bind_tcp", only_ipv4)
    listeners = open_listeners(TcpAddress("", 0), AllowedSenders(OWN, secret=SECRET))
    assert [listener.family for listener in listeners.sockets] == [socket.AF_INET]
    listeners.close()
    with pytest.raises(StateError, match="not supported"):
        open_listeners(TcpAddress("::1", 0), AllowedSenders(OWN))


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    path.write_text("precious", encoding="ascii")
    with pytest.raises(StateError, match=f"{path} exists and is not a socket"):
        open_listeners(UnixAddress(str(path)), AllowedSenders(OWN))
    assert path.read_text(encoding="ascii") == "precious"
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match="is not a socket"):
        open_listeners(UnixAddress(str(path)), AllowedSenders(OWN))


def test_socket_in_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=f"folder {tmp_path}/none of the socket.*RuntimeDirectory="):
        open_listeners(UnixAddress(str(tmp_path / "none" / "d.sock")), AllowedSenders(OWN))


def test_socket_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match=r"cannot create the socket .*Not a directory"):
        open_listeners(UnixAddress(str(tmp_path / "file" / "d.sock")), AllowedSenders(OWN))


def test_messages_name_the_setting_of_the_socket(tmp_path: Path) -> None:
    use = Use("otherPath", "requests")
    with pytest.raises(StateError, match=f"^otherPath: the folder {tmp_path}/none of the socket"):
        open_listeners(UnixAddress(str(tmp_path / "none" / "d.sock")), AllowedSenders(OWN), use)
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(StateError, match=r"^otherPath: cannot listen on"),
    ):
        open_listeners(TcpAddress("127.0.0.1", other.getsockname()[1]), AllowedSenders(OWN), use)


def test_an_address_without_protection_is_for_all_if_it_needs_none(caplog: pytest.LogCaptureFixture) -> None:
    listeners = open_listeners(TcpAddress("0.0.0.0", 0), AllowedSenders(OWN), Use("otherPath", "requests"))
    assert [listener.getsockname()[0] for listener in listeners.sockets] == ["0.0.0.0"]
    listeners.close()
    assert caplog.messages == []


def test_only_hooks_need_that_slurm_user_gets_through(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    senders = AllowedSenders(OWN | {12345})
    (tmp_path / "closed").mkdir(mode=0o700)
    address = UnixAddress(str(tmp_path / "closed" / "d.sock"))
    open_listeners(address, senders, Use("otherPath", "requests")).close()
    assert caplog.messages == []
    open_listeners(address, senders).close()
    (warning,) = caplog.messages
    assert warning.startswith("prepSockListenPath: SlurmUser (uid 12345) cannot use")
