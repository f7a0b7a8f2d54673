"""The forms of what -install prints: a word of a unit must be read by systemd as it was meant."""

from __future__ import annotations

import pytest

from cc_slurm_adapter.cli.install_text import systemd_word, unless_runs

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}


def words_of_systemd(line: str, *, of_command: bool) -> list[str]:
    """The words of a line as systemd.syntax(7), systemd.unit(5) and, for a command, systemd.service(5) have them."""
    words: list[str] = []
    word, quote, is_word = "", "", False
    characters = iter(line)
    for char in characters:
        if char == "\\":
            word, is_word = word + ESCAPES[next(characters)], True
        elif quote:
            word, quote = (word, "") if char == quote else (word + char, quote)
        elif char in "'\"":
            quote, is_word = char, True
        elif char in " \t\n\r":
            words, word, is_word = words + [word] * is_word, "", False
        else:
            word, is_word = word + char, True
    assert not quote
    words += [word] * is_word
    return [_expanded(word, of_command=of_command) for word in words]


def _expanded(word: str, *, of_command: bool) -> str:
    for sign in "%$" if of_command else "%":
        parts = word.split(2 * sign)
        assert not any(sign in part for part in parts), f"systemd would put something in place of {sign}"
        word = sign.join(parts)
    return word


@pytest.mark.parametrize("of_command", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "/etc/cc-slurm-adapter/config.json",
        "/home/a b/100%.json",
        "/srv/$HOME/${x}/%h",
        '/srv/it\'s/"quoted"/conf.json',
        "/srv/back\\slash/\\n",
        "/srv/two\nlines\tand a tab",
        "/srv/;/#/ü",
        "PATH=/opt/slurm 24/bin:/usr/bin:/bin",
    ],
)
def test_systemd_reads_a_word_as_it_was_meant(text: str, *, of_command: bool) -> None:
    printed = systemd_word(text, of_command=of_command)
    assert "\n" not in printed
    assert words_of_systemd(f"-config {printed} -debug", of_command=of_command) == ["-config", text, "-debug"]


def test_what_needs_no_quotes_has_none() -> None:
    assert systemd_word("/etc/cc/config.json", of_command=True) == "/etc/cc/config.json"
    assert systemd_word("/a b", of_command=True) == '"/a b"'
    assert (systemd_word("/a$b"), systemd_word("/a$b", of_command=True)) == ("/a$b", "/a$$b")


def test_a_command_waits_for_the_end_of_a_process() -> None:
    assert unless_runs(4711, "true") == "[ -e /proc/4711 ] || true"
