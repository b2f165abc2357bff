"""Verify a bundle to the level `signed`, by what docs/spec says and nothing else.

A second reader: it shares no code with the product, so that what both accept is what the pages say. It is no
part of the product, evaluates no policy and judges no vote again.

    python tests/reader/reader.py BUNDLE ROOTS      ends with 0 where the bundle verifies, else with 1
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reader_forms import (  # type: ignore[import-not-found]
    BUNDLE_RECORDS_MAX,
    Bad,
    decode,
    encode,
    fits,
    is_form,
    known,
)
from reader_records import (  # type: ignore[import-not-found]
    Key,
    Record,
    ascends,
    check_epoch,
    depended_on,
    listed,
    need,
    quorum,
    read_body,
    read_record,
    verify_record,
)

BUNDLE_BYTES_MAX, ROOTS_BYTES_MAX = 64 << 20, 64 << 10
LEASE_S = 600
TERMS_MAX = 32
MODES = ("refuse", "defer", "restrict", "execute")


# bundle.md ------------------------------------------------------------------------------------------------


@dataclass
class Bundle:
    """A bundle as it was read; `epochs` and `vouched` are filled, and `records` replaced, by what verified."""

    coalition: bytes
    targets: list[bytes]
    chain: list[Record]
    records: dict[bytes, Record]
    epochs: dict[bytes, Record] = field(default_factory=dict)
    vouched: dict[bytes, Key] = field(default_factory=dict)

    def find(self, record_id: bytes, kind: str) -> Record | None:
        record = self.records.get(record_id)
        return record if record is not None and record.kind == kind else None


def read_bundle(data: bytes) -> Bundle:
    """Sections 1 and 3.1."""
    need(len(data) <= BUNDLE_BYTES_MAX, "malformed")
    value = decode(data, BUNDLE_RECORDS_MAX)
    need(is_form("Bundle", value) and ascends(value["targets"]), "malformed")
    epochs = [read_record(record) for record in value["epochs"]]
    records = [read_record(record) for record in value["records"]]
    need(all(r.kind == "epoch" for r in epochs) and all(r.kind != "epoch" for r in records), "malformed")
    need(ascends([r.id for r in records]), "malformed")
    return Bundle(value["coalition"], value["targets"], epochs, {r.id: r for r in records})


def verify_chain(bundle: Bundle, coalition: bytes, number: int, pinned: bytes) -> None:
    """Section 3.2."""
    chain = [epoch.id for epoch in bundle.chain]
    need(chain[0] == bundle.coalition == coalition, "roots_other")
    before = None
    for came in bundle.chain:
        try:
            epoch = read_body(came)
        except Bad as error:
            raise Bad("malformed", came.id) from error
        check_epoch(epoch, before)
        bundle.epochs[epoch.id] = before = epoch
    need(len(chain) > number, "pin_not_reached")
    need(chain[number] == pinned, "pin_missed")


def verify_records(bundle: Bundle) -> None:
    """Section 3.3: records are verified as soon as what vouches for their keys is."""
    for record in bundle.records.values():
        need(record.header["coalition"] == bundle.coalition, "record_foreign", record)
    own = {
        (member, key): Key(member, "organization", public["suite"], public["value"], key)
        for epoch in bundle.epochs.values()
        for key, (member, public) in listed(epoch).items()
    }
    waiting: dict[bytes | None, list[Record]] = {}
    proofs = [record for record in bundle.records.values() if record.kind == "misbehaviour"]
    for record in bundle.records.values():
        if record not in proofs:
            waiting.setdefault(record.header.get("authority"), []).append(record)
    verified: dict[bytes, Record] = {}
    ready = waiting.pop(None, [])
    while ready:
        record = verify_record(ready.pop(), own, bundle.vouched)
        verified[record.id] = record
        ready += waiting.pop(record.id, [])
    for left in waiting.values():
        raise Bad("authority_missing", left[0].id)
    # A proof vouches for nobody, and needs who vouches for what it shows.
    verified |= {proof.id: verify_record(proof, own, bundle.vouched) for proof in proofs}
    bundle.records = dict(sorted(verified.items()))


def closure(bundle: Bundle, ids: Iterable[bytes]) -> set[bytes]:
    """Section 2; `record_missing` where the bundle lacks one of them."""
    reached: set[bytes] = set()
    ahead = list(ids)
    while ahead:
        record_id = ahead.pop()
        if record_id not in reached:
            reached.add(record_id)
            if record_id not in bundle.records:
                raise Bad("record_missing", record_id)
            record = bundle.records[record_id]
            ahead += depended_on(record.header, record.body)
            if record.kind == "ask":
                relied = [bundle.records[i] for i in record.body.get("relied", ()) if i in bundle.records]
                ahead += [each.body["credential"] for each in relied if each.kind == "intent"]
    return reached


def verify_closure(bundle: Bundle) -> None:
    """Section 3.4."""
    reached = closure(bundle, bundle.targets)
    named = {bundle.records[i].body["epoch"] for i in reached if bundle.records[i].kind == "vote"}
    # Records ascend by id, so of several with one body the smallest id stays.
    holding = {(r.kind, r.header["body"]["digest"]): i for i, r in reversed(bundle.records.items())}
    for epoch in (bundle.epochs[i] for i in sorted(named) if i in bundle.epochs):
        for rule in (("taxonomy", epoch.body["taxonomy"]), *(("policy", p) for p in epoch.body["policies"])):
            need(rule in holding, "record_missing", epoch)
            reached |= closure(bundle, [holding[rule]])
    for record in bundle.records.values():
        need(record.id in reached, "record_foreign", record)
    need(named <= bundle.epochs.keys(), "epoch_missing")


# decision.md section 5 -------------------------------------------------------------------------------------


def check_certificate(bundle: Bundle, record: Record) -> None:
    """Permit or refusal: bundle.md section 3.5."""
    intent, ask = bundle.find(record.body["intent"], "intent"), bundle.find(record.body["ask"], "ask")
    epoch = bundle.epochs.get(record.body["epoch"])
    if epoch is None or intent is None or ask is None:
        raise Bad("permit_wrong", record.id)
    same = (ask.body["intent"], ask.body["t"]) == (intent.id, record.body["t"])
    need(same and ask.header["member"] == intent.header["member"], "ask_mixed", record)
    (check_permit if record.kind == "permit" else check_refusal)(bundle, record, intent, epoch)


def check_vote(bundle: Bundle, vote_id: bytes, record: Record, intent: Record, epoch: Record) -> Record:
    """A vote that counts for the certificate (sections 5.1, 5.4 rows 3a and 3b)."""
    vote = bundle.records.get(vote_id)
    if vote is None:
        raise Bad("vote_missing", vote_id)
    need(vote.kind == "vote", "vote_wrong", vote)
    asked = ("ask", "intent", "t")
    need([vote.body[name] for name in asked] == [record.body[name] for name in asked], "vote_spliced", vote)
    under = (vote.body["epoch"], vote.body["scope"], vote.header["coalition"])
    need(under == (epoch.id, bundle.coalition, bundle.coalition), "vote_of_another_epoch", vote)
    need(vote.body["t"] >= epoch.body["started"], "vote_before_epoch", vote)
    member = vote.header["member"]
    need(member in {m["id"] for m in epoch.body["members"]}, "vote_by_stranger", vote)
    key = bundle.vouched[vote.header["authority"]]
    rooted = listed(epoch).get(key.root, ("",))[0] == member
    need(rooted and key.begin <= vote.body["t"] < key.end, "vote_key_not_in_force", vote)
    need(vote.body["engine"] in epoch.body["engines"], "engine_unknown", vote)
    need(len(vote.body["judgements"]) == len(intent.body["classes"]), "vote_wrong", vote)
    need(0 < vote.body["expires"] - vote.body["t"] <= LEASE_S, "vote_wrong", vote)
    return vote


def check_permit(bundle: Bundle, permit: Record, intent: Record, epoch: Record) -> None:
    """Section 5.4."""
    body = permit.body
    named = body["intent"] == intent.id and permit.header["member"] == intent.header["member"]
    need(named, "permit_foreign", permit)
    under = (permit.header["coalition"], body["scope"], body["epoch"])
    need(under == (bundle.coalition, bundle.coalition, epoch.id), "permit_of_another_epoch", permit)
    votes: list[Record] = []
    for vote_id in body["votes"]:
        vote = check_vote(bundle, vote_id, permit, intent, epoch)
        twice = any(v.header[name] == vote.header[name] for v in votes for name in ("member", "key"))
        need(not twice, "vote_twice", vote)
        need(all(supports(vote, claim) for claim in body["claims"]), "claim_unsupported", vote)
        votes.append(vote)
    need(len(votes) >= quorum(epoch), "no_quorum", permit)
    need(ascends(claim["index"] for claim in body["claims"]), "permit_wrong", permit)
    voters = {vote.header["member"] for vote in votes}
    need(all(voters.issuperset(c.get("live", [])) for c in body["claims"]), "owner_silent", permit)
    need(body["expires"] <= min(vote.body["expires"] for vote in votes), "permit_wrong", permit)
    need(all(len(restrictions_after(c)) <= TERMS_MAX for c in body["claims"]), "classes_many", permit)
    after = [e for e in bundle.chain if e.header.get("number", 0) == epoch.header.get("number", 0) + 1]
    began = [bundle.epochs[e.id].body["started"] for e in after]
    need(all(body["t"] <= started + LEASE_S for started in began), "permit_superseded", permit)


def restrictions_after(claim: dict[str, Any]) -> dict[bytes, Any]:
    """lineage.md section 1: those of the state after the claim, by their canonical bytes."""
    return terms(known("GovernanceState", claim["state"]), "restrictions") | terms(claim, "obligations")


def check_refusal(bundle: Bundle, refusal: Record, intent: Record, epoch: Record) -> None:
    """Section 5.5."""
    under = (refusal.body["intent"], refusal.body["scope"], refusal.body["epoch"])
    need(under == (intent.id, bundle.coalition, epoch.id), "refusal_foreign", refusal)
    voters: dict[bytes, str] = {}
    for vote_id in refusal.body["votes"]:
        vote = check_vote(bundle, vote_id, refusal, intent, epoch)
        modes = {judgement["outcome"]["mode"] for judgement in vote.body["judgements"]}
        need(modes == {"refuse"}, "claim_unsupported", vote)
        need(vote.header["key"] not in voters, "vote_twice", vote)
        voters[vote.header["key"]] = vote.header["member"]
    need(len(set(voters.values())) >= quorum(epoch), "no_quorum", refusal)


def supports(vote: Record, claim: dict[str, Any]) -> bool:
    """Section 5.2."""
    if claim["index"] >= len(vote.body["judgements"]):
        return False
    judgement = vote.body["judgements"][claim["index"]]
    own = judgement["outcome"]
    return (
        2 <= MODES.index(claim["mode"]) <= MODES.index(own["mode"])
        and all(indices(claim["extent"], s) <= indices(own["extent"], s) for s in ("items", "columns"))
        and terms(own, "obligations").keys() <= terms(claim, "obligations").keys()
        and known("GovernanceState", judgement["state"]) == known("GovernanceState", claim["state"])
        and set(judgement.get("live", [])) <= set(claim.get("live", []))
    )


def terms(form: dict[str, Any], name: str) -> dict[bytes, Any]:
    """A set of obligations by their canonical bytes, which have known fields only."""
    return {encode(term): term for term in known("Term[0-10000]", form.get(name, []))}


def indices(extent: dict[str, Any], name: str) -> set[int]:
    return {index for first, last in extent.get(name, []) for index in range(first, last + 1)}


# bundle.md section 3.5, lineage.md section 3 ---------------------------------------------------------------


def carriers(bundle: Bundle) -> set[bytes]:
    """The records that the targets stand on, with the targets."""
    found: set[bytes] = set()
    ahead = list(bundle.targets)
    while ahead:
        record = bundle.records[ahead.pop()]
        if record.id in found:
            continue
        found.add(record.id)
        body = record.body
        if record.kind in {"permit", "refusal"}:
            ahead += body["votes"]
        if record.kind in {"start", "actuation"}:
            ahead.append(body["permit"])
        if record.kind == "actuation":
            ahead += [body["start"], *body.get("inputs", [])]
        if record.kind == "permit":
            ahead += inputs_of(bundle, record)
    return found


def inputs_of(bundle: Bundle, permit: Record) -> set[bytes]:
    """The inputs of the classes that a permit claims which its ask relies on."""
    intent, ask = bundle.find(permit.body["intent"], "intent"), bundle.find(permit.body["ask"], "ask")
    if intent is None or ask is None:
        return set()
    classes = intent.body["classes"]
    claimed = [classes[c["index"]] for c in permit.body["claims"] if c["index"] < len(classes)]
    named = {i for group in claimed for part in (group, *group["items"]) for i in part.get("inputs", [])}
    return named & set(ask.body["relied"])


def check_start(bundle: Bundle, start: Record) -> None:
    permit = bundle.find(start.body["permit"], "permit")
    if permit is None:
        raise Bad("start_foreign", start.id)
    need(start.header["member"] == permit.header["member"], "start_foreign", start)
    need(start.body["intent"] == permit.body["intent"], "start_foreign", start)
    need(start.header["at"] < permit.body["expires"], "permit_expired", start)


def check_actuation(bundle: Bundle, made: Record) -> None:
    permit, intent = bundle.find(made.body["permit"], "permit"), bundle.find(made.body["intent"], "intent")
    if permit is None or intent is None:
        raise Bad("lineage_wrong", made.id)
    epoch = bundle.epochs.get(permit.body["epoch"])
    if epoch is None:
        raise Bad("epoch_unknown", made.id)
    need(made.header["coalition"] == epoch.header.get("coalition", epoch.id), "lineage_foreign", made)
    check_permit(bundle, permit, intent, epoch)
    start = bundle.find(made.body["start"], "start")
    if start is None or start.header["member"] != made.header["member"]:
        raise Bad("start_foreign", made.id)
    same = ("permit", "intent", "asset", "partition", "attempt")
    need(all(start.body.get(n) == made.body.get(n) for n in same), "start_foreign", made)
    need(start.header["at"] < permit.body["expires"], "permit_expired", made)
    need(made.body["attempt"] <= intent.body["attempts_max"], "attempts_used", made)
    claim = covering_claim(made, permit, intent)
    if claim is None or made.header["member"] != intent.header["member"]:
        raise Bad("not_permitted", made.id)
    group = intent.body["classes"][claim["index"]]
    if columns := group.get("columns"):
        permitted = {columns[i] for i in indices(claim["extent"], "columns") if i < len(columns)}
        need(permitted.issuperset(made.body["content"].get("columns", [])), "column_not_permitted", made)
    inputs = {i for part in (group, *group["items"]) for i in part.get("inputs", [])}
    need(inputs.issuperset(made.body.get("inputs", [])), "lineage_wrong", made)
    state = known("GovernanceState", claim["state"])
    if restrictions := restrictions_after(claim):
        state["restrictions"] = [restrictions[spelled] for spelled in sorted(restrictions)]
    stated = known("GovernanceState", made.header["governance"])
    need(stated == state and made.header["realm"] == state["realm"], "governance_state_wrong", made)
    for input_id in made.body.get("inputs", []):
        used = bundle.find(input_id, "actuation")
        need(used and used.header["outcome"] == "promoted", "input_not_promoted", made)


def slot(body: dict[str, Any]) -> tuple[Any, ...]:
    return body.get("partition", ""), body["generation"], body.get("previous")


def covering_claim(made: Record, permit: Record, intent: Record) -> dict[str, Any] | None:
    """The first claim that covers the actuation's slot."""
    for claim in permit.body["claims"]:
        if claim["index"] >= len(intent.body["classes"]):
            return None
        group = intent.body["classes"][claim["index"]]
        if group["asset"] != made.body["asset"]:
            continue
        claimed = sorted(indices(claim["extent"], "items"))
        if claimed and claimed[-1] >= len(group["items"]):
            return None
        if any(slot(group["items"][index]) == slot(made.body) for index in claimed):
            return dict(claim)
    return None


def verify(bundle: bytes, coalition: bytes, epoch_number: int, epoch: bytes) -> dict[str, Any]:
    """What was verified, to the level `signed`; `Bad` where anything does not hold (bundle.md section 3)."""
    read = read_bundle(bundle)
    verify_chain(read, coalition, epoch_number, epoch)
    verify_records(read)
    verify_closure(read)
    rules = {
        "permit": check_certificate,
        "refusal": check_certificate,
        "start": check_start,
        "actuation": check_actuation,
    }
    slots = set()
    carrying = [read.records[i] for i in sorted(carriers(read))]
    for record in carrying:
        if record.kind in rules:
            rules[record.kind](read, record)
    for record in carrying:
        if record.header.get("outcome") == "promoted":
            body = record.body
            claimed = record.header["member"], body["asset"], body.get("partition", ""), body["generation"]
            need(claimed not in slots, "slot_twice", record)
            slots.add(claimed)
    return {
        "level": "signed",
        "not_higher": "this reader has no engine: it judged no vote again",
        "coalition": coalition.hex(),
        "pin": "genesis: all past members are trusted" if epoch_number == 0 else f"epoch {epoch_number}",
        "targets": [target.hex() for target in read.targets],
        "epochs": len(read.epochs),
        "records": len(read.records),
    }


# Roots (bundle.md section 4) ---------------------------------------------------------------------------------


def read_roots(data: bytes) -> dict[str, Any]:
    """Roots from TOML, with ids in bytes and `made` in seconds since 1970."""
    need(len(data) <= ROOTS_BYTES_MAX, "roots_wrong")
    try:
        roots = tomllib.loads(data.decode())
    except ValueError as error:
        raise Bad("roots_wrong") from error
    need(roots.keys() == {"name", "coalition", "epoch_number", "epoch", "made"}, "roots_wrong")
    need(fits("short", roots["name"]) and fits("natural", roots["epoch_number"]), "roots_wrong")
    for name in ("coalition", "epoch"):
        value = roots[name]
        need(type(value) is str and re.fullmatch("[0-9a-f]{64}", value), "roots_wrong")
        roots[name] = bytes.fromhex(value)
    made = roots["made"]
    utc = isinstance(made, dt.datetime) and made.utcoffset() == dt.timedelta(0)
    need(utc and made.microsecond == 0 and made.year >= 1970, "roots_wrong")
    roots["made"] = int(made.timestamp())
    need(roots["epoch_number"] or roots["epoch"] == roots["coalition"], "roots_wrong")
    return roots


def fingerprint(roots: dict[str, Any]) -> str:
    return hashlib.sha256(encode(roots)).hexdigest()


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        sys.stderr.write("usage: reader.py BUNDLE ROOTS\n")
        return 2
    try:
        roots = read_roots(Path(arguments[1]).read_bytes())
        data = Path(arguments[0]).read_bytes()
        result = verify(data, roots["coalition"], roots["epoch_number"], roots["epoch"])
    except (Bad, OSError) as error:
        sys.stderr.write(f"not verified: {error}\n")
        return 1
    sys.stdout.writelines(f"{name}: {value}\n" for name, value in result.items())
    sys.stdout.write(f"roots: {roots['name']} {fingerprint(roots)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
