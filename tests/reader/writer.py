"""Write a small coalition's bundle by docs/spec alone, with single things changed on request.

Whoever holds the keys can sign anything, so only such a writer reaches the rules behind the signatures. It
shares the encoding and the ids of the reader beside it, and nothing with the product.

Four organizations found a coalition and one leaves. Then `a.example` makes `raw`, makes `pool` from it, and is
refused `lost`; the bundle has both as its targets. No vote is of an engine that exists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any

from nacl.signing import SigningKey
from reader_forms import BUNDLE_RECORDS_MAX, TYPE, encode, key_id  # type: ignore[import-not-found]
from reader_records import depended_on  # type: ignore[import-not-found]

T = 1_800_000_000
DAY = 86_400
ENGINE = hashlib.sha256(b"an engine that nobody has").digest()
ABSENT = object()
TAXONOMY = {"classes": [{"name": "steward", "weight": 600_000}]}
POLICY = {"language": "cedar-4", "rules": '@id("base")\npermit(principal, action, resource);\n'}
GROUPS = {"code": "min_group_rows", "parameters": {"column": "k", "rows": 5}}
# A change is a value, or such a function of the old value and the ids of the records so far.
Change = Callable[[Any, dict[str, bytes]], Any]


def digest(data: bytes | str) -> bytes:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).digest()


@cache
def secret(signer: str) -> SigningKey:
    return SigningKey(digest(f"secret of {signer}"))


def public(signer: str) -> dict[str, Any]:
    return {"suite": "ed25519", "value": bytes(secret(signer).verify_key)}


def altered(value: Any, path: list[str], change: Any, ids: dict[str, bytes]) -> Any:
    """The value with what lies at the path replaced, taken away, or put through a function."""
    if not path:
        return change(value, ids) if callable(change) else change
    if isinstance(value, list):
        at = int(path[0])
        return [*value[:at], altered(value[at], path[1:], change, ids), *value[at + 1 :]]
    new = altered(value.get(path[0]), path[1:], change, ids)
    rest = {name: item for name, item in value.items() if name != path[0]}
    return rest if new is ABSENT else {**rest, path[0]: new}


def each(names: tuple[str, ...], path: str, value: Any) -> dict[str, Any]:
    return {f"{name}.{path}": value for name in names}


def first(count: int) -> Change:
    return lambda old, _: old[:count]


def more(*items: Any) -> Change:
    return lambda old, _: [*old, *items]


def besides(record_id: bytes) -> Change:
    """One id more, at its place."""
    return lambda old, _: sorted([*old, record_id])


def doubled(old: Any, _: object) -> Any:
    return [old[0], *old]


def reverse(old: Any, _: object) -> Any:
    return old[::-1]


def id_of(name: str) -> Change:
    return lambda _, ids: ids[name]


def ids_of(*names: str) -> Change:
    return lambda _, ids: sorted(ids[name] for name in names)


def filled(size: int) -> Change:
    """A field more, so that the form has so many bytes."""

    def fill(old: Any, _: object) -> Any:
        room = size - len(encode({**old, "more": bytes(300)})) + 300
        long = room - (2 if room > 65_535 else 0)
        return {**old, "more": bytes(long)}

    return fill


def damaged(old: Any, _: object) -> Any:
    return bytes([old[0] ^ 1]) + old[1:]


class Writer:
    """Writes records one after the other. A change has a path: `vote_1a.body.t`, `raw.signer`, `bundle.targets.0`."""

    def __init__(self, changes: dict[str, Any]) -> None:
        self.changes = changes
        self.used: set[str] = set()
        self.ids: dict[str, bytes] = {}
        self.records: dict[bytes, bytes] = {}
        self.said: dict[str, tuple[Any, ...]] = {}
        self.dependencies: dict[bytes, list[bytes]] = {}

    def changed(self, name: str, value: Any) -> Any:
        for path, change in self.changes.items():
            if path == name or path.startswith(name + "."):
                self.used.add(path)
                value = altered(
                    value, path[len(name) + 1 :].split(".") if path != name else [], change, self.ids
                )
        return value

    def record(self, label: str, kind: str, signer: str, body: dict[str, Any], **header: Any) -> bytes:
        """Signs as `a` (an organization), `a.node` or `a.subject`; the id under which it is kept is its name's."""
        self.said[label] = (kind, signer, body, header)
        signer = self.changed(f"{label}.signer", signer)
        body = self.changed(f"{label}.body", {**body, "salt": digest(label)})
        spelled = self.changed(f"{label}.spelled", encode(body))
        named, _, role = signer.partition(".")
        member = named[0]  # `a2` is another key of `a`
        vouching = {"node": f"certificate_{member}", "subject": f"credential_{member}"}
        base: dict[str, Any] = {
            "v": 1,
            "kind": kind,
            "member": f"{member}.example",
            "key": key_id(public(signer)),
            "at": T,
            "realm": "production",
            "body": {"form": "clear", "digest": digest(spelled), "size": len(spelled)},
        }
        if role:
            base["authority"] = self.ids[vouching[role]]
        if "genesis" in self.ids:
            base["coalition"] = self.ids["genesis"]
        header = self.changed(f"{label}.header", base | header)
        head = encode(header)
        signed = b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE.encode(), len(head), head)
        signers = self.changed(f"{label}.signers", list("abcd") if kind == "epoch" else [signer])
        signatures = sorted([key_id(public(s)), "ed25519", secret(s).sign(signed).signature] for s in signers)
        carried = self.changed(f"{label}.carried", spelled)
        self.ids[label] = record_id = digest(signed)
        self.dependencies[record_id] = list(depended_on(header, body))
        parts = [TYPE, head, self.changed(f"{label}.signatures", signatures), carried]
        self.records[record_id] = encode(self.changed(f"{label}.parts", parts))
        return record_id

    def again(self, label: str, other: str) -> bytes:
        """The same, with another salt, under another label."""
        kind, signer, body, header = self.said[label]
        return self.record(other, kind, signer, body, **header)

    def member(self, name: str) -> dict[str, Any]:
        return {"id": f"{name}.example", "keys": [public(name)], "namespaces": [f"{name}.example"]}

    def epochs(self) -> None:
        """An epoch names digests of bodies: ids of records that name the coalition it could not name."""
        body: dict[str, Any] = {
            "coalition_name": "written",
            "started": T - DAY,
            "certificate": "unanimous",
            "members": [self.member(name) for name in "abcd"],
            "suites": ["ed25519"],
            "engines": [ENGINE],
            "vectors": digest("vectors"),
            "taxonomy": digest(encode({**TAXONOMY, "salt": digest("taxonomy")})),
            "policies": [digest(encode({**POLICY, "salt": digest("policy")}))],
        }
        genesis = self.record("genesis", "epoch", "a", body)
        body |= {"previous": genesis, "members": [self.member(name) for name in "abc"]}
        self.record("second", "epoch", "a", body, number=1)

    def governance(self) -> None:
        for name in "abcd":
            body: dict[str, Any] = {
                "node": f"spiffe://{name}.example/node/one",
                "key": public(f"{name}.node"),
                "transport_key": digest(f"transport of {name}"),
                "not_before": T - DAY,
                "not_after": T + DAY,
            }
            self.record(f"certificate_{name}", "node_certificate", name, body, name="one", number=1)
        self.record("taxonomy", "taxonomy", "b", TAXONOMY)
        self.record("policy", "policy", "b", POLICY)
        body = {
            "subject": "spiffe://a.example/operator/7f3a",
            "subject_kind": "person",
            "key": public("a.subject"),
            "classes": ["steward"],
            "actions": ["materialize"],
            "assets": ["a.example/**"],
            "realms": ["production"],
            "not_before": T - DAY,
            "not_after": T + DAY,
        }
        self.record("credential_a", "credential", "a", body)

    def decision(self, n: int, asset: str, inputs: list[bytes], mode: str) -> None:
        """Intent, ask and three votes; by name with the number n, and a letter for the votes."""
        group: dict[str, Any] = {
            "asset": f"a.example/{asset}",
            "items": [{"generation": 1, "partition": "p0"}, {"generation": 1, "partition": "p1"}],
            "columns": ["k", "v", "w"],
        }
        body = {
            "requester": "spiffe://a.example/operator/7f3a",
            "credential": self.ids["credential_a"],
            "purpose": "study",
            "code": {"digest": digest("code")},
            "run": {"orchestrator": "none", "run": f"run-{n}"},
            "classes": [{**group, "inputs": inputs} if inputs else group],
            "expires": T + DAY,
            "attempts_max": 2,
        }
        intent = self.record(f"intent_{n}", "intent", "a.node", body)
        round_ = {"intent": intent, "t": T}
        scope = {"scope": self.ids["genesis"], "epoch": self.ids["second"]}
        decided_1 = [i for name, i in self.ids.items() if name.endswith("_1") or name.startswith("vote_1")]
        relied = sorted([self.ids["credential_a"], *(decided_1 if n > 1 else [])])
        ask = self.record(f"ask_{n}", "ask", "a.node", {**round_, "epochs": [scope], "relied": relied})
        extent = {"items": [[0, 1]], "columns": [[0, 1]]} if mode == "restrict" else {}
        outcome: dict[str, Any] = {"mode": mode, "extent": extent, "causes": [{"code": "because"}]}
        if mode == "restrict":
            outcome["obligations"] = [GROUPS]
        judgement = {"outcome": outcome, "weight": 600_000, "state": self.state(n), "live": ["a.example"]}
        decided = {**round_, **scope, "ask": ask}
        voting = {
            "engine": ENGINE,
            "expires": T + 600,
            "judgements": [judgement],
            "working": digest("working"),
        }
        header = {"subject": [intent]}
        votes = sorted(
            self.record(f"vote_{n}{m}", "vote", f"{m}.node", {**decided, **voting}, **header) for m in "abc"
        )
        if mode == "refuse":
            self.record(f"refusal_{n}", "refusal", "a.node", {**decided, "votes": votes})
            return
        claim = {"index": 0, "mode": mode, "extent": extent, "state": self.state(n), "obligations": [GROUPS]}
        claims = [{**claim, "live": ["a.example"]}]
        body = {**decided, "votes": votes, "claims": claims, "expires": T + 600}
        self.record(f"permit_{n}", "permit", "a.node", body)

    def state(self, n: int) -> dict[str, Any]:
        state: dict[str, Any] = {
            "tier": 0,
            "realm": "production",
            "owners": ["a.example"],
            "purpose": "study",
            "weight": 600_000,
            "authority_classes": ["steward"],
        }
        return state | {"restrictions": [GROUPS]} if n > 1 else state

    def work(self, n: int, asset: str, inputs: list[bytes]) -> bytes:
        """Start and promoted actuation of the first item: `start_n` and `made_n`."""
        common = {
            "intent": self.ids[f"intent_{n}"],
            "permit": self.ids[f"permit_{n}"],
            "asset": f"a.example/{asset}",
            "partition": "p0",
            "attempt": 1,
        }
        run = {"orchestrator": "none", "run": f"run-{n}"}
        start = self.record(f"start_{n}", "start", "a.node", {**common, "run": run})
        body: dict[str, Any] = {
            **common,
            "start": start,
            "generation": 1,
            "content": {"digest": digest(asset), "size": 9, "media_type": "text/csv", "columns": ["k", "v"]},
            "metering": {"authority": self.ids["credential_a"]},
        }
        if inputs:
            body["inputs"] = inputs
        header = {"outcome": "promoted", "governance": {**self.state(n), "restrictions": [GROUPS]}}
        return self.record(f"made_{n}", "actuation", "a.node", body, **header)

    def closure(self, ids: list[bytes]) -> set[bytes]:
        """What there is of it: a test may have changed a record so that it depends on what is not there."""
        reached: set[bytes] = set()
        ahead = list(ids)
        while ahead:
            record_id = ahead.pop()
            if record_id in self.records and record_id not in reached:
                reached.add(record_id)
                ahead += self.dependencies[record_id]
        return reached


def write(
    changes: dict[str, Any], after: Callable[[Writer], None] | None = None
) -> tuple[bytes, bytes, bytes]:
    """Bundle, and the ids of genesis and second epoch. `after` writes more records; each change must be used."""
    writer = Writer(changes)
    writer.epochs()
    writer.governance()
    writer.decision(1, "raw", [], "restrict")
    made = writer.work(1, "raw", [])
    writer.decision(2, "pool", [made], "restrict")
    writer.work(2, "pool", [made])
    writer.decision(3, "lost", [made], "refuse")
    if after:
        after(writer)
    ids = writer.ids
    targets = writer.changed("targets", sorted([ids["made_2"], ids["refusal_3"]]))
    kept = writer.closure([*targets, ids["taxonomy"], ids["policy"]])
    kept |= {ids[name] for name in writer.changed("extra", [])}
    kept -= {ids[name] for name in writer.changed("without", [])}
    bundle = {
        "v": 1,
        "coalition": ids["genesis"],
        "targets": targets,
        "epochs": [writer.records[ids[name]] for name in writer.changed("chain", ["genesis", "second"])],
        "records": [writer.records[record_id] for record_id in sorted(kept)],
    }
    data = encode(writer.changed("bundle", bundle), BUNDLE_RECORDS_MAX)
    assert writer.used == changes.keys(), changes.keys() - writer.used
    return data, ids["genesis"], ids["second"]
