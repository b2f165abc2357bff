"""The officer's browser: a real one without a window, in which the key is made, and the approval is signed.

It is the machine's own, driven by Playwright; where there is none, the officer uses `comity approve`. Playwright's
objects belong to one thread, so all that the browser does is done there.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from demo_main.processes import DemoError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
SWITCHES: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
DEADLINE_MS: Final = 30_000
"""One step at the page, with everything else of the demo going on beside it."""


def browser_program() -> str:
    """The machine's browser; empty where there is none, or nothing that drives it."""
    if importlib.util.find_spec("playwright") is None:
        return ""
    return os.environ.get("COMITY_CHROMIUM", "") or next(
        (p for name in NAMES if (p := shutil.which(name))), ""
    )


class OfficersBrowser:
    """One profile with one tab. `close` ends it."""

    def __init__(self, program: str) -> None:
        self._thread = ThreadPoolExecutor(1, "browser")
        self._driver: Playwright | None = None
        self._browser: Browser | None = None
        self._page: Page | None = None
        self._do(lambda: self._open(program))

    def make_key(self, link: str) -> str:
        """Come in by a link of `comity page`, and make a key. Answers with its public half, the text of a file."""

        def at(page: Page) -> str:
            page.goto(link)
            page.locator("h1", has_text="Waiting").wait_for()
            page.locator("nav a", has_text="Your key").click()
            page.locator("#make").click()
            return page.locator("#companion").inner_text()

        return self._at_page(at)

    def approve(self, intent: str, picture: Path) -> str:
        """Look at an intent, and sign that it is approved. Answers with what the page says then.

        Args:
            picture: where the page is kept as it was looked at.
        """

        def at(page: Page) -> str:
            page.evaluate("hash => { location.hash = hash }", f"#/intent/{intent}")
            page.locator("#digest").wait_for()
            page.locator("#approve").wait_for()
            page.screenshot(path=picture, full_page=True)
            page.locator("#approve").click()
            page.locator("#sign").click()
            page.locator("#outcome").wait_for()
            return page.locator("#outcome").inner_text()

        return self._at_page(at)

    def close(self) -> None:
        """End the browser."""

        def end() -> None:
            if self._browser is not None:
                self._browser.close()
            if self._driver is not None:
                self._driver.stop()

        self._do(end)
        self._thread.shutdown()

    def _open(self, program: str) -> None:
        from playwright.sync_api import sync_playwright

        self._driver = sync_playwright().start()
        self._browser = self._driver.chromium.launch(executable_path=program, args=list(SWITCHES))
        self._page = self._browser.new_page(viewport={"width": 1_000, "height": 900})
        self._page.set_default_timeout(DEADLINE_MS)

    def _at_page(self, work: Any) -> str:
        page = self._page
        assert page is not None
        said: str = self._do(lambda: work(page))
        return said

    def _do(self, work: Any) -> Any:
        """In the browser's thread.

        Raises:
            DemoError: the browser does not start, or the page is not as a person would need it.
        """
        from playwright.sync_api import Error

        try:
            return self._thread.submit(work).result()
        except Error as exc:
            raise DemoError(f"the officer's browser: {exc}") from exc
