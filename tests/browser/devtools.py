"""The protocol in which a browser is asked and says what happens: Chrome DevTools Protocol, over two pipes.

Each message is JSON and ends with a NUL. An answer has the id of its call; what has no id is an event.
"""

from __future__ import annotations

import json
import os
import select
import time
from typing import IO, Any, Callable

LIMIT = 60.0
"""Seconds for an answer, and for an event that must come."""

Event = dict[str, Any]
"""Has `method`, `params` and, if it comes from a tab, `sessionId`."""


class BrowserError(Exception):
    """It does not answer, or refuses a call."""


class DevTools:
    """Sends calls and keeps all events in the order in which they came, until somebody forgets them."""

    def __init__(self, to_browser: IO[bytes], from_browser: IO[bytes], limit: float = LIMIT) -> None:
        self.events: list[Event] = []
        self._to_browser = to_browser
        self._from_browser = from_browser
        self._limit = limit
        self._received = b""
        self._calls = 0

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Gives the result of a call; `session` is that of a tab. Raises BrowserError."""
        self._calls += 1
        message: dict[str, Any] = {"id": self._calls, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._send(json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + self._limit
        while (answer := self._next_message(method, deadline)).get("id") != self._calls:
            self.events.append(answer)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def wait_for(self, what: str, is_it: Callable[[Event], bool]) -> None:
        """Waits for an event, unless it has come already. Raises BrowserError, which names `what`."""
        deadline = time.monotonic() + self._limit
        while not any(map(is_it, self.events)):
            self.events.append(self._next_message(what, deadline))

    def forget(self, session: str) -> None:
        """Forgets the events of a tab that is closed."""
        self.events = [event for event in self.events if event.get("sessionId") != session]

    def _send(self, message: bytes) -> None:
        try:
            self._to_browser.write(message)
            self._to_browser.flush()
        except (OSError, ValueError) as error:  # a pipe that was closed is a ValueError
            raise BrowserError(f"the browser does not run: {error}") from error

    def _next_message(self, what: str, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._received:
            wait = max(0.0, deadline - time.monotonic())
            if not select.select([self._from_browser], [], [], wait)[0]:
                raise BrowserError(f"{what}: nothing came within {self._limit:g} s")
            received = os.read(self._from_browser.fileno(), 1 << 20)
            if not received:
                raise BrowserError(f"{what}: the browser has ended")
            self._received += received
        message, _, self._received = self._received.partition(b"\0")
        decoded: dict[str, Any] = json.loads(message)
        return decoded
