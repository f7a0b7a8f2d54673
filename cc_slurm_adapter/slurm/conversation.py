"""What scontrol says to commands on its standard input, cut into answers while it arrives.

Between two commands it is told to print a random word. Users write scripts and much of a job's text, but all of that is
older than the word, and the word is in no process list: it goes over standard input. So nothing that a user wrote can
end an answer, and no answer can pass for another job's.

scontrol prints its prompt, the command that it has read where it was built with readline, and the answer. The prompt
follows an answer at once, also one that does not end a line (recorded in fixtures/slurm-*/conversations). So a marker
counts only with the prompt and the echo that scontrol itself puts before it, and nothing else is taken off an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cc_slurm_adapter.errors import NoConversation

PROMPT = b"scontrol: "
ENVIRONMENT = {"TERM": "dumb", "COLUMNS": "80", "INPUTRC": "/dev/null"}
"""So that readline writes an echo as it is: it scrolls a line that is wider than the screen less two columns."""
WIDEST = 78
"""Bytes of prompt and command; the longest that is asked has 65."""


class Question(NamedTuple):
    """A command, and how many bytes of its answer are kept."""

    command: str
    limit: int


class Answer(NamedTuple):
    """The beginning of what scontrol said, and how many bytes there were."""

    kept: bytes
    size: int


class Conversation:
    """Questions and their answers, in order; `hear` takes what scontrol prints, in pieces of any size."""

    def __init__(self, questions: Sequence[Question], marker: str) -> None:
        self._questions = questions
        self._marker = marker
        self._heard = bytearray()
        """What may still be the beginning of a marker, or of an echo."""
        self._echoes = True
        """Whether scontrol repeats commands; it shows when the first marker comes."""
        self._begun = -1
        """The question that is being answered; -1 before the first marker."""
        self._kept = bytearray()
        self._size = 0
        self._echo = b""
        """What comes before the answer."""

    @property
    def is_over(self) -> bool:
        """Whether the last answer is complete."""
        return self._begun == len(self._questions)

    @property
    def has_begun(self) -> bool:
        """Whether scontrol answers at all."""
        return self._begun >= 0

    def stdin(self) -> bytes:
        """What scontrol is to read."""
        lines = [self._mark(0)]
        for number, question in enumerate(self._questions, 1):
            lines += [question.command, self._mark(number)]
        return "".join(f"{line}\n" for line in lines).encode()

    def hear(self, piece: bytes) -> list[Answer]:
        """The next piece of its output; the answers that it completes. Raises NoConversation."""
        self._heard += piece
        if self._begun < 0:
            self._begin()
        answers: list[Answer] = []
        while self.has_begun and not self.is_over and self._skip_echo():
            end = self._end_of(self._begun + 1)
            at = self._heard.find(end)
            if at < 0:
                self._keep(len(self._heard) - len(end) + 1)
                break
            self._keep(at)
            answers.append(Answer(bytes(self._kept), self._size))
            del self._heard[: len(end)]
            self._turn_to(self._begun + 1)
        return answers

    def _mark(self, number: int) -> str:
        return f"show hostnames {self._marker}x{number}"

    def _end_of(self, number: int) -> bytes:
        """What scontrol prints for a marker."""
        echo = f"{self._mark(number)}\n" if self._echoes else ""
        return PROMPT + f"{echo}{self._marker}x{number}\n".encode()

    def _begin(self) -> None:
        """Find the first marker and see whether scontrol repeats commands; what a wrapper says before goes."""
        for echoes in (True, False):
            self._echoes = echoes
            end = self._end_of(0)
            at = self._heard.find(end)
            if at >= 0:
                del self._heard[: at + len(end)]
                self._turn_to(0)
                return
        self._echoes = True
        del self._heard[: 1 - len(self._end_of(0))]

    def _turn_to(self, number: int) -> None:
        self._begun, self._size = number, 0
        self._kept.clear()
        if not self.is_over:
            command = f"{self._questions[number].command}\n" if self._echoes else ""
            self._echo = PROMPT + command.encode()

    def _skip_echo(self) -> bool:
        """Whether the answer itself has begun. Raises NoConversation."""
        if not self._echo:
            return True
        if len(self._heard) < len(self._echo):
            return False
        if not self._heard.startswith(self._echo):
            raise NoConversation
        del self._heard[: len(self._echo)]
        self._echo = b""
        return True

    def _keep(self, count: int) -> None:
        """So many bytes belong to the answer."""
        if count <= 0:
            return
        room = self._questions[self._begun].limit - len(self._kept)
        self._kept += self._heard[: min(count, room)]
        self._size += count
        del self._heard[:count]
