"""Builds HTML from elements. Text that is put into an element is always escaped, wherever it comes from."""

from __future__ import annotations

import html
from typing import Union

from cc_slurm_adapter.lines import printable

LONGEST_TEXT = 600
"""The most characters of a text. What Slurm, a destination or a configuration wrote may be very long."""
WITHOUT_END = frozenset({"meta", "line", "path", "rect"})
"""Elements without content. Those of HTML have no end tag, and those of SVG are closed in the same tag."""


class Markup(str):
    """HTML that is complete and safe. Only this module and constants make it."""

    __slots__ = ()


Content = Union[str, int]
"""What an element contains. It is escaped unless it is Markup."""


def escaped(text: Content) -> Markup:
    """Return a text as HTML that shows it, in an attribute too.

    Characters that cannot be seen, and those that turn the reading direction, become visible escapes as in the log.
    """
    text = str(text)
    if len(text) > LONGEST_TEXT:
        text = f"{text[:LONGEST_TEXT]} ..."
    return Markup(html.escape(printable(text), quote=True))


def joined(*contents: Content) -> Markup:
    """Return contents one after the other."""
    return Markup("".join(each if isinstance(each, Markup) else escaped(each) for each in contents))


def element(name: str, /, *contents: Content, **attributes: Content) -> Markup:
    """Return an element. In the names of attributes, `_` is written for `-`, and `class_` for `class`.
    One without a value is left out. Names come from this program's source, never from data. A value that is Markup is
    neither escaped nor cut, as the path of a chart.
    """
    words = "".join(
        f' {attribute.rstrip("_").replace("_", "-")}="{joined(value)}"'
        for attribute, value in attributes.items()
        if value != ""
    )
    if name in WITHOUT_END:
        return Markup(f"<{name}{words}/>")
    return Markup(f"<{name}{words}>{joined(*contents)}</{name}>")
