"""A real browser, for tests with the mark `browser`.

These run only if somebody asks for them: without a browser they fail.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.chromium import Chromium, make_browser_chroot
from tests.browser.devtools import BrowserError
from tests.lab.debian import FOLDER
from tests.lab.namespaces import LabError


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    try:
        browser = Chromium(make_browser_chroot(FOLDER), FOLDER / "browser.log")
    except (LabError, BrowserError) as error:
        pytest.fail(f"no browser: {error}", pytrace=False)
    with browser:
        yield browser
