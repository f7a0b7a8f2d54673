"""A program: keeps the sockets busy on which a daemon is asked how it is, until it is killed.

    python -I -S -B flood.py SEED CONTROL_SOCKET METRICS_PORT

It holds many connections that say nothing, opens new ones for those that the daemon closes, and sends garbage on
others. It prints what it has done as one JSON object a second.
"""

from __future__ import annotations

import json
import random
import resource
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

IDLE = 300
"""Connections that are held at each of the two sockets."""
AT_MOST = 8 * 2**20
"""Bytes that are sent on a connection, if the daemon takes them."""
PAUSE = 0.01
"""Seconds between two acts of a kind, at most: this process is to leave the machine some time for the daemon."""
BEGINNINGS = (
    b"",
    b"GET /" + b"a" * 9000,
    b"GET /status HTTP/1.1\r\n" + b"X-Some: thing\r\n" * 1000,
    b"POST /queue/retry HTTP/1.1\r\nContent-Length: 60000\r\n\r\n",
    b"POST /queue/drop HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
    b"GET /queue?limit=" + b"9" * 5000 + b" HTTP/1.1\r\n\r\n",
    b"GET /jobs/" + b"9" * 300 + b" HTTP/1.1\r\n\r\n",
)
"""Of what is sent; random bytes follow."""
Connect = Callable[[], socket.socket]


class Flood:
    """What is done to one socket; each method runs in a thread of its own, without end."""

    def __init__(self, name: str, chance: random.Random, connect: Connect) -> None:
        self._name = name
        self._chance = chance
        self._connect = connect
        self._rubbish = chance.randbytes(64 * 1024)
        self.done: Counter[str] = Counter()

    def hold(self) -> None:
        """Many connections that say nothing."""
        held: list[socket.socket] = []
        while True:
            for each in [each for each in held if _is_over(each)]:
                held.remove(each)
                each.close()
                self.done[f"closed by the daemon, {self._name}"] += 1
            with suppress(OSError):
                while len(held) < IDLE:
                    held.append(self._connect())
            self.done[f"held, {self._name}"] = max(self.done[f"held, {self._name}"], len(held))
            time.sleep(PAUSE)

    def send(self) -> None:
        """Garbage."""
        while True:
            with suppress(OSError):
                self._send_on_one()
            time.sleep(self._chance.uniform(0, PAUSE))

    def _send_on_one(self) -> None:
        with self._connect() as connection:
            connection.settimeout(5)
            connection.sendall(self._chance.choice(BEGINNINGS))
            for _ in range(AT_MOST // len(self._rubbish)):
                self.done[f"bytes, {self._name}"] += connection.send(self._rubbish)


def _is_over(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _over_unix(path: str) -> Connect:
    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(1)  # where too many wait already it fails at once
        try:
            connection.connect(path)
        except OSError:
            connection.close()
            raise
        return connection

    return connect


def main(words: list[str]) -> None:
    seed, path, port = words
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4 * IDLE), most))
    floods = [
        Flood("control", random.Random(int(seed)), _over_unix(path)),
        Flood("metrics", random.Random(int(seed) + 1), lambda: socket.create_connection(("127.0.0.1", int(port)), 1)),
    ]
    for flood in floods:
        for kind in (flood.hold, flood.send):
            threading.Thread(target=kind, daemon=True).start()
    while True:
        time.sleep(1)
        print(json.dumps({**floods[0].done, **floods[1].done}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
