"""What the codes say that speak of who asks, for what and when: credentials, tickets, approvals, the intent itself."""

from __future__ import annotations

from typing import Final

from comity.node.cause_page import NOBODY, CausePage, defers, explains, refuses

_FITTER: Final = "spiffe://institute.example/agent/fitter"
_ISSUE: Final = "comity credential issue --subject SUBJECT --kind person --class CLASS --public FILE"
_TICKET: Final = (
    "comity ticket --key KEY --credential CREDENTIAL --run RUN --job JOB --asset ASSET --out FILE"
)

PAGES: Final[tuple[CausePage, ...]] = (
    explains(
        "approval_not_counted",
        "An approval reached the voters and does not count. `reason` says why: it is of another intent, it has"
        " expired, what was shown is not what is asked for, the approver stands in the requester's own chain, or"
        " its credential does not reach so far. It changes no outcome; it says why the need for an approval is"
        " still open.",
        "the approver, or another holder of the class",
        "Approve the intent as it is now, with a credential whose actions include approve and whose assets cover"
        " every output.",
        "comity approve INTENT --key KEY --credential CREDENTIAL",
        related="approval credential_bound",
        member="clinic-north.example",
        reason="expired",
    ),
    refuses(
        "ask_not_the_requesters",
        "The ask is about another intent than the one it came with, or another member asked than the one that"
        " filed the intent. Only the organization whose intent it is may ask.",
        NOBODY,
        "The organization that writes the asset files and asks for an intent of its own. A node of Comity never"
        " asks so.",
        related="ask_foreign ask_mixed",
    ),
    refuses(
        "asked_twice",
        "A proof is held that the requester signed two asks for one intent and one time. That round is refused;"
        " the proof stands against its member.",
        "the requester",
        "Its node asks again at a later time by itself. If two processes run under one key, stop one of them.",
        "comity node status",
        related="voted_twice proof_wrong",
        member="clinic-south.example",
    ),
    refuses(
        "authority_class_not_issued",
        "The credential carries an authority class that the taxonomy in force does not let its issuer give.",
        "all members, by a next epoch with another taxonomy; or the issuer that may give the class",
        "See which members may issue a class, and have one of them issue the credential; or draft an epoch whose"
        " taxonomy names this issuer too.",
        "comity coalition show",
        "comity policy publish POLICY --taxonomy FILE --out FILE",
        related="authority_class_unknown",
        authority_class="data-steward",
        issuer="institute.example",
    ),
    refuses(
        "authority_class_unknown",
        "The credential carries an authority class that the taxonomy in force does not have: it was misspelled, or"
        " a later epoch dropped it.",
        "the issuer of the credential",
        "Issue one with a class of the taxonomy; `comity coalition show` lists them.",
        "comity coalition show",
        _ISSUE,
        related="authority_class_not_issued credential_bound",
        authority_class="data-stewart",
    ),
    refuses(
        "credential_bound",
        "The credential does not reach so far. `bound` is the field that is too narrow (actions, assets, realms or"
        " purposes) and `wanted` what the intent asks for.",
        "the issuer of the credential; or somebody who holds a wider one",
        "Issue one whose bound includes what is wanted: for an asset --asset, for a purpose --purpose, for a realm"
        " --realm, for an action --action.",
        "comity credential list",
        _ISSUE + " --asset PATTERN",
        related="credential_widened ticket_bound",
        bound="assets",
        subject=_FITTER,
        wanted="institute.example/plain/other",
    ),
    refuses(
        "credential_chain_long",
        "The credential was delegated over more links than a chain may have.",
        "the issuer",
        "Issue it nearer to the organization: by its own key, or under a credential that stands higher.",
        _ISSUE,
        related="credential_widened",
        links_max=8,
    ),
    refuses(
        "credential_early",
        "The credential, or one above it in its chain, is not valid yet at the time that is asked for.",
        "nobody has to: time mends it",
        "Run the step again once the credential has begun. If it should have begun, the clock of the machine that"
        " issued it may be ahead.",
        "comity credential list",
        related="credential_expired clock",
        subject=_FITTER,
        not_before=1_800_000_000,
    ),
    refuses(
        "credential_expired",
        "The credential, or one above it in its chain, has ended. What was decided before stays as it is.",
        "the organization that issued it",
        "Issue a new one; --previous names the old one, so that its holder keeps the weight of continuity.",
        "comity credential list",
        _ISSUE + " --previous CREDENTIAL",
        related="credential_early ticket_expired",
        subject=_FITTER,
        not_after=1_800_000_000,
    ),
    defers(
        "credential_missing",
        "A credential of the chain is not among the records that the requester relies on: its node does not hold"
        " it, so no voter may count it.",
        "the issuer of the credential",
        "Publish it through a node: issue it with a running node, or hand in the file that was written.",
        "comity record submit FILE",
        related="credential credential_unknown",
    ),
    refuses(
        "credential_not_delegated",
        "A link of the chain is not signed by the key of the credential above it, or belongs to another member."
        " Nobody delegates for somebody else.",
        "the delegator",
        "Issue the link anew, under the delegator's credential and with the delegator's own key.",
        "comity credential issue --subject SUBJECT --kind agent --class CLASS --public FILE --under CREDENTIAL"
        " --key KEY",
        related="credential_widened credential_unrooted",
        subject=_FITTER,
        delegator="spiffe://institute.example/analyst/3c",
    ),
    refuses(
        "credential_revoked",
        "The credential that the intent rests on was taken back, or one above it was, or two of the same number"
        " contradict each other. It counts as soon as a voter holds the revocation.",
        "the organization that issued it",
        "If the holder is to go on, issue a new credential, to a new key if the old one was lost.",
        "comity credential list",
        _ISSUE,
        related="intent_revoked adverse_held",
        id="0123456789abcdef",
    ),
    refuses(
        "credential_unrooted",
        "The first link of the chain is not signed by a key that its organization has in this epoch: the"
        " organization changed its key, or somebody else signed.",
        "the organization",
        "Issue the credential anew with the organization's key of this epoch.",
        "comity coalition show",
        _ISSUE,
        related="node_key_not_in_force",
        subject=_FITTER,
    ),
    refuses(
        "credential_widened",
        "A link of the chain grants more than the one above it. `bound` is the field: delegations, validity,"
        " classes, actions, realms, purposes or assets. Links only narrow.",
        "the delegator",
        "Issue the link anew within the bounds of the one above it.",
        "comity credential issue --subject SUBJECT --kind agent --class CLASS --public FILE --under CREDENTIAL"
        " --key KEY",
        related="credential_bound credential_not_delegated",
        subject=_FITTER,
        bound="assets",
    ),
    refuses(
        "credential_wrong",
        "The record that the intent, or a link of the chain, names as a credential is of another kind.",
        "the requester",
        "Name a credential: in the step, or as `automation` in node.toml.",
        "comity credential list",
        "comity config check",
        related="credential_unknown",
        id="0123456789abcdef",
    ),
    refuses(
        "evidence_spliced",
        "Evidence of an execution context is bound to another intent, another node or another measurement than"
        " what it came with. It was taken from another run.",
        "the requester",
        "Run the step again through govern(defs): each run is measured by itself.",
        related="tier trust_slope",
    ),
    refuses(
        "extent_empty",
        "What the findings leave of the request is nothing: no column or no item would remain. The other causes"
        " say what took the rest.",
        "the requester",
        "Ask for what is permitted; a dry run shows the columns and partitions that each rule leaves.",
        "comity intent explain --asset ASSET --input ASSET",
        related="no_authority output_excluded",
    ),
    refuses(
        "intent_early",
        "The intent is dated later than the ask allows: the clock of the requester's machine moved, or is wrong.",
        "the operator of the requester's node",
        "Set the machine's clock (NTP), and run the step again.",
        "comity node doctor",
        related="clock intent_expired",
        at=1_800_000_000,
    ),
    refuses(
        "intent_expired",
        "The intent is over: its own end has passed, it is older than a week, or it was asked for as often as may"
        " be. It is decided no more.",
        NOBODY,
        "Run the step again: a new intent is filed, and what was missing for the old one may be there by now.",
        "comity waiting",
        related="credential_expired",
        expires=1_800_000_000,
    ),
    refuses(
        "intent_revoked",
        "The intent, or the ask, was taken back by whose it is.",
        NOBODY,
        "Run the step again where the work is still wanted.",
        related="credential_revoked adverse_held",
        kind="intent",
    ),
    refuses(
        "node_key_not_in_force",
        "The certificate of the requester's node does not hold at the time that is asked for, or was signed by a"
        " key that its organization no longer has.",
        "the organization of that node",
        "Certify the node anew with the organization's key, and join with the file that then has the certificate.",
        "comity coalition sign FILE",
        "comity coalition join FILE --fingerprint HEX",
        related="node_key_revoked vote_key_not_in_force",
        member="clinic-south.example",
    ),
    refuses(
        "node_key_revoked",
        "The certificate of the requester's node was revoked: its key may have been lost.",
        "the organization of that node",
        "Make a home with a new key and certify that; the old key stays revoked.",
        "comity node init --member DOMAIN HOME",
        "comity coalition sign FILE",
        related="node_key_not_in_force",
        member="clinic-south.example",
    ),
    refuses(
        "not_a_member",
        "The intent or the ask is by an organization that does not belong to the coalition in this epoch.",
        "all members",
        "Take it in by a next epoch, which all old and new members sign.",
        "comity coalition admit CARD --out FILE",
        related="membership vote_by_stranger",
        member="board.example",
    ),
    refuses(
        "not_the_writer",
        "The output lies in the namespace of another member. Only its writer makes an asset.",
        "the writer of the asset",
        "Write under an own name, or have the writer run the step.",
        "comity coalition show",
        related="not_permitted",
        member="clinic-south.example",
        asset="clinic-north.example/released",
    ),
    refuses(
        "realm_mixed",
        "Intent and ask are of different realms, such as production and a preview.",
        "the requester",
        "Run the step again: a node files and asks in the realm that the credential grants.",
        "comity credential list",
        related="preview_input",
    ),
    refuses(
        "record_foreign",
        "The intent or the ask is of another coalition, or was not signed by a node.",
        "the requester",
        "File it through a node of this coalition.",
        "comity node status",
        related="scope_wrong lineage_foreign",
        kind="intent",
    ),
    refuses(
        "requester_wrong",
        "The intent names a requester who is not the subject of its credential, or the credential is of another"
        " member.",
        "the requester",
        "Act under an own credential: it is named in the step, or comes with the launch ticket.",
        "comity credential list",
        related="ticket_missing credential_bound",
        subject=_FITTER,
        wanted="spiffe://institute.example/analyst/3c",
    ),
    refuses(
        "scope_wrong",
        "The ask names another scope or another epoch than the one that the voter judges by. The requester was not"
        " yet told of the newest epoch, or is ahead.",
        "nobody has to: the node asks again",
        "The requester's node asks again as soon as it has the newest epoch, within seconds of reaching a member.",
        "comity node status --until quorum",
        related="epoch_other permit_of_another_epoch",
    ),
    refuses(
        "ticket_bound",
        "The launch ticket does not cover the step. `bound` is what differs: the run, the job, the purpose, the"
        " assets or the partitions.",
        "the subject of the ticket",
        "Sign a ticket for this run, job and asset. Without --run it is for the first run that comes with it.",
        _TICKET,
        related="launch_ticket ticket_missing",
        bound="job",
        subject=_FITTER,
        wanted="study",
    ),
    refuses(
        "ticket_expired",
        "The launch ticket does not hold at the time that is asked for.",
        "the subject of the ticket",
        "Sign a new one; --minutes says how long it holds.",
        _TICKET + " --minutes MINUTES",
        related="launch_ticket credential_expired",
        subject=_FITTER,
        not_after=1_800_000_000,
    ),
    defers(
        "ticket_missing",
        "Whoever holds the credential has not signed for this run: only automation whose credential the node's own"
        " key holds needs no launch ticket.",
        "the subject of the credential",
        "Sign a launch ticket with the own key, and launch the run with it.",
        _TICKET,
        related="launch_ticket ticket_bound",
        subject=_FITTER,
    ),
    refuses(
        "ticket_used",
        "The launch ticket is for one run, and another one was asked for with it before. A run that is started again"
        " by itself, with the same tags, is another run.",
        "the subject of the ticket",
        "Sign another ticket for this run. Where nobody has started the second run on purpose, find out who did.",
        _TICKET,
        related="launch_ticket ticket_bound",
        ticket="5f0c2f8a8d1e4b77",
        run="6f1c1a52-7a0e-4ad5-a4a4-3f5b3d1c8f10",
    ),
)
