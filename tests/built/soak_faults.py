"""The faults of the soak test: what goes wrong at cc-backend, in Slurm and with the daemon, who asks it, and when."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Callable, NamedTuple

from examples.practice.adapter_daemon import SiteError
from examples.practice.cc_backend import (
    CutAnswer,
    Delay,
    Dropped,
    Fault,
    LostAnswer,
    NoAnswer,
    OtherAnswer,
    Rubbish,
    html_page,
    too_many_requests,
)
from examples.practice.programs import write_program
from examples.practice.site import Site

Trouble = Callable[[Site, random.Random], AbstractContextManager[None]]
"""A fault for the length of a block."""
Act = Generator[None, None, None]
SHORTEST, LONGEST = 0.5, 5.0
"""Seconds that a fault lasts."""

FAILING = """\
#!/bin/sh
echo "$0: error: refused for practice" >&2
exit 1
"""
SILENT = "#!/bin/sh\nexit 0\n"
CUT_JSON = """\
#!/bin/sh
case "$*" in
*--json=v*) {command} "$@" | head -c {size} ;;
*) exec {command} "$@" ;;
esac
"""
SLOW = """\
#!/bin/sh
sleep {seconds}
exec {command} "$@"
"""
QUESTIONS = (["-status"], ["-status", "-json"], ["-queue", "list"], ["-queue", "retry", "all"], ["-metrics"])
"""None of these changes what is reported: what is tried again is only sent at another time."""
MOST_STARTED = 0.5
"""Seconds in which the commands reach the daemon, or not yet, before it is killed."""
CLIENTS = 50
REQUEST = b'POST /queue/retry HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n{"all": true}'
OWN_COPY = ".real"
"""What is added to the name of a command while something else stands in its place."""


def _at_cc_backend(make: Callable[[random.Random], Fault]) -> Trouble:
    """One of the stand-in's own faults."""

    @contextmanager
    def trouble(site: Site, chance: random.Random) -> Act:
        with site.backend.fault(make(chance)):
            yield

    return trouble


def _some(chance: random.Random) -> float:
    """A share of the requests; sometimes all."""
    return chance.choice((0.2, 0.5, 1.0))


@contextmanager
def _away(site: Site, _chance: random.Random) -> Act:
    site.server.stop()
    yield
    site.server.start()


@contextmanager
def _token_refused(site: Site, _chance: random.Random) -> Act:
    token = site.backend.token
    site.backend.token = "another.valid.token"
    yield
    site.backend.token = token


@contextmanager
def _played_dead(site: Site, daemon: str) -> Act:
    site.cluster.set_down(daemon, down=True)
    yield
    site.cluster.set_down(daemon, down=False)


def _in_place_of(commands: tuple[str, ...], text: Callable[[str, random.Random], str]) -> Trouble:
    """Something else stands in the place of some Slurm commands."""

    @contextmanager
    def trouble(site: Site, chance: random.Random) -> Act:
        with ExitStack() as restored:
            for command in commands:
                path = Path(site.cluster.bin) / command
                restored.callback(write_program, path, path.with_name(command + OWN_COPY).read_text())
                write_program(path, text(str(path) + OWN_COPY, chance))
            yield

    return trouble


def keep_commands(site: Site) -> None:
    """Copies of Slurm's commands, for what will stand in their place."""
    for path in list(Path(site.cluster.bin).iterdir()):
        write_program(path.with_name(path.name + OWN_COPY), path.read_text())


@contextmanager
def _hooks_lost(site: Site, _chance: random.Random) -> Act:
    hook = Path(site.settings.hook)
    text = hook.read_text()
    write_program(hook, SILENT)
    yield
    write_program(hook, text)


@contextmanager
def _asked(site: Site, chance: random.Random) -> Act:
    """Administrators ask the daemon and have messages tried again; those who still wait at the end are killed."""
    daemon, processes = site.daemon, []
    with tempfile.TemporaryFile() as output:
        for words in chance.sample(QUESTIONS, len(QUESTIONS)):
            command = [str(daemon.adapter), *words, "-config", str(daemon.config_path)]
            processes.append(subprocess.Popen(command, env=daemon.environ, stdout=output, stderr=output))
        try:
            yield
        finally:
            for process in processes:
                process.kill()
                process.wait()
        output.seek(0)
        said = output.read().decode(errors="replace")
    if "error of this program" in said or "Traceback" in said:
        raise SiteError(f"a command did not expect this:\n{said}")


@contextmanager
def _left(site: Site, chance: random.Random) -> Act:
    """Clients connect to the control socket and leave: at once, in the middle of a request, or without its answer."""
    with ExitStack() as stack:
        for _ in range(CLIENTS):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(1)
            with suppress(OSError):  # the daemon may be away, or too many may wait
                client.connect(str(site.daemon.run_folder / "control.sock"))
                client.sendall(REQUEST[: chance.randrange(len(REQUEST) + 1)])
            if chance.random() < 0.5:
                client.close()
        yield


@contextmanager
def _killed(site: Site, chance: random.Random) -> Act:
    """SIGKILL, in the middle of what it is asked; the next daemon comes at the end of the fault.

    What is asked after that is answered from the state file. It is over when the next daemon comes: that ends at once
    when a command has locked its state file, and only systemd would start it again.
    """
    with _asked(site, chance):
        time.sleep(chance.uniform(0, MOST_STARTED))
        site.daemon.kill()
        yield
    site.daemon.launch()


@contextmanager
def _reload(site: Site, _chance: random.Random) -> Act:
    """SIGHUP, but not to a daemon that is just starting: Python has no handler yet."""
    if site.daemon.running and site.daemon.is_ready():
        site.daemon.signal(signal.SIGHUP)
    yield


KILLED = "the daemon is killed"
ASKED = "the daemon is asked"
CC_BACKEND: dict[str, Trouble] = {
    "cc-backend is away": _away,
    "cc-backend refuses the token": _token_refused,
    "answers are lost": _at_cc_backend(lambda chance: LostAnswer("/api/jobs/", fraction=_some(chance))),
    "answers are cut": _at_cc_backend(lambda chance: CutAnswer("/api/jobs/", fraction=_some(chance))),
    "requests are dropped": _at_cc_backend(lambda chance: Dropped(fraction=_some(chance))),
    "no answers": _at_cc_backend(lambda chance: NoAnswer(fraction=_some(chance))),
    "slow answers": _at_cc_backend(lambda chance: Delay(fraction=_some(chance), seconds=chance.uniform(0.2, 3))),
    "rubbish": _at_cc_backend(lambda chance: Rubbish(fraction=_some(chance))),
    "500": _at_cc_backend(lambda chance: OtherAnswer(fraction=_some(chance), status=500, body=b"{}")),
    "502 with a page": _at_cc_backend(lambda _: html_page(502)),
    "200 with a page": _at_cc_backend(lambda _: html_page(200)),
    "404 with a page": _at_cc_backend(lambda _: html_page(404)),
    "429": _at_cc_backend(lambda _: too_many_requests(1)),
    "301": _at_cc_backend(lambda _: OtherAnswer(status=301, headers={"Location": "/elsewhere"})),
}
HIDING: dict[str, Trouble] = {
    KILLED: _killed,
    "hooks are not called": _hooks_lost,
    "slurmctld is away": lambda site, _: _played_dead(site, "slurmctld"),
    "squeue fails": _in_place_of(("squeue",), lambda *_: FAILING),
    "squeue and scontrol fail": _in_place_of(("squeue", "scontrol"), lambda *_: FAILING),
    "commands say nothing": _in_place_of(("squeue", "scontrol", "sacct", "sinfo"), lambda *_: SILENT),
    "JSON is cut": _in_place_of(
        ("squeue", "scontrol", "sacct"),
        lambda command, chance: CUT_JSON.format(command=command, size=chance.randrange(10, 20_000)),
    ),
    "commands are slow": _in_place_of(
        ("squeue", "scontrol", "sacct", "sinfo"),
        lambda command, chance: SLOW.format(command=command, seconds=chance.choice((0.5, 1, 3))),
    ),
}
"""A pass of the daemon meanwhile may not see a run."""
OTHERS: dict[str, Trouble] = {
    "slurmdbd is away": lambda site, _: _played_dead(site, "slurmdbd"),
    "sacct and sinfo fail": _in_place_of(("sacct", "sinfo"), lambda *_: FAILING),
    "SIGHUP": _reload,
    ASKED: _asked,
    "clients connect and leave": _left,
}
TROUBLES = {**CC_BACKEND, **HIDING, **OTHERS}


class Planned(NamedTuple):
    """A fault to come. Seconds from the beginning."""

    name: str
    begin: float
    end: float


class Span(NamedTuple):
    """A fault that was. Unix seconds."""

    name: str
    begin: float
    end: float


def plan_faults(chance: random.Random, seconds: float, each: float) -> list[Planned]:
    """Every fault in turn, in an order that is drawn again and again; one begins about every `each` seconds.

    The daemon is killed in the first half only: the last process is to live for long.
    """
    planned: list[Planned] = []
    at = 0.0
    while at < seconds:
        names = [*TROUBLES, *[KILLED, ASKED] * 2]
        chance.shuffle(names)
        for name in names:
            at += each * chance.uniform(0.5, 1.5)
            end = at + chance.uniform(SHORTEST, LONGEST)
            if end < seconds and (name != KILLED or end < seconds / 2):
                planned.append(Planned(name, at, end))
    return planned


class Faults:
    """Brings the planned faults about. Used from one thread; `turn` is called often."""

    def __init__(self, site: Site, planned: list[Planned], chance: random.Random) -> None:
        self.spans: list[Span] = []
        self._site = site
        self._planned = list(planned)
        self._chance = chance
        self._active: dict[str, tuple[Planned, float, AbstractContextManager[None]]] = {}
        keep_commands(site)

    @property
    def daemon_is_killed(self) -> bool:
        return KILLED in self._active

    def turn(self, now: float) -> None:
        """End and begin what is due, `now` seconds after the beginning."""
        for planned, _, _ in list(self._active.values()):
            if planned.end <= now:
                self._end(planned.name)
        while self._planned and self._planned[0].begin <= now:
            planned = self._planned.pop(0)
            if planned.name not in self._active and not (planned.name == ASKED and self.daemon_is_killed):
                self._begin(planned)
        if not self.daemon_is_killed and not self._site.daemon.running:
            raise SiteError(f"the daemon has ended by itself:\n{self._site.daemon.last_words()}")

    def stop(self) -> None:
        """No fault is left."""
        self._planned.clear()
        for name in list(self._active):
            self._end(name)

    def _begin(self, planned: Planned) -> None:
        if planned.name == KILLED and ASKED in self._active:
            self._end(ASKED)  # it is asked by this fault, too
        trouble = TROUBLES[planned.name](self._site, self._chance)
        self._active[planned.name] = planned, time.time(), trouble
        trouble.__enter__()

    def _end(self, name: str) -> None:
        _, began, trouble = self._active.pop(name)
        trouble.__exit__(None, None, None)
        self.spans.append(Span(name, began, time.time()))
