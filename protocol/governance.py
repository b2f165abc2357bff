"""Bodies of the governance records: who belongs, by which rules, with whose authority.

Spec: docs/spec/governance.md.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from comity.protocol.encoding import Form
from comity.protocol.identifiers import (
    SHOWN,
    AssetPattern,
    ClassName,
    Code,
    Digest,
    MemberId,
    Natural,
    PartsPerMillion,
    Realm,
    ShortText,
    SpiffeId,
    Timestamp,
)
from comity.protocol.limits import (
    ADDRESSES_MAX,
    CHAIN_MAX,
    COLUMNS_MAX,
    ENDORSEMENT_BYTES_MAX,
    ENGINES_MAX,
    MEMBERS_MAX,
    NAMESPACES_PER_MEMBER_MAX,
    OWNER_RULES_BYTES_MAX,
    PATTERNS_MAX,
    POLICIES_MAX,
    SALT_BYTES,
    SCOPES_MAX,
    STRING_BYTES_MAX,
)
from comity.protocol.outcome import Parameter
from comity.protocol.ways import WAYS_MAX

Salt: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
Suite: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9+-]{0,31}\Z")]
ColumnName: TypeAlias = Annotated[str, msgspec.Meta(pattern=SHOWN, min_length=1, max_length=255)]
Patterns: TypeAlias = Annotated[tuple[AssetPattern, ...], msgspec.Meta(max_length=PATTERNS_MAX)]
RuleText: TypeAlias = Annotated[str, msgspec.Meta(max_length=STRING_BYTES_MAX)]
OwnerRuleText: TypeAlias = Annotated[str, msgspec.Meta(max_length=OWNER_RULES_BYTES_MAX)]
OWNER_POLICY_NAME: Final = "owner"
"""The one name of an owner policy: its number says which is the newest, so nothing may count beside it."""


class PublicKey(Form, frozen=True, order=True):
    """A public key and the suite in which it signs. Its id is given by `key_id`."""

    suite: Suite
    value: Annotated[bytes, msgspec.Meta(min_length=1, max_length=4_096)]


class Member(Form, frozen=True):
    """An organization in an epoch: its own keys, and the namespaces in which it alone writes assets."""

    id: MemberId
    keys: Annotated[tuple[PublicKey, ...], msgspec.Meta(min_length=1, max_length=8)]
    namespaces: Annotated[
        tuple[MemberId, ...], msgspec.Meta(min_length=1, max_length=NAMESPACES_PER_MEMBER_MAX)
    ]


class Epoch(Form, frozen=True):
    """The one thing that a quorum decides: who belongs and by which rules.

    `taxonomy` and `policies` are digests of record bodies, not record ids: those records name the genesis, so
    it cannot name them. `quorum` raises the number of votes above floor(2n/3)+1 where it is given.
    `certificate` says by which rule this epoch was agreed on: every member of the previous epoch and of this one
    signed it, or a ballot of the previous epoch's members committed it.
    """

    salt: Salt
    coalition_name: ShortText
    started: Timestamp
    certificate: Literal["unanimous", "ballot"]
    members: Annotated[tuple[Member, ...], msgspec.Meta(min_length=1, max_length=MEMBERS_MAX)]
    suites: Annotated[tuple[Suite, ...], msgspec.Meta(min_length=1, max_length=8)]
    engines: Annotated[tuple[Digest, ...], msgspec.Meta(min_length=1, max_length=ENGINES_MAX)]
    vectors: Digest
    taxonomy: Digest
    policies: Annotated[tuple[Digest, ...], msgspec.Meta(min_length=1, max_length=POLICIES_MAX)]
    previous: Digest | None = None
    quorum: Natural = 0
    council: Annotated[tuple[MemberId, ...], msgspec.Meta(max_length=MEMBERS_MAX)] = ()
    parents: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=SCOPES_MAX)] = ()
    publishers: Annotated[tuple[MemberId, ...], msgspec.Meta(max_length=MEMBERS_MAX)] = ()
    witnesses: Annotated[tuple[PublicKey, ...], msgspec.Meta(max_length=64)] = ()
    state_root: Digest | None = None
    founded_from: Digest | None = None
    critical: tuple[ShortText, ...] = ()


class NodeCertificate(Form, frozen=True):
    """An organization's word that a key is its node's, for a time.

    `transport_key` is the Ed25519 key of the node's connections; it authorises a connection and no statement.
    """

    salt: Salt
    node: SpiffeId
    key: PublicKey
    transport_key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    not_before: Timestamp
    not_after: Timestamp
    critical: tuple[ShortText, ...] = ()


class AuthorityClass(Form, frozen=True):
    """A published class of authority.

    `weight` is what an intent of this class weighs by itself. `issuers` are the members that may credential it
    at the root of a chain, all of them where it is empty.
    """

    name: ClassName
    weight: PartsPerMillion
    issuers: Annotated[tuple[MemberId, ...], msgspec.Meta(max_length=MEMBERS_MAX)] = ()
    within: ClassName | None = None


class Taxonomy(Form, frozen=True):
    """The published classes of authority of a coalition."""

    salt: Salt
    classes: Annotated[tuple[AuthorityClass, ...], msgspec.Meta(min_length=1, max_length=256)]
    critical: tuple[ShortText, ...] = ()


class ColumnClass(Form, frozen=True):
    """What a column is, by the policy's word: e.g. `quasi_identifier`."""

    name: ColumnName
    column_class: Code


class AssetRule(Form, frozen=True):
    """What is governed, and how it is classed: the first rule whose pattern matches an asset holds for it.

    `columns` are the columns that the asset is known to have; an intent that declares none declares these.
    `rows_by` names the column that partitions its rows.
    """

    pattern: AssetPattern
    data_class: ClassName
    columns: Annotated[tuple[ColumnClass, ...], msgspec.Meta(max_length=COLUMNS_MAX)] = ()
    rows_by: ShortText = ""


class Purpose(Form, frozen=True):
    """A purpose, the columns that it names as needed, and the ways of work that serve it; `staged` without any."""

    name: Code
    columns: Annotated[tuple[ColumnName, ...], msgspec.Meta(max_length=COLUMNS_MAX)] = ()
    ways: Annotated[tuple[Code, ...], msgspec.Meta(max_length=WAYS_MAX)] = ()


class Policy(Form, frozen=True):
    """A bundle: Cedar rules, and the classification that they speak of.

    `weight_min` is the weight that an intent must reach; `observers` are members whose failed checks count
    against assets that are not theirs.
    """

    salt: Salt
    language: Literal["cedar-4"]
    rules: RuleText
    assets: Annotated[tuple[AssetRule, ...], msgspec.Meta(max_length=1_024)] = ()
    purposes: Annotated[tuple[Purpose, ...], msgspec.Meta(max_length=256)] = ()
    observers: Annotated[tuple[MemberId, ...], msgspec.Meta(max_length=MEMBERS_MAX)] = ()
    weight_min: PartsPerMillion = 0
    critical: tuple[ShortText, ...] = ()


class Consent(Form, frozen=True):
    """How an owner gives its say over data of one class (`*` for every other class)."""

    data_class: ShortText
    mode: Literal["live", "standing"]
    until: Timestamp = 0


class OwnerPolicy(Form, frozen=True):
    """An owner's own say: its consent by data class, and rules that bind whoever uses its data.

    Its header has the name `owner`.
    """

    salt: Salt
    consents: Annotated[tuple[Consent, ...], msgspec.Meta(max_length=64)]
    rules: OwnerRuleText = ""
    critical: tuple[ShortText, ...] = ()

    def __post_init__(self) -> None:
        if len(self.rules.encode(errors="surrogatepass")) > OWNER_RULES_BYTES_MAX:
            raise ValueError(f"the rules of an owner have at most {OWNER_RULES_BYTES_MAX} bytes")


class Credential(Form, frozen=True):
    """Authority within the taxonomy, held by the key of a person, an agent or a code location.

    A chain leads from the taxonomy to the subject; each link narrows in every field. The first link is signed
    by an organization's key, each further one by the key of the link above it, which the header's `authority`
    names. `delegations` is how many further links may follow. `previous` names the credential that this one continues.
    """

    salt: Salt
    subject: SpiffeId
    subject_kind: Literal["person", "agent", "automation"]
    key: PublicKey
    classes: Annotated[tuple[ClassName, ...], msgspec.Meta(min_length=1, max_length=32)]
    actions: Annotated[
        tuple[Literal["approve", "materialize", "observe"], ...], msgspec.Meta(min_length=1, max_length=8)
    ]
    assets: Annotated[Patterns, msgspec.Meta(min_length=1)]
    realms: Annotated[tuple[Realm, ...], msgspec.Meta(min_length=1, max_length=16)]
    not_before: Timestamp
    not_after: Timestamp
    purposes: Annotated[tuple[Code, ...], msgspec.Meta(max_length=64)] = ()
    delegations: Annotated[int, msgspec.Meta(ge=0, le=CHAIN_MAX)] = 0
    previous: Digest | None = None
    critical: tuple[ShortText, ...] = ()


class Revocation(Form, frozen=True):
    """The record that the header's subject names counts no more, from the time at which a voter holds this.

    `compromised_since` widens what is marked; it annuls nothing that was started.
    """

    salt: Salt
    reason: Code
    compromised_since: Timestamp = 0
    critical: tuple[ShortText, ...] = ()


class Suspension(Form, frozen=True):
    """The record that the header's subject names counts no more, as if it were revoked, until a time."""

    salt: Salt
    reason: Code
    until: Timestamp
    critical: tuple[ShortText, ...] = ()


class Address(Form, frozen=True):
    """Where a node can be reached. Of several of one node the one with the highest number holds."""

    salt: Salt
    addresses: Annotated[tuple[ShortText, ...], msgspec.Meta(min_length=1, max_length=ADDRESSES_MAX)]
    not_after: Timestamp
    critical: tuple[ShortText, ...] = ()


class Acknowledgement(Form, frozen=True):
    """The node's organization holds the adverse records that the header's subject names, on disk."""

    salt: Salt
    critical: tuple[ShortText, ...] = ()


class Comment(Form, frozen=True):
    """Somebody's remark on the records that the header's subject names, in a code and parameters.

    It has no free text: what people write may be personal, and a governance record is never erased.
    """

    salt: Salt
    code: Code
    parameters: Annotated[dict[ShortText, Parameter], msgspec.Meta(max_length=16)] = {}  # noqa: RUF012  # msgspec copies it
    critical: tuple[ShortText, ...] = ()


class Endorsement(Form, frozen=True):
    """What a maker of hardware, or an appraiser, says of a kind of execution context (RFC 9334, section 8.2).

    Certificates, revocation lists and status of firmware, by which evidence of type `type` is appraised.
    """

    salt: Salt
    type: Literal["tpm2", "snp", "snp_vtpm", "tdx", "nitro"]
    media_type: ShortText
    blob: Annotated[bytes, msgspec.Meta(min_length=1, max_length=ENDORSEMENT_BYTES_MAX)]
    not_before: Timestamp
    not_after: Timestamp
    critical: tuple[ShortText, ...] = ()


class ReferenceValues(Form, frozen=True):
    """Measurements of execution contexts that the publisher recognises."""

    salt: Salt
    distributions: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=256)] = ()
    code: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=1_024)] = ()
    not_after: Timestamp = 0
    critical: tuple[ShortText, ...] = ()
