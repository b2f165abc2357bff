"""What a coalition file says, as plain values: who belongs, by which rules, and what a draft would change.

Rules and classification are those of one epoch, by the digests that it names. What an epoch has left behind is still
in the file, for votes of its time, and is not said here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from comity.attestation.engine import engine_id
from comity.attestation.epochs import faults_tolerated, quorum_of
from comity.attestation.policy_rules import Written, examine
from comity.attestation.roots import fingerprint
from comity.node.coalition_file import CoalitionFile, NodeEntry
from comity.node.coalitions import CoalitionStanding, epoch_of, tolerance, verified
from comity.node.sentences import need_sentence, obligation_sentence
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import ConfigError, DecodeError
from comity.protocol.governance import AssetRule, Epoch, Policy, Taxonomy
from comity.protocol.outcome import Need, Obligation
from comity.protocol.records import decode_body

Plain = dict[str, Any]


# Who belongs, and who has signed


def standing_of(file: CoalitionFile) -> Plain:
    """Who belongs and who has still to sign, once every record of the file is verified.

    Raises:
        ConfigError: it does not verify.
    """
    _, standing = verified(file)
    newest = newest_epoch(file)
    body = epoch_of(newest) if newest is not None else None
    count = len(body.members) if body is not None else 0
    return {
        "name": file.name,
        "coalition": file.coalition.hex() if file.coalition is not None else "",
        "state": _state(file, standing),
        "complete": standing.complete,
        "epoch": standing.epoch.number if standing.epoch is not None else None,
        "draft": file.draft.header.number if file.draft is not None else None,
        "members": _members(file, standing, body) if body is not None else [],
        "unsigned": list(standing.unsigned),
        "uncertified": list(standing.uncertified),
        "missing": list(standing.missing),
        "quorum": max(body.quorum, quorum_of(count)) if body is not None else 0,
        "faults_tolerated": faults_tolerated(count) if count else 0,
        "tolerance": tolerance(count, body.quorum) if body is not None else "",
        "started": body.started if body is not None else 0,
        "policies": [record.header.name for record in _policies(file, body)] if body is not None else [],
        "publishers": list(body.publishers) if body is not None else [],
        "fingerprint": fingerprint(file.roots()).hex() if file.epochs else "",
    }


def newest_epoch(file: CoalitionFile) -> SignedRecord | None:
    """The draft, else the newest epoch that all have signed."""
    if file.draft is not None:
        return file.draft
    return file.epochs[-1] if file.epochs else None


def _state(file: CoalitionFile, standing: CoalitionStanding) -> str:
    if file.draft is not None:
        return "draft"
    return "founded" if standing.epoch is not None else "gathering"


def _members(file: CoalitionFile, standing: CoalitionStanding, body: Epoch) -> list[Plain]:
    nodes: Mapping[str, Sequence[NodeEntry]] = {entry.id: entry.nodes for entry in file.members}
    return [
        {
            "member": member.id,
            "signed": member.id not in standing.unsigned,
            "nodes": [
                {
                    "node": node.node,
                    "addresses": list(node.addresses),
                    "certified": node.node not in standing.uncertified,
                }
                for node in nodes.get(member.id, ())
            ],
        }
        for member in body.members
    ]


# By which rules


def governance_of(file: CoalitionFile, epoch: SignedRecord) -> Plain:
    """The rules of one epoch of a file: taxonomy, policies with their rules and classification, quorum, engines."""
    body = epoch_of(epoch)
    count = len(body.members)
    taxonomy = _with_body(file, "taxonomy", body.taxonomy)
    return {
        "epoch": epoch.header.number,
        "members": [
            {"member": m.id, "namespaces": list(m.namespaces), "keys": [key.value.hex() for key in m.keys]}
            for m in body.members
        ],
        "n": count,
        "f": faults_tolerated(count),
        "quorum": max(body.quorum, quorum_of(count)),
        "publishers": list(body.publishers),
        "engines": [engine.hex() for engine in body.engines],
        "engine_accepted": engine_id() in body.engines,
        "classes": _classes(taxonomy),
        "policies": [_policy(record) for record in _policies(file, body)],
        "missing": bodies_missing(file, epoch),
    }


def bodies_missing(file: CoalitionFile, epoch: SignedRecord) -> list[str]:
    """What an epoch names and the file does not hold."""
    body = epoch_of(epoch)
    wanted = [("taxonomy", body.taxonomy), *(("policy", digest) for digest in body.policies)]
    return [
        f"the {kind} {digest.hex()[:16]} of epoch {epoch.header.number}"
        for kind, digest in wanted
        if _with_body(file, kind, digest) is None
    ]


def _with_body(file: CoalitionFile, kind: str, digest: bytes) -> SignedRecord | None:
    """The record with that body; of several the one with the smallest id, as they are sorted."""
    return next((r for r in file.of_kind(kind) if r.header.body.digest == digest), None)


def _policies(file: CoalitionFile, body: Epoch) -> list[SignedRecord]:
    """The policies that an epoch names, in its order."""
    found = (_with_body(file, "policy", digest) for digest in body.policies)
    return [record for record in found if record is not None]


def policies_of(file: CoalitionFile, epoch: SignedRecord) -> dict[str, Policy]:
    """The policies of an epoch by their names, as far as the file holds them."""
    bodies: dict[str, Any] = {r.header.name: _body(r) for r in _policies(file, epoch_of(epoch))}
    return {name: body for name, body in bodies.items() if isinstance(body, Policy)}


def taxonomy_of(file: CoalitionFile, epoch: SignedRecord) -> Taxonomy | None:
    """The taxonomy of an epoch, if the file holds it."""
    record = _with_body(file, "taxonomy", epoch_of(epoch).taxonomy)
    body = _body(record) if record is not None else None
    return body if isinstance(body, Taxonomy) else None


def _body(record: SignedRecord) -> Any:
    try:
        return decode_body(record)
    except DecodeError as exc:
        kind, member = record.header.kind, record.header.member
        raise ConfigError(f"the {kind} {record.id.hex()[:16]} of {member} cannot be read: {exc}") from exc


def _classes(record: SignedRecord | None) -> list[Plain]:
    body = _body(record) if record is not None else None
    if not isinstance(body, Taxonomy):
        return []
    return [
        {"name": c.name, "weight": c.weight, "issuers": list(c.issuers), "within": c.within or ""}
        for c in body.classes
    ]


def _policy(record: SignedRecord) -> Plain:
    policy: Policy = _body(record)
    examined = examine(policy.rules)
    return {
        "name": record.header.name,
        "weight_min": policy.weight_min,
        "observers": list(policy.observers),
        "rules": [_rule(written) for written in examined.written],
        "problems": [str(problem) for problem in examined.problems],
        "assets": [_asset(rule) for rule in policy.assets],
        "purposes": [
            {"name": p.name, "columns": list(p.columns), "ways": list(p.ways)} for p in policy.purposes
        ],
        "text": policy.rules,
    }


def _rule(written: Written) -> Plain:
    rule, effects = written.rule, written.rule.effects
    return {
        "id": rule.id,
        "mode": "permit" if rule.effect == "permit" else effects.mode.value,
        "reason": effects.reason,
        "actions": list(rule.actions),
        "always": rule.unconditional,
        "needs": [_term(need) for need in effects.needs],
        "obliges": [_term(each) for each in effects.obliges],
        "text": written.statement.text.strip(),
    }


def _term(term: Need | Obligation) -> str:
    """What a rule asks for, in words; else its code and parameters."""
    parameters = term.parameters
    sentence = (need_sentence if isinstance(term, Need) else obligation_sentence)(term.code, parameters)
    listed = ", ".join(f"{name}={value}" for name, value in sorted(parameters.items()))
    return sentence or (f"{term.code}({listed})" if listed else term.code)


def _asset(rule: AssetRule) -> Plain:
    return {
        "pattern": rule.pattern,
        "data_class": rule.data_class,
        "rows_by": rule.rows_by,
        "columns": [{"name": c.name, "class": c.column_class} for c in rule.columns],
    }


# What a draft would change


def changes_of(file: CoalitionFile) -> list[Plain]:
    """What the draft of a file changes in the epoch before it; nothing where there is no draft, or no epoch before."""
    if file.draft is None or not file.epochs:
        return []
    return changes(governance_of(file, file.epochs[-1]), governance_of(file, file.draft))


def changes(before: Plain, after: Plain) -> list[Plain]:
    """What is different in two epochs: `what`, `name`, `change` (added, removed, changed), `before`, `after`.

    Rules are compared by their ids. Bodies have a fresh salt each time, so their digests say nothing here.
    """
    found: list[Plain] = []
    found += _compared("member", "member", before["members"], after["members"])
    for what in ("quorum", "publishers", "engines"):
        if before[what] != after[what]:
            found.append(_change(what, "", "changed", before[what], after[what]))
    found += _compared("class", "name", before["classes"], after["classes"])
    old = {policy["name"]: policy for policy in before["policies"]}
    new = {policy["name"]: policy for policy in after["policies"]}
    for name in old:
        if name not in new:
            found.append(_change("policy", name, "removed", old[name]["text"], ""))
    for name, policy in new.items():
        if name in old:
            found += _policy_changes(old[name], policy)
        else:
            found.append(_change("policy", name, "added", "", policy["text"]))
    return found


def _policy_changes(old: Plain, new: Plain) -> list[Plain]:
    name = new["name"]
    found = _compared("rule", "id", old["rules"], new["rules"], prefix=f"{name}/", text="text")
    if not found and old["text"] != new["text"]:
        found.append(
            _change("rules", name, "changed", old["text"], new["text"])
            | {"note": "other comments, spaces or order; each rule stays as it was"}
        )
    found += _compared("asset", "pattern", old["assets"], new["assets"], prefix=f"{name}/")
    order = [[rule["pattern"] for rule in policy["assets"]] for policy in (old, new)]
    if sorted(order[0]) == sorted(order[1]) and order[0] != order[1]:
        # The first rule whose pattern matches an asset holds for it.
        found.append(_change("order of assets", name, "changed", order[0], order[1]))
    found += _compared("purpose", "name", old["purposes"], new["purposes"], prefix=f"{name}/")
    for what in ("weight_min", "observers"):
        if old[what] != new[what]:
            found.append(_change(what, name, "changed", old[what], new[what]))
    return found


def _compared(
    what: str, by: str, old: Iterable[Plain], new: Iterable[Plain], *, prefix: str = "", text: str = ""
) -> list[Plain]:
    """Entries that one of two lists lacks, or that are not equal. `text` names the part that is compared, if one is."""
    olds, news = {each[by]: each for each in old}, {each[by]: each for each in new}

    def said(each: Plain) -> Any:
        return each[text] if text else {name: value for name, value in each.items() if name != by}

    found = [_change(what, prefix + key, "removed", said(olds[key]), "") for key in olds if key not in news]
    for key, each in news.items():
        if key not in olds:
            found.append(_change(what, prefix + key, "added", "", said(each)))
        elif said(olds[key]) != said(each):
            found.append(_change(what, prefix + key, "changed", said(olds[key]), said(each)))
    return found


def _change(what: str, name: str, change: str, before: Any, after: Any) -> Plain:
    return {"what": what, "name": name, "change": change, "before": before, "after": after}
