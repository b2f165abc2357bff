"""Records, keys and epochs as docs/spec says: the first half of the second reader."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from nacl.bindings import crypto_core_ed25519_is_valid_point
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey
from reader_forms import (  # type: ignore[import-not-found]
    FORMS,
    KINDS,
    TYPE,
    Bad,
    decode,
    fits,
    is_form,
    key_id,
    named_in,
)

RECORD_BYTES_MAX = 1_318_912
HEADER_BYTES_MAX, BODY_BYTES_MAX = 8_192, 1 << 20
SMALLER = {"vote": 65_536, "ask": 65_536, "actuation": 491_520}
SIGNATURES_MAX = 64


def need(condition: object, reason: str, record: Record | None = None) -> None:
    if not condition:
        raise Bad(reason, record.id if record else None)


# record.md ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """A record as it came; `body` is empty until it is verified, and stays so where it cannot be read."""

    id: bytes
    header: dict[str, Any]
    signatures: list[tuple[bytes, str, bytes]]
    signed: bytes
    body_bytes: bytes
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return str(self.header["kind"])

    @property
    def author(self) -> tuple[str, bytes]:
        return self.header["member"], self.header["key"]


def read_record(data: bytes) -> Record:
    need(len(data) <= RECORD_BYTES_MAX, "malformed")
    parts = decode(data)
    need(is_array(parts, 4) and parts[0] == TYPE, "malformed")
    head, signatures, body = parts[1:]
    need((type(head), type(signatures), type(body)) == (bytes, list, bytes), "malformed")
    need(len(head) <= HEADER_BYTES_MAX and len(body) <= BODY_BYTES_MAX, "malformed")
    need(0 < len(signatures) <= SIGNATURES_MAX, "malformed")
    for signature in signatures:
        need(is_array(signature, 3), "malformed")
        key, suite, value = signature
        need(fits("digest", key) and fits("bytes{0-4096}", value), "malformed")
        need(type(suite) is str and len(suite) <= 32, "malformed")
    need(ascends([signature[0] for signature in signatures]), "malformed")
    header = decode(head)
    need(is_form("Header", header) and header["kind"] in KINDS, "malformed")
    need(("coalition" not in header) == (header["kind"] == "epoch" and "number" not in header), "malformed")
    need(ascends(header.get("subject", [])) and ascends(header.get("scopes", [])), "malformed")
    _, erasable, _, outcomes = KINDS[header["kind"]]
    need(header.get("outcome") in (outcomes or (None,)), "malformed")
    need(("governance" in header) == (header["kind"] == "actuation"), "malformed")
    reference = header["body"]
    fit = reference["size"] == len(body) and reference["digest"] == hashlib.sha256(body).digest()
    need(fit if body else erasable, "malformed")
    signed = b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE.encode(), len(head), head)
    return Record(
        hashlib.sha256(signed).digest(), header, [(s[0], s[1], s[2]) for s in signatures], signed, body
    )


def read_body(record: Record) -> Record:
    """The record with its body, a form of its kind (section 5)."""
    form = KINDS[record.kind][2]
    limit = SMALLER.get(record.kind, BODY_BYTES_MAX)
    clear = record.header["body"]["form"] == "clear" and 0 < len(record.body_bytes) <= limit
    need(form in FORMS and clear, "record_unreadable", record)
    try:
        body = decode(record.body_bytes)
    except Bad as error:
        raise Bad("record_unreadable", record.id) from error
    need(is_form(form, body), "record_unreadable", record)
    return Record(record.id, record.header, record.signatures, record.signed, record.body_bytes, body)


def is_array(value: Any, count: int) -> bool:
    return type(value) is list and len(value) == count


def ascends(values: Iterable[Any]) -> bool:
    return all(a < b for a, b in pairwise(values))


# signatures.md and epochs.md ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """A key that a member answers for, from `begin` to before `end`; `root` is the organization's own."""

    member: str
    role: str
    suite: str
    value: bytes
    root: bytes
    begin: int = 0
    end: int = 1 << 63

    @property
    def author(self) -> tuple[str, bytes]:
        return self.member, key_id({"suite": self.suite, "value": self.value})


def admissible(key: dict[str, Any]) -> bool:
    value = key["value"]
    return key["suite"] == "ed25519" and len(value) == 32 and crypto_core_ed25519_is_valid_point(value)


def valid(suite: str, value: bytes, signature: tuple[bytes, str, bytes], signed: bytes) -> bool:
    if signature[1] != suite or suite != "ed25519" or len(signature[2]) != 64:
        return False
    try:
        VerifyKey(value).verify(signed, signature[2])
    except BadSignatureError:
        return False
    return True


def listed(epoch: Record) -> dict[bytes, tuple[str, dict[str, Any]]]:
    """The keys that an epoch lists, with their members."""
    return {key_id(key): (m["id"], key) for m in epoch.body["members"] for key in m["keys"]}


def quorum(epoch: Record) -> int:
    return int(epoch.body.get("quorum", 0)) or 2 * len(epoch.body["members"]) // 3 + 1


def check_constitution(epoch: Record) -> None:
    """What may stand in an epoch (epochs.md section 2)."""
    body = epoch.body
    names = [member["id"] for member in body["members"]]
    need(ascends(names), "epoch_wrong", epoch)
    keys, namespaces = set(), set()
    for member in body["members"]:
        for key in member["keys"]:
            need(admissible(key) and key["suite"] in body["suites"], "key_inadmissible", epoch)
            need(key_id(key) not in keys, "key_duplicate", epoch)
            keys.add(key_id(key))
        for namespace in member["namespaces"]:
            need(namespace not in namespaces, "epoch_wrong", epoch)
            namespaces.add(namespace)
    need(all(suite == "ed25519" for suite in body["suites"]), "suite_unknown", epoch)
    least = 2 * len(names) // 3 + 1
    need(body.get("quorum", 0) == 0 or least <= body["quorum"] <= len(names), "quorum_low", epoch)
    need("council" not in body and set(body.get("publishers", [])) <= set(names), "epoch_wrong", epoch)


def check_epoch(epoch: Record, before: Record | None) -> None:
    """A genesis (epochs.md section 3), or a successor of the epoch before (section 4)."""
    check_constitution(epoch)
    header, body = epoch.header, epoch.body
    if before is None:
        need("coalition" not in header and "previous" not in body, "epoch_wrong", epoch)
    else:
        coalition = before.header.get("coalition", before.id)
        need(header.get("coalition") == coalition, "epoch_foreign", epoch)
        follows = header.get("number", 0) == before.header.get("number", 0) + 1
        need(follows and body.get("previous") == before.id, "epoch_wrong", epoch)
    need(body["certificate"] == "unanimous", "epoch_wrong", epoch)
    need(before is None or body["started"] >= before.body["started"], "epoch_wrong", epoch)
    rolls = [listed(e) for e in (before, epoch) if e is not None]
    for signature in epoch.signatures:
        key = next((roll[signature[0]][1] for roll in rolls if signature[0] in roll), None)
        if key is None:
            raise Bad("key_unknown", epoch.id)
        need(valid(key["suite"], key["value"], signature, epoch.signed), "signature_wrong", epoch)
    signers = [signature[0] for signature in epoch.signatures]
    member, author = epoch.author
    own = any(author in roll and roll[author][0] == member for roll in rolls)
    need("authority" not in header and own and author in signers, "author_wrong", epoch)

    def unanimous(keys: list[bytes]) -> bool:
        return all({m for m, _ in r.values()} == {r[k][0] for k in keys if k in r} for r in rolls)

    need(unanimous(signers), "epoch_unsigned", epoch)
    idle = any(unanimous([other for other in signers if other != key]) for key in signers)
    need(not idle, "epoch_wrong", epoch)


# accountability.md section 1 -----------------------------------------------------------------------------


RULES = {"two_votes": "vote", "two_asks": "ask", "two_actuations": "actuation"}


def shown(body: dict[str, Any]) -> list[Record]:
    """The two records of a proof, not verified; none of a rule that is not known here."""
    return [read_record(data) for data in body["records"]] if body["rule"] in RULES else []


def depended_on(header: dict[str, Any], body: dict[str, Any]) -> Iterator[bytes]:
    """bundle.md section 2."""
    if header["kind"] == "misbehaviour":
        with suppress(Bad):
            yield from (each.header["authority"] for each in shown(body) if "authority" in each.header)
    yield from named_in(header, body)


def said_once(record: Record) -> tuple[Any, ...]:
    """What its author may say only once."""
    header, body = record.header, record.body
    if record.kind == "actuation":
        return (
            header.get("outcome"),
            header["member"],
            body["asset"],
            body.get("partition", ""),
            body["generation"],
        )
    return record.author, body["intent"], body["t"], body.get("scope", b"")


def check_proof(record: Record, own: dict[tuple[str, bytes], Key], vouched: dict[bytes, Key]) -> None:
    rule, kind = record.body["rule"], RULES.get(record.body["rule"])
    if kind is None:
        return
    try:
        said = shown(record.body)
        for each in said:
            need(each.kind == kind and each.header["coalition"] == record.header["coalition"], "proof_wrong")
        one, other = (verify_record(each, own, vouched) for each in said)
    except Bad as error:
        raise Bad(
            "authority_missing" if error.reason == "authority_missing" else "proof_wrong", record.id
        ) from error
    need(one.id != other.id and said_once(one) == said_once(other), "proof_wrong", record)
    need(rule != "two_actuations" or one.header["outcome"] == "promoted", "proof_wrong", record)
    need(record.header.get("subject") == sorted((one.id, other.id)), "proof_wrong", record)


def verify_record(record: Record, own: dict[tuple[str, bytes], Key], vouched: dict[bytes, Key]) -> Record:
    """A record under known keys (signatures.md section 5); adds the key that it vouches for to `vouched`."""
    authority = record.header.get("authority")
    need(len(record.signatures) == 1, "signatures_many", record)
    need(record.signatures[0][0] == record.header["key"], "author_wrong", record)
    need(authority is None or authority in vouched, "authority_missing", record)
    key = own.get(record.author) if authority is None else vouched[authority]
    if key is None or key.author != record.author:
        raise Bad("key_unknown", record.id)
    signer = KINDS[record.kind][0]
    need(signer in {"any", key.role}, "author_wrong", record)
    need(valid(key.suite, key.value, record.signatures[0], record.signed), "signature_wrong", record)
    record = read_body(record)
    if record.kind == "misbehaviour":
        check_proof(record, own, vouched)
    need(record.kind != "owner_policy" or record.header.get("name") == "owner", "name_wrong", record)
    if record.kind in {"node_certificate", "credential"}:
        body, role = record.body, "node" if record.kind == "node_certificate" else "subject"
        domain = body["node" if role == "node" else "subject"].removeprefix("spiffe://").split("/")[0]
        need(domain == key.member, "author_wrong", record)
        need(admissible(body["key"]), "key_inadmissible", record)
        begin, end = max(key.begin, body["not_before"]), min(key.end, body["not_after"])
        vouched[record.id] = Key(key.member, role, "ed25519", body["key"]["value"], key.root, begin, end)
    return record
