"""The thread in which NATS lives: nothing that hangs there holds anybody for ever."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from cc_slurm_adapter.sinks.nats.loop import MAX_RESOLVING, LoopThread, Timing

PATIENCE = 10.0


async def nothing() -> None: ...


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    made = LoopThread("test", lambda: None, nothing)
    yield made
    made.stop()
    for thread in threading.enumerate():
        if thread.name == "test":
            thread.join(PATIENCE)


def test_work_without_an_end_is_given_up_and_other_work_goes_on(loop: LoopThread) -> None:
    cancelled = threading.Event()

    async def endless() -> None:
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            cancelled.set()

    async def quick() -> int:
        return 7

    with pytest.raises(RuntimeError, match="has not ended"):
        loop.run(endless(), timing=Timing(work_limit=0.05))
    assert cancelled.wait(PATIENCE)
    assert loop.run(quick()) == 7


def test_a_time_out_of_the_work_itself_is_its_own(loop: LoopThread) -> None:
    async def late() -> None:
        raise asyncio.TimeoutError

    with pytest.raises(asyncio.TimeoutError):
        loop.run(late())


def test_names_that_no_name_server_answers_take_few_threads(loop: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    asked: list[None] = []

    def hang(*_: object, **__: object) -> list[object]:
        asked.append(None)
        answered.wait(PATIENCE)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def look_up() -> list[object]:
        event_loop = asyncio.get_running_loop()
        questions = [asyncio.ensure_future(event_loop.getaddrinfo("nats", 4222)) for _ in range(20)]
        await asyncio.sleep(0)
        while len(asked) < MAX_RESOLVING:
            await asyncio.sleep(0.001)
        answered.set()
        return await asyncio.gather(*questions, return_exceptions=True)

    answers = loop.run(look_up())
    refused = [answer for answer in answers if isinstance(answer, OSError)]
    assert len(asked) == MAX_RESOLVING
    assert len(refused) == 20 - MAX_RESOLVING
    assert "has not answered" in str(refused[0])
