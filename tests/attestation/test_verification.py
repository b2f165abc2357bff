"""From signed to verified: who may sign what, and who answers for whom."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import msgspec
import pytest

from comity.attestation.authoring import NO_SALT, Author
from comity.attestation.signing import add_signature, sign_record
from comity.attestation.verification import KeyDirectory, verify, verify_epoch
from comity.protocol.encoding import encode
from comity.protocol.envelope import SignedRecord, assemble, seal_header
from comity.protocol.errors import DecodeError, VerificationError
from comity.protocol.governance import Credential, Epoch, OwnerPolicy, PublicKey
from comity.protocol.identifiers import sha256
from comity.protocol.kinds import KINDS
from comity.protocol.limits import INT_MAX
from comity.protocol.records import BODIES, decode_body
from specimens import NORTH, RULES, SALT, SOUTH, T0, YEAR, Pen, certificate, key, specimens

ROOT = Path(__file__).parents[2]
RECORDS = specimens()
GENESIS = RECORDS["epoch"]
OWNER = Pen(NORTH, NORTH, None, GENESIS.id)
CERTIFICATE = RECORDS["node_certificate"]
NODE = Pen(NORTH, f"{NORTH}/node/n1", CERTIFICATE.id, GENESIS.id)
PERSON = Pen(NORTH, f"{NORTH}/operator/7f3a", RECORDS["credential"].id, GENESIS.id)
ROLES = {"organization": OWNER, "node": NODE, "subject": PERSON}


def members_of(genesis: SignedRecord) -> KeyDirectory:
    """A directory that knows the organizations' own keys and no others."""
    directory = KeyDirectory()
    body = decode_body(genesis)
    assert isinstance(body, Epoch)
    directory.admit_members(body.members)
    return directory


def full_directory() -> KeyDirectory:
    directory = members_of(GENESIS)
    for record in (CERTIFICATE, certificate(SOUTH, GENESIS.id), RECORDS["credential"]):
        directory.admit(verify(record, directory))
    return directory


def refused(record: SignedRecord, reason: str, directory: KeyDirectory | None = None) -> None:
    with pytest.raises(VerificationError) as caught:
        verify(record, directory or full_directory())
    assert caught.value.reason == reason
    assert caught.value.record == record.id


def by(pen: Pen, kind: str, **header: Any) -> SignedRecord:
    """A record of a kind with the specimen's body, by another author."""
    original = RECORDS[kind]
    assert original.body_bytes is not None
    fields: dict[str, Any] = {
        name: getattr(original.header, name)
        for name in ("outcome", "subject", "governance", "name", "number")
    }
    return pen.write(kind, decode_body(original), **{**fields, **header})


# Genuine


@pytest.mark.parametrize("kind", sorted(set(RECORDS) - {"epoch"}))
def test_every_specimen_verifies(kind: str) -> None:
    verified = verify(RECORDS[kind], full_directory())
    assert verified.id == RECORDS[kind].id
    assert verified.member == RECORDS[kind].header.member
    assert type(verified.body) is BODIES[kind]
    assert verified.root_key == key(verified.member).key_id
    assert verified.is_adverse() == (kind in ("revocation", "suspension", "misbehaviour"))


# Who signs what


@pytest.mark.parametrize("kind", sorted(set(RECORDS) - {"epoch"}))
@pytest.mark.parametrize("role", ROLES)
def test_a_key_of_the_wrong_role_signs_nothing(kind: str, role: str) -> None:
    signer = KINDS[kind].signer
    record = by(ROLES[role], kind)
    if signer in ("any", role):
        assert verify(record, full_directory()).role == role
    else:
        refused(record, "author_wrong")


def test_an_epoch_is_verified_by_its_chain_and_not_here() -> None:
    alone = assemble(GENESIS.header_bytes, GENESIS.body_bytes, GENESIS.signatures[:1])
    with pytest.raises(VerificationError):
        verify(alone, full_directory())
    refused(GENESIS, "signatures_many")


def test_one_signature_is_due() -> None:
    refused(add_signature(RECORDS["vote"], key(SOUTH)), "signatures_many")


def test_the_signature_is_the_authors() -> None:
    vote = RECORDS["vote"]
    other = add_signature(vote, key(NORTH)).signatures
    foreign = tuple(s for s in other if s.key == key(NORTH).key_id)
    refused(assemble(vote.header_bytes, vote.body_bytes, foreign), "author_wrong")


@pytest.mark.parametrize("part", ["value", "suite", "header"])
def test_a_signature_over_something_else_is_refused(part: str) -> None:
    vote = RECORDS["vote"]
    signature = vote.signatures[0]
    header_bytes = vote.header_bytes
    if part == "value":
        signature = type(signature)(
            signature.key, signature.suite, bytes([signature.value[0] ^ 1]) + signature.value[1:]
        )
    elif part == "suite":
        signature = type(signature)(signature.key, "ed25519ph", signature.value)
    else:
        header_bytes = seal_header(msgspec.structs.replace(vote.header, at=vote.header.at + 1))
    refused(assemble(header_bytes, vote.body_bytes, (signature,)), "signature_wrong")


def test_a_signature_over_the_bare_header_is_none() -> None:
    """What is signed names the payload type, so that nothing signed elsewhere can pass for a record."""
    vote = RECORDS["vote"]
    bare = type(vote.signatures[0])(
        vote.header.key, "ed25519", key(f"{NORTH}/node/n1").sign(vote.header_bytes)
    )
    refused(assemble(vote.header_bytes, vote.body_bytes, (bare,)), "signature_wrong")


# Who answers for whom


def test_a_key_that_nobody_vouched_for_is_unknown() -> None:
    refused(RECORDS["vote"], "key_unknown", members_of(GENESIS))
    stranger = Pen(NORTH, "stranger", None, GENESIS.id)
    refused(by(stranger, "policy"), "key_unknown")


def test_a_member_does_not_speak_for_another() -> None:
    """South's key under North's name, with and without South's own certificate as authority."""
    south_node = certificate(SOUTH, GENESIS.id)
    refused(by(Pen(NORTH, SOUTH, None, GENESIS.id), "policy"), "key_unknown")
    refused(by(Pen(NORTH, f"{SOUTH}/node/n1", south_node.id, GENESIS.id), "vote"), "key_unknown")
    refused(by(Pen(SOUTH, f"{NORTH}/node/n1", CERTIFICATE.id, GENESIS.id), "vote"), "key_unknown")


def test_an_authority_vouches_for_its_own_key_only() -> None:
    refused(
        by(Pen(NORTH, f"{NORTH}/operator/7f3a", CERTIFICATE.id, GENESIS.id), "launch_ticket"), "key_unknown"
    )
    refused(by(Pen(NORTH, NORTH, CERTIFICATE.id, GENESIS.id), "policy"), "key_unknown")
    refused(by(Pen(NORTH, f"{NORTH}/node/n1", None, GENESIS.id), "vote"), "key_unknown")


def test_a_record_that_vouches_for_nothing_is_no_authority() -> None:
    directory = full_directory()
    policy = verify(RECORDS["policy"], directory)
    directory.admit(policy)
    refused(by(Pen(NORTH, NORTH, policy.id, GENESIS.id), "policy"), "key_unknown", directory)


def test_a_stranger_to_the_coalition_signs_nothing() -> None:
    refused(by(Pen("stranger.example", "stranger", None, GENESIS.id), "policy"), "key_unknown")


@pytest.mark.parametrize("kind", ["node_certificate", "credential"])
def test_a_member_names_keys_of_its_own_only(kind: str) -> None:
    body: Any = decode_body(RECORDS[kind])
    field = "node" if kind == "node_certificate" else "subject"
    foreign = msgspec.structs.replace(body, **{field: f"spiffe://{SOUTH}/x/y"})
    refused(OWNER.write(kind, foreign), "author_wrong")


@pytest.mark.parametrize("kind", ["node_certificate", "credential"])
@pytest.mark.parametrize(
    "bad",
    [
        PublicKey("ed25519", (1).to_bytes(32, "little")),
        PublicKey("ed25519", b"k"),
        PublicKey("rsa", b"k" * 32),
    ],
    ids=["identity", "short", "suite"],
)
def test_a_key_is_checked_when_it_is_admitted(kind: str, bad: PublicKey) -> None:
    body: Any = decode_body(RECORDS[kind])
    refused(OWNER.write(kind, msgspec.structs.replace(body, key=bad)), "key_inadmissible")


def test_a_body_of_another_form_is_no_record() -> None:
    data = encode(OwnerPolicy(SALT, ()))
    header = OWNER.header("policy", data)
    with pytest.raises(DecodeError, match="not a Policy"):
        verify(sign_record(header, data, key(NORTH)), full_directory())


def test_a_record_whose_body_is_gone_is_not_verified() -> None:
    erased = assemble(RECORDS["vote"].header_bytes, None, RECORDS["vote"].signatures)
    with pytest.raises(DecodeError, match="absent"):
        verify(erased, full_directory())


# When


def chain(*windows: tuple[int, int]) -> tuple[KeyDirectory, Pen]:
    """Credentials of which each delegates to the next, and the pen of the last."""
    directory, pen = full_directory(), OWNER
    body = decode_body(RECORDS["credential"])
    assert isinstance(body, Credential)
    for index, (begins, ends) in enumerate(windows):
        name = f"{NORTH}/agent/a{index}"
        link = msgspec.structs.replace(
            body,
            subject=f"spiffe://{name}",
            key=key(name).public,
            not_before=begins,
            not_after=ends,
            delegations=8 - index,
        )
        record = pen.write("credential", link)
        directory.admit(verify(record, directory))
        pen = Pen(NORTH, name, record.id, GENESIS.id)
    return directory, pen


@pytest.mark.parametrize(
    ("windows", "valid"),
    [
        ([(10, 90)], (10, 90)),
        ([(10, 90), (20, 80)], (20, 80)),
        ([(20, 80), (10, 90)], (20, 80)),
        ([(10, 50), (40, 90), (0, 99)], (40, 50)),
        ([(10, 20), (30, 40)], (30, 20)),
    ],
)
def test_a_key_is_in_force_while_everything_above_it_is(
    windows: list[tuple[int, int]], valid: tuple[int, int]
) -> None:
    directory, pen = chain(*windows)
    verified = verify(by(pen, "launch_ticket"), directory)
    assert (verified.valid_from, verified.valid_until) == valid
    assert verified.root_key == key(NORTH).key_id
    for t in range(0, 100, 10):
        assert verified.in_force(t) == all(begins <= t < ends for begins, ends in windows)


def test_an_organizations_own_key_is_in_force_without_end() -> None:
    verified = verify(RECORDS["policy"], full_directory())
    assert (verified.valid_from, verified.valid_until) == (0, INT_MAX)


def test_an_expired_key_still_verifies_and_carries_its_window() -> None:
    """Times are judged with the rest: genuine yesterday is genuine today."""
    body: Any = decode_body(CERTIFICATE)
    record = OWNER.write("node_certificate", msgspec.structs.replace(body, not_before=0, not_after=T0 - YEAR))
    directory = full_directory()
    directory.admit(verify(record, directory))
    verified = verify(by(Pen(NORTH, f"{NORTH}/node/n1", record.id, GENESIS.id), "vote"), directory)
    assert verified.valid_until == T0 - YEAR
    assert not verified.in_force(T0)


def test_the_order_of_arrival_does_not_matter() -> None:
    """Two certificates for one key: each record is as good as the authority that it names itself."""
    body: Any = decode_body(CERTIFICATE)
    short = OWNER.write("node_certificate", msgspec.structs.replace(body, not_after=T0))
    for order in ((CERTIFICATE, short), (short, CERTIFICATE)):
        directory = members_of(GENESIS)
        for record in order:
            directory.admit(verify(record, directory))
        ends = [
            verify(by(Pen(NORTH, f"{NORTH}/node/n1", r.id, GENESIS.id), "vote"), directory).valid_until
            for r in (CERTIFICATE, short)
        ]
        assert ends == [T0 + YEAR, T0]


def test_whether_an_authority_is_known_is_told() -> None:
    directory = members_of(GENESIS)
    assert directory.wants(RECORDS["policy"]) is None
    assert directory.wants(RECORDS["vote"]) == RECORDS["vote"].header.authority
    assert full_directory().wants(RECORDS["vote"]) is None
    assert directory.wants(RECORDS["misbehaviour"]) == RECORDS["misbehaviour"].header.authority
    assert full_directory().wants(RECORDS["misbehaviour"]) is None


# Epoch signatures


def test_a_signature_on_an_epoch_is_by_a_named_key() -> None:
    keys = {key(name).key_id: key(name).public for name in (NORTH, SOUTH)}
    assert verify_epoch(GENESIS, keys).role == "members"
    with pytest.raises(VerificationError, match="key_unknown"):
        verify_epoch(add_signature(GENESIS, key("stranger")), keys)
    pairs = zip(GENESIS.signatures, GENESIS.signatures[::-1], strict=True)
    swapped = tuple(type(s)(s.key, s.suite, other.value) for s, other in pairs)
    with pytest.raises(VerificationError, match="signature_wrong"):
        verify_epoch(assemble(GENESIS.header_bytes, GENESIS.body_bytes, swapped), keys)


# Authors


def test_an_author_writes_the_same_record_for_the_same_words() -> None:
    author = Author(NORTH, key(NORTH), b"s" * 32, None, GENESIS.id)
    body = OwnerPolicy(salt=NO_SALT, consents=())
    one, other = (author.write("owner_policy", body, T0, name="owner", number=n) for n in (1, 2))
    assert author.write("owner_policy", body, T0, name="owner", number=1).encoded() == one.encoded()
    salts = {decode_body(record).salt for record in (one, other)}  # type: ignore[attr-defined]
    stranger = Author(NORTH, key(NORTH), b"t" * 32, None, GENESIS.id)
    salts.add(decode_body(stranger.write("owner_policy", body, T0, name="owner", number=1)).salt)  # type: ignore[attr-defined]
    assert len(salts) == 3
    assert NO_SALT not in salts
    assert verify(one, full_directory()).role == "organization"


def test_a_salt_that_an_epoch_names_is_kept() -> None:
    author = Author(NORTH, key(NORTH), b"s" * 32, None, GENESIS.id)
    body = decode_body(RECORDS["policy"])
    record = author.write_exact("policy", body, T0, name="policy")
    assert record.header.body.digest == sha256(encode(body))
    assert RULES in (record.body_bytes or b"").decode(errors="replace")


# Who constructs what


def constructions(source: str) -> list[int]:
    """The lines on which a `VerifiedRecord` is made, or imported under another name."""
    lines: list[int] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            made = node.func.value if isinstance(node.func, ast.Subscript) else node.func
            if ast.unparse(made).rpartition(".")[2] == "VerifiedRecord":
                lines.append(node.lineno)
        elif isinstance(node, ast.alias) and node.name == "VerifiedRecord" and node.asname:
            lines.append(node.lineno)
    return lines


def test_only_verification_makes_verified_records() -> None:
    makers = {
        str(path.relative_to(ROOT))
        for room in ("protocol", "attestation", "gossip", "node", "dagster_bridge")
        for path in (ROOT / room).rglob("*.py")
        if constructions(path.read_text(encoding="utf-8"))
    }
    assert makers == {"attestation/verification.py"}


@pytest.mark.parametrize(
    "source",
    [
        "VerifiedRecord(1)",
        "VerifiedRecord[Vote](1)",
        "verified.VerifiedRecord(1)",
        "verified.VerifiedRecord[Any](1)",
        "from comity.protocol.verified import VerifiedRecord as Record",
    ],
)
def test_a_forged_verified_record_would_be_seen(source: str) -> None:
    assert constructions(source) == [1]
    assert constructions("isinstance(x, VerifiedRecord)") == []
