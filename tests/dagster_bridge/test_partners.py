"""Partners' assets in one's own asset graph, and who asks."""

import base64
import functools
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

import dagster_runs
from comity.dagster_bridge import Requester, TicketFacts, govern, partner_assets
from comity.dagster_bridge.files import Place, sidecar_of
from comity.node.client import NodeNotRunningError
from comity.node.forms import GovernanceForm, PartnerAsset, ReadForm, TermForm
from comity.protocol.errors import ConfigError
from dagster_runs import failure
from fake_node import MEMBER, FakeNode, execute

# What these tests make are numbers, which no IO manager binds to lineage.
materialize = functools.partial(dagster_runs.materialize, unbound_writes="allow")


def published(partition: str = "", generation: int = 3) -> PartnerAsset:
    return PartnerAsset(
        asset="clinic-south.example/released",
        partition=partition,
        actuation="ac" * 32,
        digest="d1" * 32,
        media_type="text/csv",
        rows=131,
        columns=["time", "sex"],
        generation=generation,
        made_at=1_800_000_000 + generation,
        governance=GovernanceForm(
            tier=1,
            realm="production",
            owners=["clinic-south.example"],
            purpose="survival_study",
            weight=700_000,
            data_classes=["health/released"],
            restrictions=[TermForm("min_group_rows", {"column": "inst", "rows": 5})],
        ),
    )


def test_a_partners_asset_appears_with_its_provenance(node: FakeNode) -> None:
    node.published = [published()]
    (spec,) = partner_assets(node.home, io_manager_key="files")
    assert spec.metadata["dagster/io_manager_key"] == "files"
    (spec,) = partner_assets(node.home)
    assert spec.key.path == ["clinic-south.example", "released"]
    assert spec.group_name == "partners"
    assert spec.metadata["comity/asset"] == "clinic-south.example/released"
    assert spec.metadata["comity/actuation"] == "ac" * 32
    assert spec.metadata["comity/tier"] == 1
    assert spec.metadata["comity/owners"].value == ["clinic-south.example"]
    assert spec.metadata["comity/restrictions"].value[0]["code"] == "min_group_rows"
    # What is not known to be published shows no columns.
    assert "dagster/column_schema" not in spec.metadata
    assert spec.partitions_def is None
    # Dagster takes it as an external asset, and a step names it whole.
    node.otherwise = execute

    # Not deps=[spec]: Dagster 1.12 makes that a name, in which it takes no dot.
    @dg.asset(ins={"south": dg.AssetIn(spec.key, dagster_type=dg.Nothing)})
    def pooled() -> None:
        return None

    assert materialize(node, spec, pooled, unbound_reads="allow").success
    assert node.steps[0].inputs[0].asset == "clinic-south.example/released"


def test_partitions_of_a_partner_are_those_that_it_has_made(node: FakeNode) -> None:
    node.published = [published("2024-02", 5), published("2024-01", 4)]
    (spec,) = partner_assets(node.home)
    assert spec.partitions_def is not None
    assert spec.partitions_def.get_partition_keys() == ["2024-01", "2024-02"]
    assert spec.metadata["comity/generation"] == 5


SIDECAR = b'{"digest": ""}'


def exchange_with(folder: Path, *slots: tuple[str, str], member: str = "clinic-south.example") -> Path:
    """An exchange in which these partitions of assets lie, with sidecars."""
    place = Place(folder, shared=True)
    for asset, partition in slots:
        path = place.path([member, *asset.split("/")], partition, "parquet")
        place.write(path, b"bytes")
        place.write(sidecar_of(path), SIDECAR)
    return folder


def test_what_lies_in_the_exchange_is_what_partners_publish(node: FakeNode, tmp_path: Path) -> None:
    unpublished = replace(published(), asset="clinic-south.example/orders")
    node.published = [published(), unpublished]
    exchange = exchange_with(tmp_path, ("released", ""))
    (spec,) = partner_assets(node.home, exchange=exchange)
    assert spec.key.path[-1] == "released"
    columns = spec.metadata["dagster/column_schema"].columns
    # A record names no types: Dagster's default would say that they are strings.
    assert [(column.name, column.type) for column in columns] == [("time", "unknown"), ("sex", "unknown")]
    assert node.reads == []


def test_published_partitions_that_the_node_does_not_know_are_shown_to_it(
    node: FakeNode, tmp_path: Path
) -> None:
    exchange = exchange_with(tmp_path, ("by/day", "2024-01/02"), ("by/day", "2024-01/03"))
    exchange_with(tmp_path, ("own", ""), member=MEMBER)
    node.governs("*/released")
    row = replace(published("2024-01/02"), asset="clinic-south.example/by/day")

    def learn(form: ReadForm) -> None:
        node.published = [row, replace(row, partition="2024-01/03")]

    node.on_read = learn
    (spec,) = partner_assets(node.home, exchange=exchange)
    assert [(each.asset, each.partition) for each in node.reads] == [
        ("clinic-south.example/by/day", "2024-01/02"),
        ("clinic-south.example/by/day", "2024-01/03"),
    ]
    assert base64.b64decode(node.reads[0].sidecar) == SIDECAR
    assert spec.partitions_def is not None
    assert spec.partitions_def.get_partition_keys() == ["2024-01/02", "2024-01/03"]


@pytest.mark.parametrize("partition", ["a...b", "x\ny", "\t", "a\0b"])
def test_a_partition_that_dagster_cannot_hold_stops_nobody(
    node: FakeNode, partition: str, caplog: pytest.LogCaptureFixture
) -> None:
    node.published = [published("fine"), published(partition)]
    (spec,) = partner_assets(node.home)
    assert spec.partitions_def is not None
    assert spec.partitions_def.get_partition_keys() == ["fine"]
    assert "is left out: Dagster does not take it" in caplog.text
    node.published = [published(partition), replace(published(), asset="clinic-south.example/other")]
    (other,) = partner_assets(node.home)
    assert other.key.path[-1] == "other"


def test_more_partitions_than_are_shown_stop_nobody(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("comity.dagster_bridge.partners.PARTITIONS_MAX", 2)
    node.published = [published(str(number), number) for number in range(4)]
    (spec,) = partner_assets(node.home)
    assert spec.partitions_def is not None
    assert spec.partitions_def.get_partition_keys() == ["2", "3"]
    assert "the newest 2 are kept" in caplog.text


def test_definitions_load_while_the_node_is_down(node: FakeNode, home: Path) -> None:
    node.published = [published()]
    before = partner_assets(home)
    node.socket.rename(home / "elsewhere")
    try:
        assert partner_assets(home) == before
        (home / "partner-assets.json").write_text("[{")
        with pytest.raises(NodeNotRunningError, match="comity node start"):
            partner_assets(home)
    finally:
        (home / "elsewhere").rename(node.socket)
    with pytest.raises(ConfigError, match="COMITY_HOME"):
        partner_assets()


def tables() -> list[dg.AssetsDefinition]:
    @dg.asset
    def cleaned() -> None:
        return None

    @dg.asset
    def released() -> None:
        return None

    return [cleaned, released]


def test_a_requester_signs_one_ticket_for_a_run(node: FakeNode) -> None:
    asked: list[TicketFacts] = []

    def sign(facts: TicketFacts) -> bytes:
        asked.append(facts)
        return b"ticket"

    node.otherwise = execute
    requester = Requester(credential="c1" * 32, sign_ticket=sign)
    result = materialize(node, *tables(), requester=requester, purpose="survival_study")
    assert result.success
    (facts,) = asked
    assert facts.run == result.run_id
    assert facts.assets == ("cleaned", "released")
    assert facts.purpose == "survival_study"
    for form in node.steps:
        assert (form.credential, base64.b64decode(form.ticket)) == ("c1" * 32, b"ticket")
        assert form.purpose == "survival_study"


def test_a_ticket_may_lie_in_a_file(node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ticket"
    path.write_bytes(b"signed before")
    node.otherwise = execute
    monkeypatch.setenv("COMITY_TICKET", str(path))
    assert materialize(node, *tables()).success
    assert {base64.b64decode(form.ticket) for form in node.steps} == {b"signed before"}
    assert {form.credential for form in node.steps} == {""}


@pytest.mark.parametrize("content", [None, b""])
def test_without_the_ticket_that_was_named_nothing_runs(
    node: FakeNode, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "ticket"
    if content is not None:
        path.write_bytes(content)
    node.otherwise = execute
    assert "ticket" in failure(materialize(node, *tables(), ticket=path), "released")[0]
    assert node.steps == []


def test_options_that_exclude_each_other_are_an_error(node: FakeNode) -> None:
    defs = dg.Definitions(assets=tables())
    requester = Requester("c1" * 32, lambda _: b"ticket")
    with pytest.raises(ConfigError, match="not both"):
        govern(defs, home=node.home, requester=requester, ticket="somewhere")
    with pytest.raises(ConfigError, match="not both"):
        govern(defs, home=node.home, requester=requester, credential="c1" * 32)
    with pytest.raises(ConfigError, match="socket and token"):
        govern(defs, socket=node.socket)
    with pytest.raises(ConfigError, match=r"takes dg\.Definitions"):
        govern(tables()[0])  # type: ignore[arg-type]


def test_a_socket_and_a_token_do_where_the_home_is_out_of_reach(node: FakeNode) -> None:
    made = tables()
    token = (node.home / "tokens" / "bridge").read_text().strip()
    govern(
        dg.Definitions(assets=made),
        socket=node.socket,
        token=token,
        location="hospital",
        revision="4f2a",
        unbound_writes="allow",
    )
    node.otherwise = execute
    assert dg.materialize(made).success
    assert (node.steps[0].location, node.steps[0].revision) == ("hospital", "4f2a")
