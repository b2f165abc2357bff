"""Cases of how things are spelled: encoding.md, names.md, record.md and signatures.md. As in written_cases.py."""

from __future__ import annotations

from typing import Any

from writer import (  # type: ignore[import-not-found]
    ABSENT,
    Change,
    damaged,
    doubled,
    filled,
    first,
    id_of,
    ids_of,
    more,
    reverse,
)

VERIFIED, MALFORMED, UNREADABLE = "verified", "malformed", "record_unreadable"
GROUP, OWN = "intent_1.body.classes.0", "body.judgements.0.outcome"
NOWHERE = bytes(32)
IDENTITY = {"suite": "ed25519", "value": bytes([1]) + bytes(31)}
SMALL_ORDER = {"suite": "ed25519", "value": bytes(32)}
HIGH_Y = {"suite": "ed25519", "value": b"\xf3" + b"\xff" * 30 + b"\x7f"}
TWO_TARGETS = {"targets": ids_of("made_2", "again")}


def spelled(raw: bytes) -> Change:
    """Puts other bytes in the place of the text `here`, which stands in the field `more`."""
    return lambda old, _: old.replace(b"\xa4here", raw)


ENCODING: dict[str, tuple[dict[str, Any], str]] = {
    "nothing changed": ({}, VERIFIED),
    "a header's unknown field": ({"vote_1a.header.more": 5}, VERIFIED),
    "a body's unknown field": ({"intent_1.body.more": {"x": [1, False, b""]}}, VERIFIED),
    "critical names what is known": ({"vote_1a.header.critical": ["kind"]}, VERIFIED),
    "critical names what is absent": ({"vote_1a.header.critical": ["more"]}, VERIFIED),
    "critical names itself": ({f"{GROUP}.critical": ["critical"]}, VERIFIED),
    "a header's critical field": (
        {"vote_1a.header.more": 5, "vote_1a.header.critical": ["more"]},
        MALFORMED,
    ),
    "a body's critical field": ({"ask_1.body.more": 5, "ask_1.body.critical": ["more"]}, UNREADABLE),
    "an inner form's critical field": ({f"{GROUP}.more": 5, f"{GROUP}.critical": ["more"]}, UNREADABLE),
    "critical is no array, beside an unknown field": (
        {f"{GROUP}.more": 5, f"{GROUP}.critical": "more"},
        UNREADABLE,
    ),
    "critical has no texts, beside an unknown field": (
        {f"{GROUP}.more": 5, f"{GROUP}.critical": [5]},
        UNREADABLE,
    ),
    "an unknown field is empty": ({"vote_1a.header.more": ""}, MALFORMED),
    "an unknown field is false": ({"ask_1.body.more": False}, UNREADABLE),
    "an optional field is empty": ({"vote_1a.header.number": 0}, MALFORMED),
    "an optional array is empty": ({"vote_1a.body.adverse": []}, UNREADABLE),
    "a required field is absent": ({"start_1.body.run": ABSENT}, UNREADABLE),
    "a required field may be empty": ({"intent_1.body.run.run": ""}, VERIFIED),
    "an integer for a boolean": ({f"{GROUP}.reversible": 1}, UNREADABLE),
    "a boolean for an integer": ({f"{GROUP}.items.0.generation": True}, UNREADABLE),
    "a text for bytes": ({"vote_1a.body.working": "w" * 32}, UNREADABLE),
    "bytes after the body": ({"intent_1.spelled": lambda old, _: old + b"\xc2"}, UNREADABLE),
    "a body that is no map": ({"intent_1.spelled": b"\x90"}, UNREADABLE),
    "a longest text": ({"intent_1.body.more": "x" * 65_536}, VERIFIED),
    "most items": ({"intent_1.body.more": [7] * 10_000}, VERIFIED),
}
for what, raw, code in (
    ("nil", b"\xc0", UNREADABLE),
    ("a float", b"\xca\x3f\x80\x00\x00", UNREADABLE),
    ("an extension", b"\xd4\x01\x01", UNREADABLE),
    ("a timestamp", b"\xd6\xff\x00\x00\x00\x01", UNREADABLE),
    ("a long spelling of 1", b"\xcc\x01", UNREADABLE),
    ("a signed spelling of 200", b"\xd1\x00\xc8", UNREADABLE),
    ("the greatest integer", b"\xcf\x7f" + b"\xff" * 7, VERIFIED),
    ("an integer beyond the greatest", b"\xcf\x80" + bytes(7), UNREADABLE),
    ("the least integer", b"\xd3\x80" + bytes(7), VERIFIED),
    ("-33 and -129", b"\x92\xd0\xdf\xd1\xff\x7f", VERIFIED),
    ("half of a surrogate pair", b"\xa3\xed\xa0\x80", UNREADABLE),
    ("a text in the spelling of a longer one", b"\xd9\x01a", UNREADABLE),
    ("one key twice", b"\x82\xa1a\x01\xa1a\x02", UNREADABLE),
    ("keys out of order", b"\x82\xa1b\x01\xa1a\x02", UNREADABLE),
    ("keys in the order of code points", b"\x82\xa3\xef\xbf\xae\x01\xa4\xf0\x9f\x98\x80\x02", VERIFIED),
    ("keys in the order of UTF-16", b"\x82\xa4\xf0\x9f\x98\x80\x02\xa3\xef\xbf\xae\x01", UNREADABLE),
    ("a key that is no text", b"\x81\x01\x01", UNREADABLE),
    ("a key of bytes", b"\x81\xc4\x01a\x01", UNREADABLE),
    ("the deepest value", b"\x91" * 15 + b"\x01", VERIFIED),
    ("a value that is too deep", b"\x91" * 16 + b"\x01", UNREADABLE),
    ("a value that would end a process", b"\x91" * 100_000 + b"\x01", UNREADABLE),
    ("an array without its items", b"\xdd\xff\xff\xff\xff", UNREADABLE),
    ("a text that is too long", b"\xdb\x00\x01\x00\x01" + b"x" * 65_537, UNREADABLE),
    ("an item too many", b"\xdc\x27\x11" + b"\x07" * 10_001, UNREADABLE),
):
    ENCODING[what] = ({"intent_1.body.more": "here", "intent_1.spelled": spelled(raw)}, code)

UNSHOWN = "\x00\x1b\x1f\x7f\x80\x9f\u061c\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069"
NAMES: dict[str, tuple[dict[str, Any], str]] = {}
X = "x" * 63
TERMS = dict.fromkeys("abcdefgh", 1)
GOOD_AND_BAD: tuple[tuple[str, list[Any], list[Any]], ...] = (
    (
        "credential_a.body.assets.0",
        [*["*", "*/x", "*/*", "a", "a.example/*", "a.example/**", "a/_x", "a/A.b-c/**"], "a/" + "x" * 128],
        [
            *["**", "/x", "a/", "a/.x", "a/x*", "a/**/x", "a/*/x", "A/x"],
            "",
            "a/x\n",
            "a/" + "x" * 129,
            "a." * 127 + "ab",
        ],
    ),
    (
        "intent_1.body.requester",
        ["spiffe://a/b", "spiffe://a-1.b/c_d.e-f/g", f"spiffe://{X}/b"],
        [
            *["spiffe://a", "spiffe:/a/b", "spiffe://a/B", "spiffe://a/b/", "spiffe://-a/b"],
            f"spiffe://{X}x/b",
        ],
    ),
    ("intent_1.body.purpose", ["a", "a_1", "x" + X], ["", "1a", "_a", "a-b", "A", "xx" + X]),
    ("credential_a.body.classes.0", ["a/b", "1", "a.b_c-d"], ["", "a//b", "/a", "a/", "-a", "A"]),
    ("intent_1.header.realm", ["preview/pr-17"], ["preview", "preview/", "preview/a/b", "Production"]),
    ("intent_1.body.expires", [0, 253_402_300_799], [-1, 253_402_300_800]),
    ("intent_1.body.attempts_max", [1, 100], [0, 101]),
    ("credential_a.body.delegations", [1, 8], [0, 9]),
    (
        f"{GROUP}.media_type",
        ["x" * 255, "\U0001f600" * 255, "a\u00a0\u200b\u200d\u2027\u202f\u2065\u206a"],
        ["x" * 256, *(f"a{c}b" for c in UNSHOWN), "a\n"],
    ),
    (f"{GROUP}.columns.2", ["x" * 255, "\u00e9"], ["", "x" * 256, "a\nb", "\u202e"]),
    ("vote_1a.header.name", ["a b"], ["a\x1b[2K", "\u2068a"]),
    ("intent_1.body.run.job", ["a/b"], ["a\x00"]),
    (
        f"vote_3a.{OWN}.extent.items",
        [[[0, 0], [2, 9_999]]],
        [[[0, 0], [1, 1]], [[1, 0]], [[0, 10_000]], [[2, 2], [0, 0]], [[0]]],
    ),
    (
        f"vote_3a.{OWN}.causes.0.parameters",
        [{"x": -1, "": "y"}, TERMS],
        [{"x": True}, {"x": "y" * 256}, {**TERMS, "i": 1}, {"x": "\x1b"}, {"\x1b": 1}, {"y" * 256: 1}],
    ),
)
for path, good, bad in GOOD_AND_BAD:
    for value in good:
        NAMES[f"{path} is {str(value)[:40]!r} ({len(str(value))})"] = ({path: value}, VERIFIED)
    for value in bad:
        code = MALFORMED if ".header." in path else UNREADABLE
        NAMES[f"{path} is not {str(value)[:40]!r} ({len(str(value))})"] = ({path: value}, code)

RECORDS: dict[str, tuple[dict[str, Any], str]] = {
    "another version of the header": ({"vote_1a.header.v": 2}, MALFORMED),
    "a version that is a boolean": ({"vote_1a.header.v": True}, MALFORMED),
    "an unknown kind": ({"vote_1a.header.kind": "ballot"}, MALFORMED),
    "an outcome of a kind that has none": ({"vote_1a.header.outcome": "promoted"}, MALFORMED),
    "no outcome of a kind that has some": ({"made_1.header.outcome": ABSENT}, MALFORMED),
    "an outcome of another kind": ({"made_1.header.outcome": "approved"}, MALFORMED),
    "no governance of an actuation": ({"made_1.header.governance": ABSENT}, MALFORMED),
    "governance of a start": (
        {
            "start_1.header.governance": {
                "tier": 0,
                "realm": "production",
                "owners": ["a"],
                "purpose": "p",
                "weight": 0,
            }
        },
        MALFORMED,
    ),
    "subjects that ascend": ({"vote_1a.header.subject": [bytes(32), b"\1" * 32]}, VERIFIED),
    "subjects that descend": ({"vote_1a.header.subject": [b"\1" * 32, bytes(32)]}, MALFORMED),
    "a subject twice": ({"vote_1a.header.subject": [bytes(32), bytes(32)]}, MALFORMED),
    "scopes that descend": ({"vote_1a.header.scopes": [b"\1" * 32, bytes(32)]}, MALFORMED),
    "most subjects": ({"vote_1a.header.subject": [bytes([n]) * 32 for n in range(64)]}, VERIFIED),
    "too many subjects": ({"vote_1a.header.subject": [bytes([n]) * 32 for n in range(65)]}, MALFORMED),
    "the largest header": ({"vote_1a.header": filled(8_192)}, VERIFIED),
    "a header that is too large": ({"vote_1a.header": filled(8_193)}, MALFORMED),
    "the largest body": ({"intent_1.body": filled(1 << 20)}, VERIFIED),
    "a body that is too large": ({"intent_1.body": filled((1 << 20) + 1)}, MALFORMED),
    "the largest vote": ({"vote_1a.body": filled(65_536)}, VERIFIED),
    "a vote that is too large": ({"vote_1a.body": filled(65_537)}, UNREADABLE),
    "no coalition": ({"vote_1a.header.coalition": ABSENT}, MALFORMED),
    "another coalition": ({"vote_1a.header.coalition": NOWHERE}, "record_foreign"),
    "another size of the body": ({"vote_1a.header.body.size": 9}, MALFORMED),
    "another digest of the body": ({"vote_1a.header.body.digest": NOWHERE}, MALFORMED),
    "an erased body": ({"vote_1a.carried": b""}, UNREADABLE),
    "an erased body of a kind that keeps it": ({"taxonomy.carried": b""}, MALFORMED),
    "a sealed body": ({"vote_1a.header.body.form": "sealed"}, UNREADABLE),
    "no signature": ({"made_1.signatures": []}, MALFORMED),
    "two signatures": ({"made_1.signers": ["a.node", "b.node"]}, "signatures_many"),
    "signatures that descend": (
        {"made_1.signers": ["a.node", "b.node"], "made_1.signatures": reverse},
        MALFORMED,
    ),
    "one signature twice": ({"made_1.signatures": doubled}, MALFORMED),
    "a signature of four": ({"made_1.signatures.0": more(b"")}, MALFORMED),
    "a signature of another": ({"made_1.signers": ["b.node"]}, "author_wrong"),
    "a damaged signature": ({"made_1.signatures.0.2": damaged}, "signature_wrong"),
    "a short signature": ({"made_1.signatures.0.2": first(63)}, "signature_wrong"),
    "a signature that is too large": ({"made_1.signatures.0.2": bytes(4_097)}, MALFORMED),
    "a signature of another suite": ({"made_1.signatures.0.1": "ed448"}, "signature_wrong"),
    "another payload type": ({"made_1.parts.0": "application/octet-stream"}, MALFORMED),
    "a record of three": ({"made_1.parts": first(3)}, MALFORMED),
    "a record of five": ({"made_1.parts": more(b"")}, MALFORMED),
    "a header in text": ({"made_1.parts.1": "header"}, MALFORMED),
    "a body in text": ({"made_1.parts.3": "body"}, MALFORMED),
    "a signature in text": ({"made_1.signatures.0": "key"}, MALFORMED),
    "a signature of no key": ({"made_1.signatures.0.0": b"key"}, MALFORMED),
    "a suite that is no text": ({"made_1.signatures.0.1": b"ed25519"}, MALFORMED),
    "the longest suite": ({"made_1.signatures.0.1": "x" * 32}, "signature_wrong"),
    "a suite that is too long": ({"made_1.signatures.0.1": "x" * 33}, MALFORMED),
    "a node's key without its authority": ({"made_1.header.authority": ABSENT}, "key_unknown"),
    "the authority of another": ({"made_1.header.authority": id_of("certificate_b")}, "key_unknown"),
    "an authority that is nowhere": ({"made_1.header.authority": NOWHERE}, "authority_missing"),
    "an authority that vouches for no key": (
        {"made_1.header.authority": id_of("intent_1")},
        "authority_missing",
    ),
    "an organization's key with an authority": (
        {"taxonomy.header.authority": id_of("certificate_b")},
        "key_unknown",
    ),
    "an organization that is nowhere": ({"taxonomy.signer": "e"}, "key_unknown"),
    "a former member's organization": ({"taxonomy.signer": "d"}, VERIFIED),
    "an organization signs for a node": ({"intent_1.signer": "a"}, "author_wrong"),
    "a subject signs for a node": ({"vote_3a.signer": "a.subject"}, "author_wrong"),
    "a node signs for an organization": ({"taxonomy.signer": "b.node"}, "author_wrong"),
    "a node issues a credential": ({"credential_a.signer": "a.node"}, VERIFIED),
    "another's node": ({"certificate_a.body.node": "spiffe://b.example/node/one"}, "author_wrong"),
    "another's subject": ({"credential_a.body.subject": "spiffe://b.example/x"}, "author_wrong"),
    "a domain that begins like the member": (
        {"credential_a.body.subject": "spiffe://a.example.b/x"},
        "author_wrong",
    ),
    "the identity for a key": ({"credential_a.body.key": IDENTITY}, "key_inadmissible"),
    "a key of small order": ({"credential_a.body.key": SMALL_ORDER}, "key_inadmissible"),
    "a key that is not canonical": ({"credential_a.body.key": HIGH_Y}, "key_inadmissible"),
    "a short key": ({"credential_a.body.key.value": first(31)}, "key_inadmissible"),
    "a key of an unknown suite": ({"credential_a.body.key.suite": "ed448"}, "key_inadmissible"),
    "a body of a kind without a form": (
        {"again.header.kind": "endorsement", **TWO_TARGETS},
        UNREADABLE,
    ),
    "a credential for a target": ({**TWO_TARGETS}, VERIFIED),
}
