"""What slurmctld waits for: a call of the hook, on each of its ways."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from tests.bench.practice import PracticeSite
from tests.bench.processes import Command, free_port, in_turn
from tests.bench.reference import NOTHING
from tests.bench.report import Budget, Other, median, noise_of
from tests.bench.site import PROLOG, Amount, Bench

CALLS, PYTHON_CALLS = Amount(300, 150), Amount(200, 60)
BARE, OF_PYTHON, OF_ANOTHER = 2.5, 3, 1 / 3
"""As many times what a shell takes for nothing, and what Python takes for nothing; as much of what the other adapter
takes."""
SHELL = ["/bin/sh", "-c", ":"]
LATER = 2**32
"""Unix seconds."""
FOREIGN = "another"
"""Their cluster: the daemon takes these events and asks Slurm nothing about them."""


def measure_hooks(bench: Bench) -> None:
    """A call of the hook: bare, with -config, over TCP, and over TCP with a signature."""
    with PracticeSite(bench) as site:
        site.start()
        _tell_bare(bench, site)
        _tell_with_python(bench, site, "with -config")
    if bench.quick:
        return
    address = f"tcp:127.0.0.1:{free_port()}"
    settings: dict[str, Any] = {"prepSockListenPath": address, "prepSockConnectPath": address}
    with PracticeSite(bench, prepAllow=["127.0.0.1"], **settings) as site:
        site.start()
        _tell_with_python(bench, site, "over TCP")
    with tempfile.NamedTemporaryFile() as secret:
        secret.write(b"0123456789abcdef")
        secret.flush()
        with PracticeSite(bench, prepAllow=["127.0.0.1"], prepSecretFile=secret.name, **settings) as site:
            site.start()
            _tell_with_python(bench, site, "over TCP, signed")


def _tell_beside(
    bench: Bench, what: str, name: str, times: list[list[float]], limit: float
) -> tuple[float, list[float]]:
    """Our median beside that of what was called in turn with it; ours, and those of all further ones."""
    ours, other, *others = map(median, times)
    noise = noise_of([each / beside for each, beside in zip(*times[:2])])
    budget = Budget(limit, of_ratio=True)
    bench.report.add("hook", what, ours, "s", other=Other(name, other), budget=budget, noise=noise)
    return ours, others


def _environ(site: PracticeSite) -> dict[str, str]:
    return {**site.hook_environ(1, PROLOG), "SLURM_CLUSTER_NAME": FOREIGN}


def _configured(site: PracticeSite, adapter: object) -> list[str]:
    return [str(adapter), "-config", str(site.daemon.config_path)]


def _tell_bare(bench: Bench, site: PracticeSite) -> None:
    """Into a folder that no daemon watches, with a mark as of one that does; another adapter needs a configuration."""
    events = site.folder / "events"
    events.mkdir()
    mark = events / f".{FOREIGN}.open"
    mark.touch()
    os.utime(mark, (LATER, LATER))
    environ = {**_environ(site), "CC_SLURM_ADAPTER_EVENTS": str(events)}
    commands: list[Command] = [([str(bench.adapter)], environ), (SHELL, {})]
    if bench.against:
        commands.append((_configured(site, bench.against), _environ(site)))
    ours, others = _tell_beside(bench, "bare call", "sh -c :", in_turn(commands, bench.some(CALLS)), BARE)
    left = len(list(events.iterdir())) - 1
    bench.report.add(
        "hook", "bare calls that left an event", left, "events", budget=Budget(bench.some(CALLS), at_least=True)
    )
    for other in others:
        than = Other("the other adapter", other)
        bench.report.add("hook", "bare call", ours, "s", other=than, budget=Budget(OF_ANOTHER, of_ratio=True))


def _tell_with_python(bench: Bench, site: PracticeSite, way: str) -> None:
    commands: list[Command] = [(_configured(site, bench.adapter), _environ(site)), ([bench.python, *NOTHING], {})]
    if bench.against:
        commands.append((_configured(site, bench.against), _environ(site)))
    times = in_turn(commands, bench.some(PYTHON_CALLS))
    ours, others = _tell_beside(bench, f"call {way}", "python -I -S -c pass", times, OF_PYTHON)
    for other in others:
        bench.report.add("hook", f"call {way}", ours, "s", other=Other("the other adapter", other))
