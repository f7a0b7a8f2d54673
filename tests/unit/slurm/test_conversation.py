"""What scontrol says to commands on standard input: recorded output, any text, cut into any pieces."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.errors import NoConversation
from cc_slurm_adapter.slurm.conversation import ENVIRONMENT, PROMPT, WIDEST, Conversation, Query, Response
from tests.recorded.fixture_files import FIXTURES

MARKER = "0123456789abcdef0123456789abcdef"
"""That of the recordings."""
RECORDED = [FIXTURES / f"slurm-{version}" / "conversations" for version in ("22.05.8", "24.11.5", "26.05.5")]
SUBMITTED = {"1": "plain", "2": "no-newline", "3": "prompt-at-end", "4": "imitation", "5": "bytes"}
"""Jobs of the recordings and the scripts that sbatch was given for them."""
WITHOUT_SCRIPT, GONE, TASK = "7", "999", "8_1"
NAMES = [*SUBMITTED, WITHOUT_SCRIPT, GONE, TASK]
QUERIES = [
    question
    for name in NAMES
    for question in (Query(f"show job {name}", 10_000), Query(f"write batch_script {name} -", 10_000))
]


def script(name: str) -> bytes:
    return (FIXTURES / "scripts" / name).read_bytes()


def feed(conversation: Conversation, output: bytes, size: int) -> list[Response]:
    """The answers in an output that comes in pieces of so many bytes."""
    pieces = (output[at : at + size] for at in range(0, len(output), size))
    return [answer for piece in pieces for answer in conversation.feed(piece)]


def recorded_answers(folder: Path, name: str, size: int) -> list[bytes]:
    conversation = Conversation(QUERIES, MARKER)
    assert (folder / f"{name}.stdin").read_bytes().rstrip() == conversation.stdin().rstrip()
    answers = feed(conversation, (folder / f"{name}.stdout").read_bytes(), size)
    assert conversation.is_over
    assert all(len(answer.kept) == answer.size for answer in answers)
    return [answer.kept for answer in answers]


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
@pytest.mark.parametrize(
    "name", ["texts", "texts-all-oneliner", "texts-as-other-user", "controlling-terminal", "dumb", "no-last-newline"]
)
@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.parent.name)
def test_recorded_texts_are_those_of_the_jobs(folder: Path, name: str, size: int) -> None:
    answers = recorded_answers(folder, name, size)
    infos, scripts = dict(zip(NAMES, answers[::2])), dict(zip(NAMES, answers[1::2]))
    for job, text in infos.items():
        assert text.startswith(b"JobId=" + job.partition("_")[0].encode() + b" ") is (job != GONE)
        assert b"\nJobId=" not in text
    right = {job: script(file) for job, file in {**SUBMITTED, TASK: "plain"}.items()}
    if name == "texts-as-other-user":
        right = {}  # who is no operator does not see them
    assert scripts == {**dict.fromkeys(NAMES, b""), **right}


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.parent.name)
def test_a_terminal_in_between_is_noticed(folder: Path) -> None:
    """As with ssh -t: carriage returns would be in the scripts."""
    for name in ("terminal", "output-to-terminal"):
        conversation = Conversation(QUERIES, MARKER)
        assert feed(conversation, (folder / f"{name}.stdout").read_bytes(), 100) == []
        assert not conversation.has_begun


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.parent.name)
def test_what_is_asked_fits_the_screen_that_scontrol_believes_in(folder: Path) -> None:
    """It scrolls a line that does not, so that its echo is another one."""
    for columns, is_whole in ((WIDEST, True), (WIDEST + 1, False)):
        command = (folder / f"{columns}-columns.stdin").read_bytes().split(b"\n")[0]
        assert len(PROMPT + command) == columns
        echo = (folder / f"{columns}-columns.stdout").read_bytes().split(b"\n")[0]
        assert (echo == PROMPT + command) is is_whole
    assert int(ENVIRONMENT["COLUMNS"]) - 2 == WIDEST
    longest = [
        Query(f"show job {2**32 - 1}_{2**32 - 1}", 1),
        Query(f"write batch_script {2**32 - 1} -", 1),
    ] * 5000
    lines = Conversation(longest, MARKER).stdin().splitlines()
    assert max(len(PROMPT + line) for line in lines) <= WIDEST


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.parent.name)
def test_an_echo_that_was_scrolled_is_noticed(folder: Path) -> None:
    conversation = Conversation(QUERIES, MARKER)
    assert feed(conversation, (folder / "narrow.stdout").read_bytes(), 100) == []
    assert not conversation.is_over


def answered(questions: list[Query], answers: list[bytes], marker: str, *, echoes: bool) -> bytes:
    """The output of a scontrol, built with readline or without: seen in the recordings, and in its source."""
    lines = Conversation(questions, marker).stdin().splitlines(keepends=True)
    bodies = iter(answers)
    output = b""
    for line in lines:
        word = line.split()[-1] + b"\n"
        output += PROMPT + (line if echoes else b"") + (word if line.startswith(b"show hostnames") else next(bodies))
    return output + PROMPT + b"\n"


IMITATIONS = [
    b"scontrol: ",
    b"scontrol: show hostnames ",
    b"show hostnames ",
    b"scontrol: show job 1\n",
    b"scontrol: write batch_script 1 -\n",
    f"scontrol: show hostnames {'f' * 32}x1\n{'f' * 32}x1\n".encode(),
    b"x1\n",
    b"\n",
    b"\r\n",
    b"\0",
    b"#!/bin/sh\n",
]
anything = st.lists(st.sampled_from(IMITATIONS) | st.binary(max_size=40), max_size=6).map(b"".join)


@given(st.lists(anything, min_size=1, max_size=6), st.booleans(), st.data())
def test_any_text_in_any_pieces_arrives_as_it_is(texts: list[bytes], echoes: bool, data: st.DataObject) -> None:
    limits = data.draw(st.lists(st.integers(0, 60), min_size=len(texts), max_size=len(texts)))
    questions = [Query(f"write batch_script {number} -", limit) for number, limit in enumerate(limits)]
    marker = data.draw(st.text("0123456789abcde", min_size=32, max_size=32))  # which no imitation has
    output = data.draw(st.sampled_from([b"", b"Welcome to login1\n"])) + answered(
        questions, texts, marker, echoes=echoes
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(output)), max_size=20)))
    conversation = Conversation(questions, marker)
    pieces = [output[begin:end] for begin, end in itertools.zip_longest([0, *cuts], cuts)]
    answers = [answer for piece in pieces for answer in conversation.feed(piece)]
    assert answers == [Response(text[:limit], len(text)) for text, limit in zip(texts, limits)]
    assert conversation.is_over


@given(st.lists(anything, min_size=1, max_size=4), st.data())
def test_an_output_that_breaks_off_gives_only_whole_responses(texts: list[bytes], data: st.DataObject) -> None:
    questions = [Query(f"write batch_script {number} -", 1000) for number in range(len(texts))]
    output = answered(questions, texts, MARKER, echoes=True)
    conversation = Conversation(questions, MARKER)
    answers = conversation.feed(output[: data.draw(st.integers(0, len(output) - len(PROMPT) - 2))])
    assert [answer.kept for answer in answers] == texts[: len(answers)]
    assert conversation.is_over is False


def test_a_response_to_another_query_is_an_error() -> None:
    conversation = Conversation([Query("show job 1", 10)], MARKER)
    output = answered([Query("show job 2", 10)], [b"JobId=2"], MARKER, echoes=True)
    with pytest.raises(NoConversation, match="must pass standard input on and give it no terminal"):
        conversation.feed(output)


def test_what_is_not_kept_takes_no_room() -> None:
    conversation = Conversation([Query("write batch_script 1 -", 100)], MARKER)
    head, tail = answered([Query("write batch_script 1 -", 100)], [b"@"], MARKER, echoes=True).split(b"@")
    conversation.feed(head)
    for _ in range(1000):
        assert conversation.feed(b"#" * 1000) == []
        assert len(conversation._unread) + len(conversation._kept) < 1000
    assert conversation.feed(tail) == [Response(b"#" * 100, 1_000_000)]
