"""Partners' assets in one's own asset graph, and who asks."""

import base64
from pathlib import Path

import dagster as dg
import pytest

from comity.dagster_bridge import Requester, TicketFacts, govern, partner_assets
from comity.node.client import NodeNotRunningError
from comity.node.forms import GovernanceForm, PartnerAsset, TermForm
from comity.protocol.errors import ConfigError
from dagster_runs import failure, materialize
from fake_node import FakeNode, execute


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
    assert [column.name for column in spec.metadata["dagster/column_schema"].columns] == ["time", "sex"]
    assert spec.partitions_def is None
    # Dagster takes it as an external asset, and a step names it whole.
    node.otherwise = execute

    @dg.asset(deps=[spec])
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
    with pytest.raises(ConfigError, match="socket and token"):
        govern(defs, socket=node.socket)
    with pytest.raises(ConfigError, match=r"takes dg\.Definitions"):
        govern(tables()[0])  # type: ignore[arg-type]


def test_a_socket_and_a_token_do_where_the_home_is_out_of_reach(node: FakeNode) -> None:
    made = tables()
    token = (node.home / "tokens" / "bridge").read_text().strip()
    govern(dg.Definitions(assets=made), socket=node.socket, token=token, location="hospital", revision="4f2a")
    node.otherwise = execute
    assert dg.materialize(made).success
    assert (node.steps[0].location, node.steps[0].revision) == ("hospital", "4f2a")
