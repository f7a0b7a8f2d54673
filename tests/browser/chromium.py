"""Debian's chromium without a window, in a chroot and namespaces of its own: it shows pages, and says what is wrong.

It runs as a user of the chroot, reaches nothing but this machine, and keeps its files in memory.
"""

from __future__ import annotations

import base64
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.browser.devtools import BrowserError, DevTools, Event
from tests.lab.debian import DEVICES, Recipe, make, tail
from tests.lab.namespaces import ENVIRONMENT, ClosedAtTheEnd, Namespaces

RECIPE = Recipe(
    name="chromium",
    debian="trixie",
    purpose="chromium",
    packages=("chromium", "fonts-dejavu-core"),
    folders=("tmp",),
    users="useradd --create-home browser",
)
MEMORY = """
mount -t tmpfs -o mode=1777 tmp "$1/tmp"
"""
WITH_PIPES = 'exec "$@" 3<&0 4>&1 0</dev/null 1>&2'
"""The browser takes calls from descriptor 3 and answers on 4."""
ARGUMENTS = [
    *("/usr/lib/chromium/chromium", "--headless", "--remote-debugging-pipe", "--user-data-dir=/tmp/profile"),
    "--no-sandbox",  # its own sandbox cannot be made in a chroot; the pages are ours
    *("--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--no-proxy-server"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE [::1], EXCLUDE localhost",
]
DOMAINS = ("Page", "Runtime", "Log", "Network", "Audits")
"""What a tab is asked to report on."""


def make_browser_chroot(folder: Path) -> Path:
    """Gives a chroot with chromium below `folder`, made now if it is not there; takes about a minute."""
    return make(RECIPE, folder)


class Tab:
    """A page that is shown. It stays until the `with` block of Chromium.show ends."""

    def __init__(self, devtools: DevTools, session: str) -> None:
        self._devtools = devtools
        self._session = session

    @property
    def text(self) -> str:
        """What a person can read on the page."""
        return str(self.evaluate("document.body.innerText"))

    @property
    def problems(self) -> list[str]:
        """What was wrong up to now, a line each: errors and warnings of the console, requests, policies, the HTML."""
        self.evaluate("null")  # what happened before is said before the answer
        events = [event for event in self._devtools.events if event.get("sessionId") == self._session]
        return [problem for event in events for problem in problems_of(event)]

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; the page's policy does not prevent it."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in done:
            raise BrowserError(f"{expression}: {thrown(done['exceptionDetails'])}")
        return done["result"].get("value")

    def picture(self) -> bytes:
        """The page as a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def go(self, url: str) -> None:
        """Opens a page and waits until it is shown and nothing has been loaded for half a second."""
        done = self.call("Page.navigate", url=url)
        if "errorText" in done:
            raise BrowserError(f"{url}: {done['errorText']}")
        loader = done["loaderId"]
        self._devtools.wait_for(f"loading {url}", lambda event: is_idle(event, self._session, loader))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A call of Chrome DevTools Protocol to this tab."""
        return self._devtools.call(method, self._session, **parameters)


class Chromium(ClosedAtTheEnd):
    """A running browser. `root` is a chroot made by `make_browser_chroot`; what chromium logs goes to `log`."""

    def __init__(self, root: Path, log: Path) -> None:
        self._log = log
        self._place = Namespaces()
        try:
            self._place.run(["sh", "-ec", DEVICES + MEMORY, "sh", str(root)], seconds=10).check_returncode()
            self._process = self._start(root)
        except BaseException:
            self._place.close()
            raise
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._devtools = DevTools(self._process.stdin, self._process.stdout)
        try:
            self._devtools.call("Browser.getVersion")
        except BrowserError as error:
            self.close()
            raise BrowserError(f"{error}\n{tail(log)}") from None

    def _start(self, root: Path) -> subprocess.Popen[bytes]:
        inside = ["chroot", "--userspec=browser", str(root), "env", "HOME=/tmp", "sh", "-c", WITH_PIPES, "sh"]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                self._place.enter([*inside, *ARGUMENTS]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=ENVIRONMENT,
            )

    @contextlib.contextmanager
    def show(self, url: str, *, dark: bool = False, width: int = 1280) -> Iterator[Tab]:
        """Opens a page in a tab of its own, for somebody who likes it dark or light, in a window `width` pixels wide.

        Raises BrowserError if nothing comes from that address.
        """
        target = self._devtools.call("Target.createTarget", url="about:blank")["targetId"]
        session = self._devtools.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self._devtools, session)
        try:
            for domain in DOMAINS:
                tab.call(f"{domain}.enable")
            tab.call("Page.setLifecycleEventsEnabled", enabled=True)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            tab.call("Emulation.setEmulatedMedia", features=[scheme])
            tab.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
            tab.go(url)
            yield tab
        finally:
            with contextlib.suppress(BrowserError):  # it may have ended, and the reason is on its way
                self._devtools.call("Target.closeTarget", targetId=target)
            self._devtools.forget(session)

    def close(self) -> None:
        """Ends the browser with all its processes."""
        self._place.close()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # what could not be sent any more
                pipe.close()
        self._process.wait(timeout=20)


def is_idle(event: Event, session: str, loader: str) -> bool:
    """Whether an event says that a page has been loaded and nothing is requested any more."""
    if event["method"] != "Page.lifecycleEvent" or event.get("sessionId") != session:
        return False
    return bool(event["params"]["name"] == "networkIdle" and event["params"]["loaderId"] == loader)


def problems_of(event: Event) -> list[str]:
    """What an event says is wrong: no line, or one."""
    parameters = event["params"]
    if event["method"] == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
        entry = parameters["entry"]
        return [f"{entry['source']} {entry['level']}: {entry['text']} {entry.get('url', '')}".rstrip()]
    if event["method"] == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
        words = [str(each.get("value", each.get("description", ""))) for each in parameters["args"]]
        return [f"console {parameters['type']}: {' '.join(words)}"]
    if event["method"] == "Runtime.exceptionThrown":
        return [f"exception: {thrown(parameters['exceptionDetails'])}"]
    if event["method"] == "Network.loadingFailed":
        return [f"request failed: {parameters['type']} {parameters.get('blockedReason') or parameters['errorText']}"]
    if event["method"] == "Audits.issueAdded":
        return [f"issue: {parameters['issue']['code']}"]
    return []


def thrown(details: dict[str, Any]) -> str:
    """An exception in one line."""
    description = details.get("exception", {}).get("description", details["text"])
    return str(description).partition("\n")[0]
