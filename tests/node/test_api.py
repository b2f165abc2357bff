"""The local API over a real Unix socket, by the real server: tokens, roles, bounds, problems, steps."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
import logging
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import trio

from comity.attestation.authoring import NO_SALT
from comity.attestation.engine import engine_id
from comity.attestation.offline import verify_bundle
from comity.attestation.roots import parse_roots
from comity.node.api_access import BODY_BYTES_MAX
from comity.node.client import (
    ActuationForm,
    FormInvalidError,
    InputForm,
    NodeClient,
    NodeError,
    NotFoundError,
    NotPermittedError,
    OutputForm,
    ReadForm,
    RoleForbiddenError,
    StartForm,
    StepAnswer,
    StepForm,
    TokenWrongError,
)
from comity.node.credentialing import Wish, issued, revoked
from comity.node.home import Home
from comity.node.keystore import companion, create_key
from comity.node.log_lines import configure_log
from comity.node.publications import owner_policy_record
from comity.node.signing_hand import now
from comity.protocol.envelope import SignedRecord
from comity.protocol.execution import Observation
from comity.protocol.governance import Policy
from comity.protocol.identifiers import sha256
from houses import RunningHouse, found, hand_of, inhabited, join, short_folder, sign, street
from world import COLUMNS, INSTITUTE, NEEDED, NORTH, SOUTH, policy_body

CODE = sha256(b"code").hex()
SOLO = (NORTH,)


@pytest.fixture
def place() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@asynccontextmanager
async def solo(place: Path, **options: Any) -> AsyncIterator[RunningHouse]:
    """The node of a coalition of one, with a credential for automation."""
    homes = found(place, SOLO, **options)
    async with inhabited(homes) as houses:
        await equip(houses[NORTH])
        yield houses[NORTH]


async def equip(house: RunningHouse, **changes: Any) -> SignedRecord:
    """Publish a credential that the node's own key holds."""
    wish = Wish("node/n1", "automation", ("data-steward",), node_key=True, assets=("**",))
    record, _ = issued(hand_of(house.home), dataclasses.replace(wish, **changes))
    await submit_record(house, record)
    return record


async def submit_record(house: RunningHouse, record: SignedRecord) -> Any:
    return await house.ask(lambda client: client.submit_record(record.encoded()), "operator")


def step(output: str, *inputs: str, **changes: Any) -> StepForm:
    form = StepForm(
        orchestrator="dagster",
        run="run-1",
        step=output,
        job="study",
        code=CODE,
        outputs=[OutputForm(output, media_type="text/csv")],
        inputs=[InputForm(name) for name in inputs],
        wait_s=10.0,
    )
    return dataclasses.replace(form, **changes)


async def submit(house: RunningHouse, form: StepForm) -> StepAnswer:
    return await house.ask(lambda client: client.submit_step(form))


async def make(house: RunningHouse, answer: StepAnswer, content: bytes) -> str:
    """Do the work that was permitted; answers with the sidecar."""
    (output,) = answer.outputs
    started = await house.ask(lambda client: client.start(StartForm(answer.intent, output.asset)))
    form = ActuationForm(
        intent=answer.intent,
        start=started.start,
        asset=output.asset,
        digest=sha256(content).hex(),
        size=len(content),
        media_type="text/csv",
        rows=1,
        columns=output.columns,
    )
    made = await house.ask(lambda client: client.actuate(form))
    return made.sidecar


async def released(house: RunningHouse) -> str:
    """`patients`, and `released` from it. Answers with the sidecar of the latter."""
    await make(house, await submit(house, step("patients", purpose="survival_study")), b"patients")
    answer = await submit(house, step("released", "patients", purpose="survival_study"))
    assert answer.outcome == "restrict", answer
    return await make(house, answer, b"released")


def raw(home: Home, request: bytes) -> tuple[int, dict[str, Any]]:
    """Send bytes to the socket, and read the status and the problem that come back."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(home.socket))
        with contextlib.suppress(BrokenPipeError):
            # It may be answered before it was read to its end.
            connection.sendall(request)
        data = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def request(method: str, path: str, token: str = "", body: bytes = b"", *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: node", "Connection: close", *headers]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if not any(header.lower().startswith(("content-length", "transfer-encoding")) for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def token_of(home: Home, role: str) -> str:
    return home.token(role).read_text().strip()


# Tokens, roles, bounds

BRIDGE = [
    ("POST", "/v1/steps"),
    ("GET", f"/v1/steps/{'0' * 64}"),
    ("POST", "/v1/reads"),
    ("POST", "/v1/starts"),
    ("POST", "/v1/actuations"),
    ("POST", "/v1/explanations"),
    ("GET", "/v1/partner-assets"),
]
READER = [
    ("GET", path)
    for path in (
        "/v1/status",
        "/v1/coalition",
        "/v1/credentials",
        "/v1/intents",
        f"/v1/intents/{'0' * 64}",
        "/v1/decisions",
        f"/v1/decisions/{'0' * 64}",
        "/v1/waiting",
        f"/v1/records/{'0' * 64}",
        "/v1/lineage/x",
        "/v1/bundles/x",
    )
]
OPERATOR = [("POST", "/v1/records")]
FORMS = {
    "/v1/steps": step("patients"),
    "/v1/explanations": step("patients"),
    "/v1/reads": ReadForm("", "patients", CODE, 1),
    "/v1/starts": StartForm(CODE, "patients"),
    "/v1/actuations": ActuationForm(CODE, CODE, "patients", CODE, 1, "text/csv"),
    "/v1/records": {"record": ""},
}


async def test_every_route_has_its_roles_and_no_others(place: Path) -> None:
    allowed = {
        **dict.fromkeys(BRIDGE, ("bridge",)),
        **dict.fromkeys(READER, ("reader", "operator")),
        **dict.fromkeys(OPERATOR, ("operator",)),
    }
    async with solo(place) as house:
        for (method, path), roles in allowed.items():
            body = msgspec.json.encode(FORMS[path]) if method == "POST" else b""
            for role in ("bridge", "operator", "reader"):
                sent = request(
                    method, path, token_of(house.home, role), body, "Content-Type: application/json"
                )
                status, problem = await trio.to_thread.run_sync(raw, house.home, sent)
                assert (status == 403) == (role not in roles), (method, path, role, problem)
                assert role in roles or problem["code"] == "role_forbidden"


async def test_who_has_no_token_learns_nothing(place: Path) -> None:
    async with solo(place) as house:
        for path in ("/v1/status", "/openapi.json", "/v1/nothing", "/"):
            for token in ("", "x" * 43, token_of(house.home, "reader")[:-1]):
                status, problem = await trio.to_thread.run_sync(raw, house.home, request("GET", path, token))
                assert (status, problem["code"]) == (401, "token_wrong")


async def test_the_client_tells_a_wrong_token_from_a_wrong_role(place: Path) -> None:
    async with solo(place) as house:
        stranger = NodeClient(house.home.socket, "x" * 43)
        with pytest.raises(TokenWrongError):
            await trio.to_thread.run_sync(stranger.status)
        with pytest.raises(RoleForbiddenError):
            await house.ask(lambda client: client.status(), "bridge")


async def test_a_token_is_asked_for_before_a_body_is_read(place: Path) -> None:
    async with solo(place) as house:
        sent = request("POST", "/v1/steps", "", b"", f"Content-Length: {10 * BODY_BYTES_MAX}")
        assert (await trio.to_thread.run_sync(raw, house.home, sent))[0] == 401


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_is_bounded(place: Path, *, chunked: bool) -> None:
    async with solo(place) as house:
        token = token_of(house.home, "bridge")
        if chunked:
            chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
            sent = request("POST", "/v1/steps", token, chunk * 5, "Transfer-Encoding: chunked")
        else:
            sent = request("POST", "/v1/steps", token, b" " * (BODY_BYTES_MAX + 1))
        status, problem = await trio.to_thread.run_sync(raw, house.home, sent)
        assert (status, problem["code"]) == (413, "body_too_large")


async def test_errors_are_problems(place: Path) -> None:
    async with solo(place) as house:
        bridge = token_of(house.home, "bridge")
        cases = [
            (request("GET", "/v1/nothing", bridge), 404, "not_found"),
            (request("DELETE", "/v1/steps", bridge), 405, "method_not_allowed"),
            (request("POST", "/v1/steps", bridge, b"{"), 422, "form_invalid"),
            (request("POST", "/v1/steps", bridge, b'{"run": 1}'), 422, "form_invalid"),
            (request("GET", "/v1/steps/zz", bridge), 422, "form_invalid"),
            (request("GET", f"/v1/steps/{CODE}?wait_s=601", bridge), 422, "form_invalid"),
            (request("GET", f"/v1/steps/{CODE}", bridge), 404, "not_found"),
        ]
        for sent, status, code in cases:
            answered = await trio.to_thread.run_sync(raw, house.home, sent)
            assert (answered[0], answered[1]["code"]) == (status, code), sent[:60]


async def test_the_document_describes_every_route_and_form(place: Path) -> None:
    async with solo(place) as house:
        sent = request("GET", "/openapi.json", token_of(house.home, "reader"))

        def fetch() -> Any:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(house.home.socket))
                connection.sendall(sent)
                data = b"".join(iter(lambda: connection.recv(65_536), b""))
            return json.loads(data.partition(b"\r\n\r\n")[2])

        document = await trio.to_thread.run_sync(fetch)
        routes = {(m.upper(), p) for p, methods in document["paths"].items() for m in methods}
        assert len(routes) == len(BRIDGE) + len(READER) + len(OPERATOR)
        forms = document["components"]["schemas"]
        assert {"StepForm", "StepAnswer", "ReadForm", "ActuationForm", "ExplainAnswer", "Problem"} <= set(
            forms
        )
        assert set(forms["StepForm"]["properties"]) == {f.name for f in dataclasses.fields(StepForm)}


async def test_the_socket_is_the_owners_alone(place: Path) -> None:
    async with solo(place) as house:
        assert stat.S_IMODE(house.home.socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(house.home.path.stat().st_mode) == 0o700
        socket_path = house.home.socket
    assert not socket_path.exists()


async def test_the_log_holds_no_token_and_no_body(place: Path) -> None:
    lines = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    configure_log("debug", lines)
    try:
        async with solo(place) as house:
            home = house.home
            form = step("plain/a", revision="a revision that is nobody's business")
            assert (await submit(house, form)).outcome == "execute"
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        structlog.reset_defaults()
    text = lines.getvalue()
    for line in text.splitlines():
        json.loads(line)
    assert '"path": "/v1/steps"' in text
    secrets = [token_of(home, role) for role in ("bridge", "operator", "reader")]
    assert not [secret for secret in [*secrets, "nobody's business"] if secret in text]


# Steps


async def test_a_step_from_intent_to_lineage(place: Path) -> None:
    async with solo(place) as house:
        answer = await submit(house, step("plain/a"))
        assert answer.outcome == "execute"
        assert answer.votes == {NORTH: "execute"}
        assert answer.governed_inputs == []
        again = await submit(house, step("plain/a"))
        assert again.intent == answer.intent
        sidecar = await make(house, answer, b"content")
        with pytest.raises(NotPermittedError) as excinfo:
            await house.ask(lambda client: client.start(StartForm(answer.intent, "plain/a")))
        assert excinfo.value.code == "permit_used"
        true = ReadForm("", "plain/a", sha256(b"content").hex(), 7, sidecar=sidecar)
        assert (await house.ask(lambda client: client.read(true))).admitted
        changed = dataclasses.replace(true, digest=sha256(b"kontent").hex())
        said = await house.ask(lambda client: client.read(changed))
        assert not said.admitted
        assert said.causes[0].code == "content_changed"
        assert NORTH in said.causes[0].message


async def test_ungoverned_steps_are_answered_at_once(place: Path) -> None:
    async with solo(place) as house:
        assert (await submit(house, step("scratch"))).outcome == "ungoverned"
        assert await house.ask(lambda client: client.intents(), "reader") == []


async def test_a_step_of_checks_alone_has_its_inputs_verified(place: Path) -> None:
    async with solo(place) as house:
        await make(house, await submit(house, step("plain/a")), b"a")
        answer = await submit(house, step("check", "plain/a", "scratch", outputs=[], checks=["plain/a:rows"]))
        assert (answer.outcome, answer.governed_inputs) == ("ungoverned", [f"{NORTH}/plain/a"])


async def test_restriction_is_said_in_words(place: Path) -> None:
    async with solo(place) as house:
        await make(house, await submit(house, step("patients", purpose="survival_study")), b"p")
        answer = await submit(house, step("released", "patients", purpose="survival_study"))
        (output,) = answer.outputs
        assert (answer.outcome, output.mode) == ("restrict", "restrict")
        assert set(output.columns) == set(NEEDED)
        assert set(output.columns) < set(COLUMNS)
        assert [each.message for each in output.obligations] == [
            "leave out groups of fewer than 5 rows by inst"
        ]


async def test_without_a_credential_the_answer_says_how_to_issue_one(place: Path) -> None:
    homes = found(place, SOLO)
    async with inhabited(homes) as houses:
        with pytest.raises(FormInvalidError) as excinfo:
            await submit(houses[NORTH], step("plain/a"))
        assert excinfo.value.code == "credential_missing"
        assert "comity credential issue" in excinfo.value.hint


async def test_the_newest_automation_credential_in_force_is_the_default(place: Path) -> None:
    async with solo(place) as house:
        newer = await equip(house, classes=("data-protection-officer",), purposes=("care",))
        intent = (await submit(house, step("plain/a"))).intent
        shown = await house.ask(lambda client: client.intent(intent), "reader")
        assert shown["body"]["credential"] == newer.id.hex()
        hand = hand_of(house.home)
        await submit_record(
            house, await trio.to_thread.run_sync(lambda: revoked(hand, newer.id.hex(), "key_lost"))
        )
        intent = (await submit(house, step("plain/b"))).intent
        shown = await house.ask(lambda client: client.intent(intent), "reader")
        assert shown["body"]["credential"] != newer.id.hex()


async def test_an_explanation_leaves_no_trace_and_names_the_lifts(place: Path) -> None:
    async with solo(place) as house:
        answer = await house.ask(lambda client: client.explain(step("pooled")))
        assert answer.outcome == "defer"
        assert [need.code for need in answer.needs] == ["approval"]
        assert [[need.code for need in lift] for lift in answer.lifts] == [["approval"]]
        assert "data-protection-officer" in answer.needs[0].message
        assert await house.ask(lambda client: client.intents(), "reader") == []
        refused = await house.ask(lambda client: client.explain(step("forbidden/x")))
        assert (refused.outcome, refused.lifts) == ("refuse", [])
        assert (await house.ask(lambda client: client.explain(step("scratch")))).outcome == "ungoverned"
        missing = await house.ask(lambda client: client.explain(step("plain/a", "patients")))
        assert (missing.outcome, missing.causes[0].code) == ("defer", "input_without_lineage")
        # The real one, in the same second, is another intent and is decided.
        assert (await submit(house, step("plain/a"))).outcome == "execute"


# Several members


async def test_partners_inputs_are_fetched_before_a_step_is_judged(place: Path) -> None:
    async with inhabited(found(place)) as houses:
        for member in (NORTH, SOUTH, INSTITUTE):
            await equip(houses[member])
        sidecars = {member: await released(houses[member]) for member in (NORTH, SOUTH)}
        institute = houses[INSTITUTE]
        partners = await institute.ask(lambda client: client.partner_assets())
        assert {each.asset for each in partners} >= {f"{NORTH}/released", f"{SOUTH}/released"}
        assert next(each for each in partners if each.asset == f"{NORTH}/released").governance.owners == [
            NORTH
        ]

        form = step("pooled", f"{NORTH}/released", f"{SOUTH}/released", purpose="survival_study", wait_s=0.5)
        answer = await submit(institute, form)
        assert answer.outcome == "defer"
        assert answer.governed_inputs == [f"{NORTH}/released", f"{SOUTH}/released"]
        await approve_by_officer(houses[SOUTH], institute, answer.intent)
        decided = await institute.ask(lambda client: client.step(answer.intent, 10.0))
        assert (decided.outcome, decided.intent) == ("execute", answer.intent)
        await make(institute, decided, b"pooled")

        # A bundle holds what partners hold: it is fetched, and a stranger verifies it.
        lineage = await institute.ask(lambda client: client.lineage("pooled"), "reader")
        assert lineage["complete"]
        assert [each["asset"].split("/")[1] for each in lineage["actuations"]] == [
            "pooled", "released", "released", "patients", "patients",
        ]  # fmt: skip
        bundle = await institute.ask(lambda client: client.bundle("pooled"), "reader")
        report = verify_bundle(bundle, parse_roots(houses[NORTH].home.roots.read_text()), engine_id())
        assert report.level == "re-judged"
        assert report.kinds["actuation"] == 5

        # With its writer down a known head is enough, and so is the sidecar that lay beside the bytes.
        await houses[NORTH].end()
        await institute.until(lambda said: said["reachable"] == 3)
        explained = await institute.ask(lambda client: client.explain(form))
        assert [cause.code for cause in explained.causes] != ["input_without_lineage"]
        south = houses[SOUTH]
        unseen = step("pooled", f"{NORTH}/released", purpose="survival_study")
        assert (await south.ask(lambda client: client.explain(unseen))).causes[
            0
        ].code == "input_without_lineage"
        brought = InputForm(f"{NORTH}/released", sidecar=sidecars[NORTH])
        known = dataclasses.replace(unseen, inputs=[brought])
        explained = await south.ask(lambda client: client.explain(known))
        assert explained.causes[0].code != "input_without_lineage"


async def approve_by_officer(officer: RunningHouse, author: RunningHouse, intent: str) -> None:
    """What waits is listed with what to do, and a person's own key at another organization approves it."""
    (row,) = await author.ask(lambda client: client.waiting(), "reader")
    assert row["intent"] == intent
    assert row["needs"][0]["parameters"] == {"class": "data-protection-officer"}
    assert row["needs"][0]["deed"].startswith(f"comity approve {intent}")
    path = officer.home.path / "officer.pem"
    create_key(path)
    wish = Wish(
        "operator/dpo1",
        "person",
        ("data-protection-officer",),
        public=companion(path),
        actions=("approve",),
        assets=("*/pooled",),
    )
    credential, _ = issued(hand_of(officer.home), wish)
    await submit_record(officer, credential)
    shown = await officer.ask(lambda client: client.intent(intent), "reader")
    assert shown["standing"] == "seen"
    author_of_approval = hand_of(officer.home).holder(path, credential)
    digest = bytes.fromhex(
        (await officer.ask(lambda client: client.record(intent), "reader"))["header"]["body"]["digest"]
    )
    approval = author_of_approval.write(
        "observation",
        Observation(salt=NO_SALT, claim="approval", shown=digest),
        now(),
        subject=(bytes.fromhex(intent),),
        outcome="approved",
    )
    told = await submit_record(officer, approval)
    assert told["told"] == [author.ready.member]


async def test_a_live_owner_that_is_down_is_named(place: Path) -> None:
    async with inhabited(found(place)) as houses:
        for member in (NORTH, INSTITUTE):
            await equip(houses[member])
        await released(houses[NORTH])
        institute = houses[INSTITUTE]
        form = step("plain/x", f"{NORTH}/released", purpose="survival_study", wait_s=0.0)
        assert (await institute.ask(lambda client: client.explain(form))).outcome == "execute"
        await houses[NORTH].end()
        await institute.until(lambda said: said["reachable"] == 3)
        answer = await institute.ask(lambda client: client.explain(form))
        assert answer.outcome == "defer"
        assert [(c.code, c.parameters) for c in answer.causes] == [("owner_silent", {"member": NORTH})]
        await houses[SOUTH].end()
        await institute.until(lambda said: said["reachable"] == 2)
        answer = await institute.ask(lambda client: client.explain(form))
        assert (answer.outcome, answer.causes[-1].code) == ("held", "no_quorum")


# Records


async def test_governance_records_reach_every_member(place: Path) -> None:
    async with inhabited(found(place)) as houses:
        north = houses[NORTH]
        record = owner_policy_record(
            hand_of(north.home).organization(None, coalition(north)), ["*=live"], None
        )
        said = await submit_record(north, record)
        assert said["told"] == sorted(set(houses) - {NORTH})
        assert (await submit_record(north, record))["new"] is False
        for house in houses.values():
            shown = await house.ask(lambda client: client.record(record.id.hex()), "reader")
            assert shown["kind"] == "owner_policy"
            assert base64.b64decode(shown["record"]) == record.encoded()


def coalition(house: RunningHouse) -> bytes:
    return bytes.fromhex(house.ready.coalition)


async def test_what_is_no_record_of_a_person_is_not_taken(place: Path) -> None:
    homes = found(place, SOLO)
    other = found(place / "other", (SOUTH,))
    async with inhabited(homes) as houses:
        house = houses[NORTH]

        async def refused(data: bytes) -> str:
            with pytest.raises(NodeError) as excinfo:
                await house.ask(lambda client: client.submit_record(data), "operator")
            return excinfo.value.code

        assert await refused(b"garbage") == "record_unreadable"
        credential = await equip(house)
        changed = bytearray(credential.encoded())
        changed[200] ^= 1
        assert await refused(bytes(changed)) in ("record_unreadable", "record_refused")
        foreign, _ = issued(hand_of(other[SOUTH]), Wish("node/n1", "automation", ("agent",), node_key=True))
        assert await refused(foreign.encoded()) == "record_refused"
        answer = await submit(house, step("plain/a"))
        permit = await house.ask(lambda client: client.record(answer.permit), "reader")
        assert await refused(base64.b64decode(permit["record"])) == "kind_not_taken"
        path = house.home.path / "stranger.pem"
        create_key(path)
        unpublished, _ = issued(
            hand_of(house.home),
            Wish("operator/x", "person", ("agent",), public=companion(path), delegations=1),
        )
        holder = hand_of(house.home).holder(path, unpublished)
        body = Observation(salt=NO_SALT, claim="check")
        early = holder.write("observation", body, now(), subject=(credential.id,), outcome="passed")
        assert await refused(early.encoded()) == "authority_unknown"


async def test_an_unknown_record_is_not_found(place: Path) -> None:
    async with solo(place) as house:
        with pytest.raises(NotFoundError):
            await house.ask(lambda client: client.record("ab" * 32), "reader")
        with pytest.raises(NotFoundError):
            await house.ask(lambda client: client.decision("ab" * 32), "reader")
        with pytest.raises(NotFoundError) as excinfo:
            await house.ask(lambda client: client.lineage("plain/never"), "reader")
        assert "plain/never" in str(excinfo.value)


async def test_a_newcomer_is_admitted_while_all_run(place: Path) -> None:
    """The next epoch is handed to one node; the others take it, and the newcomer is a peer of all."""
    from comity.node.coalition_file import read_coalition
    from comity.node.coalitions import draft_successor
    from houses import card_of, make_member

    homes = found(place)
    newcomer = make_member(place, "uni.example")
    async with street() as here:
        houses = {member: await here.start(home) for member, home in homes.items()}
        for house in houses.values():
            await house.until(lambda said: said["reachable"] == 4)
        hand = hand_of(homes[NORTH])
        held = read_coalition(homes[NORTH].coalition)
        file = draft_successor(
            held, hand.organization(None, held.coalition), now(), cards=[card_of(newcomer)]
        )
        for home in (*homes.values(), newcomer):
            file = sign(file, home)
        join(file, newcomer)
        fifth = await here.start(newcomer)
        north = houses[NORTH]
        for record in (*file.epochs, *file.of_kind("node_certificate")):
            await submit_record(north, record)
        for house in (*houses.values(), fifth):
            said = await house.until(lambda said: said["reachable"] == 5 and said["epoch"] == 1)
            assert said["quorum"] == 4
        await equip(fifth)
        assert (await submit(fifth, step("plain/a"))).outcome == "execute"


async def test_what_is_governed_is_written_down_for_programs_beside(place: Path) -> None:
    async with solo(place) as house:
        said = json.loads(house.home.governed.read_text())
        assert said == {
            "member": NORTH,
            "patterns": sorted(rule.pattern for rule in policy().assets),
        }


def policy() -> Policy:
    return policy_body()
