"""`govern(defs)`: the one line that puts a gate before every step of a code location."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Final

import dagster as dg

from comity.dagster_bridge.dagster_internals import (
    check_dagster,
    gate_of,
    observed_sources,
    ops_of,
    place_gate,
    place_loading_gate,
    place_observation_gate,
    place_reporting_gate,
)
from comity.dagster_bridge.gate import HOME_VARIABLE, Gate, GateOptions
from comity.dagster_bridge.gate_facts import GateFacts, announce
from comity.dagster_bridge.governed_step import Choice, Unbound
from comity.dagster_bridge.measurement import code_root as root_of
from comity.dagster_bridge.measurement import measure_code, measure_context
from comity.dagster_bridge.requester import Requester, ticket_from_file
from comity.dagster_bridge.stores import stores_of
from comity.protocol.errors import ConfigError

TICKET_VARIABLE: Final = "COMITY_TICKET"
"""Environment variable: a file that holds a launch ticket for this process's runs."""


def govern(  # noqa: PLR0913  # every option has a default; nobody gives them by position
    definitions: dg.Definitions,
    *,
    home: Path | str | None = None,
    socket: Path | str | None = None,
    token: str = "",
    purpose: str = "",
    credential: str = "",
    requester: Requester | None = None,
    ticket: Path | str | None = None,
    location: str = "",
    revision: str = "",
    code_root: Path | str | None = None,
    wait_max_s: float = 60.0,
    unbound_reads: Choice = "refuse",
    unbound_writes: Choice = "refuse",
) -> dg.Definitions:
    """Put a gate before every step of these definitions, however a run is started, and return them.

    The ops are changed in place, so the same assets are governed wherever else they are used in this process.
    Steps that no policy speaks of run as before. Call it last, on all definitions of the code location.

    Args:
        definitions: every asset, check, job, schedule and sensor of the code location.
        home: the home of this organization's node; otherwise COMITY_HOME.
        socket: the node's socket, where its home cannot be read; then `token` is its bridge token.
        token: see `socket`.
        purpose: what the runs are for, in the coalition's words; otherwise the node's.
        credential: id of the automation credential that this code location acts under, one that the node's own key
            holds; otherwise the node's.
        requester: who asks, if not the node's automation credential: signs a launch ticket per run.
        ticket: a file with a launch ticket signed before, instead of a requester; otherwise COMITY_TICKET.
        location: name of the code location, if not Dagster's own.
        revision: the revision of the code, e.g. a commit.
        code_root: directory whose Python files are measured as the code; otherwise the topmost package around the file
            that calls this, or that file's directory.
        wait_max_s: how long a step waits for a decision before it fails as deferred, at most an hour.
        unbound_reads: whether a governed step may read governed inputs past an IO manager that verifies them.
        unbound_writes: whether a governed step may make what no IO manager binds to lineage, where its permit
            withholds nothing.

    Raises:
        ConfigError: an option is wrong, code or environment cannot be measured, Dagster is of an unknown version, an
            asset cannot be governed, or an op is governed already with other options.
    """
    check_dagster()
    _check_definitions(definitions)
    _check_options(socket, token, credential, requester, ticket)
    code = measure_code(Path(code_root) if code_root is not None else root_of(_calling_file()))
    # Now, and not at the first step: what was imported until then is what is installed now.
    measure_context(code)
    gate = Gate(
        GateOptions(
            code=code,
            home=_home(home),
            socket=Path(socket) if socket is not None else None,
            token=token,
            purpose=purpose,
            credential=credential,
            requester=requester if requester is not None else _ticket(ticket),
            location=location,
            revision=revision,
            wait_max_s=wait_max_s,
            unbound=Unbound(unbound_reads, unbound_writes),
            stores=stores_of(definitions),
        )
    )
    _place(definitions, gate)
    announce(definitions, _facts(gate))
    return definitions


def _facts(gate: Gate) -> GateFacts:
    options = gate.options
    return GateFacts(
        code=options.code.digest,
        context=measure_context(options.code),
        purpose=options.purpose,
        credential=options.credential,
        location=options.location,
        revision=options.revision,
        asks_at_step=options.requester is not None,
        stores=dict(sorted(options.stores.items())),
    )


def _check_options(
    socket: Path | str | None,
    token: str,
    credential: str,
    requester: Requester | None,
    ticket: Path | str | None,
) -> None:
    """Options that exclude each other, or that are given together."""
    if (socket is None) != (not token):
        raise ConfigError("govern() takes socket and token together, or the node's home alone")
    if requester is not None and ticket is not None:
        raise ConfigError("govern() takes a requester or a ticket, not both")
    if credential and (requester is not None or ticket is not None):
        raise ConfigError("govern() takes the credential of automation, or somebody who asks, not both")


def _check_definitions(definitions: object) -> None:
    if not isinstance(definitions, dg.Definitions):
        lazily = "; govern what @definitions makes inside of its function: return govern(defs)"
        raise ConfigError(
            f"govern() takes dg.Definitions, not {type(definitions).__name__}"
            + (lazily if callable(definitions) else "")
        )


def _place(definitions: dg.Definitions, gate: Gate) -> None:
    """Put the gate before everything that a run of these definitions can execute."""
    place_loading_gate()
    place_reporting_gate()
    for source in observed_sources(definitions):
        place_observation_gate(source, gate)
    for op in ops_of(definitions):
        before = gate_of(op)
        if before is None:
            place_gate(op, gate)
        elif not isinstance(before, Gate) or before.options != gate.options:
            raise ConfigError(f"op {op.name} is governed already, with other options")


def _home(home: Path | str | None) -> Path | None:
    """The node's home. Missing is no error yet: definitions load without a node, steps say so."""
    named = str(home) if home is not None else os.environ.get(HOME_VARIABLE, "")
    return Path(named) if named else None


def _ticket(ticket: Path | str | None) -> Requester | None:
    named = str(ticket) if ticket is not None else os.environ.get(TICKET_VARIABLE, "")
    return ticket_from_file(Path(named)) if named else None


def _calling_file() -> Path:
    """The file that called `govern`."""
    here = inspect.currentframe()
    caller = here.f_back.f_back if here is not None and here.f_back is not None else None
    name = caller.f_globals.get("__file__") if caller is not None else None
    if not isinstance(name, str):
        raise ConfigError("govern() is called from no file: name the code with code_root=...")
    return Path(name)
