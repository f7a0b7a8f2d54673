"""A real Prometheus on a free port of 127.0.0.1 that scrapes one address, for one test."""

from __future__ import annotations

import json
import time
import urllib.parse
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from tests.nats.nats_server import free_port
from tests.server_process import ServerProcess

HOST = "127.0.0.1"
JOB = "cc-slurm-adapter"
LIMIT = 60.0
"""Seconds until it runs, and until it has scraped."""
REQUEST_LIMIT = 10.0


class PrometheusError(Exception):
    """It does not start, does not scrape or does not answer; the text says why, or has the end of its log."""


class Sample(NamedTuple):
    """One of the values that an expression has."""

    labels: dict[str, str]
    value: float


class PrometheusServer(ServerProcess):
    """Scrapes `target`, an address as in 127.0.0.1:9517, each second; the first time it does so after 5 s.

    Used with `with`, or start() and stop(). `folder` takes its configuration, its log and its data.
    """

    def __init__(self, program: Path, folder: Path, target: str) -> None:
        super().__init__(folder / "prometheus.log")
        self.target = target
        self.port = free_port()
        self._program = program
        self._folder = folder

    def start(self) -> None:
        """Starts it and waits until it answers. Raises PrometheusError."""
        config = self._folder / "prometheus.yml"
        config.write_text(json.dumps(configuration(self.target)), encoding="ascii")  # all JSON is YAML
        command = [str(self._program), f"--config.file={config}", f"--storage.tsdb.path={self._folder / 'data'}"]
        command += [f"--web.listen-address={HOST}:{self.port}", "--log.level=warn"]
        self._launch(command)
        deadline = time.monotonic() + LIMIT
        while not self._is_ready():
            if not self.running:
                raise PrometheusError(f"Prometheus does not run:\n{self.log_text()}")
            if time.monotonic() > deadline:
                raise PrometheusError(f"Prometheus was not ready within {LIMIT:.0f} s:\n{self.log_text()}")
            time.sleep(0.05)

    def wait_until_up(self) -> None:
        """Waits until a scrape succeeds. Raises PrometheusError with what Prometheus says of the last one."""
        deadline = time.monotonic() + LIMIT
        while [sample.value for sample in self.query(f'up{{job="{JOB}"}}')] != [1]:
            if time.monotonic() > deadline:
                raise PrometheusError(f"no scrape of {self.target} succeeded within {LIMIT:.0f} s: {self.last_error()}")
            time.sleep(0.1)

    def wait_until_down(self) -> str:
        """Waits until a scrape fails, and gives the reason in Prometheus' words."""
        deadline = time.monotonic() + LIMIT
        while not (error := self.last_error()):
            if time.monotonic() > deadline:
                raise PrometheusError(f"no scrape of {self.target} failed within {LIMIT:.0f} s")
            time.sleep(0.1)
        return error

    def value(self, expression: str) -> float:
        """The value of an expression that has exactly one."""
        samples = self.query(expression)
        if len(samples) != 1:
            raise PrometheusError(f"{expression} has {len(samples)} values, not one: {samples}")
        return samples[0].value

    def query(self, expression: str) -> list[Sample]:
        """What an expression of PromQL has now; raises PrometheusError for one that Prometheus refuses."""
        found = self._get("query?" + urllib.parse.urlencode({"query": expression}))
        return [Sample(each["metric"], float(each["value"][1])) for each in found["result"]]

    def types(self) -> dict[str, str]:
        """The type of each metric that the target has, as Prometheus has understood it."""
        found = self._get("targets/metadata?" + urllib.parse.urlencode({"match_target": f'{{job="{JOB}"}}'}))
        return {each["metric"]: each["type"] for each in found}

    def last_error(self) -> str:
        """Why the last scrape failed, in Prometheus' words; '' if it did not, or before the first one."""
        return "".join(target["lastError"] for target in self._get("targets")["activeTargets"])

    def _is_ready(self) -> bool:
        try:
            return self._request("/-/ready")[0] == 200
        except PrometheusError:
            return False

    def _get(self, path: str) -> Any:
        answer = json.loads(self._request(f"/api/v1/{path}")[1])
        if answer["status"] != "success":
            raise PrometheusError(f"{path}: {answer.get('error', answer)}")
        return answer["data"]

    def _request(self, path: str) -> tuple[int, bytes]:
        connection = HTTPConnection(HOST, self.port, timeout=REQUEST_LIMIT)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, HTTPException) as error:
            raise PrometheusError(f"Prometheus does not answer: {error}") from error
        finally:
            connection.close()


def configuration(target: str) -> dict[str, Any]:
    """As an administrator would write it, but impatient."""
    scrape = {"job_name": JOB, "static_configs": [{"targets": [target]}]}
    return {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [scrape]}
