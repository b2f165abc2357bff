"""A real browser without a window: the Chromium that is on the machine, driven by Playwright.

Playwright's objects belong to one thread, and nodes run in another. What a browser does is therefore a function of a
page, run in the browser's thread while the test waits.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import trio
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright

T = TypeVar("T")
DEADLINE_MS = 15_000
NAMES = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


def chromium() -> str:
    """The program. Where there is none the test is skipped and says so; in CI it fails."""
    named = os.environ.get("COMITY_CHROMIUM", "")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), "")
    if found:
        return found
    reason = "no browser: neither chromium nor google-chrome is here (COMITY_CHROMIUM names another)"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; CI has one")
    pytest.skip(reason)


@dataclass
class Screen:
    """One person at one browser: a profile of its own, with as many tabs as wanted."""

    _thread: ThreadPoolExecutor
    context: BrowserContext
    page: Page
    errors: list[str]

    async def do(self, work: Callable[[Page], T]) -> T:
        """Do something at the first tab."""
        return await _in_thread(self._thread, lambda: work(self.page))

    async def tab(self) -> Page:
        """Another tab of the same browser."""
        page = await _in_thread(self._thread, self.context.new_page)
        _note_errors(page, self.errors)
        return page

    async def at(self, page: Page, work: Callable[[Page], T]) -> T:
        """Do something at a tab."""
        return await _in_thread(self._thread, lambda: work(page))

    async def until(self, condition: Callable[[Page], bool]) -> None:
        """Look until something is so."""
        with trio.fail_after(DEADLINE_MS / 1_000):
            while not await self.do(condition):
                await trio.lowlevel.checkpoint()


async def _in_thread(thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    future = thread.submit(work)
    return await trio.to_thread.run_sync(future.result)


def _note_errors(page: Page, errors: list[str]) -> None:
    page.set_default_timeout(DEADLINE_MS)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)


@dataclass
class Browsers:
    """The browser of a test process."""

    thread: ThreadPoolExecutor
    browser: Browser

    @contextmanager
    def screen(self, **options: Any) -> Generator[Screen]:
        """A fresh profile with one tab."""
        errors: list[str] = []

        def open_it() -> tuple[BrowserContext, Page]:
            context = self.browser.new_context(**options)
            page = context.new_page()
            _note_errors(page, errors)
            return context, page

        context, page = self.thread.submit(open_it).result()

        def close_it() -> None:
            for each in context.pages:
                # What is still being answered may end as it will: nobody looks at it any more.
                each.unroute_all(behavior="ignoreErrors")
            context.close()

        try:
            yield Screen(self.thread, context, page, errors)
        finally:
            self.thread.submit(close_it).result()


@contextmanager
def browsers() -> Generator[Browsers]:
    """Start the browser, and end it."""
    program = chromium()
    thread = ThreadPoolExecutor(1, "browser")

    def start() -> tuple[Playwright, Browser]:
        driver = sync_playwright().start()
        return driver, driver.chromium.launch(executable_path=program, args=list(SWITCHES))

    driver, browser = thread.submit(start).result()

    def stop() -> None:
        browser.close()
        driver.stop()

    try:
        yield Browsers(thread, browser)
    finally:
        thread.submit(stop).result()
        thread.shutdown()
