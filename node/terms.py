"""Codes with their parameters, between records and the words of the API."""

from __future__ import annotations

import msgspec

from comity.node.forms import TermForm
from comity.node.problems import Refused
from comity.node.sentences import cause_sentence, need_sentence, obligation_sentence
from comity.protocol.outcome import Cause, Need, Obligation


def obligation_form(term: Obligation) -> TermForm:
    parameters = dict(term.parameters)
    return TermForm(term.code, parameters, message=obligation_sentence(term.code, parameters))


def need_form(need: Need) -> TermForm:
    parameters = dict(need.parameters)
    return TermForm(need.code, parameters, message=need_sentence(need.code, parameters))


def cause_form(cause: Cause) -> TermForm:
    parameters = dict(cause.parameters)
    return TermForm(cause.code, parameters, cause.rule, cause_sentence(cause.code, parameters))


def cause_of(term: TermForm) -> Cause:
    """A reason of whoever uses this node, as a record says it: its code, and of its parameters what is short.

    Raises:
        Refused: `form_invalid`.
    """
    raw = {"code": term.code, "rule": term.rule, "parameters": dict(list(term.parameters.items())[:8])}
    try:
        return msgspec.convert(raw, Cause, strict=True)
    except msgspec.ValidationError as exc:
        raise Refused("form_invalid", f"the cause {term.code[:64]!r}: {exc}", 422) from exc
