"""Calls, answers and events over the pipes to a browser; the other end is the test."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import IO

import pytest

from tests.browser.devtools import BrowserError, DevTools


class OtherEnd:
    """The browser; what it says may lie in the pipe before it is asked."""

    def __init__(self, calls: IO[bytes], answers: IO[bytes]) -> None:
        self.calls = calls
        self.answers = answers

    def say(self, *messages: object) -> None:
        self.answers.write(b"".join(json.dumps(message).encode() + b"\0" for message in messages))
        self.answers.flush()


@pytest.fixture
def pipes() -> Iterator[tuple[DevTools, OtherEnd]]:
    calls_out, calls_in = os.pipe()
    answers_out, answers_in = os.pipe()
    with contextlib.ExitStack() as until_the_end:
        calls, from_browser = (until_the_end.enter_context(os.fdopen(end, "rb")) for end in (calls_out, answers_out))
        answers = until_the_end.enter_context(os.fdopen(answers_in, "wb"))
        to_browser = until_the_end.enter_context(os.fdopen(calls_in, "wb", buffering=0))
        yield DevTools(to_browser, from_browser, limit=0.2), OtherEnd(calls, answers)


def test_call_and_answer_with_events_between(pipes: tuple[DevTools, OtherEnd]) -> None:
    devtools, browser = pipes
    event = {"method": "Log.entryAdded", "params": {"text": "größer"}, "sessionId": "tab"}
    browser.say(event, {"id": 1, "result": {"product": "Chrome"}})
    assert devtools.call("Browser.getVersion", "tab", verbose=True) == {"product": "Chrome"}
    assert devtools.events == [event]
    sent = os.read(browser.calls.fileno(), 1000)
    assert sent.endswith(b"\0")
    assert json.loads(sent[:-1]) == {
        "id": 1,
        "method": "Browser.getVersion",
        "params": {"verbose": True},
        "sessionId": "tab",
    }
    devtools.forget("tab")
    assert devtools.events == []


def test_event_that_has_come_already_and_one_that_comes(pipes: tuple[DevTools, OtherEnd]) -> None:
    devtools, browser = pipes
    browser.say({"method": "first"}, {"id": 1, "result": {}}, {"method": "second"})
    devtools.call("anything")
    devtools.wait_for("the first", lambda event: event["method"] == "first")
    devtools.wait_for("the second", lambda event: event["method"] == "second")


def test_call_that_is_refused(pipes: tuple[DevTools, OtherEnd]) -> None:
    devtools, browser = pipes
    browser.say({"id": 1, "error": {"code": -32601, "message": "'X.y' wasn't found"}})
    with pytest.raises(BrowserError, match=r"X\.y: 'X\.y' wasn't found"):
        devtools.call("X.y")


def test_browser_that_says_nothing(pipes: tuple[DevTools, OtherEnd]) -> None:
    devtools, _ = pipes
    with pytest.raises(BrowserError, match=r"Page\.navigate: nothing came within 0\.2 s"):
        devtools.call("Page.navigate")


def test_browser_that_ends(pipes: tuple[DevTools, OtherEnd]) -> None:
    devtools, browser = pipes
    browser.answers.close()
    with pytest.raises(BrowserError, match="the load: the browser has ended"):
        devtools.wait_for("the load", lambda event: True)
    browser.calls.close()
    with pytest.raises(BrowserError, match="the browser does not run"):
        devtools.call("Page.navigate")
