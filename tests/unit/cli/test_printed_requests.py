"""What is printed in place of requests."""

from __future__ import annotations

import json
from typing import Any

from cc_slurm_adapter.cli.printed_requests import PrintedRequests
from cc_slurm_adapter.config.config import parse_config
from cc_slurm_adapter.counters import Counters
from cc_slurm_adapter.daemon.destinations import sinks_of
from cc_slurm_adapter.model import End, EndState, NodeState, Run
from cc_slurm_adapter.outbox.memory import IN_MEMORY
from cc_slurm_adapter.outbox.outbox import Batch, Message, Outbox
from cc_slurm_adapter.sinks.base import Kind
from tests.fakes.slurm_and_sinks import NOW, make_run

REST = {"ccRestUrl": "http://cc.example:8080/api/", "ccRestJwt": "secret-token"}
NATS = {"natsServer": "nats.example", "natsUser": "me", "natsPassword": "secret-password"}
END = End(EndState.COMPLETED, NOW, "COMPLETED")


class Printer:
    """The printed requests of a configuration, and what was printed."""

    def __init__(self, **settings: object) -> None:
        config, _ = parse_config(settings)
        self.lines: list[str] = []
        self.requests = PrintedRequests(config, Counters(), write=self.lines.append)
        self.outbox = Outbox(IN_MEMORY, sinks_of(config))
        self.requests.print_from(self.outbox)
        self._sinks = tuple(sink.name for sink in self.requests.sinks)

    def enqueue(self, *runs: Run) -> list[dict[str, Any]]:
        """Enqueue the start and stop of each run; what is printed."""
        encoder, batch = self.requests.encoder, Batch()
        for run in runs:
            batch.messages.append(Message(self._sinks, run.key, Kind.START, encoder.encode_start(run)))
            batch.messages.append(Message(self._sinks, run.key, Kind.STOP, encoder.encode_stop(run.key, END)))
        self.outbox.commit("lab", batch)
        self.requests.wake()
        return [json.loads(line) for line in self.lines]


def test_a_start_comes_before_its_stop_and_nothing_is_left() -> None:
    printer = Printer(**REST)
    printed = printer.enqueue(*(make_run(job_id) for job_id in range(1, 251)))
    urls = [each["url"] for each in printed]
    assert set(urls) == {f"http://cc.example:8080/api/jobs/{kind}_job/" for kind in ("start", "stop")}
    jobs = [each["body"]["jobId"] for each in printed]
    for job_id in range(1, 251):
        assert [url[-10:] for url, job in zip(urls, jobs) if job == job_id] == ["start_job/", "/stop_job/"]
    assert printer.outbox.waiting() == 0
    assert printer.requests.summary() == "250 starts for cc-backend, 250 stops for cc-backend"


def test_messages_for_nats_follow_as_lines_of_its_protocol() -> None:
    printed = Printer(**REST, **NATS).enqueue(make_run(7))
    assert [(each["to"], each.get("subject", "")) for each in printed] == [
        ("cc-backend", ""),
        ("NATS", "jobs"),
        ("cc-backend", ""),
        ("NATS", "jobs"),
    ]
    assert printed[1]["message"].startswith("job,function=start_job,hostname=")


def test_no_secret_is_printed() -> None:
    printer = Printer(**REST, **NATS)
    printer.enqueue(make_run(7))
    assert printer.lines
    assert not [line for line in printer.lines if "secret" in line]


def test_nodes_are_printed_under_the_names_and_with_the_gpus_that_are_sent() -> None:
    printer = Printer(**REST, hostnameRewrite=[["^n(.*)$", r"node\1"]])
    node = NodeState("n1", ("IDLE",), 16, 0, 0, 0)
    printer.requests.learn([node])
    printer.requests.post_nodes("lab", [node])
    (line,) = printer.lines
    assert json.loads(line)["url"] == "http://cc.example:8080/api/nodestate/"
    assert [each["hostname"] for each in json.loads(line)["body"]["nodes"]] == ["node1"]
    assert printer.requests.summary() == "the states of 1 node"


def test_where_there_is_nothing_that_is_said() -> None:
    assert Printer(**REST).requests.summary() == "no request"
