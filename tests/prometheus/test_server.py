"""A real Prometheus scrapes an address, and says what it has understood."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.prometheus.conftest import StartPrometheus
from tests.prometheus.exposition import GOOD
from tests.prometheus.server import PrometheusError

pytestmark = pytest.mark.prometheus


class Exposition(ThreadingHTTPServer):
    """Answers /metrics with `text`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.text = GOOD

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Exposition

    def do_GET(self) -> None:
        is_found = self.path == "/metrics"
        body = self.server.text.encode()
        self.send_response(200 if is_found else 404)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the standard library's name
        """Says nothing."""


@pytest.fixture
def exposition() -> Iterator[Exposition]:
    with Exposition() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_values_are_read(start_prometheus: StartPrometheus, exposition: Exposition) -> None:
    prometheus = start_prometheus(exposition.address)
    prometheus.wait_until_up()
    assert prometheus.value('lab_polls_total{result="ok"}') == 41
    assert prometheus.value("sum(lab_polls_total)") == 42
    (lag,) = prometheus.query("lab_lag_seconds")
    assert (lag.labels["sink"], lag.value) == ('cc-backend "a\\b"\nin two lines', 2.5)
    assert prometheus.value("histogram_quantile(0.5, lab_poll_seconds_bucket)") == pytest.approx(0.43)
    assert prometheus.types() == {
        "lab_polls_total": "counter",
        "lab_lag_seconds": "gauge",
        "lab_poll_seconds": "histogram",
    }


def test_what_is_no_exposition_is_said(start_prometheus: StartPrometheus, exposition: Exposition) -> None:
    exposition.text = "<!doctype html><p>no metrics</p>\n"
    prometheus = start_prometheus(exposition.address)
    assert "valid start token" in prometheus.wait_until_down()
    exposition.text = GOOD
    prometheus.wait_until_up()


def test_address_where_nobody_listens(start_prometheus: StartPrometheus) -> None:
    assert "connection refused" in start_prometheus("127.0.0.1:1").wait_until_down()


def test_expression_that_has_no_value(start_prometheus: StartPrometheus, exposition: Exposition) -> None:
    prometheus = start_prometheus(exposition.address)
    prometheus.wait_until_up()
    with pytest.raises(PrometheusError, match="has 0 values, not one"):
        prometheus.value("no_such_metric")
    with pytest.raises(PrometheusError, match="parse error"):
        prometheus.value("lab_polls_total{")


def test_configuration_that_is_refused(start_prometheus: StartPrometheus) -> None:
    with pytest.raises(PrometheusError, match="does not run"):
        start_prometheus("http://127.0.0.1/metrics")
