"""Causes, needs and obligations in one sentence each, for people.

Programs read code and parameters; nothing is ever parsed from these words. docs/spec/causes.md lists every
code. A code of a policy's own has no sentence here and is shown as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from comity.node.forms import ParameterForm, TermForm
from comity.node.visible import visible_word

Parameters = Mapping[str, ParameterForm]

_CAUSES: Final[Mapping[str, str]] = {
    "actuation_quarantined": "{member} has put an input into quarantine",
    "actuation_rolled_back": "{member} has rolled an input back",
    "adverse_many": "more than {adverse_max} records speak against it",
    "approval_not_counted": "an approval from {member} does not count: {reason}",
    "asked_twice": "{member} asked twice for this intent and time",
    "attempts_used": "{asset} was attempted more often than its intent allows",
    "authority_class_not_issued": "{issuer} may not issue credentials of class {authority_class}",
    "authority_class_unknown": "the credential names the class {authority_class}, which the taxonomy in force"
    " does not have",
    "class_mixed": "items of {asset} have inputs that are governed differently",
    "classes_many": "more than {classes_max} data classes or restrictions come together",
    "column_not_permitted": "{column} of {asset} is outside of the permitted extent",
    "columns_undeclared": "{asset} declares no columns, and policy classes them",
    "content_changed": "the bytes are not those that {writer} made",
    "credential_bound": "the credential of {subject} does not reach so far: its {bound} do not include {wanted}",
    "credential_chain_long": "the chain of credentials has more than {links_max} links",
    "credential_early": "the credential of {subject} is not valid yet",
    "credential_expired": "the credential of {subject} has expired",
    "credential_missing": "a credential of the chain is not among the records relied on",
    "credential_not_delegated": "{delegator} has not delegated to {subject}",
    "credential_revoked": "the credential was revoked",
    "credential_unrooted": "the credential of {subject} does not come from its organization's key",
    "credential_widened": "{subject} was delegated more than its delegator has: {bound}",
    "evidence_spliced": "the evidence belongs to another intent or another node",
    "extent_empty": "nothing of what was asked for is left",
    "input_not_promoted": "an input was never promoted",
    "input_struck": "an input counts no more: it was {reason}",
    "input_without_lineage": "no promoted actuation of an input is known",
    "intent_expired": "the intent was open for too long",
    "intent_revoked": "the intent was taken back by a {kind}",
    "lineage_foreign": "an input is of another coalition",
    "lineage_missing": "the records that vouch for an input are not here",
    "lineage_wrong": "the records of {asset} contradict its permit",
    "no_authority": "no rule permits it",
    "no_quorum": "{votes} votes, where {quorum} are needed",
    "node_key_not_in_force": "the certificate of {member}'s node is not in force",
    "node_key_revoked": "the certificate of {member}'s node was revoked",
    "not_a_member": "{member} is no member of this epoch",
    "not_permitted": "the permit does not cover {asset}",
    "not_the_writer": "{member} does not write {asset}: it lies in another member's namespace",
    "observation_disputed": "{member} disputes the intent or an input",
    "observation_failed": "{member} found that a check fails",
    "observation_withdrawn": "{member} withdrew what it observed",
    "owner_departed": "{member} owns an input and has left the coalition",
    "owner_silent": "{member} owns an input, its consent is live, and its vote is not here",
    "permit_expired": "the work on {asset} began after its permit had ended",
    "permit_superseded": "the permit {id} is of an epoch that had ended before it was decided",
    "preview_input": "{asset} was made in realm {realm}, which never reaches production",
    "requester_wrong": "the credential is that of {subject}, not of {wanted}",
    "start_foreign": "the start of {asset} is of other work",
    "start_missing": "the record of the start of {asset} is not here",
    "ticket_bound": "the launch ticket of {subject} does not cover this, by its {bound}",
    "ticket_expired": "the launch ticket of {subject} has expired",
    "ticket_missing": "{subject} has signed no launch ticket for this run",
    "ticket_used": "the launch ticket was used for run {run} already",
    "trust_slope": "{asset} would step down in trust, from tier {tier_from} to tier {tier_to}",
    "verification_failed": "{member} found that an input does not verify",
    "vote_large": "the intent is too large to be judged in one vote: fewer outputs in one step",
    "voted_twice": "{member} is shown to have cast two votes at once, and its votes make up no quorum",
    "weight_low": "the intent weighs {weight} ppm, where {weight_min} are needed",
}

_NEEDS: Final[Mapping[str, str]] = {
    "approval": "an approval by somebody who holds {class}",
    "consent": "the vote of {member}, an owner of an input: its node has to be up",
    "corroboration": "observations that lift the weight to {weight} ppm",
    "credential": "the credential {id}",
    "epoch": "a next epoch, which all members sign: under it the votes of {member} count again",
    "input": "a promoted actuation of {asset}",
    "launch_ticket": "a launch ticket by {subject}",
    "membership": "{member} as a member again, or inputs that it does not own",
    "record": "the record {id}",
    "tier": "an execution context of tier {at_least} or above",
    "transition": "a transition of type {type} by {member}",
}

_DEEDS: Final[Mapping[str, str]] = {
    "approval": "comity approve {intent} --key KEY --credential CREDENTIAL",
    "consent": "nothing to do here: the intent goes on by itself when the node of {member} answers",
    "corroboration": "have partners publish what they observed of the inputs",
    "credential": "have its issuer publish it: comity credential issue",
    "epoch": "have all members sign a next epoch, e.g. with other policies: comity policy publish POLICY --out FILE",
    "launch_ticket": "comity ticket --key KEY --credential CREDENTIAL --run RUN --job JOB --asset ASSET --out FILE",
    "membership": "have the members take {member} in again: comity coalition admit CARD",
    "record": "have its author's node up: records are pulled every few seconds",
    "tier": "run the step through govern(defs), which measures its context",
    "transition": "{member} runs: comity transition publish --type {type} --asset ASSET",
}

_OBLIGATIONS: Final[Mapping[str, str]] = {
    "min_group_rows": "leave out groups of fewer than {rows} rows by {column}",
}


def cause_sentence(code: str, parameters: Parameters) -> str:
    """Why; empty where the code has no sentence or its parameters are others."""
    return _filled(_CAUSES, code, parameters)


def need_sentence(code: str, parameters: Parameters) -> str:
    """What is missing; empty as above."""
    return _filled(_NEEDS, code, parameters)


def obligation_sentence(code: str, parameters: Parameters) -> str:
    """What has to be done; empty as above."""
    return _filled(_OBLIGATIONS, code, parameters)


def deed_for(need: TermForm, intent: str) -> str:
    """What somebody can do about a need; empty where nothing general can be said."""
    return _filled(_DEEDS, need.code, {**need.parameters, "intent": intent})


def spelled(term: TermForm) -> str:
    """A term for people: its sentence, or its code with the parameters."""
    if term.message:
        return f"{term.message} [{term.rule}]" if term.rule else term.message
    listed = ", ".join(f"{name} {value}" for name, value in sorted(term.parameters.items()))
    text = f"{term.code} ({listed})" if listed else term.code
    return f"the rule {term.rule} says {text}" if term.rule else text


def _filled(sentences: Mapping[str, str], code: str, parameters: Parameters) -> str:
    sentence = sentences.get(code)
    if sentence is None:
        return ""
    try:
        # Parameters are texts and integers of records: a format string is never taken from them.
        return sentence.format_map({name: visible_word(str(value)) for name, value in parameters.items()})
    except (KeyError, IndexError, ValueError):
        return ""
