"""Queries to one scontrol over its standard input. What it prints is cut into responses while it arrives.

Between two queries scontrol is made to print a random word, the marker. Users write scripts and much of a job's text,
but all of that is older than the marker. The marker is in no process list, because it is sent over standard input. So
nothing that a user wrote can end a response, and no response can be mistaken for another job's.

scontrol prints its prompt, the command that it has read (if it was built with readline), and the response. The prompt
follows a response immediately, even a response that does not end with a newline (recorded in
fixtures/slurm-*/conversations). So a marker counts only with the prompt and the echo that scontrol itself puts before
it, and nothing else is cut off a response.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cc_slurm_adapter.errors import NoConversation

PROMPT = b"scontrol: "
ENVIRONMENT = {"TERM": "dumb", "COLUMNS": "80", "INPUTRC": "/dev/null"}
"""Makes readline write an echo unchanged. It scrolls a line that is wider than the screen minus two columns."""
WIDEST = 78
"""Most bytes of prompt and command. The longest query has 65."""


class Query(NamedTuple):
    """A command, and how many bytes of its response are kept at most."""

    command: str
    limit: int


class Response(NamedTuple):
    """The beginning of what scontrol printed, and how many bytes there were."""

    kept: bytes
    size: int


class Conversation:
    """Queries and their responses, in order. `feed` gets what scontrol prints, in pieces of any size."""

    def __init__(self, queries: Sequence[Query], marker: str) -> None:
        self._queries = queries
        self._marker = marker
        self._unread = bytearray()
        """Output that may still be the beginning of a marker, or of an echo."""
        self._echoes = True
        """Whether scontrol repeats commands. The first marker shows that."""
        self._current = -1
        """The query whose response arrives; -1 before the first marker."""
        self._kept = bytearray()
        self._size = 0
        self._echo = b""
        """The output that precedes the response."""

    @property
    def is_over(self) -> bool:
        """Return whether the last response is complete."""
        return self._current == len(self._queries)

    @property
    def has_begun(self) -> bool:
        """Return whether scontrol has printed the first marker."""
        return self._current >= 0

    def stdin(self) -> bytes:
        """Return the input for scontrol."""
        lines = [self._mark(0)]
        for number, query in enumerate(self._queries, 1):
            lines += [query.command, self._mark(number)]
        return "".join(f"{line}\n" for line in lines).encode()

    def feed(self, piece: bytes) -> list[Response]:
        """Read the next piece of output. Return the responses that it completes. Raises NoConversation."""
        self._unread += piece
        if self._current < 0:
            self._begin()
        responses: list[Response] = []
        while self.has_begun and not self.is_over and self._skip_echo():
            end = self._end_of(self._current + 1)
            at = self._unread.find(end)
            if at < 0:
                self._keep(len(self._unread) - len(end) + 1)
                break
            self._keep(at)
            responses.append(Response(bytes(self._kept), self._size))
            del self._unread[: len(end)]
            self._go_to(self._current + 1)
        return responses

    def _mark(self, number: int) -> str:
        return f"show hostnames {self._marker}x{number}"

    def _end_of(self, number: int) -> bytes:
        """Return what scontrol prints for a marker."""
        echo = f"{self._mark(number)}\n" if self._echoes else ""
        return PROMPT + f"{echo}{self._marker}x{number}\n".encode()

    def _begin(self) -> None:
        """Find the first marker, and whether scontrol repeats commands. What a wrapper prints before is dropped."""
        for echoes in (True, False):
            self._echoes = echoes
            end = self._end_of(0)
            at = self._unread.find(end)
            if at >= 0:
                del self._unread[: at + len(end)]
                self._go_to(0)
                return
        self._echoes = True
        del self._unread[: 1 - len(self._end_of(0))]

    def _go_to(self, number: int) -> None:
        self._current, self._size = number, 0
        self._kept.clear()
        if not self.is_over:
            command = f"{self._queries[number].command}\n" if self._echoes else ""
            self._echo = PROMPT + command.encode()

    def _skip_echo(self) -> bool:
        """Skip the echo. Return whether the response itself has begun. Raises NoConversation."""
        if not self._echo:
            return True
        if len(self._unread) < len(self._echo):
            return False
        if not self._unread.startswith(self._echo):
            raise NoConversation
        del self._unread[: len(self._echo)]
        self._echo = b""
        return True

    def _keep(self, count: int) -> None:
        """Move the next `count` bytes to the response."""
        if count <= 0:
            return
        room = self._queries[self._current].limit - len(self._kept)
        self._kept += self._unread[: min(count, room)]
        self._size += count
        del self._unread[:count]
