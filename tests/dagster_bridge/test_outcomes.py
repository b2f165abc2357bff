"""What a decision that is less than *execute* looks like in Dagster, and that nothing goes on without one."""

import functools
import json
from pathlib import Path

import dagster as dg
import pytest

import dagster_runs
from comity.dagster_bridge import govern
from comity.dagster_bridge.dagster_internals import place_gate
from comity.dagster_bridge.gate import Gate, GateOptions
from comity.dagster_bridge.measurement import measure_code
from comity.node.forms import StartAnswer, StartForm, StepAnswer, StepForm
from comity.protocol.errors import ConfigError
from dagster_runs import failure, materialized
from fake_node import (
    FakeNode,
    Refusal,
    deferred,
    execute,
    fake_home,
    intent_of,
    refused,
    restricted,
)

# What these tests make are numbers, which no IO manager binds to lineage.
materialize = functools.partial(dagster_runs.materialize, unbound_writes="allow")


def asset(name: str = "released") -> dg.AssetsDefinition:
    @dg.asset(name=name, retry_policy=dg.RetryPolicy(max_retries=3))
    def made() -> int:
        return 1

    return made


def test_a_refusal_states_its_causes_and_votes_and_is_not_retried(node: FakeNode) -> None:
    node.otherwise = refused
    result = materialize(node, asset())
    text, metadata = failure(result, "released")
    assert text.startswith("Comity: step released is refused: the purpose is not allowed (intent 72656c")
    assert metadata["comity/outcome"] == "refuse"
    assert len(metadata["comity/intent"]) == 64
    assert metadata["comity/causes"] == [
        {
            "code": "purpose_not_allowed",
            "parameters": {"purpose": "marketing"},
            "rule": "p1",
            "message": "the purpose is not allowed",
        }
    ]
    assert metadata["comity/needs"] == []
    assert metadata["comity/votes"] == {"clinic-south.example": "refuse", "board.example": "silent"}
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    assert len(node.steps) == 1


def test_a_deferral_names_the_intent_and_what_it_needs(node: FakeNode) -> None:
    node.otherwise = deferred
    result = materialize(node, asset())
    text, metadata = failure(result, "released")
    assert "needs: an approval by health/dpo (intent 72656c65617365" in text
    assert "goes on under the same intent" in text
    assert metadata["comity/outcome"] == "defer"
    assert metadata["comity/needs"][0]["parameters"] == {"class": "health/dpo"}
    assert not any(event.is_step_up_for_retry for event in result.all_events)


def test_a_step_waits_for_its_decision_and_goes_on(node: FakeNode) -> None:
    node.decisions = {"released": [deferred, deferred, execute]}
    result = materialize(node, asset(), wait_max_s=30.0)
    assert result.success
    waited = [where for where, _ in node.calls if where.startswith("/v1/steps/:")]
    assert len(waited) == 2
    assert all(where.startswith("/v1/steps/:wait_s=") for where in waited)
    assert len(node.steps) == 1


class Clock:
    """Time that passes only where the gate pauses."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.pauses: list[float] = []

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now_s += seconds

    def __call__(self) -> float:
        return self.now_s


def test_no_quorum_in_reach_is_waited_out_in_growing_pauses(node: FakeNode) -> None:
    def held(form: StepForm) -> StepAnswer:
        return StepAnswer(intent=intent_of(form), outcome="held")

    clock = Clock()
    made = asset()
    options = GateOptions(code=measure_code(Path(__file__).parent), home=node.home, wait_max_s=10.0)
    place_gate(made.op, Gate(options, pause=clock.pause, clock=clock))
    node.otherwise = held
    text, metadata = failure(dg.materialize([made], raise_on_error=False), "released")
    assert metadata["comity/outcome"] == "held"
    assert "it needs: votes: no quorum in reach" in text
    assert clock.pauses == sorted(clock.pauses[:-1]) + clock.pauses[-1:]
    assert sum(clock.pauses) == pytest.approx(10.0)
    assert len(clock.pauses) < 10


@pytest.mark.parametrize("wait_max_s", [-1.0, 3_601.0, float("nan")])
def test_a_step_waits_an_hour_at_most(node: FakeNode, wait_max_s: float) -> None:
    with pytest.raises(ConfigError, match="wait_max_s"):
        materialize(node, asset(), wait_max_s=wait_max_s)


def test_without_a_node_nothing_runs_and_the_step_says_how_to_start_it(home: Path) -> None:
    result = materialize(FakeNode(home), asset())
    text, metadata = failure(result, "released")
    assert f"no Comity node listens on {home}/node.sock" in text
    assert f"comity node start --home {home}" in metadata["comity/hint"]
    assert metadata["comity/outcome"] == "unavailable"
    assert metadata["comity/causes"] == [{"code": "node_not_running"}]
    assert materialized(result) == {}


def test_a_node_that_is_down_is_tried_again_as_the_retry_policy_says(home: Path) -> None:
    result = materialize(FakeNode(home), asset())
    assert sum(event.is_step_up_for_retry for event in result.all_events) == 3


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "token_wrong", "token_wrong"),
        (503, "no_quorum", "no_quorum"),
        (500, "broken", "broken"),
        (403, "not_a_member", "not_a_member"),
    ],
)
def test_an_error_of_the_node_fails_closed(node: FakeNode, status: int, code: str, expected: str) -> None:
    def fails(form: StepForm) -> StepAnswer:
        raise Refusal(status, code, "something is wrong")

    node.otherwise = fails
    node.governs("elsewhere.example/**")
    text, metadata = failure(materialize(node, asset()), "released")
    assert "something is wrong" in text
    assert metadata["comity/causes"] == [{"code": expected}]


def test_a_home_without_a_token_says_which_file_is_missing(home: Path) -> None:
    (home / "tokens" / "bridge").unlink()
    text, _ = failure(materialize(FakeNode(home), asset()), "released")
    assert f"the token {home}/tokens/bridge cannot be read" in text


def test_no_home_at_all_says_what_to_set() -> None:
    made = asset()
    govern(dg.Definitions(assets=[made]), wait_max_s=0.0)
    result = dg.materialize([made], raise_on_error=False)
    assert "set COMITY_HOME" in failure(result, "released")[0]


def test_the_home_may_come_from_the_environment(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMITY_HOME", str(node.home))
    made = asset()
    govern(dg.Definitions(assets=[made]), wait_max_s=0.0, unbound_writes="allow")
    node.otherwise = execute
    assert dg.materialize([made]).success


def test_an_expired_permit_is_asked_for_again_once(node: FakeNode) -> None:
    def expired(form: StartForm) -> StartAnswer:
        raise Refusal(409, "permit_expired", "the permit expired at 12:00")

    node.otherwise = execute
    node.starts = [expired]
    assert materialize(node, asset()).success
    assert len(node.steps) == 2
    node.starts = [expired, expired]
    text, metadata = failure(materialize(node, asset()), "released")
    assert "may not start: the permit expired" in text
    assert metadata["comity/causes"][0]["code"] == "permit_expired"


def test_a_permit_that_changed_while_it_expired_is_not_used(node: FakeNode) -> None:
    def expired(form: StartForm) -> StartAnswer:
        raise Refusal(409, "permit_expired")

    for changed in (restricted(["time"]), refused, deferred):
        node.decisions = {"released": [execute, changed]}
        node.starts = [expired]
        text, metadata = failure(materialize(node, asset()), "released")
        assert "differs; run the step again" in text
        assert metadata["comity/causes"][0]["code"] == "permit_expired"


@pytest.mark.parametrize(("status", "code"), [(409, "input_without_lineage"), (422, "purpose_missing")])
def test_a_step_that_the_node_cannot_ask_for_is_refused_and_not_retried(
    node: FakeNode, status: int, code: str
) -> None:
    def fails(form: StepForm) -> StepAnswer:
        raise Refusal(status, code, "something is missing", "make it first")

    node.otherwise = fails
    result = materialize(node, asset())
    text, metadata = failure(result, "released")
    assert text == "Comity: step released cannot be asked for: something is missing (make it first)"
    assert metadata["comity/causes"][0]["code"] == code
    assert not any(event.is_step_up_for_retry for event in result.all_events)


@pytest.mark.parametrize("code", ["adverse_held", "permit_used"])
def test_a_start_that_the_node_denies_ends_the_step(node: FakeNode, code: str) -> None:
    def denied(form: StartForm) -> StartAnswer:
        raise Refusal(409, code, "not now")

    node.otherwise = execute
    node.starts = [denied]
    result = materialize(node, asset())
    _, metadata = failure(result, "released")
    assert metadata["comity/causes"][0]["code"] == code
    assert materialized(result) == {}


def test_an_output_that_the_permit_does_not_list_is_refused(node: FakeNode) -> None:
    def nothing(form: StepForm) -> StepAnswer:
        return StepAnswer(intent=intent_of(form), outcome="execute", permit="9e" * 32)

    node.otherwise = nothing
    _, metadata = failure(materialize(node, asset()), "released")
    assert metadata["comity/causes"][0]["code"] == "output_not_listed"


def test_a_restriction_that_nothing_here_can_hold_to_is_refused_before_the_work(node: FakeNode) -> None:
    ran: list[str] = []

    @dg.asset
    def released() -> int:
        ran.append("released")
        return 1

    node.otherwise = restricted(["time", "sex"])
    text, metadata = failure(materialize(node, released), "released")
    assert "may be written only in part" in text
    assert metadata["comity/causes"][0]["code"] == "restriction_not_enforceable"
    assert ran == []


def test_definitions_are_governed_once_and_by_one_node(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = asset()
    defs = dg.Definitions(assets=[made])
    for _ in range(2):
        assert govern(defs, home=node.home, ticket="ticket", unbound_writes="allow") is defs
    with fake_home() as other, pytest.raises(ConfigError, match="governed already"):
        govern(defs, home=other, ticket="ticket", unbound_writes="allow")
    monkeypatch.setattr("comity.dagster_bridge.requester._ticket_bytes", lambda path: b"signed")
    node.otherwise = execute
    assert dg.materialize([made]).success
    assert len(node.steps) == 1


def test_a_step_that_runs_again_after_a_retry_asks_again(node: FakeNode) -> None:
    attempts: list[int] = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
    def released() -> int:
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError("the first attempt fails")
        return 1

    node.otherwise = execute
    assert materialize(node, released).success
    assert len(node.steps) == 2
    assert node.steps[0] == node.steps[1]


@pytest.mark.parametrize("option", ["unbound_reads", "unbound_writes"])
def test_a_word_that_is_no_permission_is_none(node: FakeNode, option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} is 'alow'"):
        govern(dg.Definitions(assets=[asset()]), home=node.home, **{option: "alow"})  # type: ignore[arg-type]


def test_a_refused_run_is_not_started_again_by_dagster(node: FakeNode, tmp_path: Path) -> None:
    retries = {"run_retries": {"enabled": True, "max_retries": 3}}
    (tmp_path / "dagster.yaml").write_text(json.dumps(retries))
    will_retry: dict[str, str] = {}
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        for name, decide in (("refused", refused), ("deferred", deferred)):
            node.otherwise = decide
            result = materialize(node, asset(), instance=instance)
            run = instance.get_run_by_id(result.run_id)
            assert run is not None
            will_retry[name] = run.tags["dagster/will_retry"]
    # What is missing may have arrived when Dagster tries again; what is wrong stays wrong.
    assert will_retry == {"refused": "false", "deferred": "true"}
