"""A program: attacks a daemon's TCP socket and events folder at random until it is killed.

    python -I -S -B attacker.py SEED PORT FOLDER SECRET PACKAGE

It stands for strangers (who have no SECRET), for hosts whose clock is wrong and messages that are repeated (which were
signed with it), and for a user who may write to the events folder. It prints what it has done as one JSON object a
second.
"""

from __future__ import annotations

import json
import os
import random
import resource
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

CROWD = 1000
"""Connections that are held at the same time."""
PAUSE = 0.05
"""Seconds between two acts of a kind, at most: one process is to leave the machine some time for the daemon."""
RESET = struct.pack("ii", 1, 0)
HOOK = ("SLURM_JOB_ID", "SLURM_SCRIPT_CONTEXT", "SLURM_CLUSTER_NAME")
FORGED_JOBS = (1 << 30, 1 << 31)
"""Ids of jobs that there are not."""


class Attacker:
    """All kinds of attacks; each runs in a thread of its own."""

    def __init__(self, chance: random.Random, port: int, folder: Path, secret: bytes) -> None:
        self._chance = chance
        self._port = port
        self._folder = folder
        self._secret = secret
        self._made = 0
        self.done: Counter[str] = Counter()

    def connect(self) -> socket.socket:
        """From one of several addresses, the honest hooks' one among them."""
        connection = socket.socket()
        connection.settimeout(5)
        try:
            connection.bind((f"127.0.0.{self._chance.randrange(1, 9)}", 0))
            connection.connect(("127.0.0.1", self._port))
        except OSError:
            connection.close()
            raise
        return connection

    def random_bytes(self) -> None:
        """Of any length up to more than a message may have; some break off with a reset."""
        with self.connect() as connection:
            for _ in range(self._chance.randrange(1, 4)):
                connection.sendall(self._chance.randbytes(self._chance.choice((1, 100, 5000, 70_000))))
            if self._chance.random() < 0.3:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def slow_sender(self) -> None:
        """A byte now and then."""
        with self.connect() as connection:
            for _ in range(self._chance.randrange(5, 20)):
                connection.sendall(b"{")
                time.sleep(self._chance.uniform(0, 0.3))

    def half_closed(self) -> None:
        """Nothing more will come, but it wants an answer."""
        with self.connect() as connection:
            connection.sendall(self._chance.choice((b"", b"{", b"[]", b"\0" * 100)))
            connection.shutdown(socket.SHUT_WR)
            with suppress(OSError):
                connection.recv(1)

    def crowd(self) -> None:
        """Opens very many connections, says a word on some of them, and begins anew."""
        held: list[socket.socket] = []
        try:
            for number in range(CROWD):
                held.append(self.connect())
                if number % 7 == 0:
                    with suppress(OSError):
                        self._chance.choice(held).send(b"x")
            time.sleep(self._chance.uniform(0, 1))
        finally:
            for connection in held:
                connection.close()

    def given_up(self) -> None:
        """As many as there may be, idle for a while; each speaks in the moment in which a new one takes its place."""
        with ExitStack() as stack:
            old = [stack.enter_context(self.connect()) for _ in range(self._chance.choice((16, 64)))]
            time.sleep(0.25)
            for each in old:
                stack.enter_context(self.connect())
                with suppress(OSError):
                    each.send(b"x")

    def replay(self) -> None:
        """A message of an honest host again and again."""
        message = self._message(0)
        for _ in range(3):
            with self.connect() as connection:
                connection.sendall(message)

    def other_clock(self) -> None:
        """A host with the secret whose clock is wrong."""
        with self.connect() as connection:
            connection.sendall(self._message(self._chance.choice((-86400, -300, 300, 86400))))

    def _message(self, seconds: int) -> bytes:
        from cc_slurm_adapter.hooks.message import encode  # noqa: PLC0415 - only now is its folder known
        from cc_slurm_adapter.hooks.signature import sign  # noqa: PLC0415 - only now is its folder known

        job = str(self._chance.randrange(*FORGED_JOBS))
        message = encode(dict(zip(HOOK, (job, "prolog_slurmctld", "lab"))))
        return sign(message, self._secret, time.time() + seconds)

    def forged_name(self) -> None:
        """A file in the events folder: of a job that there is not, of another cluster, or of no meaning at all."""
        job, number = self._chance.randrange(*FORGED_JOBS), self._chance.randrange(10**6)
        letters = "".join(self._chance.choices("0123456789.abc_-\n\x1b\u202e%s{}'\\ ", k=self._chance.randrange(1, 60)))
        name = self._chance.choice(
            (f"{job}.prolog_slurmctld.lab.{number}", f"{job}.prolog_slurmctld.other.{number}", letters, "9" * 255)
        )
        with suppress(FileExistsError, IsADirectoryError):
            (self._folder / name).touch(exist_ok=False)
        time.sleep(0.1)

    def strange_entry(self) -> None:
        """What is no file, by an event's name: a link, a pipe, a folder, a socket."""
        self._made += 1
        path = self._folder / f"{self._chance.randrange(*FORGED_JOBS)}.prolog_slurmctld.lab.{self._made}"
        kind = self._chance.randrange(5)
        if kind == 0:
            path.symlink_to("/etc/passwd")
        elif kind == 1:
            path.symlink_to(path.with_name("nowhere"))
        elif kind == 2:
            os.mkfifo(path)
        elif kind == 3:
            path.mkdir()
            (path / "precious").touch()
        else:
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(str(path))
        time.sleep(0.1)

    def repeat(self, act: Callable[[], None]) -> None:
        """Without end; the daemon may refuse whatever it wants."""
        while True:
            with suppress(OSError):
                act()
                self.done[act.__name__] += 1
            time.sleep(self._chance.uniform(0, PAUSE))


def main(words: list[str]) -> None:
    seed, port, folder, secret, package = words
    sys.path.insert(0, package)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4 * CROWD), most))
    attacker = Attacker(random.Random(int(seed)), int(port), Path(folder), secret.encode())
    kinds = (
        *(attacker.random_bytes, attacker.slow_sender, attacker.half_closed, attacker.crowd, attacker.given_up),
        *(attacker.replay, attacker.other_clock, attacker.forged_name, attacker.strange_entry),
    )
    for kind in kinds:
        threading.Thread(target=attacker.repeat, args=(kind,), daemon=True).start()
    while True:
        time.sleep(1)
        print(json.dumps(attacker.done), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
