"""What is said of a configuration that is no JSON: where, why, the line, and none of its values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.config.file import parse_config_text
from cc_slurm_adapter.config.json_mistake import describe_mistake
from cc_slurm_adapter.config.paths import read_named_file
from cc_slurm_adapter.errors import BrokenJson, ConfigError


def described(text: str) -> str:
    """What is said of a text that is no JSON; Python's versions differ in what they say themselves."""
    with pytest.raises(BrokenJson) as refused:
        parse_config_text(text.encode())
    found = refused.value
    return describe_mistake(found.text, found.offset, found.message)


@pytest.mark.parametrize(
    ("text", "where", "cause", "shown"),
    [
        (
            '{\n "ccRestUrl": "http://h"\n "ccRestJwt": "x"\n}',
            (2, 25),
            "a comma is missing before the next entry",
            '"ccRestUrl": "..."',
        ),
        ('{"ccRestUrl": "h" "ccRestJwt": 1}', (1, 19), "a comma is missing before the next entry", "ccRestJwt"),
        ('{\n "ccRestUrl": "http://h",\n}', (2, 25), "a comma after the last entry, remove it", '"ccRestUrl": "...",'),
        ('{"prepAllow": ["10.0.0.1",]}', (1, 26), "a comma after the last entry, remove it", '"prepAllow": ["...",]'),
        ("{'ccRestUrl': 'x'}", (1, 2), "double quotes, not single ones", "{'ccRestUrl': '...'}"),
        ('{\n // a site\n "ccRestUrl": "x"}', (2, 2), "JSON has no comments, remove it", ": // ..."),
        ('{"ccRestUrl": "x",\n # a site\n}', (2, 2), "JSON has no comments, remove it", ": # ..."),
        ('{"ccRestUrl" "x"}', (1, 14), "a colon is missing after the key", '{"ccRestUrl" "..."}'),
        ('{\n "ccRestUrl": "h,\n "ccRestJwt": "x"\n}', (2, 15), "a closing quote is missing", '"ccRestUrl": "...'),
        ('{"ccRestUrl": "x', (1, 15), "a closing quote is missing", '{"ccRestUrl": "...'),
        ('{"ccRestUrl": "x"\n', (1, 18), "a closing bracket is missing", '{"ccRestUrl": "..."'),
        ('{ccRestUrl: "x"}', (1, 2), "a key in double quotes is expected", '{ccRestUrl: "..."}'),
        ('{"ignoreHosts": "n\\d"}', (1, 19), "a backslash must be doubled", '{"ignoreHosts": "..."}'),
        ('{"ccRestSubmitJobs": False}', (1, 22), "written in small letters", '{"ccRestSubmitJobs": False}'),
        ("{} }", (1, 4), "something follows the last closing bracket", "{} }"),
        ('{"ccRestUrl": \u201cx\u201d}', (1, 15), "write straight ones", "\u201c...\u201d"),
        ('{"ccRestUrl": }', (1, 15), "a value is expected", '{"ccRestUrl": }'),
    ],
)
def test_the_usual_mistakes_are_told_with_their_cause(
    text: str, where: tuple[int, int], cause: str, shown: str
) -> None:
    said = described(text)
    assert said.startswith("not valid JSON: line {} column {}: ".format(*where))
    assert cause in said
    assert shown in said.partition(cause)[2]


def test_a_file_is_named_before_its_mistake(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"ccRestUrl": "x",}')
    with pytest.raises(ConfigError, match="json: not valid JSON: line 1 column 18: a comma after the last entry"):
        read_named_file(str(path), explicit=True)


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_file_is_told_so(text: str) -> None:
    assert described(text) == "the file is empty, expected a JSON object: { ... } with one entry for each setting"


@pytest.mark.parametrize(
    "line",
    [
        '"natsPassword": "g3heim"',
        '"natsPassword":g3heim',
        '"natsPassword: "g3heim"',
        '"natsPassword": "g3heim',
        "'natsPassword': 'g3heim'",
        '"g3heim"',
        "// it is g3heim",
        "g3heim-@g3heim",
    ],
)
def test_no_value_is_shown(line: str) -> None:
    assert "g3heim" not in described(f'{{\n{line}\n "ccRestUrl": x\n}}')


def test_a_long_line_is_cut() -> None:
    assert len(described('{"prepAllow": [' + "[" * 900 + "}")) < 250


@given(st.text(alphabet="{}[]\",:'/\\#abTrue1 \n", max_size=30))
def test_whatever_is_no_json_is_told_in_one_line_with_its_place(text: str) -> None:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        said = described(text)
        assert "\n" not in said
        assert said.startswith(("not valid JSON: line ", "the file is empty"))
