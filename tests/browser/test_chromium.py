"""The browser sees what is wrong with a page, and nothing wrong with a page where all is well."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.browser.chromium import ARGUMENTS, Chromium, make_browser_chroot
from tests.browser.devtools import BrowserError
from tests.lab.debian import FOLDER
from tests.nats.nats_server import free_port

pytestmark = pytest.mark.browser

HEAD = "<!doctype html><html lang=en><meta charset=utf-8><title>Lab</title>"
STRICT = "default-src 'none'; style-src 'unsafe-inline'"
CLEAN = f"""{HEAD}<meta name=viewport content="width=device-width">
<style>body {{ background: rgb(255, 255, 255) }} .hidden {{ display: none }}
@media (prefers-color-scheme: dark) {{ body {{ background: rgb(0, 0, 0) }} }}</style>
<h1>All is well</h1><p class=hidden>not seen</p>
<table><tr><td>&lt;script&gt;</td><td>größer</td></tr></table>
<svg width=20 height=10 role=img><title>a chart</title><polyline points="0,0 20,10" /></svg>
"""
PAGES = {
    "/clean": (STRICT, CLEAN),
    "/script": (STRICT, f"{HEAD}<p>text<script>document.title = 'changed'</script>"),
    "/handler": (STRICT, f"{HEAD}<p onclick='alert(1)'>text"),
    "/style": ("default-src 'none'", f"{HEAD}<p style='color: red'>text"),
    "/image": (STRICT, f"{HEAD}<p>text<img src=/clean alt=''>"),
    "/error": ("", f"{HEAD}<link rel=icon href='data:,'><p>text<script>console.error('out of', 5, 'jobs')</script>"),
    "/thrown": ("", f"{HEAD}<link rel=icon href='data:,'><p>text<script>throw new Error('lost')</script>"),
    "/missing": ("", f"{HEAD}<link rel=icon href='data:,'><p>text<img src=/none.png alt=''>"),
    "/elsewhere": ("", f"{HEAD}<link rel=icon href='data:,'><p>text<img src='http://example.org/a.png' alt=''>"),
    "/quirks": (STRICT, "<title>Lab</title><p>text"),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        policy, page = PAGES.get(self.path, ("", "nothing here"))
        body = page.encode()
        self.send_response(200 if self.path in PAGES else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if policy:
            self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the standard library's name
        """Says nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_clean_page(chromium: Chromium, site: str) -> None:
    with chromium.show(f"{site}/clean") as tab:
        assert tab.problems == []
        assert tab.text.split() == ["All", "is", "well", "<script>", "größer"]
        assert tab.evaluate("document.title") == "Lab"
        assert tab.picture().startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("/script", "Executing inline script violates the following Content Security Policy directive"),
        ("/handler", "Executing inline event handler violates the following Content Security Policy directive"),
        ("/style", "Applying inline style violates the following Content Security Policy directive"),
        ("/image", "violates the following Content Security Policy directive"),
        ("/error", "console error: out of 5 jobs"),
        ("/thrown", "exception: Error: lost"),
        ("/missing", "status of 404"),
        ("/elsewhere", "ERR_NAME_NOT_RESOLVED"),
        ("/quirks", "issue: QuirksModeIssue"),
        ("/no-such-page", "status of 404"),
    ],
)
def test_problem_of_a_page(chromium: Chromium, site: str, page: str, words: str) -> None:
    with chromium.show(site + page) as tab:
        assert words in "\n".join(tab.problems)
        assert tab.evaluate("document.title") in ("Lab", "")
    with chromium.show(f"{site}/clean") as tab:
        assert tab.problems == []


def test_problem_that_comes_later(chromium: Chromium, site: str) -> None:
    with chromium.show(f"{site}/clean") as tab:
        tab.go(f"{site}/error")
        assert tab.problems == ["console error: out of 5 jobs"]


@pytest.mark.parametrize(("dark", "colour"), [(False, "rgb(255, 255, 255)"), (True, "rgb(0, 0, 0)")])
def test_light_and_dark(chromium: Chromium, site: str, dark: bool, colour: str) -> None:
    with chromium.show(f"{site}/clean", dark=dark, width=400) as tab:
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == colour
        assert tab.evaluate("innerWidth") == 400


def test_address_where_nobody_listens(chromium: Chromium) -> None:
    with pytest.raises(BrowserError, match="ERR_CONNECTION_REFUSED"), chromium.show(f"http://127.0.0.1:{free_port()}/"):
        pass


def namespaces_of_browsers() -> set[str]:
    """A name for each browser of this kind that has processes on this machine."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if (process / "cmdline").read_bytes().startswith(ARGUMENTS[0].encode()):
                found.add(os.readlink(process / "ns" / "pid"))
    return found


def test_nothing_is_left_of_a_browser(site: str, tmp_path: Path) -> None:
    others = namespaces_of_browsers()
    with Chromium(make_browser_chroot(FOLDER), tmp_path / "browser.log") as own:
        with own.show(f"{site}/clean") as tab:
            assert tab.problems == []
        (mine,) = namespaces_of_browsers() - others
    assert mine not in namespaces_of_browsers()
    with pytest.raises(BrowserError, match="the browser does not run"), own.show(f"{site}/clean"):
        pass
