"""Whether a write can be taken back is known before the decision; policy may want more where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from api_calls import solo, step, submit
from comity.dagster_bridge import GovernedFilesIOManager
from comity.dagster_bridge.gate_facts import GateFacts, SeveralGatesError, announce, gate_facts
from comity.dagster_bridge.stores import stores_of
from comity.node.client import ContextForm, OutputForm
from fake_node import FakeNode, execute, fake_home
from houses import short_folder
from launching import launching
from world import RULES, policy_body

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")

CAREFUL = """
@id("irreversible") @mode("defer") @reason("cannot_be_taken_back") @needs("approval(class=data-protection-officer)")
forbid(principal, action == Action::"materialize", resource in DataClass::"plain")
unless { context.reversible || context.approvals.contains("data-protection-officer") };
"""


@dg.asset
def kept() -> pd.DataFrame:
    return pd.DataFrame()


@dg.asset
def by_itself() -> None: ...


@dg.asset(io_manager_key="swapped")
def swapped() -> pd.DataFrame:
    return pd.DataFrame()


@dg.asset(io_manager_key="nobody")
def unknown() -> pd.DataFrame:
    return pd.DataFrame()


@dg.asset(io_manager_key="elsewhere")
def pickled() -> pd.DataFrame:
    return pd.DataFrame()


@dg.multi_asset(outs={"l": dg.AssetOut(key=["deep", "l"]), "r": dg.AssetOut(io_manager_key="elsewhere")})
def both() -> tuple[Any, Any]:
    return 1, 2


def test_what_can_be_taken_back_is_what_an_io_manager_keeps(tmp_path: Path) -> None:
    resources = {
        "io_manager": GovernedFilesIOManager(base=str(tmp_path)),
        "swapped": GovernedFilesIOManager(base=str(tmp_path), versions=0),
        "elsewhere": dg.FilesystemIOManager(base_dir=str(tmp_path)),
    }
    assets = [kept, by_itself, swapped, unknown, pickled, both]
    assert stores_of(dg.Definitions(assets=assets, resources=resources)) == {
        "kept": "versioned",
        "deep/l": "versioned",
        "swapped": "swap",
    }
    assert stores_of(dg.Definitions(assets=assets)) == {}


def said(**changes: Any) -> GateFacts:
    context = ContextForm("3", "x", "00", 1, "00", 1)
    fields: dict[str, Any] = {"code": "00", "context": context, **changes}
    return GateFacts(**fields)


def test_gates_that_differ_only_in_their_assets_are_one() -> None:
    defs = dg.Definitions()
    announce(defs, said(stores={"b": "swap", "a": "versioned"}))
    announce(defs, said(stores={"c": "versioned"}))
    found = gate_facts(defs.metadata)
    assert found is not None
    assert found.stores == {"a": "versioned", "b": "swap", "c": "versioned"}
    announce(defs, said(purpose="other"))
    with pytest.raises(SeveralGatesError):
        gate_facts(defs.metadata)


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


async def test_policy_wants_more_for_what_cannot_be_taken_back(place: Path) -> None:
    async with solo(place, policy=policy_body(RULES + CAREFUL)) as house:
        for reversible, outcome in ((True, "execute"), (False, "defer")):
            name = f"plain/{'kept' if reversible else 'lost'}"
            form = step(name, outputs=[OutputForm(name, reversible=reversible)], wait_s=0.5)
            answer = await submit(house, form)
            causes = [] if reversible else ["cannot_be_taken_back"]
            assert (answer.outcome, [cause.code for cause in answer.causes]) == (outcome, causes)


DEFINITIONS = """
import dagster as dg
import pandas as pd
from comity.dagster_bridge import GovernedFilesIOManager, govern

@dg.asset
def a() -> pd.DataFrame:
    return pd.DataFrame({"n": [1]})

@dg.asset
def other() -> None: ...

defs = dg.Definitions(assets=[a, other], resources={"io_manager": GovernedFilesIOManager(base="BASE")})
GOVERN
"""


def test_a_launch_and_its_step_say_the_same(tmp_path: Path) -> None:
    with fake_home() as home, FakeNode(home, otherwise=execute).running() as node:
        node.governs("*/**")
        text = DEFINITIONS.replace("BASE", str(tmp_path / "own"))
        with launching(tmp_path, node, definitions=text) as made:
            made.submit("a", "other")
            made.turn()
            (form,) = node.launches
            asked = {unit.step: unit.outputs[0].reversible for unit in form.steps}
            assert asked == {"a": True, "other": False}
