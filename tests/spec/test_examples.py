"""Every page of docs/spec has an example before its rules, and the code says what the example says.

Examples in bytes, with ids, sizes and numbers are checked beside what they are about, by `test_spec`,
`test_specification` and `test_measurement`: those of encoding, record, signatures, outcome, evidence, weighting and
bundle.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import msgspec
import pytest

from comity.attestation.epochs import faults_tolerated, found, quorum_of
from comity.attestation.judgement import judge
from comity.attestation.offline import case_of, read_unpinned
from comity.attestation.policy_engine import ColumnFacts, ContextFacts, PolicyRequest, evaluate
from comity.attestation.policy_rules import compile_rules
from comity.gossip import framing
from comity.protocol import frames
from comity.protocol.identifiers import (
    AssetId,
    AssetPattern,
    ClassName,
    MemberId,
    Realm,
    SpiffeId,
    member_of,
    pattern_matches,
)
from comity.protocol.kinds import KINDS
from comity.protocol.outcome import Outcome
from comity.protocol.records import decode_body
from spec_examples import SPEC, differs, example_of, shown
from specimens import NORTH as GOLDEN_NORTH
from specimens import specimens
from stories import Pooled, permit_of, share
from stories import released as released_by
from world import INSTITUTE, NORTH, World

PAGES = sorted(path.stem for path in SPEC.glob("*.md") if path.stem != "README")


def plain(value: Any) -> Any:
    """A form as maps and lists, without what is at its default."""
    return msgspec.to_builtins(value, builtin_types=(bytes,))


@cache
def story() -> Pooled:
    return Pooled.told()


@cache
def released() -> dict[str, Any]:
    """The bodies of the decision on the first clinic's `released`, by their kinds; of the votes the requester's."""
    held, _ = read_unpinned(story().bundle().encoded())
    records: dict[str, Any] = {}
    for record in held.values():
        intent = held.get(getattr(record.body, "intent", b""))
        if intent is None or intent.body.classes[0].asset != f"{NORTH}/released":
            continue
        if record.header.kind != "vote" or record.member == NORTH:
            records[record.header.kind] = record
    return records


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_an_example_before_its_rules(page: str) -> None:
    text = (SPEC / f"{page}.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#{2,3} (.+)$", text, re.MULTILINE)
    assert "Example" in headings
    before = headings[: headings.index("Example")]
    assert set(before) <= {"Conventions", "1. Conventions"}
    assert len(example_of(page)) > 150


def test_examples_are_read_as_they_are_meant() -> None:
    text = """
    body  {a: one, b: 7, c: [x, y, ...], d: "p \\"q\\"", e: min(k=n, rows=5), f: [[1,2]], g: spiffe://m/p,
           h: <left out>, i: as voted, ...}
    """
    read = shown(text, "body")
    real = {
        "a": "one",
        "b": 7,
        "c": ["x", "y", "z"],
        "d": 'p "q"',
        "f": [[1, 2]],
        "g": "spiffe://m/p",
        "e": {"code": "min", "parameters": {"k": "n", "rows": 5}},
        "h": 1,
        "i": "as voted",
        "j": 2,
    }
    assert differs(read, real) is None
    for name in "abcdefg":
        assert differs(read, {**real, name: "other"}) is not None, name
    assert differs({"a": 1}, {"a": 1, "b": 2}) is not None
    assert differs("ab", b"\xab") is None
    assert differs("ac", b"\xab") is not None


def test_the_example_of_a_vote_is_what_was_voted() -> None:
    vote = released()["vote"]
    assert differs(shown(example_of("decision"), "vote    {"), plain(vote.body)) is None
    claim = shown(example_of("decision"), "claims: [")
    real = plain(released()["permit"].body.claims[0])
    assert claim.pop("state") == "as voted"
    assert real.pop("state") == plain(vote.body.judgements[0].state)
    assert differs(claim, real) is None
    ask = shown(example_of("decision"), "ask     {")
    assert ask.pop("relied")[0] == released()["ask"].body.relied[0].hex()[:8]
    real = plain(released()["ask"].body)
    del real["relied"]
    assert differs(ask, real) is None


def test_the_example_of_a_working_is_that_of_the_vote() -> None:
    held, governances = read_unpinned(story().bundle().encoded())
    vote = released()["vote"]
    working = plain(judge(case_of(vote, held, governances[vote.body.epoch])).working)  # type: ignore[union-attr]
    example = shown(example_of("judgement"))
    causes = working["classes"][0]["judgement"]["outcome"].pop("causes")
    said = example["classes"][0]["judgement"]["outcome"].pop("causes")
    assert len(said) == 1
    assert f"causes: [...{len(causes)}]" in example_of("judgement")
    assert differs(example, working) is None


def test_the_example_of_lineage_is_what_was_made() -> None:
    world = World()
    institute = world[INSTITUTE]
    first = released_by(world, NORTH)
    share(world, NORTH, INSTITUTE)
    intent = institute.intent("plain/pool", inputs=(first.id,))
    pool = institute.actuate(permit_of(world, intent, institute.evidence(intent)))
    for name, made in (("released", first), ("pool", pool)):
        assert differs(shown(example_of("lineage"), f"    {name} "), plain(made.header.governance)) is None


def test_the_example_of_delegation_is_judged_so() -> None:
    """C1, C2 and T of credentials.md, made by the code; the finding is that of causes.md."""
    world = World()
    institute = world[INSTITUTE]
    text = example_of("credentials")
    first, second, ticket = (shown(text, f"{label}  ") for label in ("C1", "C2", "T "))
    names = {}
    for link, under in ((first, None), (second, "operator/lead")):
        who = link["subject"].removeprefix(f"spiffe://{INSTITUTE}/")
        granted: dict[str, Any] = {
            name: tuple(link[name]) for name in ("classes", "actions", "assets", "realms")
        }
        record = institute.credential(
            who, kind=link["subject_kind"], under=under, delegations=link["delegations"], **granted
        )
        world.tell(record)
        names[who] = record
        body = plain(decode_body(record))
        body.setdefault("delegations", 0)
        assert differs({**link, "key": {"...": 0}}, body) is None
    assert names["operator/lead"].header.authority is None
    assert names["agent/fitter"].header.authority == names["operator/lead"].id
    ran = institute.ticket("agent/fitter", ["plain/**"], run=ticket["run"])
    assert differs(ticket, plain(decode_body(ran))) is None
    assert world.decide(institute.intent("plain/fit", who="agent/fitter"), (ran,)).standing == "permitted"
    other = world.decide(institute.intent("plain/other", who="agent/fitter", run="run-1"), (ran,))
    assert other.standing == "refused"
    (cause,) = [plain(c) for c in other.causes if c.code == "credential_bound"]
    assert differs(shown(example_of("causes")), cause) is None
    said = " ".join(text.split())
    parameters = ", ".join(f"{name}={cause['parameters'][name]}" for name in ("bound", "wanted", "subject"))
    assert f"`credential_bound({parameters})`" in said


def test_the_example_of_a_proof_has_its_fields() -> None:
    record = specimens()["misbehaviour"]
    text = example_of("accountability")
    header, body = shown(text, "header"), shown(text, "body")
    assert (
        differs(
            {**header, "subject": [], "member": record.header.member}, {**plain(record.header), "subject": []}
        )
        is None
    )
    assert len(record.header.subject) == 2
    real = plain(decode_body(record))
    assert differs(body, real) is None


def test_the_example_of_an_epoch_is_the_golden_one() -> None:
    record = specimens()["epoch"]
    text = example_of("epochs")
    header = plain(record.header)
    assert differs(shown(text, "header"), header) is None
    example, body = shown(text, "body"), plain(decode_body(record))
    for member in example["members"]:
        assert len(member["keys"]) == 1
        del member["keys"]
    for member in body["members"]:
        assert len(member.pop("keys")) == 1
    assert differs(example, body) is None
    state = found(record)
    n = len(state.members)
    assert (n, state.quorum, faults_tolerated(n), quorum_of(n)) == (2, 2, 0, 2)
    assert len(record.signatures) == n
    assert (
        f"n = {n}, every decision needs q = {state.quorum} votes and f = {faults_tolerated(n)} faults" in text
    )


def test_the_example_of_a_policy_is_the_golden_one() -> None:
    body = plain(decode_body(specimens()["policy"]))
    assert differs(shown(example_of("governance")), body) is None


def test_the_example_of_a_life_is_told_by_the_vectors() -> None:
    """Each record names those before it that the example says, and no other kind of the example."""
    told = specimens()
    rows = re.findall(r"^    (\w+) +\S", example_of("execution"), re.MULTILINE)
    assert rows == ["intent", "attestation", "ask", "vote", "permit", "start", "actuation", "verification"]
    ids = {told[kind].id: kind for kind in rows}
    named = {
        "attestation": {"intent"},
        "vote": {"intent", "ask"},
        "start": {"intent", "permit"},
        "actuation": {"intent", "permit", "start"},
        "verification": {"actuation"},
    }
    for kind, wanted in named.items():
        data = told[kind].header_bytes + (told[kind].body_bytes or b"")
        assert wanted <= {other for record_id, other in ids.items() if record_id in data}, kind
    vote: Any = decode_body(told["vote"])
    assert vote.judgements[0].outcome.mode == "restrict"
    intent: Any = decode_body(told["intent"])
    assert (len(intent.classes[0].columns), intent.classes[0].asset) == (5, f"{GOLDEN_NORTH}/released")
    assert told["verification"].header.outcome == "passed"
    assert told["actuation"].header.outcome == "promoted"


def test_the_example_of_a_kind_is_in_the_table() -> None:
    text = example_of("kinds")
    kind, outcome = re.findall(r'`(?:kind|outcome): "(\w+)"`', text)
    row = KINDS[kind]
    assert f"number {row.number}." in text
    assert outcome in row.adverse_outcomes
    assert row.log_of(outcome) == "governance"
    assert row.log_of("passed") == "execution"


def test_the_example_of_names_is_what_it_says() -> None:
    is_a = {
        "a member": MemberId,
        "one of its people": SpiffeId,
        "an asset that it writes": AssetId,
        "a pattern": AssetPattern,
        "a class": ClassName,
        "a realm": Realm,
    }
    rows = re.findall(r"^\| `([^`]+)` \| ([^:|]+?)(?:: .+)? \|$", example_of("names"), re.MULTILINE)
    assert len(rows) == 7
    for name, what in rows:
        msgspec.convert(name, is_a[what])
    member, person, asset, anybodys, whole = (name for name, _ in rows[:5])
    assert {member_of(person), member_of(asset)} == {member}
    assert pattern_matches(anybodys, asset)
    assert pattern_matches(whole, asset)
    assert not pattern_matches(anybodys, f"{member}/other")


def policy_request(**changes: Any) -> PolicyRequest:
    columns = tuple(
        ColumnFacts(name, named=name in ("time", "status")) for name in ("inst", "time", "age", "status")
    )
    fields: dict[str, Any] = {
        "subject": f"spiffe://{NORTH}/agent/x",
        "member": NORTH,
        "kind": "agent",
        "asset": f"{NORTH}/released",
        "writer": NORTH,
        "realm": "production",
        "classes": ("health/steward",),
        "data_classes": ("health/released",),
        "columns": columns,
        "rows_by": "inst",
        "context": ContextFacts(
            purpose="study", tier=0, fresh=False, weight=0, ticket=True, approvals=("health/dpo",)
        ),
    }
    return PolicyRequest(**{**fields, **changes})


def test_the_example_of_a_policy_gives_the_outcome_of_the_page() -> None:
    text = (SPEC / "policy.md").read_text(encoding="utf-8").partition("### Example\n")[2]
    rules = compile_rules(text.partition("```\n")[2].partition("```")[0])
    table = dict(re.findall(r"^\| (mode|extent|obligations|needs|causes) \| (.+) \|$", text, re.MULTILINE))
    found = evaluate(rules, policy_request())
    assert isinstance(found, Outcome)
    assert table["mode"] == f"*{found.mode}*"
    assert "columns 1 and 3 (`time`, `status`)" in table["extent"]
    assert found.extent.columns == ((1, 1), (3, 3))
    assert [plain(o) for o in found.obligations] == [
        {"code": "min_group_rows", "parameters": {"column": "inst", "rows": 5}}
    ]
    assert table["obligations"] == "`min_group_rows` with `column` = `inst`, `rows` = 5"
    assert (table["needs"], found.needs) == ("none", ())
    said = [(c.code, c.rule, dict(c.parameters)) for c in found.causes]
    assert said == [
        ("small_groups", "small-groups", {}),
        ("column_not_needed", "minimisation", {"columns": "inst,age"}),
    ]
    assert table["causes"] == (
        "`small_groups`, rule `small-groups`; `column_not_needed`, rule `minimisation`, `columns` = `inst,age`"
    )
    context = ContextFacts(purpose="study", tier=0, fresh=False, weight=0, ticket=True)
    unapproved = evaluate(rules, policy_request(context=context))
    assert isinstance(unapproved, Outcome)
    assert (unapproved.mode, [plain(n) for n in unapproved.needs]) == (
        "defer",
        [{"code": "approval", "parameters": {"class": "health/dpo"}}],
    )
    assert len(unapproved.causes) == len(found.causes) + 1
    stranger = evaluate(rules, policy_request(classes=("other",)))
    assert isinstance(stranger, Outcome)
    assert stranger.mode == "refuse"
    assert "no_authority" in {cause.code for cause in stranger.causes}


def bytes_of(text: str) -> list[bytes]:
    """The blocks of spelled bytes in a text: hexadecimal in front of what is said of it."""
    found: list[bytes] = []
    for block in re.split(r"\n\n", text):
        lines = [re.match(r" {4,}((?:[0-9a-f]{2} ?)+)(?= {2}|$)", line) for line in block.splitlines()]
        if lines and all(lines):
            found.append(bytes.fromhex("".join(line[1] for line in lines if line)))
    return found


def test_the_examples_of_answers_are_what_is_sent() -> None:
    text = (
        (SPEC / "peer.md")
        .read_text(encoding="utf-8")
        .partition("### 3.2 Examples\n")[2]
        .partition("\n## ")[0]
    )
    decline, records, page = bytes_of(text)
    wanted = bytes(range(32))
    assert decline == frames.encode_frame(frames.DeclineFrame(code="records_missing", missing=(wanted,)))
    assert records == frames.encode_frame(frames.RecordsFrame())
    assert page == frames.encode_frame(frames.PageFrame(incarnation=bytes(range(8)), position=41))
    for data in (decline, records, page):
        assert frames.encode_frame(frames.decode_answer(data)) == data
        assert framing.FrameReader().feed(
            framing.encode_frame(framing.Frame(framing.FrameKind.RESPONSE, 1, data))
        )
