"""Which messages an administrator means: a frozen value, read from flags, a query string or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cc_slurm_adapter.errors import UsageError
from cc_slurm_adapter.sinks.base import CC_NATS, CC_REST, label_of
from cc_slurm_adapter.system.nearest import nearest

STATES = ("pending", "parked", "conflict", "following")
"""The states of messages that are not delivered."""
SINKS = {"cc_rest": CC_REST, "cc-backend": CC_REST, "rest": CC_REST, "cc_nats": CC_NATS, "nats": CC_NATS}
"""What a sink may be called, in small letters."""
ALL = "all"
KEYS = ("state", "reason", "cluster", "sink", "job")
LONGEST_TEXT = 500
LARGEST_JOB_ID = 2**32 - 1
Words = Mapping[str, object]


@dataclass(frozen=True)
class Selection:
    """Messages that are not delivered. What is empty selects everything."""

    states: tuple[str, ...] = ()
    reason: str = ""
    """A text that the reason contains, in small or capital letters."""
    cluster: str = ""
    sink: str = ""
    job_id: int | None = None

    @property
    def states_or_all(self) -> tuple[str, ...]:
        """The states that are selected."""
        return self.states or STATES

    def as_words(self) -> dict[str, str]:
        """Return what `parse` reads."""
        words = {
            "state": ",".join(self.states),
            "reason": self.reason,
            "cluster": self.cluster,
            "sink": self.sink,
            "job": "" if self.job_id is None else str(self.job_id),
        }
        return {key: word for key, word in words.items() if word}

    def __str__(self) -> str:
        words = {**self.as_words(), **({"sink": label_of(self.sink)} if self.sink else {})}
        found = [f"{key} {word}" for key, word in words.items()]
        return ", ".join(found) if found else ALL


def parse(words: Words, *, others: tuple[str, ...] = ()) -> Selection:
    """Return the selection of a query string or a JSON object. Raises UsageError for keys that are not in `others`."""
    unknown = sorted(set(words) - set(KEYS) - set(others))
    if unknown:
        raise UsageError(_unknown(unknown[0], "selects nothing", (*KEYS, *others), (*KEYS, *others)))
    return Selection(
        _states(_text(words, "state")),
        _text(words, "reason"),
        _text(words, "cluster"),
        _sink(_text(words, "sink")),
        parse_job(words.get("job")),
    )


def parse_for_change(words: Words, *, others: tuple[str, ...] = ()) -> Selection:
    """Return the selection of messages that are to be changed. Raises UsageError.

    All must be asked for, with `all` and the value true, so that nobody changes them by mistake.
    """
    selection = parse(words, others=(*others, ALL))
    if (words.get(ALL) is True) == (selection != Selection()):
        raise UsageError(f"select messages by {', '.join(KEYS)}, or all of them with all: true")
    return selection


def parse_job(word: object) -> int | None:
    """Return the id of a job; None for all of them. Raises UsageError."""
    if word is None or word in ("", ALL):
        return None
    text = str(word)
    is_number = isinstance(word, (str, int)) and not isinstance(word, bool) and text.isascii() and text.isdigit()
    if not is_number or len(text) > len(str(LARGEST_JOB_ID)) or not 0 < int(text) <= LARGEST_JOB_ID:
        raise UsageError(
            f"{_shown(word)} is no job id: give a number, as JobId in `scontrol show job`, or all; a task of an array"
            " has its own: squeue -h -O JobID -j 14_1, or sacct -nXo JobIDRaw -j 14_1 when it is over"
        )
    return int(text)


def parse_number(words: Words, key: str, default: int, most: int, *, least: int = 0) -> int:
    """Return a number of a query string or a JSON object. Raises UsageError."""
    word = words.get(key)
    if word is None or word == "":
        return default
    text = str(word)
    if isinstance(word, bool) or not isinstance(word, (str, int)) or not text.isascii() or not text.isdigit():
        raise UsageError(f"{key} is {_shown(word)}, but must be a number from {least} to {most}")
    if len(text) > len(str(most)) or not least <= int(text) <= most:
        raise UsageError(f"{key} is {_shown(word)}, but must be from {least} to {most}")
    return int(text)


def _text(words: Words, key: str) -> str:
    word = words.get(key)
    if word is None:
        return ""
    if not isinstance(word, str) or len(word) > LONGEST_TEXT:
        raise UsageError(f"{key} is {_shown(word)}, but must be a text of at most {LONGEST_TEXT} characters")
    return word


def _states(text: str) -> tuple[str, ...]:
    if text in ("", ALL):
        return ()
    found = tuple(dict.fromkeys(word.strip().lower() for word in text.split(",")))
    for word in found:
        if word not in STATES:
            raise UsageError(_unknown(word, "is no state of a message that waits", STATES, STATES))
    return found


def _sink(text: str) -> str:
    if text in ("", ALL):
        return ""
    if text.lower() not in SINKS:
        shown = (f"{CC_REST} (cc-backend)", f"{CC_NATS} (NATS)")
        raise UsageError(_unknown(text, "is no destination", SINKS, shown))
    return SINKS[text.lower()]


def _unknown(word: str, what: str, known: Iterable[str], shown: Sequence[str]) -> str:
    """Return what is wrong with a word, which words there are, and the nearest one."""
    found = nearest(word[:LONGEST_TEXT], known)
    return f"{_shown(word)} {what}: there are {', '.join(shown)}" + (f"; did you mean {found}?" if found else "")


def _shown(word: object) -> str:
    text = repr(word)
    return text if len(text) <= 50 else f"{text[:50]}..."
