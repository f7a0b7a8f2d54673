"""The next steps that are printed: a key that a reload puts in force needs no restart."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cc_slurm_adapter.config.keys import SETTINGS

TOP = Path(__file__).parents[2]
RELOADED = {setting.key: setting.reload for setting in SETTINGS}
VERB = re.compile(r"\b(restart|reload)\b")
CREDENTIAL = "credential"
"""systemd reads a credential only when the unit starts, whatever the key is."""


def wrong_steps(text: str) -> list[str]:
    """The keys of a text that need the other one of restart and reload than the text says after them."""
    parts = VERB.split(text)
    return [
        key
        for named, verb in zip(parts[::2], parts[1::2])
        for key in re.findall(r"\w+", named)
        if CREDENTIAL not in text and RELOADED.get(key, verb == "reload") != (verb == "reload")
    ]


def printed_texts(path: Path) -> Iterator[str]:
    """All texts of a module; `{}` stands for a value in them."""
    inner: set[ast.AST] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            inner.update(node.values)
            yield "".join(str(each.value) if isinstance(each, ast.Constant) else "{}" for each in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inner:
            yield node.value


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("correct gpuPciAddrs, then restart, or correct cluster.json", ["gpuPciAddrs"]),
        ("correct ccRestUrl, then reload", ["ccRestUrl"]),
        ("correct gpuPciAddrs and reload, or ccRestUrl and restart", []),
        ("put it into ccRestJwtFile, and restart if it is a credential", []),
    ],
)
def test_the_rule_finds_what_is_wrong(text: str, wrong: list[str]) -> None:
    assert wrong_steps(text) == wrong


def test_what_is_printed_asks_for_a_restart_only_where_a_reload_is_not_enough() -> None:
    texts = [text for path in (TOP / "cc_slurm_adapter").rglob("*.py") for text in printed_texts(path)]
    assert sum(bool(VERB.search(text)) for text in texts) > 30
    assert [(text, wrong_steps(text)) for text in texts if wrong_steps(text)] == []
