"""The configuration file is read as json reads it, whoever parses."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.config.file import parse_config_text
from cc_slurm_adapter.errors import BrokenJson, ConfigError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
SPACE = st.text(" \t\n\r", max_size=3)
LIKE_JSON = st.text('{}[]",: \n\t\r\x0b\xa0\ufeff\\\\u0e+-.019aNIntrue', max_size=25)
MARK = "\ufeff"


def in_json(text: str) -> dict[str, object]:
    """What json makes of it, as the settings hold it; ValueError if that is no object."""
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError
    return {key.lower(): (key, value) for key, value in document.items() if value is not None}


@given(st.dictionaries(st.text(max_size=6), VALUES, max_size=5), SPACE, SPACE, st.booleans(), st.booleans())
def test_what_json_writes_is_read(
    document: dict[str, object], before: str, after: str, ascii_only: bool, marked: bool
) -> None:
    text = before + json.dumps(document, ensure_ascii=ascii_only, indent=len(after)) + after
    try:
        data = (MARK * marked + text).encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return
    assert repr(parse_config_text(data).entries) == repr(in_json(text))


@given(LIKE_JSON | LIKE_JSON.map(lambda text: f'{{"a": {text}}}') | VALUES.map(lambda value: f'{{"a": {value}}}'))
def test_what_json_refuses_is_refused(text: str) -> None:
    try:
        expected = in_json(text)
    except ValueError:
        with pytest.raises(ConfigError):
            parse_config_text(text.encode(errors="replace"))
    else:
        assert repr(parse_config_text(text.encode(errors="surrogatepass")).entries) == repr(expected)


def test_a_python_without_the_parser_in_c_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_json", None)
    parsed = parse_config_text(b' {"a": [1, -2.5e3, "x", NaN], "A": true, "b": null, "c": 1, "c": 2}\n')
    value = parsed.get("a")
    assert (value, parsed.get("b"), parsed.get("C"), parsed.repeated) == (True, None, 2, ["c", "A"])


def test_a_key_that_occurs_twice_is_named_once() -> None:
    assert parse_config_text(b'{"a": 1, "a": 2}').repeated == ["a"]
    assert parse_config_text(b'{"a": 1, "A": 2}').repeated == ["A"]


def test_numbers_that_are_none_are_read_as_json_reads_them() -> None:
    value = parse_config_text(b'{"a": [NaN, Infinity, -Infinity]}').get("a")
    assert isinstance(value, list)
    assert math.isnan(value[0])
    assert value[1:] == [math.inf, -math.inf]


def test_where_the_text_goes_wrong_is_told_as_json_tells_it() -> None:
    text = '\n  {"a": 1,\n "b" 2}\n'
    with pytest.raises(BrokenJson) as broken:
        parse_config_text(MARK.encode() + text.encode())
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(text)
    assert (broken.value.text, broken.value.offset, broken.value.message) == (
        text,
        expected.value.pos,
        expected.value.msg,
    )


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'\xef\xbb\xbf{"a": "\xff"}', "not UTF-8 text (byte 7)"),
        (b"[" * 100_000, "nested too deeply"),
        (b"null", "expected a JSON object"),
        (b"", "not valid JSON"),
        (b"{} {}", "Extra data"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "not valid JSON"),
    ],
)
def test_what_is_no_configuration(data: bytes, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config_text(data)
    assert told in str(error.value)


READ = """\
import sys
from pathlib import Path
from cc_slurm_adapter.config.file import parse_config_text
from cc_slurm_adapter.errors import BrokenJson

assert parse_config_text(b' {"a": [1, "x"]} ').get("a") == [1, "x"]
assert "json" not in sys.modules
try:
    parse_config_text(b'{"a" 1}')
except BrokenJson as error:
    print(error)
"""


def test_a_mistake_is_told_where_json_was_not_loaded_before() -> None:
    """Then the parser in C cannot say what is wrong: some Pythons find no class for their own error."""
    folder = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-B", "-S", "-c", READ],
        env={"PYTHONPATH": folder},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "not valid JSON: line 1 column 6: Expecting ':' delimiter\n",
        "",
    )


def test_a_python_for_debugging_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "gettotalrefcount", int, raising=False)
    assert parse_config_text(b'{"a": 1, "b": null}').entries == {"a": ("a", 1)}
