"""The style sheet: readable in light and dark, and complete in itself."""

from __future__ import annotations

import re

import pytest

from cc_slurm_adapter.daemon.page_style import STYLE

LIGHT, DARK = (dict(re.findall(r"--([\w-]+): (#\w{6});", part)) for part in STYLE.split("@media", 1))
TEXTS = {
    *((text, ground) for text in ("text", "quiet", "good", "warning", "error") for ground in ("ground", "surface")),
    *((text, f"{text}-ground") for text in ("good", "warning", "error")),
}
MARKS = {(mark, ground) for mark in ("lag", "bar") for ground in ("surface", "gap")}


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_contrast_is_computed_as_it_is_defined() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_everything_can_be_read(colours: dict[str, str]) -> None:
    assert {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in TEXTS if _is_below(colours, pair, 4.5)} == {}
    assert {pair for pair in MARKS if _is_below(colours, pair, 3.0)} == set()


def _is_below(colours: dict[str, str], pair: tuple[str, str], least: float) -> bool:
    return contrast(colours[pair[0]], colours[pair[1]]) < least


def test_light_and_dark_define_the_same_colours() -> None:
    assert LIGHT.keys() == DARK.keys()
    assert set(re.findall(r"var\(--([\w-]+)\)", STYLE)) <= LIGHT.keys()


def test_it_is_complete_in_itself() -> None:
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    assert "//" not in STYLE
    assert "</" not in STYLE
    assert STYLE.count("{") == STYLE.count("}")
