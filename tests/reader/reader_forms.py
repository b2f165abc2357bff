"""How everything in a bundle is spelled: encoding.md, names.md, the tables of forms, and kinds.md.

The first half of the reader beside this file. It knows no key and looks at one value at a time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any, NoReturn

import msgpack

TYPE = "application/vnd.comity.record.v1+msgpack"
BUNDLE_RECORDS_MAX = 100_000
ITEMS_MAX, DEPTH_MAX, STRING_BYTES_MAX, NAME_BYTES_MAX = 10_000, 16, 65_536, 255
VALUES_MAX = 262_144
OWNER_RULES_BYTES_MAX = 8_192
EMPTY: tuple[Any, ...] = (False, 0, "", b"", [], {})


class Bad(Exception):  # noqa: N818  # what is bad is the bundle, not the program
    """The bundle does not verify: a code of causes.md or `malformed`, and the record where one is to blame."""

    def __init__(self, reason: str, record_id: bytes | None = None) -> None:
        super().__init__(reason, record_id)
        self.reason, self.record_id = reason, record_id

    def __str__(self) -> str:
        return self.reason + (f" in {self.record_id.hex()}" if self.record_id else "")


def malformed() -> NoReturn:
    raise Bad("malformed")


def spell(condition: object) -> None:
    if not condition:
        malformed()


# encoding.md ----------------------------------------------------------------------------------------------


def encode(value: Any, items_max: int = ITEMS_MAX, depth: int = DEPTH_MAX) -> bytes:
    """The one spelling of a value (sections 1 and 2); `malformed` where it is none."""
    kind = type(value)
    if kind is str:
        text: bytes = value.encode()
        spell(len(text) <= STRING_BYTES_MAX)
        return counted(len(text), 0xA0, 31, (0xD9, 0xDA, 0xDB)) + text
    if kind is bytes:
        return counted(len(value), 0, -1, (0xC4, 0xC5, 0xC6)) + bytes(value)
    if kind is int:
        return spelled_integer(value)
    if kind is bool:
        return b"\xc3" if value else b"\xc2"
    spell(depth > 0)
    if kind is list:
        spell(len(value) <= items_max)
        items = [encode(item, items_max, depth - 1) for item in value]
        return counted(len(value), 0x90, 15, (None, 0xDC, 0xDD)) + b"".join(items)
    spell(kind is dict and all(type(key) is str for key in value))
    # Code points and their UTF-8 have one order.
    pairs = [encode(key) + encode(value[key], items_max, depth - 1) for key in sorted(value)]
    return counted(len(value), 0x80, 15, (None, 0xDE, 0xDF)) + b"".join(pairs)


def spelled_integer(n: int) -> bytes:
    if -32 <= n <= 127:
        return bytes([n % 256])
    spell(-(2**63) <= n < 2**63)
    for power, size in enumerate((1, 2, 4, 8)):
        if n < 1 << (8 * size) if n >= 0 else n >= -(1 << (8 * size - 1)):
            return bytes([(0xCC if n >= 0 else 0xD0) + power]) + n.to_bytes(size, "big", signed=n < 0)
    malformed()


def counted(n: int, short: int, short_max: int, codes: tuple[int | None, int, int]) -> bytes:
    if n <= short_max:
        return bytes([short + n])
    for code, size in zip(codes, (1, 2, 4), strict=True):
        if code is not None and n < 1 << (8 * size):
            return bytes([code]) + n.to_bytes(size, "big")
    malformed()


def decode(data: bytes, items_max: int = ITEMS_MAX) -> Any:
    try:
        value = msgpack.unpackb(data, max_array_len=items_max, max_map_len=items_max)
        canonical = encode(value, items_max)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise Bad("malformed") from error
    spell(canonical == data and counted_values(value) <= VALUES_MAX)
    return value


def counted_values(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(1 + counted_values(item) for item in value.values())
    return 1 + sum(map(counted_values, value)) if isinstance(value, list) else 1


# names.md, and the tables of forms ---------------------------------------------------------------------------

LD, PC = "[a-z0-9]", "[A-Za-z0-9_]"
LABEL = f"{LD}(?:[a-z0-9-]{{0,61}}{LD})?"
SEGMENT = f"{LD}(?:[a-z0-9._-]{{0,126}}{LD})?"
PART = f"{PC}(?:[A-Za-z0-9_.-]{{0,126}}{PC})?"
MEMBER = rf"{LABEL}(?:\.{LABEL})*"
GRAMMARS = {
    "member": MEMBER,
    "spiffe": f"spiffe://{MEMBER}(?:/{SEGMENT})+",
    "asset": f"{MEMBER}(?:/{PART})+",
    "pattern": rf"(?:\*|{MEMBER})(?:/{PART})*(?:/\*\*?)?",
    "code": "[a-z][a-z0-9_]{0,63}",
    "class": f"{SEGMENT}(?:/{SEGMENT})*",
    "realm": f"production|preview/{SEGMENT}",
    "suite": "[a-z0-9][a-z0-9+-]{0,31}",
}
INTEGERS = {
    "integer": (-(2**63), 2**63 - 1),
    "natural": (0, 2**63 - 1),
    "ppm": (0, 1_000_000),
    "time": (0, 253_402_300_799),
    "tier": (0, 3),
}
UNSHOWN = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]"
)
STRINGS = {
    "short": (0, 255),
    "column": (1, 255),
    "text": (0, STRING_BYTES_MAX),
    "rules": (0, OWNER_RULES_BYTES_MAX),
}
# Name, `?` where the field is not required, type; `[a-b]` is an array of a to b, of `id` one that ascends. `=` stands
# before literals.
FORM_TABLES = """
    Header: v:1-1 kind:code member:member key:digest at:time realm:realm body:BodyReference
        authority?:digest coalition?:digest scopes?:digest[0-16] name?:short number?:natural
        subject?:digest[0-64] outcome?:code governance?:GovernanceState critical?:short[0-16]
    BodyReference: form:=clear|sealed digest:digest size:0-1048576
    Bundle: v:1-1 coalition:digest targets:digest[1-1024] epochs:bytes{0-1318912}[1-4096]
        records:bytes{0-1318912}[0-100000]
    GovernanceState: tier:tier realm:realm owners:member[1-32] purpose:code weight:ppm
        data_classes?:class[0-32] authority_classes?:class[0-32] restrictions?:Term[0-32]
    Extent: items?:ranges columns?:ranges
    Term: code:code parameters?:map{0-8}
    Cause: code:code rule?:short parameters?:map{0-8}
    Outcome: mode:=refuse|defer|restrict|execute extent:Extent obligations?:Term[0-10000]
        needs?:Term[0-10000] causes?:Cause[0-10000]
    Epoch: coalition_name:short started:time certificate:=ballot|unanimous members:Member[1-13]
        suites:suite[1-8] engines:digest[1-2] vectors:digest taxonomy:digest policies:digest[1-16]
        previous?:digest quorum?:natural council?:member[0-13] parents?:digest[0-16]
        publishers?:member[0-13] witnesses?:PublicKey[0-64] state_root?:digest founded_from?:digest
    Member: id:member keys:PublicKey[1-8] namespaces:member[1-64]
    PublicKey: suite:suite value:bytes{1-4096}
    NodeCertificate: node:spiffe key:PublicKey transport_key:digest not_before:time not_after:time
    Taxonomy: classes:AuthorityClass[1-256]
    AuthorityClass: name:class weight:ppm issuers?:member[0-13] within?:class
    Policy: language:=cedar-4 rules:text assets?:AssetRule[0-1024] purposes?:Purpose[0-256]
        observers?:member[0-13] weight_min?:ppm
    AssetRule: pattern:pattern data_class:class columns?:ColumnClass[0-1024] rows_by?:short
    ColumnClass: name:column column_class:code
    Purpose: name:code columns?:column[0-1024] ways?:code[0-8]
    OwnerPolicy: consents:Consent[0-64] rules?:rules
    Consent: data_class:short mode:=live|standing until?:time
    Credential: subject:spiffe subject_kind:=agent|automation|person key:PublicKey classes:class[1-32]
        actions:=approve|materialize|observe[1-8] assets:pattern[1-64] realms:realm[1-16] not_before:time
        not_after:time purposes?:code[0-64] delegations?:0-8 previous?:digest
    Revocation: reason:code compromised_since?:time
    ReferenceValues: distributions?:digest[0-256] code?:digest[0-1024] not_after?:time
    Proposal: previous:digest ballot:natural epoch:digest prepared?:digest[0-13]
    Prepare: previous:digest ballot:natural epoch:digest
    Commit: previous:digest ballot:natural epoch:digest
    Address: addresses:short[1-16] not_after:time
    Suspension: reason:code until:time
    Acknowledgement:
    Comment: code:code parameters?:map{0-16}
    Endorsement: type:=nitro|snp|snp_vtpm|tdx|tpm2 media_type:short blob:bytes{1-262144} not_before:time
        not_after:time
    Appraisal: attestation:digest tier:tier claims?:claims{0-16} fresh?:bool endorsements?:digest[0-16]
    Challenge: nonce:digest
    ShareRelease: intent:digest permit:digest version:digest context_key:bytes{1-4096} index:0-13 commitment:digest
        sealed:bytes{1-4096}
    Checkpoint: log:=execution|governance origin:short size:natural root:digest signature:bytes{64-4096}
    Cosignature: checkpoint:digest signature:bytes{64-4096}
    Misbehaviour: rule:code records:bytes{0-1318912}[2-2]
    Erased: ground:code
    Intent: requester:spiffe credential:digest purpose:code code:CodeReference run:RunReference
        classes:ItemClass[1-32] expires:time attempts_max:1-100
    ItemClass: asset:asset items:Item[1-10000] columns?:column[0-1024] inputs?:digest[0-64]
        media_type?:short reversible?:boolean
    Item: generation:natural partition?:short previous?:digest inputs?:digest[0-64]
    CodeReference: digest:digest location?:short revision?:short authors?:spiffe[0-16]
        reviewers?:spiffe[0-16]
    RunReference: orchestrator:short run:short step?:short job?:short
    LaunchTicket: run:short job:short assets:pattern[1-256] not_before:time not_after:time
        partitions?:short[0-10000] purpose?:short
    Observation: claim:code shown?:digest not_after?:time weight?:ppm parameters?:map{0-16}
    Attestation: type:=nitro|snp|snp_vtpm|software|tdx|tpm2 intent:digest context:ContextMeasurement
        binding:digest context_key?:bytes{0-4096} challenges?:digest[0-13] blob?:bytes{0-65536}
        endorsements?:digest[0-16]
    ContextMeasurement: python:short platform:short distributions:digest distributions_count:natural
        code:digest code_files:natural image?:digest
    Ask: intent:digest t:time epochs:ScopeEpoch[1-16] relied:id[0-256]
    ScopeEpoch: scope:digest epoch:digest
    Vote: intent:digest ask:digest t:time scope:digest epoch:digest engine:digest expires:time
        judgements:ClassJudgement[1-32] working:digest adverse?:id[0-32]
    ClassJudgement: outcome:Outcome weight:ppm state:GovernanceState live?:member[0-32]
    Permit: intent:digest ask:digest t:time scope:digest epoch:digest claims:Claim[1-32]
        votes:id[1-13] expires:time
    Claim: index:0-31 mode:=refuse|defer|restrict|execute extent:Extent state:GovernanceState
        obligations?:Term[0-10000] live?:member[0-32]
    Refusal: intent:digest ask:digest t:time scope:digest epoch:digest votes:id[1-13]
    Start: intent:digest permit:digest asset:asset attempt:1-100 run:RunReference partition?:short
    Actuation: intent:digest permit:digest start:digest asset:asset generation:natural attempt:1-100
        content:Content metering:Metering inputs?:digest[0-256] partition?:short previous?:digest
        attestation?:digest transitions?:digest[0-64]
    Content: digest:digest size:natural media_type:short rows?:natural columns?:column[0-1024]
    Metering: authority:digest rows?:natural bytes?:natural duration_ms?:natural
    Verification: checks?:Cause[0-64]
    Transition: type:=release|trust asset:pattern not_before:time not_after:time purpose?:short
        tier_to?:tier
"""
FORMS = dict(re.findall(r"^    (\w+):((?: .+)?\n(?: {8}.+\n)*)", FORM_TABLES, re.MULTILINE))
# kinds.md: kind, the role that signs, whether its body may be erased, form, outcomes.
KINDS = {
    kind: (signer, erasable == "erasable", form, tuple(outcomes))
    for kind, signer, erasable, form, *outcomes in (
        line.split()
        for line in """
    epoch members kept Epoch
    proposal organization kept Proposal
    prepare organization kept Prepare
    commit organization kept Commit
    node_certificate organization kept NodeCertificate
    address node kept Address
    taxonomy organization kept Taxonomy
    policy organization kept Policy
    owner_policy organization kept OwnerPolicy
    credential any kept Credential
    revocation any kept Revocation
    suspension any kept Suspension
    acknowledgement node kept Acknowledgement
    comment any kept Comment
    reference_values organization kept ReferenceValues
    endorsement any kept Endorsement
    intent node erasable Intent
    observation any erasable Observation approved disputed failed observed passed withdrawn
    launch_ticket subject erasable LaunchTicket
    attestation node erasable Attestation
    appraisal node erasable Appraisal affirming contraindicated none warning
    challenge node erasable Challenge
    ask node erasable Ask
    vote node erasable Vote
    permit node erasable Permit
    refusal node erasable Refusal
    start node erasable Start
    actuation node erasable Actuation promoted quarantined rolled_back staged
    verification any erasable Verification failed passed
    transition organization kept Transition
    share_release node erasable ShareRelease
    checkpoint node kept Checkpoint
    cosignature node kept Cosignature
    misbehaviour node kept Misbehaviour
    erased organization kept Erased""".strip().splitlines()
    )
}
BODIES = {form for _, _, form, _ in KINDS.values()}


@cache
def sized(kind: str) -> tuple[str, int, int]:
    """`short[0-16]`, `bytes{1-9}` and `0-8` in their parts; the first is `[short`, `{bytes` or empty."""
    parts = re.fullmatch(r"(.*?)([\[{]?)(\d+)-(\d+)[\]}]?", kind)
    assert parts is not None, kind
    return parts[2] + parts[1], int(parts[3]), int(parts[4])


def fits(kind: str, value: Any) -> bool:
    """Whether a value is of a type of the tables, written as above."""
    if kind in {"digest", "id"}:
        return type(value) is bytes and len(value) == 32
    if kind in GRAMMARS:
        named = type(value) is str and re.fullmatch(GRAMMARS[kind], value) is not None
        return named and len(value) <= NAME_BYTES_MAX
    if kind in INTEGERS:
        return type(value) is int and INTEGERS[kind][0] <= value <= INTEGERS[kind][1]
    if kind in STRINGS:
        return type(value) is str and is_text(kind, value)
    if kind in FORMS:
        return is_form(kind, value)
    if kind == "boolean":
        return type(value) is bool
    if kind == "ranges":
        return is_ranges(value)
    if kind[0] == "=" and kind[-1] != "]":
        return type(value) is str and value in kind[1:].split("|")
    what, least, most = sized(kind)
    if what == "":
        return type(value) is int and least <= value <= most
    if what == "{bytes":
        return type(value) is bytes and least <= len(value) <= most
    if what in {"{map", "{claims"}:
        bounded = type(value) is dict and least <= len(value) <= most
        entry = claim if what == "{claims" else named_parameter
        return bounded and all(entry(key, value[key]) for key in value)
    if type(value) is not list or not least <= len(value) <= most:
        return False
    return all(fits(what[1:], v) for v in value) and (
        what[1:] != "id" or all(a < b for a, b in pairwise(value))
    )


def is_text(kind: str, value: str) -> bool:
    if kind == "rules":
        return len(value.encode()) <= OWNER_RULES_BYTES_MAX
    bounded = STRINGS[kind][0] <= len(value) <= STRINGS[kind][1]
    return bounded and (kind == "text" or UNSHOWN.search(value) is None)


def named_parameter(name: Any, value: Any) -> bool:
    return fits("short", name) and (fits("integer", value) or fits("short", value))


def claim(name: Any, value: Any) -> bool:
    return fits("code", name) and type(value) is int and -128 <= value <= 127


def is_ranges(value: Any) -> bool:
    """outcome.md section 2: ascending, not touching, each from first to last."""
    if type(value) is not list or len(value) > 512 or not all(fits("0-9999[2-2]", pair) for pair in value):
        return False
    return all(a <= b for a, b in value) and all(b + 2 <= c for (_, b), (c, _) in pairwise(value))


@cache
def fields(form: str) -> list[tuple[str, bool, str]]:
    """Name, whether it may be absent, and type of the fields of a form."""
    table = FORMS[form] + (" salt:digest critical?:short[0-10000]" if form in BODIES else "")
    entries = (entry.split(":", 1) for entry in table.split())
    return [(name.removesuffix("?"), name.endswith("?"), kind) for name, kind in entries]


def is_form(name: str, value: Any) -> bool:
    """encoding.md sections 3 and 4."""
    if type(value) is not dict:
        return False
    known = {"critical"} if name != "Bundle" else set()
    for plain, optional, kind in fields(name):
        known.add(plain)
        if plain not in value:
            if not optional:
                return False
        elif (optional and value[plain] in EMPTY) or not fits(kind, value[plain]):
            return False
    unknown = value.keys() - known
    critical = value.get("critical", [])
    if unknown and not fits("text[0-10000]", critical):
        return False
    return not unknown or (
        name != "Bundle" and not unknown & set(critical) and all(value[key] not in EMPTY for key in unknown)
    )


def known(kind: str, value: Any) -> Any:
    """A value of the type without the fields that its tables do not list: what is compared (section 4)."""
    if kind in FORMS:
        return {name: known(inner, value[name]) for name, _, inner in fields(kind) if name in value}
    if kind[-1] == "]":
        return [known(sized(kind)[0][1:], item) for item in value]
    return value


# signatures.md section 1, bundle.md section 2 ------------------------------------------------------------

DEPENDENCIES = {
    "ask": ("intent", "relied"),
    "vote": ("intent", "ask", "adverse"),
    "permit": ("intent", "ask", "votes"),
    "refusal": ("intent", "ask", "votes"),
    "start": ("intent", "permit"),
    "actuation": ("intent", "permit", "start", "inputs", "transitions", "attestation"),
    "attestation": ("endorsements",),
    "appraisal": ("attestation", "endorsements"),
    "share_release": ("intent", "permit", "version"),
    "cosignature": ("checkpoint",),
}


def key_id(key: dict[str, Any]) -> bytes:
    suite = key["suite"].encode()
    return hashlib.sha256(b"comity key v1\0" + suite + b"\0" + key["value"]).digest()


def named_in(header: dict[str, Any], body: dict[str, Any]) -> Iterator[bytes]:
    if "authority" in header:
        yield header["authority"]
    for name in DEPENDENCIES.get(header["kind"], ()):
        value = body.get(name, [])
        yield from value if isinstance(value, list) else [value]
