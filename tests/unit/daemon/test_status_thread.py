"""The thread that serves the sockets: over real sockets, with an announcer that only counts."""

from __future__ import annotations

import http.client
import os
import pwd
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.cli.control_client import get
from cc_slurm_adapter.config.address import TcpAddress, UnixAddress
from cc_slurm_adapter.daemon.control import CONTROL, METRICS
from cc_slurm_adapter.daemon.http_message import Request, Response
from cc_slurm_adapter.daemon.status_thread import Place, StatusThread, Timing
from cc_slurm_adapter.errors import NotRunning
from cc_slurm_adapter.system.own_files import share_with_group_alone
from tests.fakes.waiting import comes

PATIENCE = 60.0
QUICK = Timing(tick=0.02, open_again=0.05)


class Announcements:
    """Counts the calls, and fails as often as the test says."""

    def __init__(self) -> None:
        self.calls = 0
        self.failures = 0

    def announce_due(self) -> None:
        self.calls += 1
        if self.failures:
            self.failures -= 1
            raise ValueError("an error of this program")


def answer(request: Request) -> Response:
    return Response(200, request.path.encode(), "text/plain")


class Site:
    """A control socket and a port for metrics."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "control.sock")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.announcements = Announcements()
        self.slurm_user = ""
        self.thread = StatusThread(
            [
                Place(UnixAddress(self.path), CONTROL, answer),
                Place(TcpAddress("127.0.0.1", self.port), METRICS, answer),
            ],
            self.announcements,
            lambda: self.slurm_user,
            timing=QUICK,
        )

    def answers(self) -> bool:
        try:
            return get("/x", self.path) == (200, b"/x")
        except NotRunning:
            return False

    def over_tcp(self) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", "/y")
            return connection.getresponse().read()
        finally:
            connection.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.thread.stop()
    assert not [each for each in threading.enumerate() if each.name == "status"]


def test_it_answers_on_both_and_announces(site: Site) -> None:
    site.thread.start()
    assert comes(site.answers)
    assert site.over_tcp() == b"/y"
    before = site.announcements.calls
    assert comes(lambda: site.announcements.calls > before + 3)


def test_a_socket_that_cannot_be_had_costs_only_itself_and_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(tmp_path / "later")
    site.thread.start()
    assert comes(lambda: site.announcements.calls > 5)
    assert site.over_tcp() == b"/y"
    (tmp_path / "later").mkdir()
    assert comes(site.answers)
    site.thread.stop()
    (line,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert line.startswith("controlSockPath: the folder ")
    assert line.endswith("All else goes on; it is tried again every 0 s")


def test_an_error_of_the_announcer_does_not_end_it(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.announcements.failures = 1
    site.thread.start()
    assert comes(site.answers)
    assert comes(lambda: "an error of this program" in caplog.text)


def test_the_socket_goes_when_it_stops(site: Site) -> None:
    site.thread.start()
    assert comes(site.answers)
    site.thread.stop()
    assert not os.path.exists(site.path)
    with pytest.raises(NotRunning):
        get("/x", site.path)


def test_it_stops_although_it_was_never_started(tmp_path: Path) -> None:
    Site(tmp_path).thread.stop()


def test_slurm_users_group_may_use_the_control_socket_once_it_is_known(site: Site) -> None:
    site.thread.start()
    assert comes(site.answers)
    assert stat.S_IMODE(os.stat(site.path).st_mode) == 0o600, "the daemon's own group may be anybody's"
    if os.geteuid() != 0:
        pytest.skip("needs root to give a socket to another group")
    daemon = pwd.getpwnam("daemon")
    site.slurm_user = "daemon"
    assert comes(lambda: os.stat(site.path).st_gid == daemon.pw_gid)
    assert stat.S_IMODE(os.stat(site.path).st_mode) == 0o660


def test_a_slurm_user_without_an_account_changes_nothing(site: Site) -> None:
    site.slurm_user = "nobody-of-this-name"
    site.thread.start()
    assert comes(site.answers)


def test_a_group_that_the_socket_has_already_needs_no_chown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter of system calls may forbid chown, as the example unit's does."""
    path = tmp_path / "bound.sock"

    def refuse(*_: object) -> None:
        raise PermissionError

    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        monkeypatch.setattr(os, "chown", refuse)
        assert share_with_group_alone(str(path), os.stat(path).st_gid)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        assert not share_with_group_alone(str(path), os.stat(path).st_gid + 1)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
