"""One case for each rule of docs/spec that a verifier of the level `signed` keeps: what is changed, and the code.

A change has the path of what it changes in the bundle of writer.py. A function gets the old value and the ids
of all records so far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reader_forms import key_id  # type: ignore[import-not-found]
from writer import (  # type: ignore[import-not-found]
    ABSENT,
    DAY,
    GROUPS,
    T,
    besides,
    damaged,
    doubled,
    each,
    first,
    id_of,
    ids_of,
    more,
    public,
    reverse,
)
from written_spellings import (  # type: ignore[import-not-found]
    ENCODING,
    GROUP,
    IDENTITY,
    MALFORMED,
    NAMES,
    NOWHERE,
    OWN,
    RECORDS,
    SMALL_ORDER,
    TWO_TARGETS,
    VERIFIED,
)

VOTES, REFUSALS = ("vote_1a", "vote_1b", "vote_1c"), ("vote_3a", "vote_3b", "vote_3c")
CLAIM, CONTENT = "permit_1.body.claims.0", "made_1.body.content"
STATE = "body.judgements.0.state"
OTHER_GROUPS = {**GROUPS, "parameters": {"column": "k", "rows": 6}}
SECOND_NODE = {  # the key of a second node of `a`
    "certificate_d.signer": "a",
    "certificate_d.body.node": "spiffe://a.example/node/two",
}
# The first permit and all of its votes are of the genesis.
EARLIER = {
    "ask_1.body.epochs.0.epoch": id_of("genesis"),
    **each((*VOTES, "permit_1"), "body.epoch", id_of("genesis")),
    "targets": ids_of("permit_1"),
}
MANY = [{**GROUPS, "parameters": {"column": "k", "rows": rows}} for rows in range(5, 38)]
ROTATED = {
    "second.body.members.0.keys": [public("a2")],
    "second.signers": ["a", "a2", "b", "c", "d"],
}


@dataclass(frozen=True)
class Case:
    """What is changed, what a verifier says (any of these, where ids decide which is first), what more is written."""

    name: str
    changes: dict[str, Any]
    code: str
    after: Callable[[Any], object] | None = None


def again(name: str) -> Callable[[Any], object]:
    return lambda writer: writer.again(name, "again")


# Cases in which the record of this label is written again, as `again`.
AGAIN = {
    "a body of a kind without a form": "credential_a",
    "a credential for a target": "credential_a",
    "one policy in two records": "policy",
    "two promoted of one slot": "made_2",
    "one promoted and one staged of one slot": "made_2",
    "a promoted and a start of another partition": "made_2",
}

EPOCHS: dict[str, tuple[dict[str, Any], str]] = {
    "members that descend": ({"second.body.members": reverse}, "epoch_wrong"),
    "a member twice": ({"second.body.members": doubled}, "epoch_wrong"),
    "a key twice": ({"second.body.members.0.keys": doubled}, "key_duplicate"),
    "a key of two members": ({"second.body.members.1.keys": more(public("a"))}, "key_duplicate"),
    "a second key": ({"second.body.members.0.keys": more(public("a2"))}, VERIFIED),
    "the identity": ({"second.body.members.0.keys": more(IDENTITY)}, "key_inadmissible"),
    "a key of small order": ({"genesis.body.members.0.keys": more(SMALL_ORDER)}, "key_inadmissible"),
    "a key of another suite": ({"second.body.suites": ["ed448"]}, "key_inadmissible"),
    "an unknown suite": ({"second.body.suites": ["ed25519", "ed448"]}, "suite_unknown"),
    "a namespace twice": ({"second.body.members.0.namespaces": doubled}, "epoch_wrong"),
    "a namespace of two members": ({"second.body.members.1.namespaces": ["a.example"]}, "epoch_wrong"),
    "no namespace": ({"second.body.members.0.namespaces": []}, MALFORMED),
    "a quorum of two": ({"second.body.quorum": 2}, "quorum_low"),
    "a quorum of three": ({"second.body.quorum": 3}, VERIFIED),
    "a quorum of all four, and three votes": (
        {
            "second.body.members": more(
                {"id": "d.example", "keys": [public("d")], "namespaces": ["d.example"]}
            ),
            "second.body.quorum": 4,
        },
        "no_quorum",
    ),
    "all publish": ({"second.body.publishers": ["a.example", "b.example", "c.example"]}, VERIFIED),
    "a quorum of more than all": ({"second.body.quorum": 4}, "quorum_low"),
    "a council": ({"second.body.council": ["a.example"]}, "epoch_wrong"),
    "a publisher": ({"second.body.publishers": ["a.example"]}, VERIFIED),
    "a publisher that is no member": ({"second.body.publishers": ["d.example"]}, "epoch_wrong"),
    "a ballot": ({"second.body.certificate": "ballot"}, "epoch_wrong"),
    "a genesis by ballot": ({"genesis.body.certificate": "ballot"}, "epoch_wrong"),
    "an earlier beginning": ({"second.body.started": T - DAY - 1}, "epoch_wrong"),
    "another before it": ({"second.body.previous": NOWHERE}, "epoch_wrong"),
    "none before it": ({"second.body.previous": ABSENT}, "epoch_wrong"),
    "a genesis with one before it": ({"genesis.body.previous": NOWHERE}, "epoch_wrong"),
    "a number left out": ({"second.header.number": 2}, "epoch_wrong"),
    "no number": ({"second.header.number": ABSENT}, MALFORMED),
    "a genesis with a coalition": ({"genesis.header.coalition": NOWHERE}, MALFORMED),
    "a genesis with a number": ({"genesis.header.number": 1}, MALFORMED),
    "another coalition": ({"second.header.coalition": NOWHERE}, "epoch_foreign"),
    "an authority": ({"second.header.authority": NOWHERE}, "author_wrong"),
    "a key of another member": ({"second.header.member": "b.example"}, "author_wrong"),
    "a key that has not signed": (
        {"second.body.members.0.keys": more(public("a2")), "second.header.key": key_id(public("a2"))},
        "author_wrong",
    ),
    "who leaves may write it": (
        {"second.header.member": "d.example", "second.header.key": key_id(public("d"))},
        VERIFIED,
    ),
    "who leaves has not signed": ({"second.signers": list("abc")}, "epoch_unsigned"),
    "a founder has not signed": ({"genesis.signers": list("abc")}, "epoch_unsigned"),
    "a stranger has signed": ({"second.signers": list("abcde")}, "key_unknown"),
    "a damaged signature": ({"second.signatures.0.2": damaged}, "signature_wrong"),
    "a signature of another suite": ({"second.signatures.0.1": "ed448"}, "signature_wrong"),
    "an idle signature": (
        {
            "second.body.members.0.keys": more(public("a2")),
            "second.signers": ["a", "a2", "b", "c", "d"],
        },
        "epoch_wrong",
    ),
    "an idle signature of a founder": (
        {"genesis.body.members.0.keys": more(public("a2")), "genesis.signers": ["a", "a2", "b", "c", "d"]},
        "epoch_wrong",
    ),
    "a key that changes": ({**ROTATED, "certificate_a.signer": "a2"}, VERIFIED),
    "a key that changes, and votes under the old one": (ROTATED, "vote_key_not_in_force"),
    "a key that changes without the new one": (
        {"second.body.members.0.keys": [public("a2")]},
        "epoch_unsigned",
    ),
    "a body that cannot be read": ({"second.body.vectors": b""}, MALFORMED),
    "a chain that ends early": ({"chain": ["genesis"]}, "pin_not_reached"),
    "a chain that begins late": ({"chain": ["second"]}, "roots_other"),
    "a chain in reverse": ({"chain": reverse}, "roots_other"),
    "a genesis twice": ({"chain": ["genesis", "genesis", "second"]}, "epoch_foreign"),
    "an epoch twice": ({"chain": ["genesis", "second", "second"]}, "epoch_wrong"),
    "no epoch": ({"chain": []}, MALFORMED),
    "another record": ({"chain": ["genesis", "second", "taxonomy"]}, MALFORMED),
}

BUNDLES: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown field": ({"bundle.more": 1}, MALFORMED),
    "a field critical": ({"bundle.critical": ["more"]}, MALFORMED),
    "another version": ({"bundle.v": 2}, MALFORMED),
    "a version that is a boolean": ({"bundle.v": True}, MALFORMED),
    "another coalition": ({"bundle.coalition": NOWHERE}, "roots_other"),
    "no records": ({"bundle.records": []}, "record_missing"),
    "records absent": ({"bundle.records": ABSENT}, MALFORMED),
    "an empty record": ({"bundle.records": lambda old, _: [b"", *old]}, MALFORMED),
    "an epoch among the records": ({"extra": ["second"]}, MALFORMED),
    "no target": ({"targets": []}, MALFORMED),
    "targets that descend": ({"targets": reverse}, MALFORMED),
    "an epoch for a target": (
        {"targets": ids_of("made_2", "second"), "without": ["second"]},
        "record_missing",
    ),
    "a record that is not needed": ({"extra": ["certificate_d"]}, "record_foreign"),
    "a start less": ({"without": ["start_1"]}, "record_missing"),
    "no taxonomy": ({"without": ["taxonomy"]}, "record_missing"),
    "no policy": ({"without": ["policy"]}, "record_missing"),
    "another policy": ({"policy.body.weight_min": 5}, "record_missing"),
    "a policy for a taxonomy": (
        {"second.body": lambda old, _: {**old, "taxonomy": old["policies"][0]}},
        "record_missing",
    ),
    "one policy in two records": ({"again.signer": "c", "extra": ["again"]}, "record_foreign"),
    "an ask relies on what is not there": ({"ask_3.body.relied": besides(NOWHERE)}, "record_missing"),
    "a vote counts what is not there": ({"vote_3a.body.adverse": [NOWHERE]}, "record_missing"),
    "a vote of an unknown epoch": ({"vote_3a.body.epoch": NOWHERE}, "epoch_missing"),
}

DECISIONS: dict[str, tuple[dict[str, Any], str]] = {
    "a vote of another time": ({"vote_1a.body.t": T + 1}, "vote_spliced"),
    "a vote of another ask": ({"vote_1a.body.ask": id_of("intent_1")}, "vote_spliced"),
    "a vote of another intent": ({"vote_1a.body.intent": id_of("ask_1")}, "vote_spliced"),
    "a vote of the epoch before": ({"vote_1a.body.epoch": id_of("genesis")}, "vote_of_another_epoch"),
    "a vote of another scope": ({"vote_1a.body.scope": id_of("second")}, "vote_of_another_epoch"),
    "votes before the epoch": ({"second.body.started": T + 1}, "vote_before_epoch"),
    "votes as the epoch begins": ({"second.body.started": T}, VERIFIED),
    "a vote of a former member": ({"vote_1c.signer": "d.node"}, "vote_by_stranger"),
    "a vote after its key": ({"certificate_c.body.not_after": T}, "vote_key_not_in_force"),
    "a vote in the last second of its key": ({"certificate_c.body.not_after": T + 1}, VERIFIED),
    "a vote before its key": ({"certificate_c.body.not_before": T + 1}, "vote_key_not_in_force"),
    "a vote in the first second of its key": ({"certificate_c.body.not_before": T}, VERIFIED),
    "another engine": ({"second.body.engines": [NOWHERE]}, "engine_unknown"),
    "a judgement too many": ({"vote_1a.body.judgements": doubled}, "vote_wrong"),
    "an ask for a vote": ({"permit_1.body.votes.0": id_of("ask_1")}, "vote_wrong"),
    "a vote for another mode": ({f"vote_1b.{OWN}.mode": "defer"}, "claim_unsupported"),
    "a vote for fewer items": ({f"vote_1b.{OWN}.extent.items": [[0, 0]]}, "claim_unsupported"),
    "a vote for fewer columns": ({f"vote_1b.{OWN}.extent.columns": [[1, 1]]}, "claim_unsupported"),
    "a vote for more columns": ({f"vote_1b.{OWN}.extent.columns": [[0, 2]]}, VERIFIED),
    "a vote for more obligations": ({f"vote_1b.{OWN}.obligations": more(OTHER_GROUPS)}, "claim_unsupported"),
    "a vote for fewer obligations": ({f"vote_1b.{OWN}.obligations": ABSENT}, VERIFIED),
    "a vote for an obligation with an unknown field": ({f"vote_1b.{OWN}.obligations.0.more": 1}, VERIFIED),
    "a vote for another state": ({f"vote_1b.{STATE}.weight": 1}, "claim_unsupported"),
    "a vote for a state with an unknown field": ({f"vote_1b.{STATE}.more": 1}, VERIFIED),
    "a vote that weighs otherwise": ({"vote_1b.body.judgements.0.weight": 1}, VERIFIED),
    "a vote for another owner": (
        {"vote_1b.body.judgements.0.live": ["a.example", "b.example"]},
        "claim_unsupported",
    ),
    "a vote for no owner": ({"vote_1b.body.judgements.0.live": ABSENT}, VERIFIED),
    "a claim for another owner": ({f"{CLAIM}.live": more("b.example")}, VERIFIED),
    "a claim for an owner that did not vote": ({f"{CLAIM}.live": more("d.example")}, "owner_silent"),
    "a claim of more": ({f"{CLAIM}.mode": "execute"}, "claim_unsupported"),
    "a claim of nothing": ({f"{CLAIM}.mode": "defer"}, "claim_unsupported"),
    "a claim of all that was voted": (
        {**each(VOTES, f"{OWN}.mode", "execute"), f"{CLAIM}.mode": "execute"},
        VERIFIED,
    ),
    "a claim of less than was voted": (each(VOTES, f"{OWN}.mode", "execute"), VERIFIED),
    "a claim for another class": ({f"{CLAIM}.index": 1}, "claim_unsupported"),
    "a claim with an unknown field": ({f"{CLAIM}.more": 1, f"{CLAIM}.state.more": 1}, VERIFIED),
    "claims of one class": ({"permit_1.body.claims": doubled}, "permit_wrong"),
    "two votes": ({"permit_1.body.votes": first(2)}, "no_quorum"),
    "one vote twice": ({"permit_1.body.votes": doubled}, "record_unreadable"),
    "one member twice": (
        {**SECOND_NODE, "vote_1c.signer": "d.node", "vote_1c.header.member": "a.example"},
        "vote_twice",
    ),
    "votes that descend": ({"permit_1.body.votes": reverse}, "record_unreadable"),
    "what is relied on descends": ({"ask_2.body.relied": reverse}, "record_unreadable"),
    "what is relied on twice": ({"ask_2.body.relied": doubled}, "record_unreadable"),
    "what is adverse descends": (
        {"vote_3a.body.adverse": lambda _, ids: sorted([ids["taxonomy"], ids["policy"]])[::-1]},
        "record_unreadable",
    ),
    "what is adverse ascends": ({"vote_3a.body.adverse": ids_of("taxonomy", "policy")}, VERIFIED),
    "a refusal's votes descend": ({"refusal_3.body.votes": reverse}, "record_unreadable"),
    "a permit that lasts longer": ({"permit_1.body.expires": T + 601}, "permit_wrong"),
    "a permit that ends earlier": ({"permit_1.body.expires": T + 1}, VERIFIED),
    "a permit of another time": ({"permit_1.body.t": T + 1, "targets": ids_of("permit_1")}, "ask_mixed"),
    "a permit of another ask": (
        {"permit_2.body.ask": id_of("ask_1"), "targets": ids_of("permit_2")},
        "ask_mixed",
    ),
    "a permit of no ask": (
        {"permit_1.body.ask": id_of("intent_1"), "targets": ids_of("permit_1")},
        "permit_wrong",
    ),
    "a permit of no intent": (
        {"permit_1.body.intent": id_of("ask_1"), "targets": ids_of("permit_1")},
        "permit_wrong",
    ),
    "a permit of no epoch": ({"permit_1.body.epoch": NOWHERE, "targets": ids_of("permit_1")}, "permit_wrong"),
    "a permit of the epoch before": (
        {"permit_1.body.epoch": id_of("genesis"), "targets": ids_of("permit_1")},
        "vote_of_another_epoch",
    ),
    "a permit of an epoch that was followed long before": (
        {**EARLIER, "second.body.started": T - 601},
        "permit_superseded",
    ),
    "a permit of an epoch that was followed lately": (
        {**EARLIER, "second.body.started": T - 600},
        VERIFIED,
    ),
    "more obligations than what is made can carry": (
        {f"{CLAIM}.obligations": MANY, "targets": ids_of("permit_1")},
        "classes_many",
    ),
    "as many obligations as what is made can carry": (
        {f"{CLAIM}.obligations": MANY[:-1], "targets": ids_of("permit_1")},
        VERIFIED,
    ),
    "a permit of another scope": ({"permit_1.body.scope": id_of("second")}, "permit_of_another_epoch"),
    "a permit, start and actuation of another member": (
        each(("permit_1", "start_1", "made_1"), "signer", "b.node"),
        "permit_foreign",
    ),
    "an ask of another member": ({"ask_1.signer": "b.node"}, "ask_mixed"),
    "an ask of another intent": (
        {"ask_2.body.intent": id_of("intent_1"), "targets": ids_of("permit_2")},
        "ask_mixed",
    ),
    "a refusal with a deferral": ({f"vote_3b.{OWN}.mode": "defer"}, "claim_unsupported"),
    "a refusal of two": ({"refusal_3.body.votes": first(2)}, "no_quorum"),
    "a refusal with one vote twice": ({"refusal_3.body.votes": doubled}, "record_unreadable"),
    "a refusal with one member twice": (
        {**SECOND_NODE, "vote_3c.signer": "d.node", "vote_3c.header.member": "a.example"},
        "no_quorum",
    ),
    "a refusal of another scope": ({"refusal_3.body.scope": id_of("second")}, "refusal_foreign"),
    "a refusal of another ask": ({"refusal_3.body.ask": id_of("ask_1")}, "ask_mixed"),
    "a refusal of another time": ({"refusal_3.body.t": T - 1}, "ask_mixed"),
    "a refusal of another member": ({"refusal_3.signer": "b.node"}, VERIFIED),
    "a refusal with an extent": ({f"vote_3b.{OWN}.extent.items": [[0, 0]]}, VERIFIED),
    "a refusal before the epoch's votes": (each(REFUSALS, "body.engine", NOWHERE), "engine_unknown"),
}

WORK: dict[str, tuple[dict[str, Any], str]] = {
    "a start of another member": ({"start_2.signer": "b.node"}, "start_foreign"),
    "a start of another intent": ({"start_2.body.intent": id_of("intent_1")}, "start_foreign"),
    "a start that names no permit": ({"start_1.body.permit": id_of("intent_1")}, "start_foreign"),
    "a start at the end of its permit": ({"start_1.header.at": T + 600}, "permit_expired"),
    "a start without work at the end of its permit": (
        {"start_1.header.at": T + 600, "targets": ids_of("start_1")},
        "permit_expired",
    ),
    "a start without work, of another intent": (
        {"start_2.body.intent": id_of("intent_1"), "targets": ids_of("start_2")},
        "start_foreign",
    ),
    "a start without work, of another member": (
        {"start_2.signer": "b.node", "targets": ids_of("start_2")},
        "start_foreign",
    ),
    "a start and its work of another member": (
        each(("start_2", "made_2"), "signer", "b.node"),
        "not_permitted or start_foreign",
    ),
    "an actuation under an unknown epoch": (
        {"permit_2.body.epoch": NOWHERE},
        "epoch_unknown or permit_wrong",
    ),
    "a start before the end of its permit": ({"start_1.header.at": T + 599}, VERIFIED),
    "another attempt": ({"made_1.body.attempt": 2}, "start_foreign"),
    "a second attempt": (each(("start_1", "made_1"), "body.attempt", 2), VERIFIED),
    "an attempt too many": (each(("start_1", "made_1"), "body.attempt", 3), "attempts_used"),
    "an attempt too many, before the work": ({"start_2.body.attempt": 3}, "start_foreign"),
    "another partition": ({"made_1.body.partition": "p1"}, "start_foreign"),
    "the other partition": (each(("start_1", "made_1"), "body.partition", "p1"), VERIFIED),
    "a partition of nobody": (each(("start_1", "made_1"), "body.partition", "p2"), "not_permitted"),
    "no partition": (each(("start_1", "made_1"), "body.partition", ABSENT), "not_permitted"),
    "another asset": (each(("start_1", "made_1"), "body.asset", "a.example/other"), "not_permitted"),
    "another generation": ({"made_1.body.generation": 2}, "not_permitted"),
    "another before it": ({"made_1.body.previous": NOWHERE}, "not_permitted"),
    "an actuation of another member": ({"made_1.signer": "b.node"}, "start_foreign"),
    "an actuation without a permit": ({"made_1.body.permit": id_of("ask_1")}, "lineage_wrong"),
    "an actuation without an intent": ({"made_1.body.intent": id_of("ask_1")}, "lineage_wrong"),
    "an actuation of another intent": ({"made_2.body.intent": id_of("intent_1")}, "permit_foreign"),
    "an actuation without a start": ({"made_1.body.start": id_of("ask_1")}, "start_foreign"),
    "an item that the intent lacks": (
        {**each(VOTES, f"{OWN}.extent.items", [[0, 2]]), f"{CLAIM}.extent.items": [[0, 2]]},
        "not_permitted",
    ),
    "an item that is not claimed": ({f"{CLAIM}.extent.items": [[1, 1]]}, "not_permitted"),
    "a column that the intent lacks": (
        {**each(VOTES, f"{OWN}.extent.columns", [[0, 9]]), f"{CLAIM}.extent.columns": [[0, 9]]},
        VERIFIED,
    ),
    "fewer columns": ({f"{CONTENT}.columns": ["v"]}, VERIFIED),
    "columns in another order": ({f"{CONTENT}.columns": reverse}, VERIFIED),
    "a column that is not claimed": ({f"{CONTENT}.columns": more("w")}, "column_not_permitted"),
    "a column of nobody": ({f"{CONTENT}.columns": more("x")}, "column_not_permitted"),
    "any column where none is declared": (
        {f"{GROUP}.columns": ABSENT, f"{CONTENT}.columns": more("x")},
        VERIFIED,
    ),
    "an input of another": ({"made_2.body.inputs": ids_of("start_1")}, "lineage_wrong"),
    "no input": ({"made_2.body.inputs": ABSENT}, VERIFIED),
    "an input of another item": (
        {
            "intent_2.body.classes.0.inputs": ABSENT,
            "intent_2.body.classes.0.items.1.inputs": ids_of("made_1"),
        },
        VERIFIED,
    ),
    "an input that was staged": ({"made_1.header.outcome": "staged"}, "input_not_promoted"),
    "an output that was staged": ({"made_2.header.outcome": "staged"}, VERIFIED),
    "an output that is in quarantine": ({"made_2.header.outcome": "quarantined"}, VERIFIED),
    "an input that is no actuation": (
        {"intent_2.body.classes.0.inputs": ids_of("start_1"), "made_2.body.inputs": ids_of("start_1")},
        "input_not_promoted",
    ),
    "another weight": ({"made_1.header.governance.weight": 1}, "governance_state_wrong"),
    "an unknown field in the state": ({"made_1.header.governance.more": 1}, VERIFIED),
    "no restrictions": ({"made_1.header.governance.restrictions": ABSENT}, "governance_state_wrong"),
    "another realm": ({"made_1.header.realm": "preview/x"}, "governance_state_wrong"),
    "owners in another order": (
        {
            **each(VOTES, f"{STATE}.owners", ["a.example", "b.example"]),
            f"{CLAIM}.state.owners": ["a.example", "b.example"],
            "made_1.header.governance.owners": ["b.example", "a.example"],
        },
        "governance_state_wrong",
    ),
    "a claim of more obligations": (
        {
            f"{CLAIM}.obligations": more(OTHER_GROUPS),
            "made_1.header.governance.restrictions": more(OTHER_GROUPS),
        },
        VERIFIED,
    ),
    "restrictions in another order": (
        {
            f"{CLAIM}.obligations": more(OTHER_GROUPS),
            "made_1.header.governance.restrictions": lambda old, _: [OTHER_GROUPS, *old],
        },
        "governance_state_wrong",
    ),
    "obligations in another order": (
        {
            f"{CLAIM}.obligations": lambda old, _: [OTHER_GROUPS, *old],
            "made_1.header.governance.restrictions": more(OTHER_GROUPS),
        },
        VERIFIED,
    ),
    "an unknown field in a claimed obligation": ({f"{CLAIM}.obligations.0.more": 1}, VERIFIED),
    "two promoted of one slot": ({**TWO_TARGETS}, "slot_twice"),
    "work after its permit, of which the refusal tells": (
        {"start_1.header.at": T + 600, "targets": ids_of("refusal_3")},
        VERIFIED,
    ),
    "an actuation beyond its permit, of which the refusal tells": (
        {f"{CONTENT}.columns": more("w"), "targets": ids_of("refusal_3")},
        VERIFIED,
    ),
    "a permit without a quorum, of which the refusal tells": (
        {"permit_1.body.votes": first(2), "targets": ids_of("refusal_3")},
        VERIFIED,
    ),
    "work after its permit that an input is, though its ask relied on nothing": (
        {
            "start_1.header.at": T + 600,
            "ask_2.body.relied": ids_of("credential_a"),
            "targets": ids_of("made_2"),
        },
        "permit_expired",
    ),
    "work after its permit that a claimed input is, though the actuation names it not": (
        {"start_1.header.at": T + 600, "made_2.body.inputs": ABSENT, "targets": ids_of("made_2")},
        "permit_expired",
    ),
    "one promoted and one staged of one slot": ({"again.header.outcome": "staged", **TWO_TARGETS}, VERIFIED),
    "a promoted and a start of another partition": (
        {"again.body.partition": "p1", **TWO_TARGETS},
        "start_foreign",
    ),
}


def proof(rule: str, one: str, by: str = "b.node") -> Callable[[Any], object]:
    """A proof of the record of this label and of it `again`."""

    def write(writer: Any) -> None:
        writer.again(one, "again")
        both = sorted((writer.ids[one], writer.ids["again"]))
        records = [writer.records[record_id] for record_id in both]
        writer.record("proof", "misbehaviour", by, {"rule": rule, "records": records}, subject=both)

    return write


PROVED = {"targets": ids_of("proof"), "without": ["taxonomy", "policy"]}
TWO_VOTES, TWO_MADE = proof("two_votes", "vote_1a"), proof("two_actuations", "made_1")
UNGOVERNED = ["taxonomy", "policy"]
PROOFS: dict[str, tuple[dict[str, Any], str, Callable[[Any], object]]] = {
    "two votes": ({}, VERIFIED, TWO_VOTES),
    "two asks": ({}, VERIFIED, proof("two_asks", "ask_1")),
    "two actuations": ({}, VERIFIED, TWO_MADE),
    "two votes, by their own member": ({}, VERIFIED, proof("two_votes", "vote_1a", "a.node")),
    "two votes by an organization": ({}, "author_wrong", proof("two_votes", "vote_1a", "b")),
    "two intents": ({}, "proof_wrong", proof("two_asks", "intent_1")),
    "a rule of a later version": ({"proof.body.rule": "two_of_something"}, VERIFIED, TWO_VOTES),
    "a rule of a later version, about anything": (
        {
            "proof.body.rule": "later",
            "proof.body.records": [b"1", b"2"],
            "proof.header.subject": ABSENT,
        },
        VERIFIED,
        TWO_VOTES,
    ),
    "another rule": ({"proof.body.rule": "two_asks"}, "proof_wrong", TWO_VOTES),
    "two votes of two times": ({"again.body.t": T + 1}, "proof_wrong", TWO_VOTES),
    "two votes of two intents": ({"again.body.intent": id_of("ask_1")}, "proof_wrong", TWO_VOTES),
    "two votes of two scopes": ({"again.body.scope": id_of("ask_1")}, "proof_wrong", TWO_VOTES),
    "two votes of two epochs": ({"again.body.epoch": id_of("genesis")}, VERIFIED, TWO_VOTES),
    "two votes on two asks": ({"again.body.ask": id_of("ask_2")}, VERIFIED, TWO_VOTES),
    "two votes of two members": ({"again.signer": "c.node"}, "proof_wrong", TWO_VOTES),
    "a vote with a broken signature": ({"again.signatures.0.2": damaged}, "proof_wrong", TWO_VOTES),
    "a vote without a body": ({"again.carried": b""}, "proof_wrong", TWO_VOTES),
    "a vote of another coalition": ({"again.header.coalition": id_of("ask_1")}, "proof_wrong", TWO_VOTES),
    "no records": ({"proof.body.records": [b"1", b"2"]}, "proof_wrong", TWO_VOTES),
    "three records": ({"proof.body.records": doubled}, "record_unreadable", TWO_VOTES),
    "one record twice": (
        {"proof.body.records": lambda old, _: [old[0], old[0]], "proof.header.subject": first(1)},
        "proof_wrong",
        TWO_VOTES,
    ),
    "records the other way round": ({"proof.body.records": reverse}, VERIFIED, TWO_VOTES),
    "about one of both": ({"proof.header.subject": first(1)}, "proof_wrong", TWO_VOTES),
    "about nothing": ({"proof.header.subject": ABSENT}, "proof_wrong", TWO_VOTES),
    "about one more": (
        {"proof.header.subject": ids_of("again", "vote_1a", "ask_1")},
        "proof_wrong",
        TWO_VOTES,
    ),
    "without who vouches for the votes": (
        {"without": [*UNGOVERNED, "certificate_a"]},
        "authority_missing",
        TWO_VOTES,
    ),
    "without who vouches for the proof": (
        {"without": [*UNGOVERNED, "certificate_b"]},
        "authority_missing",
        TWO_VOTES,
    ),
    "two actuations of two generations": (
        {"again.body.generation": 2},
        "proof_wrong",
        TWO_MADE,
    ),
    "two actuations of two partitions": (
        {"again.body.partition": "p1"},
        "proof_wrong",
        TWO_MADE,
    ),
    "two actuations of two versions before": (
        {"again.body.previous": id_of("ask_1")},
        VERIFIED,
        TWO_MADE,
    ),
    "an actuation that is staged": (
        {"again.header.outcome": "staged"},
        "proof_wrong",
        TWO_MADE,
    ),
    "with the votes beside it": ({"extra": ["again", "vote_1a"]}, "record_foreign", TWO_VOTES),
    "that a vote holds against it": (
        {"vote_2a.body.adverse": ids_of("made_1"), "targets": ids_of("made_2", "proof"), "without": []},
        VERIFIED,
        TWO_VOTES,
    ),
}
PERMIT_ALONE = {"targets": ids_of("permit_1")}  # a bundle of a few records: most spellings need no more


def changed(page: str, changes: dict[str, Any]) -> dict[str, Any]:
    small = page in {"encoding", "names"} and not any(
        path.startswith(("vote_3", "start")) for path in changes
    )
    return changes | PERMIT_ALONE if small else changes


CASES = [
    Case(f"{page}: {name}", changed(page, changes), code, again(AGAIN[name]) if name in AGAIN else None)
    for page, rules in (
        ("encoding", ENCODING),
        ("names", NAMES),
        ("record", RECORDS),
        ("epochs", EPOCHS),
        ("bundle", BUNDLES),
        ("decision", DECISIONS),
        ("lineage", WORK),
    )
    for name, (changes, code) in rules.items()
] + [
    Case(f"accountability: {name}", {**PROVED, **changes}, code, after)
    for name, (changes, code, after) in PROOFS.items()
]
