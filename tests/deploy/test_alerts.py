"""Alerts: rules that Prometheus takes, that fire when they should and not else, over series that a node really has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from comity.node.home import Home
from comity.node.metrics import Metrics
from command_line import problem_of
from houses import found, inhabited, short_folder
from machine_tools import ROOT, said_by, tool
from metrics_read import scraped
from world import NORTH, SOUTH

ALERTS = ROOT / "deploy/alerts.yaml"
CASES = Path(__file__).parent / "alerts_test.yaml"
PAGES = ROOT / "docs/runbooks"
PROMETHEUS_OWN = {"up"}
SECTIONS = ("What it means", "What still works", "Look", "Do", "Whom to wake")


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def rules() -> dict[str, str]:
    """Each alert with the text of its rule."""
    _, *parts = re.split(r"^ +- alert: ", ALERTS.read_text(), flags=re.MULTILINE)
    return {part.partition("\n")[0]: part for part in parts}


def expression(rule: str) -> str:
    found = re.search(r"expr:(.*?)^ +for:", rule, re.MULTILINE | re.DOTALL)
    assert found is not None, rule
    return found[1]


def series_named() -> set[str]:
    names = {name for rule in rules().values() for name in re.findall(r"\bcomity_\w+", expression(rule))}
    return names | PROMETHEUS_OWN


def runbook(rule: str) -> Path:
    found = re.search(r"^ +runbook: (docs/runbooks/[a-z-]+\.md)$", rule, re.MULTILINE)
    assert found is not None, rule
    return ROOT / found[1]


def commands(page: Path) -> list[str]:
    return re.findall(r"^\$ (comity .*?)(?: +#.*)?$", page.read_text(), re.MULTILINE)


def promtool() -> str:
    return tool("promtool", "prometheus")


def test_prometheus_takes_the_rules() -> None:
    said = said_by(promtool(), "check", "rules", ALERTS)
    assert f"{len(rules())} rules found" in said


def test_each_alert_fires_when_it_should_and_not_else(tmp_path: Path) -> None:
    cases = tmp_path / "cases.yaml"
    cases.write_text(CASES.read_text().replace("[ALERTS]", f"[{ALERTS}]"))
    assert "SUCCESS" in said_by(promtool(), "test", "rules", cases)


def test_each_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    text = CASES.read_text()
    silent = set(re.findall(r"alertname: (\w+), eval_time: \w+, exp_alerts: \[\]", text))
    firing = set(re.findall(r"alertname: (\w+)\n +eval_time: \w+\n +exp_alerts:\n +- exp_labels", text))
    assert silent == firing == set(rules())


def test_every_alert_says_how_much_it_hurts_and_which_page_helps() -> None:
    assert len(rules()) >= 9
    for name, rule in rules().items():
        assert re.search(r"^ +severity: (page|ticket)$", rule, re.MULTILINE), name
        assert re.search(r"^ +summary: \"[^\"]+\.\"$", rule, re.MULTILINE), name
        assert runbook(rule).is_file(), name
        assert name in runbook(rule).read_text().splitlines()[0], name
    of_alerts = {runbook(rule) for rule in rules().values()}
    assert of_alerts == set(PAGES.glob("*.md")) - {PAGES / "README.md"}


@pytest.mark.parametrize("page", sorted(PAGES.glob("[a-z]*.md")), ids=lambda page: page.stem)
def test_a_page_says_what_to_do_by_commands_that_exist(page: Path) -> None:
    headings = re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE)
    assert tuple(headings) == SECTIONS
    assert commands(page)
    assert [problem for line in commands(page) if (problem := problem_of(line))] == []


def test_rules_name_series_of_this_version_alone() -> None:
    there = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in Metrics().registry.collect()
    }
    assert series_named() - there == PROMETHEUS_OWN


async def test_a_node_serves_every_series_that_a_rule_names(place: Path) -> None:
    async with inhabited(found(place, (NORTH, SOUTH))) as houses:
        home: Home = houses[NORTH].home
        with trio.fail_after(30):
            while True:
                said = await scraped(home)
                if said.get(("comity_member_read_timestamp_seconds", (("member", SOUTH),)), 0) > 0:
                    break
                await houses[NORTH].ask(lambda client: client.status(), "reader")
        assert {name for name, _ in said} >= series_named() - PROMETHEUS_OWN
        assert ("comity_asks_declined_total", (("code", "clock"),)) in said
        now = said["comity_clock_timestamp_seconds", ()]
        assert 0 <= now - said["comity_member_read_timestamp_seconds", (("member", SOUTH),)] < 30
        assert 0 < said["comity_disk_free_bytes", ()] < said["comity_disk_bytes", ()]
        assert ("comity_member_read_timestamp_seconds", (("member", NORTH),)) not in said
