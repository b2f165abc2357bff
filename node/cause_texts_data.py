"""What the codes say that speak of data: inputs and what speaks against them, columns, owners, policy and weight."""

from __future__ import annotations

from typing import Final

from comity.node.cause_page import NOBODY, CausePage, defers, refuses

_WRITER: Final = "the writer of the input"
_ANEW: Final = "Its writer makes a new version of it, under a new decision; then run the step again."
_LOOK: Final = "comity lineage show ASSET"

PAGES: Final[tuple[CausePage, ...]] = (
    refuses(
        "actuation_quarantined",
        "Who may do so has put an input, or what the intent is about, into quarantine. It is read by nobody"
        " meanwhile.",
        _WRITER,
        _ANEW,
        _LOOK,
        related="actuation_rolled_back verification_failed",
        member="clinic-north.example",
    ),
    refuses(
        "actuation_rolled_back",
        "The writer of an input has taken that version of it back.",
        _WRITER,
        _ANEW,
        _LOOK,
        related="actuation_quarantined",
        member="clinic-north.example",
    ),
    refuses(
        "adverse_many",
        "As many records speak against what the ask relies on as one vote can name, or more. Who relies on so much"
        " that was taken back is refused, whatever else is said.",
        "the requester",
        "Rely on less that was taken back: newer credentials, newer versions of the inputs.",
        "comity decision show INTENT --working",
        related="credential_revoked input_struck",
        adverse_max=32,
    ),
    refuses(
        "appraisal_contraindicated",
        "Somebody entitled to it found the evidence of the execution context, the intent or an input to be"
        " contraindicated: its environment is not sound.",
        "the operator of the context",
        "Run the step in a sound context; the appraisal names the record that it is about.",
        "comity decision show INTENT --working",
        related="appraisal_warning tier",
        member="board.example",
    ),
    refuses(
        "appraisal_warning",
        "Somebody entitled to it appraised the evidence of the execution context, the intent or an input with a"
        " warning.",
        "the operator of the context",
        "Run the step in a context that is appraised without one.",
        "comity decision show INTENT --working",
        related="appraisal_contraindicated tier",
        member="board.example",
    ),
    refuses(
        "class_mixed",
        "Items of one class read inputs that are governed differently, or some read own inputs and some do not."
        " They cannot be judged as one.",
        "the requester",
        "Give items that read differently governed inputs classes of their own; steps of govern(defs) do.",
        related="item_twice",
        asset="institute.example/pooled",
    ),
    refuses(
        "classes_many",
        "The inputs bring more data classes or restrictions than a governance state can carry, or more together with"
        " the obligations of the decision.",
        "the requester, or the author of the policy",
        "Read fewer inputs in one step; or have the rules oblige to less.",
        "comity policy lint FILE",
        related="owners_many column_groups_many",
        classes_max=32,
    ),
    refuses(
        "column_groups_many",
        "The output has columns of more different classes than a policy evaluates at once.",
        "the author of the policy",
        "Give the columns of the asset fewer classes in the policy.",
        "comity policy lint FILE",
        related="classes_many",
        groups=40,
        groups_max=32,
    ),
    refuses(
        "column_twice",
        "The step declares one column of its output twice.",
        "the author of the asset",
        "Declare each column once.",
        related="columns_undeclared",
        asset="clinic-north.example/released",
    ),
    refuses(
        "columns_undeclared",
        "Signed policy classes the columns of this asset, and the intent declares none. Nobody gets around the"
        " classes by declaring nothing.",
        "the author of the asset",
        "Declare its columns: in the definition, or for a dry run with --column.",
        "comity intent explain --asset ASSET --column NAME",
        related="no_authority column_not_permitted",
        asset="clinic-north.example/released",
    ),
    refuses(
        "input_not_promoted",
        "What the intent or an actuation names as an input is no promoted actuation: it was not made under a"
        " decision, or was staged only.",
        "the requester",
        "Materialize the input under governance first.",
        _LOOK,
        related="input_without_lineage lineage_missing",
        id="0123456789abcdef",
    ),
    refuses(
        "input_struck",
        "An input counts no more. `reason` says why: it was revoked by its writer, or its writer contradicts itself"
        " (slot_twice, rivalled), with two versions of one slot for instance.",
        _WRITER,
        _ANEW,
        _LOOK,
        related="slot_twice voted_twice",
        reason="slot_twice",
    ),
    refuses(
        "item_twice",
        "One partition of an output stands twice in the intent. Each slot is filled once.",
        "the requester",
        "Ask for each partition once.",
        related="class_mixed slot_taken",
        asset="institute.example/pooled",
    ),
    refuses(
        "no_authority",
        "No rule of a policy permits it. With `columns`, no rule permits these columns: they are left out, and the"
        " rest may be made. What no rule permits is not permitted.",
        "the author of the policy, and all members who sign it",
        "See by a dry run what is permitted; otherwise publish a policy with a rule that permits it.",
        "comity intent explain --asset ASSET --purpose NAME",
        "comity coalition show --full",
        "comity policy publish POLICY --out FILE",
        related="extent_empty columns_undeclared",
        columns="name,birth_date",
        columns_more=3,
    ),
    refuses(
        "observation_disputed",
        "Somebody entitled to it disputes the intent or one of its inputs.",
        "who disputes it; or the writer of the input",
        "Ask who disputes it why. It counts until it is taken back, or until the input has a new version.",
        "comity decision show INTENT --working",
        related="observation_failed observation_withdrawn",
        member="board.example",
    ),
    refuses(
        "observation_failed",
        "A check of an input, or of the intent, failed, by the word of somebody entitled to it: its writer, an owner,"
        " or an observer that the policy names.",
        _WRITER,
        "Its writer mends the data and makes a new version, of which the check passes.",
        _LOOK,
        related="verification_failed corroboration",
        member="clinic-north.example",
    ),
    refuses(
        "observation_withdrawn",
        "Somebody entitled to it withdrew what was observed of an input or of the intent.",
        "who observed it",
        "A new observation, or a new version of the input.",
        "comity decision show INTENT --working",
        related="observation_failed",
        member="board.example",
    ),
    defers(
        "owner_departed",
        "A member that has a say over an input, and whose consent is live, has left the coalition. Nobody else"
        " consents in its place.",
        "all members; or the requester",
        "Take it in again by a next epoch; or use inputs that it does not own.",
        "comity coalition admit CARD --out FILE",
        "comity lineage show ASSET",
        related="membership owner_silent",
        member="clinic-south.example",
    ),
    defers(
        "owner_silent",
        "A member that has a say over an input consents live, by its vote, and its vote is not here. In a permit: it"
        " is not among the voters, so the permit carries nothing.",
        "the operator of that member's node",
        "Bring its node up: the intent goes on by itself. An owner that need not be asked each time publishes a"
        " standing consent.",
        "comity node status",
        "comity owner-policy publish --consent CONSENT",
        related="consent owner_departed",
        member="clinic-south.example",
    ),
    refuses(
        "owners_many",
        "The output would have more owners than can be asked: each input brings its own, and none has released its"
        " say.",
        "the owners",
        "Owners release their say over this output.",
        "comity transition publish --asset ASSET --type release",
        related="transition classes_many",
        owners_max=32,
    ),
    refuses(
        "preview_input",
        "An input was made in a preview. Nothing made there reaches production or another preview.",
        "the requester",
        "Make the input in production, under a credential whose realms include it.",
        _LOOK,
        related="realm_mixed",
        asset="institute.example/model",
        realm="preview/dev",
    ),
    refuses(
        "rows_by_missing",
        "A rule obliges to leave out rows by the column that partitions them, and the policy names no such column for"
        " this asset. `rule` says which.",
        "the author of the policy",
        "Set rows_by of the asset in the policy, and publish it.",
        "comity policy lint FILE",
        "comity policy publish POLICY --out FILE",
        related="min_group_rows",
    ),
    defers(
        "trust_slope",
        "An input of a higher trust tier would flow into an output of a lower one. Trust steps down only where every"
        " owner of the input has said so.",
        "the operator of the step; or each owner of the input",
        "Run the step through govern(defs), which measures its context and so gives it tier 1; or have owners publish"
        " a transition.",
        "comity transition publish --asset ASSET --type trust --tier-to TIER",
        related="transition tier",
        asset="clinic-north.example/released",
        tier_from=1,
        tier_to=0,
    ),
    refuses(
        "verification_failed",
        "Somebody entitled to it found that an input does not verify.",
        _WRITER,
        _ANEW,
        _LOOK,
        related="observation_failed content_changed",
        member="clinic-south.example",
    ),
    refuses(
        "vote_large",
        "What a vote would have to say of the intent does not fit into one: it has too many classes, each with too"
        " many causes.",
        "the requester",
        "Make fewer outputs in one step.",
        related="classes_many",
    ),
    defers(
        "weight_low",
        "What speaks for the intent weighs less than a policy asks for: the class of its author, the tier of its"
        " context, its credential's continuity, and what partners observed.",
        "the requester and its partners",
        "Act under a class that weighs more, in a context of a higher tier, with a credential that names its"
        " previous one; or have partners publish what they observed of the inputs.",
        "comity decision show INTENT --working",
        related="corroboration tier",
        weight=400_000,
        weight_min=600_000,
    ),
    # Lineage
    refuses(
        "attempts_used",
        "What was made is of an attempt beyond those that its intent allows; so it is no lineage.",
        _WRITER,
        _ANEW,
        _LOOK,
        related="start_foreign permit_used",
        asset="clinic-north.example/released",
    ),
    refuses(
        "column_not_permitted",
        "What was made has a column outside of what its permit allows; so it is no lineage.",
        _WRITER,
        "Its writer makes it anew, without that column; the file manager of the bridge leaves it out by itself.",
        _LOOK,
        related="no_authority columns_none_permitted",
        asset="clinic-north.example/released",
        column="birth_date",
    ),
    refuses(
        "epoch_unknown",
        "An input was permitted under an epoch that is not known here yet.",
        "nobody has to: the node asks for it",
        "The epoch arrives by itself as soon as a member that has it is in reach.",
        "comity node status",
        related="epoch_other lineage_foreign",
        asset="clinic-north.example/released",
    ),
    refuses(
        "governance_state_wrong",
        "What was made states another governance state than its permit gave it: other owners, another tier or realm,"
        " milder restrictions.",
        _WRITER,
        _ANEW,
        _LOOK,
        related="lineage_wrong",
        asset="clinic-north.example/released",
    ),
    refuses(
        "lineage_foreign",
        "An input was made in another coalition. What another one decided is no decision of this one.",
        NOBODY,
        "Make the input under a decision of this coalition.",
        _LOOK,
        related="record_foreign",
        asset="clinic-north.example/released",
    ),
    defers(
        "lineage_missing",
        "Records that vouch for an input are not here, or not relied on: its actuation, permit, intent or start. Said"
        " of bytes that are to be read, it names the asset, and they are not read.",
        "the operator of its writer's node",
        "Bring that node up: records are fetched from it when they are needed.",
        "comity node status",
        _LOOK,
        related="record input_without_lineage",
        asset="clinic-north.example/released",
    ),
    refuses(
        "lineage_wrong",
        "The records of an input contradict each other: what its actuation names as permit or intent is none, or it"
        " names an input that its permit did not.",
        _WRITER,
        _ANEW,
        _LOOK,
        related="governance_state_wrong not_permitted",
        asset="clinic-north.example/released",
    ),
    refuses(
        "not_permitted",
        "No claim of the permit covers what was made: another asset, partition, generation or predecessor.",
        _WRITER,
        "Its writer asks for what it wants to make, and makes it under that permit.",
        _LOOK,
        related="permit_used slot_taken",
        asset="clinic-north.example/released",
    ),
    refuses(
        "start_foreign",
        "What was made names no start as its own: that record is of other work, or of another member.",
        _WRITER,
        _ANEW,
        _LOOK,
        related="start_missing permit_expired",
        asset="clinic-north.example/released",
    ),
    refuses(
        "start_missing",
        "The record of the start of the work is not at hand, so nobody can tell that it began in time.",
        "the operator of its writer's node",
        "Bring that node up: the record is fetched from it.",
        "comity node status",
        related="lineage_missing start_foreign",
        asset="clinic-north.example/released",
    ),
)
