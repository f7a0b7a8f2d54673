"""HTML from elements: what is text stays text."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_slurm_adapter.daemon.markup import LONGEST_TEXT, Markup, element, escaped, joined
from cc_slurm_adapter.lines import printable


class Parsed(HTMLParser):
    """The text of a piece of HTML, and its start tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_elements_within_elements() -> None:
    inner = element("strong", "a < b")
    assert element("p", inner, " and ", 3, class_="x", aria_label='"') == (
        '<p class="x" aria-label="&quot;"><strong>a &lt; b</strong> and 3</p>'
    )


def test_elements_without_an_end() -> None:
    assert element("meta", name="viewport", content=7) == '<meta name="viewport" content="7"/>'
    assert element("rect", x=0) == '<rect x="0"/>'


def test_an_attribute_without_a_value_is_left_out() -> None:
    assert element("td", "", class_="") == "<td></td>"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>", "&lt;script&gt;"),
        ("a & b", "a &amp; b"),
        ("'\"", "&#x27;&quot;"),
        ("]]>", "]]&gt;"),
        ("a\x1b[31mb\nc", "a\\x1b[31mb\\nc"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("Grüße", "Grüße"),
    ],
)
def test_text_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_a_long_text_is_cut() -> None:
    assert escaped("x" * LONGEST_TEXT) == "x" * LONGEST_TEXT
    assert escaped("<" * 10_000) == "&lt;" * LONGEST_TEXT + " ..."


def test_an_attribute_that_is_markup_is_neither_cut_nor_escaped() -> None:
    path = Markup("M0 0" * LONGEST_TEXT)
    assert element("path", d=path) == f'<path d="{path}"/>'
    assert element("p", title="<") == '<p title="&lt;"></p>'


def test_joined_escapes_what_is_no_markup() -> None:
    assert joined(Markup("<b>"), "<b>") == "<b>&lt;b&gt;"


@given(st.text(max_size=LONGEST_TEXT))
def test_a_browser_shows_what_was_given(text: str) -> None:
    parsed = Parsed(element("p", text, title=text))
    assert parsed.text == printable(text)
    assert parsed.tags == [("p", {"title": printable(text)} if text else {})]
