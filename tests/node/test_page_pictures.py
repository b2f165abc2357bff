"""The pictures of docs/approve.md, taken of a node that runs: by this test, and for the page by `scripts/pictures`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
from PIL import Image
from playwright.sync_api import Page

from api_calls import step, submit
from browser import Browsers, Screen, browsers
from houses import short_folder
from page_visits import approve, ask_for_pooled, enter, four, go, look_at, officer
from world import NORTH, SOUTH

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]
PAGE = Path(__file__).resolve().parents[2] / "docs/approve.md"
COLOURS = 96
"""Of a picture of text on a few grounds: with all of them it is three times as large and looks the same."""
BYTES_MAX = 100_000
"""Of one picture: it travels with the repository."""
WIDE: dict[str, Any] = {"viewport": {"width": 960, "height": 400}}
NARROW: dict[str, Any] = {"viewport": {"width": 360, "height": 740}}


@pytest.fixture(autouse=True)
def silent_log() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def at() -> Iterator[Browsers]:
    with browsers() as found:
        yield found


@dataclass
class Album:
    """Where the pictures go: into a folder of the test, or into the one that `COMITY_PICTURES` names."""

    folder: Path
    aside: Path
    taken: set[str] = field(default_factory=set[str])

    def place(self, name: str) -> Path:
        """The file of a picture; what the page of officers does not show is looked at and left aside."""
        self.taken.add(name)
        return (self.folder if name in shown_in_page() else self.aside) / f"{name}.png"


def shown_in_page() -> set[str]:
    return set(re.findall(r"\(pictures/([a-z-]+)\.png\)", PAGE.read_text()))


@pytest.fixture
def album(tmp_path: Path) -> Album:
    return Album(Path(os.environ.get("COMITY_PICTURES") or tmp_path), tmp_path)


async def take(screen: Screen, album: Album, name: str, **size: Any) -> None:
    """A picture of what is shown, which fits its window and is small."""
    file = album.place(name)

    def taken(page: Page) -> None:
        if size:
            page.set_viewport_size(size["viewport"])
        page.mouse.move(0, 0)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        page.screenshot(path=file, full_page=True)

    await screen.do(taken)
    with Image.open(file) as picture:
        few = picture.convert("RGB").quantize(COLOURS)
    few.save(file, optimize=True)
    assert 5_000 < file.stat().st_size < BYTES_MAX, name


async def test_the_pictures(place: Path, at: Browsers, album: Album) -> None:
    with at.screen(color_scheme="light", **WIDE) as screen:
        async with four(place) as houses:
            asked = await ask_for_pooled(houses[NORTH])
            await submit(houses[NORTH], step("forbidden/list", run="run-2"))
            await enter(screen, houses[SOUTH])
            await screen.do(lambda page: go(page, "Your key"))
            await take(screen, album, "page-key-none")
            await officer(screen, houses[SOUTH], place)
            await screen.do(lambda page: page.locator("text=in force").wait_for())
            await take(screen, album, "page-key")
            await screen.do(lambda page: go(page, "Waiting"))
            await screen.do(lambda page: page.locator("text=Look at it and approve").wait_for())
            await take(screen, album, "page-waiting")
            await screen.do(lambda page: look_at(page, asked.intent))
            await take(screen, album, "page-intent")
            await screen.do(lambda page: page.locator("#approve").click())
            await screen.do(lambda page: page.locator("#sign").wait_for())
            await take(screen, album, "page-sign", **NARROW)
            await screen.do(lambda page: page.locator("#back").click())
            await screen.do(approve)
            await screen.do(lambda page: page.emulate_media(color_scheme="dark"))
            await take(screen, album, "page-approved", **WIDE)
            await screen.do(lambda page: go(page, "Connected"))
            await take(screen, album, "page-connected", **NARROW)
            decided = await houses[NORTH].ask(lambda client: client.step(asked.intent, 10.0))
            await houses[SOUTH].ask(lambda client: client.record(decided.permit), "reader")
            await screen.do(lambda page: page.emulate_media(color_scheme="light"))
            await screen.do(lambda page: go(page, "Decided"))
            await screen.do(lambda page: page.locator("main h2 a").first.click())
            await screen.do(lambda page: page.locator("text=Vote by vote").wait_for())
            await take(screen, album, "page-why", **WIDE)
            await enter(screen, houses[NORTH])
            await screen.do(lambda page: go(page, "Decided"))
            await take(screen, album, "page-decided", **WIDE)
            await screen.do(lambda page: page.locator("main h2 a", has_text="forbidden").click())
            await screen.do(lambda page: page.locator("text=Vote by vote").wait_for())
            await screen.do(lambda page: page.locator("summary").first.click())
            await take(screen, album, "page-refused", **NARROW)
            assert screen.errors == []
            assert shown_in_page() <= album.taken
