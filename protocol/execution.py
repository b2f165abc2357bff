"""Bodies of the execution records: what is asked for, what is said of it, what became of it.

Spec: docs/spec/execution.md.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, TypeAlias

import msgspec

from comity.protocol.encoding import Form
from comity.protocol.governance import ColumnName, Salt
from comity.protocol.governance_state import GovernanceState
from comity.protocol.identifiers import (
    AssetId,
    AssetPattern,
    Code,
    Digest,
    MemberId,
    Natural,
    PartsPerMillion,
    ShortText,
    SpiffeId,
    Timestamp,
)
from comity.protocol.limits import (
    ADVERSE_PER_VOTE_MAX,
    CLAIMS_MAX,
    CLASSES_MAX,
    COLUMNS_MAX,
    INPUTS_PER_CLASS_MAX,
    ITEMS_MAX,
    MEMBERS_MAX,
    OWNERS_MAX,
    RELIED_MAX,
    SCOPES_MAX,
    SEALED_SHARE_BYTES_MAX,
)
from comity.protocol.outcome import Cause, Extent, Mode, Obligation, Outcome, Parameter

Partition: TypeAlias = ShortText
"""A partition key, empty for an asset without partitions; a keyed hash where the policy calls it personal."""

Digests: TypeAlias = Annotated[tuple[Digest, ...], msgspec.Meta(max_length=RELIED_MAX)]
Columns: TypeAlias = Annotated[tuple[ColumnName, ...], msgspec.Meta(max_length=COLUMNS_MAX)]


def _require_ascending(name: str, ids: tuple[bytes, ...]) -> None:
    """A set of ids has one spelling: ascending, each once.

    Raises:
        ValueError: it is spelled otherwise.
    """
    if any(left >= right for left, right in pairwise(ids)):
        raise ValueError(f"{name} does not ascend, each id once")


class Item(Form, frozen=True):
    """One slot to be filled: the asset's partition, its next generation, and what it replaces.

    `inputs` are actuations that this item reads beside those of its class.
    """

    generation: Natural
    partition: Partition = ""
    previous: Digest | None = None
    inputs: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=INPUTS_PER_CLASS_MAX)] = ()


class ItemClass(Form, frozen=True):
    """Items of one asset with equal governance facts, judged once.

    `columns` is the declared output type, empty where the output is not a table. `inputs` are the actuations
    that every item of the class reads. `reversible` says that the write can be taken back.
    """

    asset: AssetId
    items: Annotated[tuple[Item, ...], msgspec.Meta(min_length=1, max_length=ITEMS_MAX)]
    columns: Columns = ()
    inputs: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=INPUTS_PER_CLASS_MAX)] = ()
    media_type: ShortText = ""
    reversible: bool = False


class CodeReference(Form, frozen=True):
    """The code that is to run, and who answers for it."""

    digest: Digest
    location: ShortText = ""
    revision: ShortText = ""
    authors: Annotated[tuple[SpiffeId, ...], msgspec.Meta(max_length=16)] = ()
    reviewers: Annotated[tuple[SpiffeId, ...], msgspec.Meta(max_length=16)] = ()


class RunReference(Form, frozen=True):
    """Where the intent came from: orchestrator, run, step and job, in its own words."""

    orchestrator: ShortText
    run: ShortText
    step: ShortText = ""
    job: ShortText = ""


class Intent(Form, frozen=True):
    """A signed observation of intent: what somebody wants to make, from what, by which code and authority.

    Only the organization that writes an asset files intents for it. After `expires` no ask may name it.
    """

    salt: Salt
    requester: SpiffeId
    credential: Digest
    purpose: Code
    code: CodeReference
    run: RunReference
    classes: Annotated[tuple[ItemClass, ...], msgspec.Meta(min_length=1, max_length=CLASSES_MAX)]
    expires: Timestamp
    attempts_max: Annotated[int, msgspec.Meta(ge=1, le=100)]
    critical: tuple[ShortText, ...] = ()


class LaunchTicket(Form, frozen=True):
    """A person's or agent's own word that it wants a run: one use, until it expires.

    The header's `authority` is the credential under which the subject acts.
    """

    salt: Salt
    run: ShortText
    job: ShortText
    assets: Annotated[tuple[AssetPattern, ...], msgspec.Meta(min_length=1, max_length=256)]
    not_before: Timestamp
    not_after: Timestamp
    partitions: Annotated[tuple[Partition, ...], msgspec.Meta(max_length=ITEMS_MAX)] = ()
    purpose: ShortText = ""
    critical: tuple[ShortText, ...] = ()


class Observation(Form, frozen=True):
    """A fact that somebody answers for: a check's result, an approval, a dispute, anything that corroborates.

    The header's subject names what it is about, its outcome what it says. `shown` is the digest of what an
    approver was shown. `weight` is what the fact adds to an intent that relies on it.
    """

    salt: Salt
    claim: Code
    shown: Digest | None = None
    not_after: Timestamp = 0
    weight: PartsPerMillion = 0
    parameters: Annotated[dict[ShortText, Parameter], msgspec.Meta(max_length=16)] = {}  # noqa: RUF012  # msgspec copies it
    critical: tuple[ShortText, ...] = ()


class ContextMeasurement(Form, frozen=True):
    """What a Python process measured of itself (evidence of tier 1).

    `distributions` is the digest of the sorted list of installed distributions with the digests of their RECORD
    files, `code` that of the sorted list of the code location's files. Spec: docs/spec/evidence.md.
    """

    python: ShortText
    platform: ShortText
    distributions: Digest
    distributions_count: Natural
    code: Digest
    code_files: Natural
    image: Digest | None = None


class Attestation(Form, frozen=True):
    """Evidence of an execution context, bound to one intent (RFC 9334, section 8.1).

    `binding` is the digest that ties it to intent, node key, context key, measurement and challenges.
    `blob` is the quote or report of a hardware root, in the form that `type` names.
    """

    salt: Salt
    type: Literal["software", "tpm2", "snp", "snp_vtpm", "tdx", "nitro"]
    intent: Digest
    context: ContextMeasurement
    binding: Digest
    context_key: Annotated[bytes, msgspec.Meta(max_length=4_096)] = b""
    challenges: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=MEMBERS_MAX)] = ()
    blob: Annotated[bytes, msgspec.Meta(max_length=65_536)] = b""
    endorsements: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=16)] = ()
    critical: tuple[ShortText, ...] = ()


class Appraisal(Form, frozen=True):
    """What a member finds of evidence (RFC 9334, section 8.4): a result in the manner of EAR.

    `claims` are those of the trustworthiness vector of AR4SI, such as `executables` or `hardware`, from -128 to 127.
    The header's outcome is their summary, its subject the evidence.
    """

    salt: Salt
    attestation: Digest
    tier: Annotated[int, msgspec.Meta(ge=0, le=3)]
    claims: Annotated[
        dict[Code, Annotated[int, msgspec.Meta(ge=-128, le=127)]], msgspec.Meta(max_length=CLAIMS_MAX)
    ] = {}  # noqa: RUF012  # msgspec copies it
    fresh: bool = False
    endorsements: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=16)] = ()
    critical: tuple[ShortText, ...] = ()


class Challenge(Form, frozen=True):
    """Random bytes of a member that evidence of the next minute names, so that it was not prepared ahead."""

    salt: Salt
    nonce: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    critical: tuple[ShortText, ...] = ()


class ScopeEpoch(Form, frozen=True):
    """A scope, and the epoch in force there."""

    scope: Digest
    epoch: Digest


class Ask(Form, frozen=True):
    """The requester's one question: this intent, at this time, under these epochs, on this evidence.

    `relied` are the ids of every favourable record that the requester relies on, sorted.
    """

    salt: Salt
    intent: Digest
    t: Timestamp
    epochs: Annotated[tuple[ScopeEpoch, ...], msgspec.Meta(min_length=1, max_length=SCOPES_MAX)]
    relied: Digests
    critical: tuple[ShortText, ...] = ()

    def __post_init__(self) -> None:
        _require_ascending("relied", self.relied)


class ClassJudgement(Form, frozen=True):
    """What a voter finds of one class.

    `state` is the governance state that the output will have, and `weight` what the intent weighs; both follow
    from the ask alone, so honest voters agree on them to the byte. `live` are the owners whose supporting vote a
    permit needs, by all that this voter holds.
    """

    outcome: Outcome
    weight: PartsPerMillion
    state: GovernanceState
    live: Annotated[tuple[MemberId, ...], msgspec.Meta(max_length=OWNERS_MAX)] = ()


class Vote(Form, frozen=True):
    """One organization's judgement of one ask.

    `judgements` holds one per class of the intent, in its order. `adverse` names the adverse records that were
    held against it, `working` is the digest of the full working.
    """

    salt: Salt
    intent: Digest
    ask: Digest
    t: Timestamp
    scope: Digest
    epoch: Digest
    engine: Digest
    expires: Timestamp
    judgements: Annotated[tuple[ClassJudgement, ...], msgspec.Meta(min_length=1, max_length=CLASSES_MAX)]
    working: Digest
    adverse: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=ADVERSE_PER_VOTE_MAX)] = ()
    critical: tuple[ShortText, ...] = ()

    def __post_init__(self) -> None:
        _require_ascending("adverse", self.adverse)


class Claim(Form, frozen=True):
    """What a permit allows for one class of its intent, by the class's index, and what then governs the output."""

    index: Annotated[int, msgspec.Meta(ge=0, lt=CLASSES_MAX)]
    mode: Mode
    extent: Extent
    state: GovernanceState
    obligations: tuple[Obligation, ...] = ()
    live: Annotated[tuple[MemberId, ...], msgspec.Meta(max_length=OWNERS_MAX)] = ()

    def outcome(self) -> Outcome:
        return Outcome(mode=self.mode, extent=self.extent, obligations=self.obligations)


class Permit(Form, frozen=True):
    """A claim with the ids of at least a quorum of votes that each support all of it.

    Classes that it does not list are not permitted. `expires` is the earliest expiry among its votes.
    """

    salt: Salt
    intent: Digest
    ask: Digest
    t: Timestamp
    scope: Digest
    epoch: Digest
    claims: Annotated[tuple[Claim, ...], msgspec.Meta(min_length=1, max_length=CLASSES_MAX)]
    votes: Annotated[tuple[Digest, ...], msgspec.Meta(min_length=1, max_length=MEMBERS_MAX)]
    expires: Timestamp
    critical: tuple[ShortText, ...] = ()

    def __post_init__(self) -> None:
        _require_ascending("votes", self.votes)


class Refusal(Form, frozen=True):
    """A quorum of votes of one ask that each refuse every class."""

    salt: Salt
    intent: Digest
    ask: Digest
    t: Timestamp
    scope: Digest
    epoch: Digest
    votes: Annotated[tuple[Digest, ...], msgspec.Meta(min_length=1, max_length=MEMBERS_MAX)]
    critical: tuple[ShortText, ...] = ()

    def __post_init__(self) -> None:
        _require_ascending("votes", self.votes)


class Start(Form, frozen=True):
    """The work on one output begins under a permit. Fsynced before the work."""

    salt: Salt
    intent: Digest
    permit: Digest
    asset: AssetId
    attempt: Annotated[int, msgspec.Meta(ge=1, le=100)]
    run: RunReference
    partition: Partition = ""
    critical: tuple[ShortText, ...] = ()


class Content(Form, frozen=True):
    """The bytes that were made."""

    digest: Digest
    size: Natural
    media_type: ShortText
    rows: Natural = 0
    columns: Columns = ()


class Metering(Form, frozen=True):
    """What a governed materialization is counted by."""

    authority: Digest
    rows: Natural = 0
    bytes: Natural = 0
    duration_ms: Natural = 0


class Actuation(Form, frozen=True):
    """What became of one output: the record that enters the chain again at the next consumer.

    The header's outcome is its state: `staged`, `promoted`, `rolled_back` or `quarantined`. The governance
    state of the data stands in the header, so that it outlives an erased body.
    """

    salt: Salt
    intent: Digest
    permit: Digest
    start: Digest
    asset: AssetId
    generation: Natural
    attempt: Annotated[int, msgspec.Meta(ge=1, le=100)]
    content: Content
    metering: Metering
    inputs: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=RELIED_MAX)] = ()
    partition: Partition = ""
    previous: Digest | None = None
    attestation: Digest | None = None
    transitions: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=64)] = ()
    critical: tuple[ShortText, ...] = ()


class Verification(Form, frozen=True):
    """Somebody looked at the result of an actuation, which the header's subject names."""

    salt: Salt
    checks: Annotated[tuple[Cause, ...], msgspec.Meta(max_length=64)] = ()
    critical: tuple[ShortText, ...] = ()


class Transition(Form, frozen=True):
    """An owner's explicit step: releasing its say over an output, or allowing a step down of trust.

    Of type `release` it removes its author from the owners of outputs of `asset` made for `purpose`. Of type
    `trust` it allows the author's data to flow into a context of tier `tier_to` or above there.
    """

    salt: Salt
    type: Literal["release", "trust"]
    asset: AssetPattern
    not_before: Timestamp
    not_after: Timestamp
    purpose: ShortText = ""
    tier_to: Annotated[int, msgspec.Meta(ge=0, le=3)] = 0
    critical: tuple[ShortText, ...] = ()


class ShareRelease(Form, frozen=True):
    """A holder gives its share of the key of one version of an asset to the context that runs the work of a permit.

    `version` is the actuation whose content the key opens, `context_key` the key that the evidence binds and that the
    share is sealed to, `commitment` the SHA-256 of the share. Written before the share is sent.
    """

    salt: Salt
    intent: Digest
    permit: Digest
    version: Digest
    context_key: Annotated[bytes, msgspec.Meta(min_length=1, max_length=4_096)]
    index: Annotated[int, msgspec.Meta(ge=0, le=MEMBERS_MAX)]
    commitment: Digest
    sealed: Annotated[bytes, msgspec.Meta(min_length=1, max_length=SEALED_SHARE_BYTES_MAX)]
    critical: tuple[ShortText, ...] = ()
