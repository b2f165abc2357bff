"""Why something is as it is: from a run, an asset or any id to the intents behind it, each with what was decided.

Functions of the core, run in its thread. What is found are the views that `intent` and `decision` show, beside what
began and what was made; words for people are the command's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from comity.node import views
from comity.node.ancestry import ID_DIGITS_MIN, ids_from
from comity.node.core import Core
from comity.node.drafts import asset_id
from comity.node.heads import standing_heads
from comity.node.problems import Refused
from comity.node.standings import newest_decision
from comity.node.store import Head
from comity.protocol.errors import DecodeError
from comity.protocol.execution import Actuation, Intent, Start
from comity.protocol.identifiers import DIGEST_BYTES
from comity.protocol.records import decode_body
from comity.protocol.verified import VerifiedRecord

AnyRecord: TypeAlias = VerifiedRecord[Any]
Json: TypeAlias = Any

LOOKED_THROUGH_MAX: Final = 500
"""Intents that are looked through for a run or an asset, the newest: a fraction of a second of the worker's thread."""
INTENTS_MAX: Final = 50
"""Intents that one answer says in full, the newest: the steps of a large run. More are counted."""
OF_ASSET_MAX: Final = 3
"""Of an asset: the newest intents beside that of its newest actuation."""
WORK_MAX: Final = 32
"""Starts and actuations under one permit that an answer names."""
NEAR_MAX: Final = 3
"""Names that are offered where nothing is found."""
NAME_BYTES_MAX: Final = 1_024
"""A name that is asked for: an asset with its partition."""
_HEX: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks about.

    Attributes:
        kind: `run`, `asset`, or the kind of the record that was named.
        name: the run, the whole asset id, or the record's id.
        partition: of an asset; None where none was named.
        intents: the intents behind it, the newest first.
        head: the newest actuation that is known of an asset.
    """

    kind: str
    name: str
    intents: tuple[AnyRecord, ...]
    partition: str | None = None
    head: Head | None = None


def why(core: Core, name: str) -> Json:
    """Everything that says why a run, an asset, an intent or what came of it is as it is.

    Args:
        name: a run or the beginning of it; an asset, an own one without its member, perhaps with `@PARTITION`; or
            the id of an intent, a decision, a vote, an ask, a start or an actuation, or the beginning of it.

    Raises:
        Refused: `not_found`, with the nearest names; `partition_missing`; `form_invalid`.
    """
    if not name or len(name.encode(errors="surrogatepass")) > NAME_BYTES_MAX:
        raise Refused("form_invalid", f"a name has 1 to {NAME_BYTES_MAX} bytes", 422)
    newest = _newest_intents(core)
    asked = _by_id(core, name) or _by_run(core, name, newest) or _by_asset(core, name, newest)
    if asked is None:
        raise _not_found(core, name, newest)
    shown = asked.intents[:INTENTS_MAX]
    return {
        "what": asked.kind,
        "name": asked.name,
        "partition": asked.partition,
        "actuation": asked.head.actuation.hex() if asked.head is not None else "",
        "generation": asked.head.generation if asked.head is not None else 0,
        "governed": _is_governed(core, asked.name) if asked.kind == "asset" else None,
        "intents": [_told(core, record) for record in shown],
        "intents_more": len(asked.intents) - len(shown),
        "member": core.identity.member,
        "now": core.clock.now(),
    }


# What is meant


@dataclass(frozen=True, slots=True)
class _Read:
    """An intent of the store, read and not verified: by it is chosen what is looked at."""

    id: bytes
    body: Intent


def _newest_intents(core: Core) -> list[_Read]:
    found: list[_Read] = []
    for record in core.store.of_kind("intent", coalition=core.coalition, limit=LOOKED_THROUGH_MAX):
        try:
            body: Any = decode_body(record)
        except DecodeError:
            # Its body was erased, or never came.
            continue
        if isinstance(body, Intent):
            found.append(_Read(record.id, body))
    return found


def _verified(core: Core, ids: Iterable[bytes]) -> tuple[AnyRecord, ...]:
    """The intents of these ids, the newest first."""
    records = [record for each in ids if (record := core.holdings.get(each)) is not None]
    return tuple(sorted(records, key=lambda record: (record.header.at, record.id), reverse=True))


def _by_id(core: Core, name: str) -> Asked | None:
    """The record whose id a text begins, where it is one that an intent is behind."""
    if not ID_DIGITS_MIN <= len(name) <= 2 * DIGEST_BYTES or not _HEX.issuperset(name):
        return None
    found = ids_from(core, name)
    if len(found) > 1:
        kinds = ", ".join(sorted({each["kind"].replace("_", " ") for each in found}))
        raise Refused("not_found", f"several ids begin with {name}, of {kinds}", 404, "give more digits")
    if not found:
        return None
    record_id, kind = str(found[0]["id"]), str(found[0]["kind"])
    record = core.holdings.get(bytes.fromhex(record_id))
    intent = record if kind == "intent" else _intent_of(core, record)
    if intent is None or not isinstance(intent.body, Intent):
        raise Refused(
            "not_found",
            f"{record_id[:16]} is of kind {kind.replace('_', ' ')}, and no intent is behind it",
            404,
            f"comity record show {record_id[:16]} says what it is",
        )
    return Asked(kind, record_id, (intent,))


def _intent_of(core: Core, record: AnyRecord | None) -> AnyRecord | None:
    """The intent that a record is about: by its body, or as its first subject, as of an approval."""
    if record is None:
        return None
    named: Any = getattr(record.body, "intent", None)
    candidates = [named] if isinstance(named, bytes) else list(record.header.subject)
    return next((core.holdings.get(each) for each in candidates if core.store.holds([each])), None)


def _by_run(core: Core, name: str, newest: list[_Read]) -> Asked | None:
    """The intents of a run: what asked for them says so itself, in the intent (`RunReference`)."""
    own = [row.intent for row in core.store.intents(run=name)]
    intents = {*own, *(each.id for each in newest if each.body.run.run == name)}
    if intents:
        return Asked("run", name, _verified(core, intents))
    if len(name) < ID_DIGITS_MIN:
        return None
    runs = sorted({each.body.run.run for each in newest if each.body.run.run.startswith(name)})
    if len(runs) > 1:
        listed = ", ".join(runs[:NEAR_MAX]) + (", ..." if len(runs) > NEAR_MAX else "")
        raise Refused("not_found", f"several runs begin with {name}: {listed}", 404, "give more of its id")
    return _by_run(core, runs[0], newest) if runs else None


def _by_asset(core: Core, name: str, newest: list[_Read]) -> Asked | None:
    """An asset, with the newest intents that would make it and the one that made what is there."""
    text, at, key = name.partition("@")
    asset, partition = asset_id(core, text), key if at else None
    heads = standing_heads(core.store, core.holdings, asset)
    asking = [each.id for each in newest if _makes(each.body, asset, partition)]
    if not heads and not asking and not _is_governed(core, asset):
        return None
    chosen = [head for head in heads if partition in (None, head.partition)]
    if partition is None and len(chosen) > 1:
        listed = ", ".join(repr(head.partition) for head in chosen[:NEAR_MAX])
        more = ", ..." if len(chosen) > NEAR_MAX else ""
        raise Refused(
            "partition_missing",
            f"{asset} has {len(chosen)} partitions here: {listed}{more}",
            409,
            f"name the one that is meant: {text}@{chosen[0].partition}",
        )
    head = chosen[0] if chosen else None
    made = core.holdings.get(head.actuation) if head is not None else None
    behind = [made.body.intent] if made is not None else []
    intents = {*asking[:OF_ASSET_MAX], *behind}
    return Asked("asset", asset, _verified(core, intents), partition, head)


def _makes(intent: Intent, asset: str, partition: str | None) -> bool:
    return any(
        group.asset == asset
        and (partition is None or any(item.partition == partition for item in group.items))
        for group in intent.classes
    )


def _is_governed(core: Core, asset: str) -> bool:
    governance = core.holdings.governance()
    return governance is not None and governance.governs(asset)


def _not_found(core: Core, name: str, newest: list[_Read]) -> Refused:
    """What was probably meant: runs and assets that are known here and are called almost so."""
    assets = {group.asset for each in newest for group in each.body.classes}
    for member in core.holdings.epoch.members.values():
        for domain in member.namespaces:
            found = core.store.heads_below(domain, core.coalition, limit=LOOKED_THROUGH_MAX)
            assets |= {head.asset for head in found}
    own = f"{core.identity.member}/"
    names = {each.removeprefix(own) for each in assets} | assets | set(views.published_names(core))
    names |= {each.body.run.run for each in newest}
    near = difflib.get_close_matches(name.partition("@")[0], sorted(names), n=NEAR_MAX)
    hint = f"nearest is {', '.join(near)}" if near else "comity intent list shows what was asked for"
    return Refused(
        "not_found", f"no run, asset or id {name!r:.120} is known here, and no policy speaks of it", 404, hint
    )


# What is said of each intent


def _told(core: Core, record: AnyRecord) -> Json:
    """One intent with the decision on it, and what began and was made under that."""
    decided = newest_decision(core, record)
    permitted = decided is not None and decided.header.kind == "permit"
    return {
        "intent": _without_bytes(views.intent(core, record.id)),
        "decision": _decision(core, decided) if decided is not None else None,
        "work": _work(core, decided) if decided is not None and permitted else [],
    }


def _decision(core: Core, decided: AnyRecord) -> Json:
    """A decision, with the quorum of its own epoch; 0 where that is not known here."""
    epoch = core.holdings.epochs.get(decided.body.epoch)
    quorum = epoch.quorum if epoch is not None else 0
    return _without_bytes(views.decision(core, decided.id)) | {"quorum": quorum}


def _without_bytes(view: Json) -> Json:
    """A view without its signed record, which a verifier needs: `comity record show` has it."""
    return {name: value for name, value in view.items() if name != "record"}


def _work(core: Core, permit: AnyRecord) -> list[Json]:
    """What began under a permit, and what was made, in that order; the newest of it."""
    rows: list[Json] = []
    for record in core.holdings.about(permit.id):
        body = record.body
        if isinstance(body, Start | Actuation) and record.member == permit.member:
            rows.append(
                {
                    "record": record.id.hex(),
                    "kind": record.header.kind,
                    "state": record.header.outcome,
                    "at": record.header.at,
                    "asset": body.asset,
                    "partition": body.partition,
                    "attempt": body.attempt,
                }
            )
    # What began and what was made may be of one second.
    rows.sort(key=lambda row: (row["at"], row["kind"] != "start", row["record"]))
    return rows[-WORK_MAX:]
