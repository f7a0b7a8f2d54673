"""Every fault of cc-backend and of what stands before it: nothing lost, nothing twice, and a log line that helps."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from cc_slurm_adapter.config.config import parse_config, read_token
from cc_slurm_adapter.errors import SinkError
from cc_slurm_adapter.model import End, EndState
from cc_slurm_adapter.outbox.sender import Sender
from cc_slurm_adapter.outbox.sink_health import LONGEST_PAUSE, Timing
from cc_slurm_adapter.sinks import rest, timeouts
from cc_slurm_adapter.sinks.base import Answer, Delivery, Kind, Verdict
from cc_slurm_adapter.sinks.http_client import HttpResponse
from cc_slurm_adapter.sinks.messages import CcMessages
from cc_slurm_adapter.sinks.rest import CcRest, judge
from examples.practice.cc_backend import (
    CcBackend,
    CcBackendServer,
    CutAnswer,
    Delay,
    Dropped,
    Fault,
    LostAnswer,
    NoAnswer,
    OtherAnswer,
    Rubbish,
    html_page,
    serving,
)
from tests.fakes.slurm_and_sinks import make_run
from tests.fakes.waiting import PATIENCE
from tests.unit.outbox.test_sender import TIMING, Site, runs

PAGE = (
    b"<!DOCTYPE html>\n<html><head>\n<title>502 Bad\n Gateway</title></head><body>" + b"<p>words</p>" * 500 + b"</body>"
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def deliver(url: str, kind: Kind = Kind.START, ca_file: str = "", *, timing: rest.Timing = rest.TIMING) -> Answer:
    """What becomes of one message to this address."""
    sink = CcRest(url, lambda: "practice.api.token", ca_file, timing=timing)
    run = make_run()
    end = End(EndState.COMPLETED, run.key.start_time + 5, "COMPLETED")
    messages = CcMessages(())
    encoded = messages.encode_start(run) if kind is Kind.START else messages.encode_stop(run.key, end)
    payload = encoded.whole()
    connection = sink.connect()
    try:
        return connection.deliver(Delivery(1, run.key, kind, payload, 0, 0.0))
    finally:
        connection.close()


def deliver_with(fault: Fault, kind: Kind = Kind.START) -> Answer:
    backend = CcBackend()
    backend.add_fault(fault)
    with serving(backend) as url:
        return deliver(url, kind)


def other(status: int, body: bytes = PAGE, **headers: str) -> OtherAnswer:
    return OtherAnswer(status=status, body=body, headers=headers)


@pytest.mark.parametrize(
    ("fault", "kind", "verdict", "words"),
    [
        (html_page(), Kind.START, Verdict.UNAVAILABLE, "an HTML page called 'Maintenance' instead of cc-backend's"),
        (other(502), Kind.START, Verdict.UNAVAILABLE, "HTTP 502: an HTML page called '502 Bad Gateway'"),
        (other(500), Kind.STOP, Verdict.FAILED, "HTTP 500: an HTML page"),
        (other(401), Kind.START, Verdict.MISCONFIGURED, "is ccRestUrl right? HTTP 401: an HTML page"),
        (other(404), Kind.START, Verdict.MISCONFIGURED, "ccRestUrl is not cc-backend's address"),
        (other(404), Kind.STOP, Verdict.MISCONFIGURED, "is ccRestUrl right? HTTP 404: an HTML page"),
        (other(400), Kind.START, Verdict.MISCONFIGURED, "is ccRestUrl right? HTTP 400: an HTML page"),
        (
            other(400, b"Client sent an HTTP request to an HTTPS server.\n"),
            Kind.START,
            Verdict.MISCONFIGURED,
            "Client sent an HTTP request to an HTTPS server.",
        ),
        (
            other(301, Location="https://cc.example/"),
            Kind.STOP,
            Verdict.MISCONFIGURED,
            "to 'https://cc.example/', set it to",
        ),
        (other(429, b"slow\ndown"), Kind.STOP, Verdict.UNAVAILABLE, "HTTP 429: slow down"),
        (other(503, b"\x00\x1b[31m"), Kind.STOP, Verdict.UNAVAILABLE, "HTTP 503: \x00\x1b[31m"),
        (Rubbish(), Kind.START, Verdict.UNAVAILABLE, "does not speak HTTP but TLS: should ccRestUrl begin with https?"),
        (CutAnswer(), Kind.START, Verdict.UNAVAILABLE, "closed the connection in the middle of its answer"),
        (Dropped(), Kind.START, Verdict.UNAVAILABLE, "closed the connection without an answer"),
    ],
)
def test_what_comes_instead_of_an_answer_is_said_in_a_short_line(
    fault: Fault, kind: Kind, verdict: Verdict, words: str
) -> None:
    answer = deliver_with(fault, kind)
    assert answer.verdict is verdict
    assert words in answer.reason
    assert "<" not in answer.reason
    assert len(answer.reason) < 250


def test_a_time_to_wait_may_be_a_date() -> None:
    def retry_after(text: str) -> float | None:
        return judge(Kind.START, HttpResponse(429, b"", text)).retry_after

    found = retry_after(formatdate(time.time() + 100, usegmt=True))
    assert found is not None
    assert 95 < found <= 100
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    for text in ("Wed, 99 Oct 2015 07:28:00 GMT", "tomorrow", "1e9", "Mon, 01 Jan 0001 00:00:00 -2359"):
        assert retry_after(text) in (None, 0)


def test_a_huge_time_to_wait_is_cut_and_ends_with_sighup(site: Site) -> None:
    site.backend.add_fault(OtherAnswer(status=429, headers={"Retry-After": "9" * 400}, count=1))
    site.owe(*runs(1))
    site.sender.start()
    assert comes(lambda: site.sender._health.silence([]) > 0)
    assert site.sender._health.silence([]) <= LONGEST_PAUSE
    site.sender.retry_now()
    site.owe(*runs(2))
    assert site.backend.wait_for(lambda: site.states().get(2) == "completed", PATIENCE)


def comes(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def limits(first: float, longest: float) -> rest.Timing:
    return rest.Timing(requests=timeouts.Timing(first, longest, slow=first / 2))


def limit_times(site: Site, first: float, longest: float, timing: Timing = TIMING) -> None:
    """Give requests so many seconds, by a sink and a sender in place of the site's own."""
    site.sink = CcRest(site.server.url, lambda: site.backend.token, timing=limits(first, longest))
    site.sender = Sender(site.sink, site.outbox, site.status, timing=timing)


def test_answers_that_take_longer_than_the_first_limit_are_waited_for(site: Site) -> None:
    """Slow by 30 s with a limit of 10 s, a hundred times faster."""
    limit_times(site, 0.1, 0.6)
    site.backend.add_fault(Delay(seconds=0.3))
    site.owe(*runs(1, 2, 3))
    site.sender.start()
    assert site.settled()
    assert [row.state for row in site.backend.rows] == ["completed"] * 3


def test_requests_that_are_never_answered_end_and_all_arrives_later(site: Site) -> None:
    limit_times(site, 0.05, 0.2)
    fault = site.backend.add_fault(NoAnswer())
    site.owe(*runs(*range(1, 9)))
    site.sender.start()
    assert comes(lambda: site.status.counts().get("start_unavailable", 0) > 5)
    assert site.outbox.counts() == {"pending": 16}
    site.backend.remove_fault(fault)
    assert site.settled()
    assert [row.state for row in site.backend.rows] == ["completed"] * 8


def test_rows_that_are_never_answered_do_not_stop_the_others(site: Site) -> None:
    """As many as there are connections."""
    limit_times(site, 0.1, 0.6, TIMING._replace(probe_every=0.1, long_outage=0.1))
    site.backend.add_fault(NoAnswer(job_ids=frozenset(range(1, 5))))
    site.owe(*runs(*range(1, 405)))
    site.sender.start()
    assert site.settled(pending=8)
    assert len(site.states()) == 400


def test_a_question_that_takes_long_gets_its_time_whatever_else_is_quick(site: Site) -> None:
    """Each time it gets longer, and quick answers to others take nothing of that back."""
    limit_times(site, 0.1, 30)
    site.backend.add_fault(Delay(path="/api/clusters/", seconds=0.15))
    site.sender.start()
    asking, sending = site.sink.connect(), site.sink.connect()
    with pytest.raises(SinkError, match="no answer in time"):
        asking.clusters()
    names: Collection[str] = ()
    for _ in range(8):
        assert any(sending.post_nodes("lab", []).verdict is Verdict.DELIVERED for _ in range(20))
        with contextlib.suppress(SinkError):
            names = asking.clusters().names
    assert "lab" in names
    for connection in (asking, sending):
        connection.close()


def test_requests_that_hung_hold_nothing_up_once_others_are_answered(site: Site) -> None:
    """They are never answered, and one of them would be waited for until long after this test."""
    limit_times(site, 0.05, 60, TIMING._replace(probe_every=0.05, long_outage=0.05, hangs=0.05))
    site.sink._timeouts._consecutive = 10  # 51 s
    fault = site.backend.add_fault(NoAnswer())
    site.owe(*runs(*range(1, 9)))
    site.sender.start()
    assert comes(lambda: site.status.counts().get("start_unavailable", 0) > 5)
    under_way = site.sender._under_way
    (oldest,) = [each for each in under_way.values() if each and time.monotonic() - each.began > 0.2]
    fault.count = 0
    assert site.settled()
    assert [row.state for row in site.backend.rows] == ["completed"] * 8
    assert oldest not in under_way.values()


@contextlib.contextmanager
def server_of(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does one thing with each connection; its host and port."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 201 Created\r\nX: ", b"HTTP/1.1 201 Created\r\n\r\n"], ids=["head", "body"]
)
def test_an_answer_that_trickles_is_limited_as_a_whole(answer: bytes) -> None:
    def trickle(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)
        connection.settimeout(0.02)
        while True:
            connection.sendall(b"x")
            with contextlib.suppress(TimeoutError, socket.timeout):
                if not connection.recv(65536):
                    return

    began = time.monotonic()
    with server_of(trickle) as where:
        assert deliver(f"http://{where}", timing=limits(0.2, 0.2)).reason.endswith("no answer in time")
    assert time.monotonic() - began < 2


def test_all_arrives_once_through_a_restart_in_the_middle(site: Site) -> None:
    site.backend.add_fault(Delay(seconds=0.005))
    site.owe(*runs(*range(1, 61)))
    site.sender.start()
    assert site.backend.wait_for(lambda: len(site.backend.rows) > 10, PATIENCE)
    site.server.stop()
    assert comes(lambda: site.status.counts().get("start_unavailable", 0) > 0)
    site.server.start()
    assert site.settled()
    assert [row.state for row in site.backend.rows] == ["completed"] * 60


def test_half_of_all_requests_fail_in_every_way_and_all_arrives_once(site: Site) -> None:
    ways: list[Fault] = [
        OtherAnswer(fraction=0.1, seed=1, status=502, body=PAGE),
        OtherAnswer(fraction=0.1, seed=2, status=429),
        OtherAnswer(fraction=0.1, seed=3, status=200, body=PAGE),
        CutAnswer(fraction=0.1, seed=4),
        Dropped(fraction=0.1, seed=5),
        LostAnswer(fraction=0.1, seed=6),
        Rubbish(fraction=0.1, seed=7),
    ]
    for fault in ways:
        site.backend.add_fault(fault)
    site.owe(*runs(*range(1, 41)))
    site.sender.start()
    assert site.settled()
    assert [row.state for row in site.backend.rows] == ["completed"] * 40


def test_a_token_that_was_replaced_in_its_file_is_taken_without_another_refusal(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text(site.backend.token)
    site.sink = CcRest(site.server.url, file.read_text)
    site.sender = Sender(site.sink, site.outbox, site.status, timing=TIMING)
    site.owe(*runs(*range(1, 21)))
    site.sender.start()
    assert site.settled()
    site.backend.token = "the.next.token"
    site.owe(*runs(21))
    assert comes(lambda: site.status.counts().get("start_misconfigured", 0) > 0)
    assert "refuses the token (ccRestJwt or ccRestJwtFile)" in caplog.text
    following = tmp_path / "following"
    following.write_text(site.backend.token)
    following.replace(file)  # a try that reads half of a file would be refused once more
    held = site.status.counts()[
        "start_misconfigured"
    ]  # only now: until the file was there any number of tries was refused
    site.owe(*runs(*range(22, 61)))
    assert site.settled()
    assert set(site.states().values()) == {"completed"}
    assert site.status.counts()["start_misconfigured"] <= held + 1  # one may have been under way


def test_a_token_whose_file_is_gone_meanwhile_is_told_as_that(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text("expired")
    config, _ = parse_config({"ccRestUrl": site.server.url, "ccRestJwtFile": str(file)})
    site.sink = CcRest(site.server.url, lambda: read_token(config))
    site.sender = Sender(site.sink, site.outbox, site.status, timing=TIMING._replace(something_else=0.0))
    site.owe(*runs(1))
    site.sender.start()
    assert comes(lambda: "refuses the token" in caplog.text)
    file.unlink()
    assert comes(lambda: f"ccRestJwtFile: cannot read {file}" in caplog.text)
    file.write_text(site.backend.token)
    assert site.settled()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `right.pem` for 127.0.0.1 and `other.pem` for another name, both signed by themselves."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not here")
    folder = tmp_path_factory.mktemp("certificates")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    make = ["openssl", "req", "-x509", *key, "-days", "30", "-subj", "/CN=practice"]
    for name, address in (("right", "IP:127.0.0.1"), ("other", "DNS:cc.example")):
        files = ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"]
        subprocess.run([*make, "-addext", f"subjectAltName={address}", *files], check=True, capture_output=True)
    return folder


@contextlib.contextmanager
def serving_tls(certificates: Path, name: str) -> Iterator[str]:
    """A stand-in behind TLS with one of the certificates; its host and port."""
    server = CcBackendServer(CcBackend())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    server._listener.socket = context.wrap_socket(server._listener.socket, server_side=True)
    server.start()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        server.close()


def test_an_unknown_certificate_names_the_setting_that_makes_it_known(certificates: Path) -> None:
    with serving_tls(certificates, "right") as where:
        answer = deliver(f"https://{where}")
        assert answer.verdict is Verdict.UNAVAILABLE
        assert "certificate is not trusted" in answer.reason
        assert "set ccRestCaFile" in answer.reason
        assert deliver(f"https://{where}", ca_file=f"{certificates}/right.pem").verdict is Verdict.DELIVERED


def test_a_certificate_for_another_name_names_the_address(certificates: Path) -> None:
    with serving_tls(certificates, "other") as where:
        answer = deliver(f"https://{where}", ca_file=f"{certificates}/other.pem")
    assert answer.verdict is Verdict.UNAVAILABLE
    assert "set ccRestUrl to a name that it contains" in answer.reason
    assert "ccRestCaFile" not in answer.reason


def test_https_where_http_is_spoken_and_the_other_way_round(certificates: Path) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

    with server_of(refuse) as where:
        answer = deliver(f"https://{where}")
    assert answer.verdict is Verdict.UNAVAILABLE
    assert (
        answer.reason
        == f"{where}: what answers there does not speak TLS: should ccRestUrl begin with http instead of https?"
    )
    with serving_tls(certificates, "right") as where:
        assert deliver(f"http://{where}").verdict is Verdict.UNAVAILABLE
