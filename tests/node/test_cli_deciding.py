"""Deciding by commands, beside nodes that run: explaining, approving, short ids, partitions, and names that are not."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from api_calls import equip, make, released, solo, step, submit
from comity.node.client import (
    ActuationForm,
    ContextForm,
    InputForm,
    OutputForm,
    StartForm,
    StepAnswer,
    StepForm,
)
from comity.protocol.envelope import decode_record
from comity.protocol.identifiers import sha256
from command_line import Said, comity
from houses import RunningHouse, found, inhabited, short_folder
from world import INSTITUTE, NORTH, SOUTH

DIGEST = sha256(b"measured").hex()
CONTEXT = ContextForm("cpython-3.11.7", "linux-x86_64", DIGEST, 3, DIGEST, 1)


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(autouse=True)
def silent_log() -> Iterator[None]:
    """Nodes log in this process: not into the output of the commands."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


async def run(house: RunningHouse, *words: object, status: int | None = 0) -> Said:
    """A command at the home of a node that runs."""
    return await trio.to_thread.run_sync(lambda: comity(*words, "--home", house.home.path, status=status))


async def told(house: RunningHouse, *words: object, status: int | None = 0) -> Any:
    return (await run(house, *words, "--json", status=status)).json


def measured(output: str, *inputs: str, **changes: Any) -> StepForm:
    return step(output, *inputs, context=CONTEXT, purpose="survival_study", **changes)


@asynccontextmanager
async def two(place: Path) -> AsyncGenerator[tuple[RunningHouse, RunningHouse]]:
    async with inhabited(found(place, (NORTH, SOUTH))) as houses:
        await equip(houses[NORTH])
        yield houses[NORTH], houses[SOUTH]


async def make_partition(house: RunningHouse, asset: str, partition: str, **changes: Any) -> None:
    form = measured(asset, run=f"run-{partition}", outputs=[OutputForm(asset, partition)], **changes)
    answer = await submit(house, form)
    assert answer.outcome == "execute", answer
    await fill(house, answer, partition)


async def fill(house: RunningHouse, answer: StepAnswer, partition: str) -> None:
    (output,) = answer.outputs
    started = await house.ask(lambda client: client.start(StartForm(answer.intent, output.asset, partition)))
    made = ActuationForm(
        answer.intent, started.start, output.asset, sha256(partition.encode()).hex(), 3, "text/csv", partition
    )
    await house.ask(lambda client: client.actuate(made))


# Explaining


async def test_an_explanation_agrees_with_the_step(place: Path) -> None:
    """The example of the help: nothing is measured by the command, and the step's own context is supposed."""
    async with solo(place) as house:
        await make(house, await submit(house, measured("patients")), b"patients")
        words = (
            "intent",
            "explain",
            "--asset",
            "released",
            "--input",
            "patients",
            "--purpose",
            "survival_study",
        )
        explained = await told(house, *words)
        answer = await submit(house, measured("released", "patients"))
        assert (explained["outcome"], explained["tier"]) == (answer.outcome, 1) == ("restrict", 1)
        assert [each["columns"] for each in explained["outputs"]] == [each.columns for each in answer.outputs]
        assert "supposing a context of tier 1" in (await run(house, *words)).output
        lower = await told(house, *words, "--tier", "0", status=1)
        assert lower["outcome"] == "defer"
        assert "trust_slope" in [each["code"] for each in lower["causes"]]
        guarded = ("intent", "explain", "--asset", "guarded", "--purpose", "care")
        assert (await told(house, *guarded))["outcome"] == "execute"
        lifted = await told(house, *guarded, "--tier", "0", status=1)
        assert [[need["code"] for need in lift] for lift in lifted["lifts"]] == [["tier"]]


async def test_an_explanation_reads_partitions_as_the_step_does(place: Path) -> None:
    async with solo(place) as house:
        for key in ("2026-01-01", "2026-01-02"):
            await make_partition(house, "plain/by_day", key)
        inputs = [InputForm("plain/by_day", key) for key in ("2026-01-01", "2026-01-02")]
        answer = await submit(house, measured("plain/report", inputs=inputs))
        assert answer.outcome == "execute"
        words = ("intent", "explain", "--asset", "plain/report", "--purpose", "survival_study", "--input")
        assert (await told(house, *words, "plain/by_day"))["outcome"] == "execute"
        assert (await told(house, *words, "plain/by_day@2026-01-02"))["outcome"] == "execute"
        missing = await run(house, *words, "plain/by_day@2026-01-03", status=1)
        assert "partition '2026-01-03'" in missing.output
        assert "'2026-01-01', '2026-01-02' are known" in missing.output


async def test_an_explanation_takes_run_and_job_of_the_ticket(place: Path) -> None:
    async with solo(place) as house:
        key, credential = await operator(house, place)
        ticket = place / "t.bin"
        words = ("ticket", "--key", key, "--credential", credential[:16], "--run", "r7", "--job", "study")
        await run(house, *words, "--asset", "plain/a", "--out", ticket)
        again = await run(house, *words, "--asset", "plain/a", "--out", ticket, status=2)
        assert "t.bin" in again.errors
        asked = ("intent", "explain", "--asset", "plain/a", "--purpose", "care", "--ticket", ticket)
        assert (await told(house, *asked))["outcome"] == "execute"
        refused = await told(house, *asked, "--run", "r8", status=1)
        assert [each["code"] for each in refused["causes"]] == ["ticket_bound"]
        beyond = (*words, "--asset", "released", "--out", place / "u.bin")
        outside = await run(house, *beyond, "--strict", status=2)
        assert "reaches only" in outside.errors
        assert not (place / "u.bin").exists()
        (warning,) = (await told(house, *beyond))["warnings"]
        assert "reaches only" in warning
        foreign = await run(
            *(house, *words, "--asset", "plain/a", "--purpose", "x", "--out", place / "v.bin", "--strict"),
            status=2,
        )
        assert "is only for care" in foreign.errors


async def operator(house: RunningHouse, place: Path, **changes: str) -> tuple[Path, str]:
    """A person with an own key: the key, and the credential's id."""
    key = place / "op.pem"
    comity("key", "new", key)
    said = await told(
        house,
        *("credential", "issue", "--subject", "operator/7f3a", "--kind", "person"),
        *("--public", place / "op.pub.json" if (place / "op.pub.json").exists() else f"{key}.pub.json"),
        *("--class", changes.get("class_", "data-steward"), "--action", changes.get("action", "materialize")),
        *("--asset", changes.get("asset", "plain/**"), "--purpose", changes.get("purpose", "care")),
    )
    return key, said["credential"]


async def test_without_a_purpose_the_hint_names_the_option(place: Path) -> None:
    async with solo(place) as house:
        text = house.home.config.read_text()
        assert 'purpose = "care"' in text
    house.home.config.write_text(text.replace('purpose = "care"', 'purpose = ""'))
    async with inhabited({NORTH: house.home}) as houses:
        said = await run(houses[NORTH], "intent", "explain", "--asset", "plain/a", status=1)
        assert "--purpose NAME" in said.errors


# Approving


async def test_an_approval_shows_all_of_what_it_signs(place: Path) -> None:
    async with two(place) as (north, south):
        await make(north, await submit(north, measured("patients")), b"p")
        form = measured("pooled", "patients", run="run of\u00a0 the day", wait_s=0.5)
        asked = await submit(north, form)
        assert asked.outcome == "defer"
        key, credential = await operator(
            south,
            place,
            class_="data-protection-officer",
            action="approve",
            asset="*/pooled",
            purpose="survival_study",
        )
        # What awaits this organization's people is found at their own node.
        waiting = await run(south, "waiting")
        assert f"of {NORTH}, for your people's approval" in waiting.output
        assert f"comity approve {asked.intent}" in waiting.output
        assert "seen, voted defer" in (await run(south, "intent", "list")).output
        words = ("approve", asked.intent[:12], "--key", key, "--credential", credential[:16])
        unsigned = await run(south, *words, status=2)
        assert "add --yes" in unsigned.errors
        shown = await north.ask(lambda client: client.record(asked.intent), "reader")
        for part in (
            f"from {NORTH}/patients, generation 1",
            f"owners {NORTH}; classes health; tier 1",
            f"makes {NORTH}/pooled (pooled)",
            "no columns are declared",
            "needs an approval by somebody who holds data-protection-officer",
            "the rule dpo says approval_missing",
            "for survival_study",
            f"code {form.code}",
            f"digest of what is asked: {shown['header']['body']['digest']}",
        ):
            assert part in unsigned.output, part
        assert r'run "run of\xa0 the day"' in unsigned.output
        assert "nobody has said yes" in json.dumps(await told(south, *words, status=2))
        signed = await told(south, *words, "--yes")
        assert (signed["told"], signed["notes"]) == ([NORTH], [])
        decided = await north.ask(lambda client: client.step(asked.intent, 10.0))
        assert decided.outcome == "execute"
        assert (await run(south, "waiting")).output == "Nothing waits.\n"
        # The decision is known here as soon as it is held here.
        await run(south, "record", "show", decided.permit)
        assert (await told(south, "intent", "show", asked.intent))["standing"] == "permitted"
        late = await told(south, *words, "--yes")
        assert "permitted already" in late["notes"][0]
        wrong = await run(south, "approve", decided.permit[:16], *words[2:], "--yes", status=2)
        assert "begins the id of a permit, and an intent is wanted" in wrong.errors


async def test_an_approval_that_will_not_count_is_said_before_it_is_signed(place: Path) -> None:
    async with two(place) as (north, south):
        asked = await submit(north, measured("pooled", wait_s=0.5))
        key, credential = await operator(south, place, class_="data-protection-officer", action="approve")
        said = await told(
            south,
            "approve",
            asked.intent,
            "--key",
            key,
            "--credential",
            credential,
            "--yes",
            "--out",
            place / "a",
        )
        assert f"does not reach {NORTH}/pooled" in said["notes"][0]
        assert "is only for care" in said["notes"][1]


# Ids, partitions


async def test_short_ids_work_wherever_an_id_is_taken(place: Path) -> None:
    async with solo(place) as house:
        await released(house)
        lineage = await told(house, "lineage", "show", "released")
        assert (await told(house, "lineage", "show", lineage["target"][:16])) == lineage
        assert "restrict: permit" in (await run(house, "lineage", "show", "released")).output
        assert "withheld columns: inst, time" not in (await run(house, "lineage", "show", "released")).output
        assert "withheld columns: " in (await run(house, "lineage", "show", "released")).output
        (first, *_) = lineage["actuations"]
        for name in ("permit", "intent", "actuation"):
            said = await told(house, "record", "show", first[name][:12])
            assert said["id"] == first[name]
        unknown = await run(house, "record", "show", "0" * 12, status=2)
        assert "holds no record whose id begins with 000000000000" in unknown.errors
        bundle = place / "b.bundle"
        said = await told(house, "lineage", "export", first["permit"][:10], "--out", bundle)
        assert said["targets"] == [first["permit"]]


async def test_several_partitions_are_listed_and_none_is_chosen(place: Path) -> None:
    async with solo(place) as house:
        for key in ("2026-01-01", "2026-01-02"):
            await make_partition(house, "plain/by_day", key)
        listed = await told(house, "lineage", "show", "plain/by_day")
        assert [each["partition"] for each in listed["partitions"]] == ["2026-01-01", "2026-01-02"]
        assert "2026-01-02" in (await run(house, "lineage", "show", "plain/by_day")).output
        one = await told(house, "lineage", "show", "plain/by_day", "--partition", "2026-01-02")
        assert one["partition"] == "2026-01-02"
        out = place / "b.bundle"
        said = await told(house, "lineage", "export", "plain/by_day", "--out", out, status=1)
        assert said["error"]["code"] == "partition_missing"
        assert "'2026-01-01', '2026-01-02'" in said["error"]["message"]
        assert not out.exists()
        words = ("lineage", "export", "plain/by_day", "--out", out, "--partition")
        assert "partition 2026-01-02" in (await run(house, *words, "2026-01-02")).output
        absent = await run(house, *words, "2026-01-03", status=1)
        assert "nothing of the partition '2026-01-03'" in absent.errors
        for listing in ("intent", "decision"):
            text = (await run(house, listing, "list")).output
            assert "plain/by_day@2026-01-01" in text
            assert "plain/by_day@2026-01-02" in text


# Names that nobody published


async def test_names_that_nobody_published_are_warned_of(place: Path) -> None:
    async with solo(place) as house:
        issue = ("credential", "issue", "--subject", "node/n2", "--kind", "automation", "--node-key")
        typo = (*issue, "--class", "data-stewart", "--purpose", "survival_stdy", "--asset", "relesed")
        refused = await run(house, *typo, "--strict", status=2)
        said = await run(house, *typo)
        for text in (refused.errors, said.errors):
            for near in ("data-steward?", "survival_study?", "released?"):
                assert f"did you mean {near}" in text
        assert "for survival_stdy only" in said.output
        rows = await told(house, "credential", "list")
        assert sum(bool(row["classes_unknown"]) for row in rows) == 1
        # The node goes on under the one that counts.
        assert (await submit(house, step("plain/a"))).outcome == "execute"
        sound = await told(
            house, *issue, "--class", "data-steward", "--purpose", "care", "--asset", "released"
        )
        assert sound["warnings"] == []
        consent = await run(house, "owner-policy", "publish", "--consent", "relased=standing:30")
        assert "did you mean released?" in consent.errors
        assert "every other class is live" in consent.output
        for words, part in (
            (("--asset", "nosuch.example/foo"), "no member nosuch.example"),
            (("--asset", f"{NORTH}/relased"), "did you mean released?"),
            (("--asset", "released"), f"taken for {NORTH}/released"),
            (("--asset", f"{NORTH}/released", "--purpose", "survival_stdy"), "did you mean survival_study?"),
        ):
            said = await run(house, "transition", "publish", *words, "--strict", status=2)
            assert part in said.errors
            assert part in (await run(house, "transition", "publish", *words)).errors


def test_names_are_known_without_a_node(place: Path) -> None:
    home = found(place, (NORTH,))[NORTH].path
    said = comity(
        *(
            "credential",
            "issue",
            "--subject",
            "node/n2",
            "--kind",
            "automation",
            "--node-key",
            "--home",
            home,
        ),
        *("--class", "data-stewart", "--out", place / "c.bin", "--json"),
    )
    assert "did you mean data-steward?" in said.errors
    assert len(said.json["warnings"]) == 1


async def test_transitions_are_listed_and_taken_back(place: Path) -> None:
    async with solo(place) as house:
        said = await told(house, "transition", "publish", "--asset", f"{NORTH}/released", "--purpose", "care")
        (row,) = await told(house, "transition", "list")
        assert (row["transition"], row["state"], row["purpose"]) == (said["record"], "in force", "care")
        assert f"{NORTH}/released" in (await run(house, "transition", "list")).output
        await run(house, "transition", "withdraw", said["record"][:12])
        (row,) = await told(house, "transition", "list")
        assert row["state"] == "revoked"
        (credential,) = await told(house, "credential", "list")
        wrong = await run(house, "transition", "withdraw", credential["credential"], status=2)
        assert "a transition is revoked here" in wrong.errors


async def test_a_revocation_says_whose_and_what_is_left(place: Path) -> None:
    async with solo(place) as house:
        newer = await told(
            house,
            *("credential", "issue", "--subject", "node/n1", "--kind", "automation", "--node-key"),
            *("--class", "data-steward"),
        )
        (older,) = {row["credential"] for row in await told(house, "credential", "list")} - {
            newer["credential"]
        }
        said = await run(house, "credential", "revoke", newer["credential"][:16])
        assert f"of spiffe://{NORTH}/node/n1" in said.output
        assert f"under the newest that is left: {older[:16]}" in said.output
        assert "revoked before" in (await run(house, "credential", "revoke", newer["credential"])).output
        last = await run(house, "credential", "revoke", older[:8])
        assert "no other lets this node act" in last.output


async def test_a_refusal_is_told_from_a_restriction(place: Path) -> None:
    """A rule that withholds columns is no reason why an intent was refused."""
    async with solo(place) as house:
        await equip(house, assets=("plain/**",))
        answer = await submit(house, step("released", purpose="survival_study"))
        assert answer.outcome == "refuse"
        text = (await run(house, "decision", "show", answer.intent[:12])).output
        assert "because the credential of" in text
        assert "moreover restricted, by the rule quasi-identifiers says quasi_identifier" in text
        assert "because the rule quasi-identifiers" not in text


# Homes and tokens


async def test_a_lost_token_is_said_and_made_anew(place: Path) -> None:
    homes = found(place, (NORTH,))
    home = homes[NORTH]
    for data, part in ((b"", "is empty"), (None, "cannot be read")):
        home.token("reader").write_bytes(data) if data is not None else home.token("reader").unlink()
        said = comity("node", "status", "--home", home.path, status=2)
        assert "tokens/reader" in said.errors
        assert part in said.errors
        assert "comity node start" in said.errors
    absent = comity("node", "status", "--home", place / "nowhere", status=2)
    assert f"no node's home at {place / 'nowhere'}" in absent.errors


def test_a_record_of_a_file_needs_no_node(place: Path) -> None:
    home = found(place, (NORTH,))[NORTH].path
    out = place / "c.bin"
    comity(
        *(
            "credential",
            "issue",
            "--subject",
            "node/n2",
            "--kind",
            "automation",
            "--node-key",
            "--home",
            home,
        ),
        *("--class", "agent", "--out", out),
    )
    said = comity("record", "show", out, "--json", "--home", home).json
    assert said["id"] == decode_record(out.read_bytes()).id.hex()
    assert INSTITUTE not in said["body"]["assets"]
