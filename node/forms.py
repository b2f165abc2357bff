"""What travels between a node and the programs beside it, over the local API.

Plain dataclasses: the client reads and writes them as they are, the server derives its OpenAPI document from
them. Digests and record ids are lower-case hex of 64 characters; times are whole seconds since 1970; record
bytes are standard base64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from comity.protocol.ways import Way

ParameterForm: TypeAlias = int | str
ModeForm: TypeAlias = Literal["execute", "restrict", "defer", "refuse"]
StepOutcome: TypeAlias = Literal["execute", "restrict", "defer", "refuse", "held", "ungoverned"]
"""`ungoverned`: no policy speaks of the step. `held`: no quorum in reach; the node goes on by itself."""


LAUNCHED_STEPS_MAX: Final = 256
"""Steps of one launch that are asked for; the others ask when they begin."""
LAUNCHED_LATER_MAX: Final = 64
"""Steps of one launch that are explained: each costs one judgement."""
RUNS_ASKED_MAX: Final = 256
"""Held runs of one question: a page of an orchestrator's queue."""


@dataclass(frozen=True, slots=True)
class TermForm:
    """A stable code with parameters: a cause, a need or an obligation."""

    code: str
    parameters: dict[str, ParameterForm] = field(default_factory=dict[str, ParameterForm])
    rule: str = ""
    message: str = ""
    """One sentence for people, made from code and parameters."""


@dataclass(frozen=True, slots=True)
class OutputForm:
    """One output that a step wants to make. `asset` is the id without the writer's domain, e.g. `released`.

    `columns` are the declared columns, None where the definition declares none: the policy's list then holds.
    """

    asset: str
    partition: str = ""
    columns: list[str] | None = None
    media_type: str = ""
    reversible: bool = False
    isolates: bool = False
    """The store can keep the result apart, where no reader of the asset sees it."""


@dataclass(frozen=True, slots=True)
class InputForm:
    """An input that a step will read: an asset id, whole for a partner's: `clinic-north.example/released`.

    `sidecar` is what lay beside its bytes, base64: with it the input's lineage is known while its writer is down.
    """

    asset: str
    partition: str = ""
    sidecar: str = ""


@dataclass(frozen=True, slots=True)
class ContextForm:
    """The measurement of the process that will run the step (docs/spec/evidence.md)."""

    python: str
    platform: str
    distributions: str
    distributions_count: int
    code: str
    code_files: int


@dataclass(frozen=True, slots=True)
class StepForm:
    """A step's intent, as the bridge submits it.

    The node adds slots, inputs' records, credentials and its signature.
    """

    orchestrator: str
    run: str
    step: str
    job: str
    code: str
    """Digest of the code that will run."""
    outputs: list[OutputForm]
    inputs: list[InputForm] = field(default_factory=list[InputForm])
    checks: list[str] = field(default_factory=list[str])
    """The asset checks that the step evaluates, each `asset:check`; a step of checks alone has no outputs."""
    location: str = ""
    revision: str = ""
    purpose: str = ""
    """Empty: the node's configured purpose for the code location."""
    credential: str = ""
    """Id of the credential to act under; empty: the node's `automation` credential."""
    ticket: str = ""
    """A launch ticket signed by the credential's own key, base64; empty for automation."""
    context: ContextForm | None = None
    wait_s: float = 0.0
    """How long the answer may wait for a decision, at most 600."""
    continues: str = ""
    """The run in whose place this one goes on with what may be made of it; the intents stay that run's."""


@dataclass(frozen=True, slots=True)
class PermittedOutput:
    """What may be made of one output."""

    asset: str
    """The whole asset id."""
    partition: str
    mode: ModeForm
    columns: list[str]
    """The columns that may be written, in declared order; empty where the output is no table."""
    all_columns: bool
    obligations: list[TermForm] = field(default_factory=list[TermForm])


WayOutcome: TypeAlias = Literal["execute", "restrict", "confirm", "defer", "refuse"]
"""What would come of one way: `restrict` is narrowed, `confirm` waits for nothing but a person's word."""


@dataclass(frozen=True, slots=True)
class WayTried:
    """One way of serving an intent, and what this node foresaw of it."""

    way: Way
    outcome: WayOutcome
    chosen: bool = False
    causes: list[TermForm] = field(default_factory=list[TermForm])
    needs: list[TermForm] = field(default_factory=list[TermForm])


@dataclass(frozen=True, slots=True)
class StepAnswer:
    """Where a step's intent stands."""

    intent: str
    outcome: StepOutcome
    outputs: list[PermittedOutput] = field(default_factory=list[PermittedOutput])
    permit: str = ""
    expires: int = 0
    causes: list[TermForm] = field(default_factory=list[TermForm])
    needs: list[TermForm] = field(default_factory=list[TermForm])
    votes: dict[str, str] = field(default_factory=dict[str, str])
    """Member to mode, or to `silent`, for the newest ask."""
    governed_inputs: list[str] | None = None
    """Whole ids of the inputs whose bytes are verified before use; None, where the node does not say: all."""
    way: Way = "staged"
    """How the work is to be done."""
    ways: list[WayTried] = field(default_factory=list[WayTried])
    """The ways that were looked at when it was asked for, the least harmful first; none where nothing was to choose."""


@dataclass(frozen=True, slots=True)
class LaunchedStep:
    """One unit of work of a run that is to be launched: what of a `StepForm` differs between the steps of a run."""

    step: str
    outputs: list[OutputForm]
    inputs: list[InputForm] = field(default_factory=list[InputForm])


@dataclass(frozen=True, slots=True)
class LaunchForm:
    """A run that is to be launched.

    `steps` are those whose inputs are all there: their intents are filed, as if each step had submitted its own, which
    finds it again. `later` are those that read what the run itself makes: they cannot be asked for yet, and are
    explained, each with the inputs that reach it from outside of the run.
    """

    orchestrator: str
    run: str
    job: str
    code: str
    steps: list[LaunchedStep]
    later: list[LaunchedStep] = field(default_factory=list[LaunchedStep])
    location: str = ""
    revision: str = ""
    purpose: str = ""
    credential: str = ""
    ticket: str = ""
    context: ContextForm | None = None
    continues: str = ""
    recurring: bool = False
    """Nobody started it: a schedule, a sensor or a condition. What was refused is not asked for again at once."""
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LaunchAnswer:
    """Where the steps of a run stand: `steps` and `later` in the order of the form."""

    steps: list[StepAnswer]
    later: list[ExplainAnswer] = field(default_factory=list["ExplainAnswer"])


@dataclass(frozen=True, slots=True)
class RunStanding:
    """Where a run stands that was not launched yet.

    `standing`: `waits` where an intent of it is undecided, `decided` where none is, `unknown` where the node has no
    intent of it.
    """

    run: str
    standing: Literal["waits", "decided", "unknown"]
    steps: dict[str, StepAnswer] = field(default_factory=dict[str, StepAnswer])
    """By the step's name: the newest intent of each."""


@dataclass(frozen=True, slots=True)
class StandingsForm:
    """Runs that are held: at most `RUNS_ASKED_MAX`."""

    runs: list[str]


@dataclass(frozen=True, slots=True)
class StartForm:
    """The work on one output begins. The answer comes after the start record is on disk.

    `run` is the run that works, by the orchestrator's id; empty: the intent's own.
    """

    intent: str
    asset: str
    partition: str = ""
    run: str = ""


@dataclass(frozen=True, slots=True)
class StartAnswer:
    """The start record, and which attempt at the output it is.

    `put_back` is the digest of the version that stands, where the newest one was rolled back: the store puts that in
    its place first, if it is not there yet, so that it stays the version before.
    """

    start: str
    attempt: int
    put_back: str = ""


@dataclass(frozen=True, slots=True)
class ReadForm:
    """An input's bytes are about to be deserialised: their digest, and the sidecar that lay beside them.

    `intent` is empty where bytes are read outside of a governed step: they are verified, no use is recorded.
    """

    intent: str
    asset: str
    digest: str
    size: int
    partition: str = ""
    sidecar: str = ""
    """Base64; empty where none lay there."""
    to_check: bool = False
    """It is read by a check alone, which makes nothing: a check that has failed may look again. Without `intent`."""


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """`admitted`, or the causes why not; `actuation` is the record that vouches for the bytes.

    `rows` is how many rows that record says there are: a reader compares before it builds the table. `sidecar` is
    that of an own asset whose bytes were shown without one, to be laid beside them. `put_back` is the digest of the
    version that is wanted, where the bytes are those of one that was rolled back since: a store that keeps it puts it
    back and shows it.
    """

    admitted: bool
    actuation: str = ""
    causes: list[TermForm] = field(default_factory=list[TermForm])
    rows: int | None = None
    sidecar: str = ""
    put_back: str = ""


@dataclass(frozen=True, slots=True)
class WithheldForm:
    """What an obligation kept out. `values` stay in this node's own store and enter no record."""

    obligation: str
    column: str
    rows: int
    values: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class ActuationForm:
    """What was made under a start."""

    intent: str
    start: str
    asset: str
    digest: str
    size: int
    media_type: str
    partition: str = ""
    rows: int = 0
    columns: list[str] = field(default_factory=list[str])
    duration_ms: int = 0
    withheld: list[WithheldForm] = field(default_factory=list[WithheldForm])


@dataclass(frozen=True, slots=True)
class ActuationAnswer:
    """The record that enters the chain again, and the sidecar to lay beside the bytes (base64)."""

    actuation: str
    sidecar: str


@dataclass(frozen=True, slots=True)
class DiscardForm:
    """What was staged under a start, and why it is not promoted: it was found to be more than its permit allows."""

    intent: str
    start: str
    asset: str
    digest: str
    size: int
    media_type: str
    causes: list[TermForm]
    partition: str = ""
    rows: int = 0
    columns: list[str] = field(default_factory=list[str])
    passed: bool = False
    """It is within its permit, and goes all the same: a dry run promotes nothing."""


@dataclass(frozen=True, slots=True)
class DiscardAnswer:
    """The record of what was staged, and the one that says why it was discarded."""

    actuation: str
    verification: str


@dataclass(frozen=True, slots=True)
class CheckForm:
    """What a check of the orchestrator's found in one version of an asset.

    `actuation` is the version that was looked at (hex). `severity` `warn` says that a failure bars nobody from its use.
    """

    asset: str
    actuation: str
    check: str
    passed: bool
    partition: str = ""
    severity: Literal["error", "warn"] = "error"


@dataclass(frozen=True, slots=True)
class CheckAnswer:
    """The observation that says it, and whether voters hear this organization about the version."""

    observation: str
    counts: bool


@dataclass(frozen=True, slots=True)
class VerificationForm:
    """What somebody found who looked at a version: `name` is an asset with its partition, or an actuation's id."""

    name: str
    outcome: Literal["passed", "failed"]
    partition: str | None = None
    checks: list[TermForm] = field(default_factory=list[TermForm])


@dataclass(frozen=True, slots=True)
class VerificationAnswer:
    """The record, and what it is about. `counts`: it failed, and voters hear this organization about the version."""

    verification: str
    actuation: str
    asset: str
    partition: str
    outcome: str
    counts: bool


@dataclass(frozen=True, slots=True)
class WithdrawalForm:
    """A verification or observation of this node that is taken back: its id (hex)."""

    record: str


@dataclass(frozen=True, slots=True)
class WithdrawalAnswer:
    """The revocation, and what it takes back."""

    revocation: str
    record: str


@dataclass(frozen=True, slots=True)
class ExplainAnswer:
    """What would be decided of a step, and the smallest sets of needs of which each would lift it."""

    outcome: StepOutcome
    outputs: list[PermittedOutput] = field(default_factory=list[PermittedOutput])
    causes: list[TermForm] = field(default_factory=list[TermForm])
    needs: list[TermForm] = field(default_factory=list[TermForm])
    lifts: list[list[TermForm]] = field(default_factory=list[list[TermForm]])
    tier: int = 0
    """The tier of the context that was supposed; 0 where nothing was, and the form's own evidence was judged."""
    way: Way = "staged"
    """The way that would be chosen."""
    ways: list[WayTried] = field(default_factory=list[WayTried])
    """The ways that were looked at, the least harmful first; none where nothing is to choose."""


@dataclass(frozen=True, slots=True)
class GovernanceForm:
    """The governance state of data, as its actuation states it."""

    tier: int
    realm: str
    owners: list[str]
    purpose: str
    weight: int
    data_classes: list[str] = field(default_factory=list[str])
    authority_classes: list[str] = field(default_factory=list[str])
    restrictions: list[TermForm] = field(default_factory=list[TermForm])


@dataclass(frozen=True, slots=True)
class PartnerAsset:
    """The newest promoted actuation of one partition of a partner's asset, as this node has verified it."""

    asset: str
    """The whole asset id."""
    actuation: str
    digest: str
    media_type: str
    generation: int
    made_at: int
    governance: GovernanceForm
    partition: str = ""
    rows: int = 0
    columns: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class Problem:
    """An error of the API: a stable code, a sentence, and what to do."""

    code: str
    message: str
    hint: str = ""
