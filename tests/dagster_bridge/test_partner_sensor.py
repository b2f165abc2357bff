"""The sensor on partners' records: a run when all is there, one for each new version, none for the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from comity.dagster_bridge import partner_sensor
from comity.dagster_bridge.files import Place, sidecar_of
from comity.node.client import NodeClient
from comity.node.forms import GovernanceForm, PartnerAsset
from comity.protocol.errors import ConfigError
from fake_node import FakeNode

NORTH, SOUTH = "clinic-north.example/released", "clinic-south.example/released"
STATE = GovernanceForm(tier=1, realm="production", owners=[], purpose="care", weight=0)


@dg.asset
def pooled() -> None: ...


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b", *(f"p{n}" for n in range(1, 6))]))
def daily() -> None: ...


def version(asset: str, number: int, partition: str = "") -> PartnerAsset:
    return PartnerAsset(
        asset=asset,
        partition=partition,
        actuation=f"{number:02x}" * 32,
        digest="d1" * 32,
        media_type="text/csv",
        generation=number,
        made_at=1_800_000_000 + number,
        governance=STATE,
    )


class Watch:
    """A sensor that is looked at again and again, with the cursor that it left."""

    def __init__(self, node: FakeNode, **options: Any) -> None:
        given: dict[str, Any] = {"watch": [NORTH, SOUTH], "target": [pooled], "home": node.home} | options
        self.sensor = partner_sensor("pooling", **given)
        self.cursor: str | None = None

    def look(self) -> list[dg.RunRequest]:
        definitions = dg.Definitions([pooled, daily], sensors=[self.sensor])
        context = dg.build_sensor_context(cursor=self.cursor, definitions=definitions)
        data = self.sensor.evaluate_tick(context)
        self.cursor = data.cursor
        self.skipped = data.skip_message or ""
        return list(data.run_requests or [])


def test_a_run_is_asked_for_when_all_is_there_and_for_each_new_version(node: FakeNode) -> None:
    watch = Watch(node)
    assert watch.look() == []
    assert watch.skipped == f"nothing is there yet of {NORTH}, {SOUTH}"
    node.published = [version(NORTH, 1)]
    assert watch.look() == []
    assert watch.skipped == f"nothing is there yet of {SOUTH}"
    node.published = [version(NORTH, 1), version(SOUTH, 2), version("clinic-east.example/released", 7)]
    (first,) = watch.look()
    assert first.partition_key is None
    assert first.tags["comity/partner_versions"] == f"{'01' * 8}, {'02' * 8}"
    assert (watch.look(), watch.skipped) == ([], "no version is new")
    node.published = [version(NORTH, 1), version(SOUTH, 3)]
    (second,) = watch.look()
    # Of what is not watched nothing is asked for.
    node.published.append(version("clinic-east.example/released", 8))
    assert watch.look() == []
    # The third version is taken back, and the second stands again: what was made has to be made anew.
    node.published = [version(NORTH, 1), version(SOUTH, 2)]
    (third,) = watch.look()
    assert len({first.run_key, second.run_key, third.run_key}) == 3


def test_a_look_that_is_repeated_asks_for_the_same_run(node: FakeNode) -> None:
    """Dagster kept the run and not the cursor: the key says that it is the same."""
    node.published = [version(NORTH, 1), version(SOUTH, 2)]
    watch = Watch(node)
    (first,) = watch.look()
    watch.cursor = None
    assert [again.run_key for again in watch.look()] == [first.run_key]


def test_each_partition_that_all_have_gets_a_run(node: FakeNode) -> None:
    watch = Watch(node, target=[daily])
    node.published = [version(NORTH, 1, "a"), version(NORTH, 2, "b"), version(SOUTH, 3, "b")]
    assert [each.partition_key for each in watch.look()] == ["b"]
    node.published.append(version(SOUTH, 4, "a"))
    assert [each.partition_key for each in watch.look()] == ["a"]
    assert watch.look() == []


def test_an_asset_without_partitions_counts_for_all(node: FakeNode) -> None:
    watch = Watch(node, target=[daily])
    node.published = [version(NORTH, 1), version(SOUTH, 2, "a"), version(SOUTH, 3, "b")]
    assert [each.partition_key for each in watch.look()] == ["a", "b"]
    node.published[0] = version(NORTH, 4)
    assert [each.partition_key for each in watch.look()] == ["a", "b"]


def test_of_many_partitions_the_next_look_asks_for_the_rest(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comity.dagster_bridge.partner_versions.REQUESTS_MAX", 2)
    node.published = [version(asset, n, f"p{n}") for asset in (NORTH, SOUTH) for n in range(1, 6)]
    watch = Watch(node, target=[daily])
    assert [len(watch.look()) for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.parametrize("cursor", ["", "{", '{"": 3}', "[]", '"\ud800"', "[" * 5_000])
def test_a_cursor_that_is_none_forgets_and_stops_nothing(node: FakeNode, cursor: str) -> None:
    node.published = [version(NORTH, 1), version(SOUTH, 2)]
    watch = Watch(node)
    watch.cursor = cursor
    assert len(watch.look()) == 1
    assert watch.look() == []


def test_a_version_of_before_there_were_partitions_gets_no_run(node: FakeNode) -> None:
    watch = Watch(node, target=[daily])
    node.published = [version(asset, n, key) for asset in (NORTH, SOUTH) for n, key in ((1, ""), (2, "a"))]
    assert [each.partition_key for each in watch.look()] == ["a"]


def test_what_is_there_no_more_is_forgotten(node: FakeNode) -> None:
    watch = Watch(node, target=[daily])
    both = [version(asset, n, key) for asset in (NORTH, SOUTH) for n, key in ((1, "a"), (2, "b"))]
    node.published = both
    watch.look()
    node.published = [row for row in both if row.partition == "b"]
    node.published[0] = version(NORTH, 3, "b")
    watch.look()
    assert watch.cursor is not None
    assert set(json.loads(watch.cursor)) == {"b"}


def test_while_the_node_is_down_nothing_is_asked_for_and_nothing_is_lost(
    node: FakeNode, tmp_path: Path
) -> None:
    node.published = [version(NORTH, 1), version(SOUTH, 2)]
    watch = Watch(node)
    watch.look()
    met, up = watch.cursor, watch.sensor
    gone = node.home / "elsewhere.sock"
    ways: tuple[dict[str, Any], ...] = ({"home": tmp_path / "none"}, {"client": NodeClient(gone, "token")})
    for way in ways:
        watch.sensor = partner_sensor("pooling", watch=[NORTH], target=[pooled], **way)
        assert watch.look() == []
        assert watch.skipped.startswith("the node was not asked: ")
        assert watch.cursor == met
    watch.sensor = up
    node.published[1] = version(SOUTH, 3)
    assert len(watch.look()) == 1


def test_with_an_exchange_only_what_lies_there_counts(node: FakeNode, tmp_path: Path) -> None:
    node.published = [version(NORTH, 1), version(SOUTH, 2)]
    place = Place(tmp_path, shared=True)

    def publish(asset: str) -> None:
        path = place.path(asset.split("/"), "", "parquet")
        place.write(path, b"bytes")
        place.write(sidecar_of(path), b"{}")

    watch = Watch(node, exchange=tmp_path)
    publish(NORTH)
    assert watch.look() == []
    assert watch.skipped == f"nothing is there yet of {SOUTH}"
    publish(SOUTH)
    assert len(watch.look()) == 1


def test_what_it_watches_are_partners_assets(node: FakeNode) -> None:
    with pytest.raises(ConfigError, match="watches nothing"):
        partner_sensor("pooling", watch=[], target=[pooled], home=node.home)
    with pytest.raises(ConfigError, match="a partner's asset is MEMBER/PATH"):
        partner_sensor("pooling", watch=["released"], target=[pooled], home=node.home)


def test_versions_are_told_apart_by_their_records(node: FakeNode) -> None:
    """Of equal generations and digests: another record is another version."""
    node.published = [version(NORTH, 1), version(SOUTH, 2)]
    watch = Watch(node)
    watch.look()
    node.published[1] = replace(version(SOUTH, 2), actuation="ff" * 32)
    assert len(watch.look()) == 1
