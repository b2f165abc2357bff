"""What the people's page shows, and to whom it can be read, in a real browser at nodes that run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from playwright.sync_api import Page

from api_calls import step, submit
from browser import Browsers, browsers
from comity.node.client import OutputForm
from houses import RunningHouse, short_folder
from page_visits import (
    approve,
    ask_for_pooled,
    enter,
    four,
    go,
    look_at,
    officer,
    pair,
    pooled,
)
from world import NORTH, SOUTH

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def at() -> Iterator[Browsers]:
    with browsers() as found:
        yield found


@pytest.fixture(autouse=True)
def silent_log() -> Iterator[None]:
    """Nodes log in this process."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


def text_of(selector: str) -> Any:
    return lambda page: page.locator(selector).inner_text()


async def decided(house: RunningHouse, intent: str) -> Any:
    return await house.ask(lambda client: client.step(intent, 10.0))


HOSTILE = '<img src=x onerror="document.title=1"><script>alert(1)</script>'


async def test_hostile_names_are_text(place: Path, at: Browsers) -> None:
    """Of a run, a step, a job, a partition and a column nothing becomes an element, and nothing is unseen."""
    with at.screen() as screen:
        async with pair(place) as houses:
            north = houses[NORTH]
            hidden = "a\u200db\u3164"
            form = pooled(run=f"r{HOSTILE}", job=HOSTILE, inputs=[], purpose="care")
            output = OutputForm("pooled", HOSTILE + hidden, media_type="text/csv", columns=[HOSTILE])
            asked = await submit(north, step("s", **_of(form), outputs=[output]))
            assert asked.outcome == "defer", asked
            await enter(screen, north)
            await officer(screen, north, place)

            def look(page: Page, view: str, title: str) -> str:
                page.evaluate("hash => { location.hash = hash }", view)
                # All views say the name: the title is of the view that is shown.
                page.wait_for_function("title => document.title === title", arg=title)
                page.locator(f"text={HOSTILE[:20]}").first.wait_for()
                assert page.locator("main img, main script").count() == 0
                return page.locator("main").inner_text()

            views = ("#/waiting", f"#/intent/{asked.intent}", f"#/why/{asked.intent}")
            for view, title in zip(views, ("Waiting", "Intent", "Why"), strict=True):
                said = await screen.do(partial(look, view=view, title=f"{title} - Comity"))
                assert HOSTILE in said
                assert hidden not in said
                assert r"a\u{200d}b\u{3164}" in said
            assert screen.errors == []


def _of(form: Any) -> dict[str, Any]:
    names = ("run", "job", "purpose", "context", "wait_s", "inputs")
    return {name: getattr(form, name) for name in names}


async def test_what_was_decided_is_told_vote_by_vote(place: Path, at: Browsers) -> None:
    with at.screen() as screen:
        async with four(place) as houses:
            north = houses[NORTH]
            await submit(north, step("forbidden/list", run="run-2"))
            await submit(north, step("guarded", run="run-3", wait_s=0.3))
            await enter(screen, north)

            def refused(page: Page) -> str:
                go(page, "Decided")
                page.locator("main h2 a", has_text="forbidden/list").click()
                page.locator("text=Vote by vote").wait_for()
                return page.locator("main").inner_text()

            said = await screen.do(refused)
            assert said.count("forbidden_class") == 3
            assert "by 3 votes where 3 decide" in said

            def deferred(page: Page) -> str:
                page.locator("#why-name").fill("guarded")
                page.locator("#why-go").click()
                page.locator("text=So far").wait_for()
                page.locator("summary", has_text="tier").last.click()
                return page.locator("main").inner_text()

            told = await screen.do(deferred)
            assert "an execution context of tier 1 or above" in told
            # What the need's code means, who can mend it, and how: as `comity cause tier` says.
            assert "Who can mend it:" in told
            assert "govern(defs)" in told

            def unknown(page: Page) -> str:
                page.locator("#why-name").fill("gaurded")
                page.locator("#why-go").click()
                page.locator("h1", has_text="cannot be shown").wait_for()
                return page.locator("main").inner_text()

            assert "guarded" in await screen.do(unknown)


async def test_who_is_connected_is_shown_as_it_changes(place: Path, at: Browsers) -> None:
    with at.screen() as screen:
        async with four(place) as houses:
            await enter(screen, houses[NORTH])
            await screen.do(lambda page: go(page, "Connected"))
            await screen.do(lambda page: page.locator("text=4 of 4 organizations").wait_for())
            await houses[SOUTH].end()
            await screen.do(lambda page: page.locator("text=3 of 4 organizations").wait_for())
            away = await screen.do(text_of(f".card:has(h2:text-is('{SOUTH}')) .badge"))
            assert away == "not in reach"


async def test_what_waits_appears_by_itself(place: Path, at: Browsers) -> None:
    with at.screen() as screen:
        async with pair(place) as houses:
            await enter(screen, houses[SOUTH])
            await screen.do(lambda page: page.locator("text=Nothing waits.").wait_for())
            await ask_for_pooled(houses[NORTH])
            await screen.do(lambda page: page.locator("h2", has_text=f"{NORTH}/pooled").wait_for())
            assert await screen.do(text_of("#count")) == "1"


async def test_two_tabs_show_the_same(place: Path, at: Browsers) -> None:
    with at.screen() as screen:
        async with pair(place) as houses:
            asked = await ask_for_pooled(houses[NORTH])
            address = await enter(screen, houses[SOUTH])
            await officer(screen, houses[SOUTH], place)
            await screen.do(lambda page: look_at(page, asked.intent))
            second = await screen.tab()

            def same(page: Page) -> None:
                page.goto(f"{address}#/intent/{asked.intent}")
                page.locator("#approve").wait_for()

            await screen.at(second, same)
            await screen.do(approve)
            await screen.at(second, lambda page: page.locator("text=you have approved it already").wait_for())
            await screen.at(second, lambda page: page.locator("#leave").click())
            await screen.do(lambda page: page.locator("h1", has_text="No session").wait_for())
            assert screen.errors == []


# Seeing


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = (colour) => {
    const [r, g, b] = Array.from(colour.slice(0, 3), (each) => {
      const part = each / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = rgba(getComputedStyle(each).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return rgba("white");
  };
  const low = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = Array.from(element.childNodes).some((each) => each.nodeType === 3 && each.data.trim());
    if (!own || !element.checkVisibility()) continue;
    const [a, b] = [light(rgba(getComputedStyle(element).color)), light(ground(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) low.push(`${element.className || element.tagName} ${contrast.toFixed(2)}`);
  }
  return low;
}"""
LABELS = """() => Array.from(document.querySelectorAll("input, select"))
  .filter((each) => !each.labels.length && !each.ariaLabel).map((each) => each.id)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_is_readable_on_a_phone(place: Path, at: Browsers, scheme: Any) -> None:
    """360 pixels wide nothing is cut off; every text has the contrast of WCAG AA, and every field its label."""
    with at.screen(color_scheme=scheme, viewport={"width": 360, "height": 740}) as screen:
        async with pair(place) as houses:
            asked = await ask_for_pooled(houses[NORTH])
            await submit(houses[NORTH], step("forbidden/" + "long-name-" * 10 + "x", run="run-2"))
            await enter(screen, houses[NORTH])
            grounds = set()

            def look(page: Page) -> None:
                page.locator("details").first.evaluate_all(
                    "all => all.forEach((each) => { each.open = true })"
                )
                wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
                assert wide[0] <= wide[1], (page.url, wide)
                assert page.evaluate(CONTRAST) == [], page.url
                assert page.evaluate(LABELS) == [], page.url
                grounds.add(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))

            for view in ("Your key", "Waiting", "Decided", "Connected", "Why"):
                await screen.do(partial(go, view=view))
                await screen.do(look)
            await officer(screen, houses[NORTH], place)
            await screen.do(look)
            await screen.do(lambda page: look_at(page, asked.intent))
            await screen.do(look)
            await screen.do(lambda page: page.locator("#approve").click())
            await screen.do(lambda page: page.locator("#sign").wait_for())
            await screen.do(look)
            await screen.do(lambda page: go(page, "Decided"))
            await screen.do(lambda page: page.locator("main h2 a", has_text="forbidden").click())
            await screen.do(lambda page: page.locator("text=Vote by vote").wait_for())
            await screen.do(look)
            assert grounds == {"rgb(246, 247, 249)" if scheme == "light" else "rgb(16, 21, 26)"}
