"""Asks the installed program about itself and its jobs, as an administrator does: commands and the control socket."""

from __future__ import annotations

import json
import socket
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, NamedTuple

from .installation import CONFIG, RUN_FOLDER, STATE_FOLDER
from .namespaces import wait_for
from .slurm_conf import SHIPPED_FILE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .installation import Installation
    from .slurm_lab import SlurmLab

CONTROL = RUN_FOLDER / "control.sock"
ANSWER_SECONDS = 60
REQUEST = """
import http.client, socket, sys
method, path, body = sys.argv[1:]
connection = http.client.HTTPConnection("localhost", timeout=30)
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect("{control}")
connection.request(method, path, body or None)
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""
"""The program of a client that is another user's: only the kernel says who that is."""


class Told(NamedTuple):
    """What a command printed."""

    code: int
    text: str
    errors: str

    @property
    def paragraphs(self) -> list[str]:
        """Its parts between empty lines, each as one line."""
        return [" ".join(part.split()) for part in self.text.split("\n\n")]

    @property
    def conclusion(self) -> str:
        """The last part of what -job says, without what to do."""
        return self.paragraphs[-1].partition(" Next: ")[0]

    @property
    def next_step(self) -> str:
        """What -job says last: what to do."""
        return self.paragraphs[-1].partition(" Next: ")[2]


def tell(lab: SlurmLab, *words: str, user: str = "root") -> Told:
    """Runs a command of the program with the lab's configuration."""
    done = lab.run(str(SHIPPED_FILE), "-config", str(CONFIG), *words, user=user, seconds=ANSWER_SECONDS)
    return Told(done.returncode, done.stdout, done.stderr)


class Client(HTTPConnection):
    """A client of the control socket, as root."""

    def __init__(self, installed: Installation) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = str(installed.lab.path(CONTROL))

    def connect(self) -> None:
        """Connects to the socket instead of an address."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def get(installed: Installation, path: str) -> tuple[int, str]:
    """What is answered for a path."""
    client = Client(installed)
    try:
        client.request("GET", path)
        answer = client.getresponse()
        return answer.status, answer.read().decode()
    finally:
        client.close()


def request_as(lab: SlurmLab, user: str, method: str, path: str, body: str = "") -> tuple[int, dict[str, Any]]:
    """What another user is answered. The user must be allowed to connect."""
    words = [method, path, body]
    status, _, text = lab.output("python3", "-c", REQUEST.format(control=CONTROL), *words, user=user).partition(" ")
    return int(status), json.loads(text)


def rows_of(installed: Installation, job_id: int) -> list[dict[str, Any]]:
    """The messages of a job, as the running daemon has them."""
    rows: list[dict[str, Any]] = json.loads(get(installed, f"/jobs/{job_id}")[1])["rows"]
    return rows


def leading_sink(installed: Installation) -> dict[str, Any]:
    """What the running daemon says of cc-backend; nothing while it starts."""
    destinations = json.loads(get(installed, "/status")[1])["destinations"]
    return dict(destinations[0]["sink"]) if destinations else {}


def wait_for_state(installed: Installation, job_id: int, state: str, seconds: float = 60) -> None:
    """Waits until a message of a job has this state."""
    wait_for(
        f"a message of job {job_id} that is {state}",
        lambda: any(row["state"] == state for row in rows_of(installed, job_id)),
        seconds=seconds,
        every=0.2,
    )


def wait_for_health(installed: Installation, path: str, status: int, seconds: float = 60) -> str:
    """Waits until a path is answered with this status; gives what else is answered."""

    def answer() -> str:
        found, text = get(installed, path)
        return text if found == status else ""

    return wait_for(f"{status} for {path}", answer, seconds=seconds, every=0.2)


def owners(lab: SlurmLab) -> dict[str, str]:
    """Who owns the state folder and the daemon's files in it, by name."""
    lines = lab.output("find", str(STATE_FOLDER), "-printf", "%P %u:%g:%m\n").splitlines()
    return dict(line.rsplit(" ", 1) for line in lines)


def ids(rows: Sequence[dict[str, Any]]) -> set[int]:
    """The jobs of some rows of -queue list."""
    return {row["job_id"] for row in rows}
