"""Strangers, broken hosts and users do what they can to sockets and events folder; honest hooks are served meanwhile.

CC_SLURM_ADAPTER_ATTACK_SECONDS makes it long, CC_SLURM_ADAPTER_ATTACK_SEED repeats one as far as threads let it.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from examples.practice.programs import write_program
from examples.practice.site import Site
from examples.practice.slurm.hooks import PROLOG
from examples.practice.slurm.model import JobRequest
from tests.built import attacker, flood

SECRET = "the-shared-secret-of-hooks-and-daemon"
SECONDS = 15.0
LINES_A_MINUTE = 10
"""Of the log: one for each kind of trouble."""
SERVED_WITHIN = 1.0
"""Seconds from the hook to the row in cc-backend; on a machine that is busy with other things, what it takes there."""
MOST_MEMORY = 50
"""MB that the daemon may have."""
HOOK = """\
#!/bin/sh
[ $((SLURM_JOB_ID % 2)) = 0 ] && exec {adapter} -config {config}
[ {events} -nt {events}/.lab.open ] && exec {adapter} -config {config}
CC_SLURM_ADAPTER_EVENTS={events} exec {adapter}
"""
"""Half of the jobs are reported over TCP, half by a file, until a strange entry makes the daemon give up the folder:
from then on all by the socket, as at a site where that has its default path."""
POLL_SECONDS = 20
"""An event that lies in the folder at the moment when it is given up is found by a poll."""
KINDS = ("random_bytes", "half_closed", "crowd", "given_up", "replay", "other_clock", "forged_name", "strange_entry")
"""Those of the attacker's that have come to an end by then."""
GARBAGE = 300_000_000
"""Bytes that each of the sockets takes on which the daemon is asked how it is."""
MOST_SECONDS = 300.0
"""A busy machine may need long for the garbage."""
HOOK_WITHIN = 1.0
"""Seconds that slurmctld waits for a hook; on a machine that is busy with other things, what it waits there."""
TIMED_HOOK = """\
#!/bin/sh
began=$(date +%s%N)
if [ $((SLURM_JOB_ID % 2)) = 0 ]; then {adapter} -config {config}; else CC_SLURM_ADAPTER_EVENTS={events} {adapter}; fi
code=$?
echo $(($(date +%s%N) - began)) >> {took}
exit $code
"""
"""Half of the jobs are reported over the socket, half by a file."""


def seed_and_seconds() -> tuple[int, float]:
    seed = int(os.environ.get("CC_SLURM_ADAPTER_ATTACK_SEED", "") or random.randrange(10**6))
    return seed, float(os.environ.get("CC_SLURM_ADAPTER_ATTACK_SECONDS", "") or SECONDS)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def attacked(site: Site, program: str, *words: object) -> Iterator[Path]:
    """The file that holds what the attacker has done so far, a line a second."""
    done = site.folder / "attacker"
    with done.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", program, *map(str, words)], stdout=output, stdin=subprocess.DEVNULL
        )
    try:
        yield done
        assert process.poll() is None, "the attacker has ended by itself"
    finally:
        process.kill()
        process.wait(10)


def last_line(done: Path) -> dict[str, int]:
    """What the attacker has done so far; nothing in its first second."""
    lines = done.read_text().splitlines(keepends=True)
    found: dict[str, int] = json.loads(next((line for line in reversed(lines) if line.endswith("\n")), "{}"))
    return found


def served_after(site: Site) -> float:
    """Seconds from the call of a new job's hook until cc-backend has its start."""
    job = site.cluster.submit(JobRequest(duration=0.1))
    site.wait_for(f"job {job}", lambda: site.has_started(job))
    return time.time() - site.hooks.times[job, PROLOG][0]


def threads_of(site: Site) -> int:
    return len(list(Path(f"/proc/{site.daemon.pid}/task").iterdir()))


def peak_memory_of(site: Site) -> int:
    """MB, VmHWM of proc(5)."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{site.daemon.pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) // 1000


def test_honest_hooks_are_served_under_attack(adapter: Path, tmp_path: Path) -> None:
    seed, seconds = seed_and_seconds()
    print(f"\nattack with CC_SLURM_ADAPTER_ATTACK_SEED={seed}", flush=True)
    secret, hook, port = tmp_path / "secret", tmp_path / "hook", free_port()
    secret.write_text(SECRET)
    secret.chmod(0o600)
    address = f"tcp:127.0.0.1:{port}"
    config: dict[str, Any] = {
        "prepSockListenPath": address,
        "prepSockConnectPath": address,
        "prepSecretFile": str(secret),
    }
    with Site(adapter, hook=str(hook), slurmPollInterval=POLL_SECONDS, **config) as site:
        names = {"adapter": adapter, "config": site.daemon.config_path, "events": site.daemon.events_folder}
        write_program(hook, HOOK.format(**{name: shlex.quote(str(path)) for name, path in names.items()}))
        site.daemon.start()
        site.wait_for("the first pass", (site.daemon.state_folder / "lastrun").exists)
        calm = statistics.median(served_after(site) for _ in range(5))
        threads = threads_of(site)
        words = (seed, port, site.daemon.events_folder, SECRET, f"{adapter}/site-packages")
        with attacked(site, attacker.__file__, *words) as done:
            began, took = time.monotonic(), []
            while time.monotonic() - began < seconds:
                took.append(served_after(site))
            acts = last_line(done)
        memory = peak_memory_of(site)
        median = statistics.median(took)
        print(f"{len(took)} hooks: median {median:.2f} s, {calm:.2f} s before, longest {max(took):.2f} s; {memory} MB")
        print(f"meanwhile {acts}")
        assert {kind for kind in KINDS if acts.get(kind)} == set(KINDS)
        assert median < max(SERVED_WITHIN, 3 * calm)
        assert memory <= MOST_MEMORY
        assert threads_of(site) == threads
        log = site.daemon.log()
        assert "an error of this program" not in log
        assert "Traceback" not in log
        assert log.count("hook events: ") <= LINES_A_MINUTE * (seconds // 60 + 1)
        assert all((path / "precious").exists() for path in names["events"].iterdir() if path.is_dir())
        site.wait_for("the ends", site.is_reported)
        assert site.differences() == []
        assert site.daemon.stop()[0] == 0


def hook_times(took: Path) -> list[float]:
    """Seconds, call by call."""
    return [int(line) / 1e9 for line in took.read_text().split()]


def taken(acts: dict[str, int]) -> int:
    """The bytes of garbage that each of the sockets has taken at least."""
    return min(acts.get("bytes, control", 0), acts.get("bytes, metrics", 0))


def test_garbage_and_idle_connections_where_the_daemon_is_asked_cost_no_hook_and_no_answer(
    adapter: Path, tmp_path: Path
) -> None:
    seed, seconds = seed_and_seconds()
    print(f"\nflood with CC_SLURM_ADAPTER_ATTACK_SEED={seed}", flush=True)
    hook, took, port = tmp_path / "hook", tmp_path / "took", free_port()
    with Site(adapter, hook=str(hook), slurmPollInterval=POLL_SECONDS, metricsListen=f"127.0.0.1:{port}") as site:
        config, events = site.daemon.config_path, site.daemon.events_folder
        names = {"adapter": adapter, "config": config, "events": events, "took": took}
        write_program(hook, TIMED_HOOK.format(**{name: shlex.quote(str(path)) for name, path in names.items()}))
        site.daemon.start()
        site.wait_for("the first pass", (site.daemon.state_folder / "lastrun").exists)
        for _ in range(4):
            served_after(site)
        calm = hook_times(took)
        threads = threads_of(site)
        statuses: list[int] = []
        with attacked(site, flood.__file__, seed, site.daemon.run_folder / "control.sock", port) as done:
            began, acts = time.monotonic(), last_line(done)
            while time.monotonic() - began < seconds or taken(acts) < GARBAGE:
                assert time.monotonic() - began < MOST_SECONDS + seconds, f"no more was taken than this: {acts}"
                served_after(site)
                asked = subprocess.run([adapter, "-status", "-config", config], capture_output=True, check=False)
                statuses.append(asked.returncode)
                acts = last_line(done)
            memory = peak_memory_of(site)
        hooks = hook_times(took)[len(calm) :]
        print(f"{len(hooks)} hooks, longest {max(hooks):.2f} s, {max(calm):.2f} s before; {memory} MB; {acts}")
        assert min(acts["held, control"], acts["held, metrics"]) >= flood.IDLE
        assert max(hooks) < max(HOOK_WITHIN, 3 * max(calm))
        assert set(statuses) <= {0, 1}
        assert memory <= MOST_MEMORY
        site.wait_for("the ends", site.is_reported)
        assert site.differences() == []
        assert threads_of(site) == threads
        log = site.daemon.log()
        assert "an error of this program" not in log
        assert "Traceback" not in log
        assert log.count("controlSockPath: ") + log.count("metricsListen: ") <= LINES_A_MINUTE
        assert site.daemon.stop()[0] == 0
