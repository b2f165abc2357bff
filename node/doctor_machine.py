"""The doctor's look at the machine: clock, packages, environment, port, disk, and the store's file.

The store is read as a file that nobody changes, and only where no node has it open: opening it as the node does would
write to it.
"""

from __future__ import annotations

import re
import shutil
import socket
import sqlite3
import stat
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Any, Final

from comity.attestation.toml_text import date_of
from comity.node.coalitions import epoch_of
from comity.node.doctor_findings import Check, Examination, Finding, not_tried, ok
from comity.node.visible import word
from comity.protocol.limits import ASK_AHEAD_S

CLOCKS_APART_S: Final = ASK_AHEAD_S
"""A vote's time may lie so far after the voter's clock; who is further off is declined."""
FREE_BYTES_MIN: Final = 64 * 1_048_576
"""A node that cannot write stops: with less a day of votes may not fit."""
FREE_BYTES_WARN: Final = 1_024 * 1_048_576
YAMUX_PREFIX: Final = "PY_YAMUX_"
YAMUX_MEASURED: Final = {"PY_YAMUX_RELEASE_ON_READ": "0"}
"""What the benchmarks set. Other values change how connections send, and nothing is known of them."""
_PINNED: Final = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?\s*([^;]*)(?:;\s*extra == .([a-z]+).)?")
_DECLINED: Final = "clock"


def clock(examined: Examination) -> Iterator[Finding]:
    """The clock against what was signed, the node's, and what other members' nodes say of it."""
    now = examined.clock.now()
    set_it = "timedatectl set-ntp true"
    file = examined.file
    if file is not None and now < (started := epoch_of(file.epochs[0]).started) - ASK_AHEAD_S:
        said = f"it is {date_of(now)} here, before epoch 0 was signed ({date_of(started)})"
        yield Finding("clock", "wrong", said, command=set_it)
        return
    if not examined.runs:
        yield ok(
            "clock", f"it is {date_of(now)}; whether the members' clocks agree is seen when the node runs"
        )
        return
    apart = int(examined.answers["status"]["now"]) - now
    if abs(apart) > CLOCKS_APART_S:
        yield Finding("clock", "wrong", f"the node's clock is {apart} s from this one", command=set_it)
        return
    off = sorted(
        {
            member
            for row in examined.answers.get("waiting", ())
            for member, vote in row["votes"].items()
            if vote == _DECLINED
        }
    )
    if off:
        said = f"{', '.join(off)} gave no vote, because this clock or theirs is wrong"
        yield Finding("clock", "warning", said, command=set_it)
        return
    yield ok("clock", f"it is {date_of(now)}, and no member's node has declined because of it")


def packages(_: Examination) -> Iterator[Finding]:
    """The packages of a node are here, and those that are pinned are the pinned ones."""
    from comity.attestation.policy_engine import engine_problem

    problems: list[Finding] = []
    mended = "pip install 'comity[node]'"
    for name, pinned in _required():
        found = _version(name)
        if found is None:
            problems.append(Finding("packages", "wrong", "it is not installed", name, mended))
        elif pinned and found != pinned:
            said = f"{found} is installed, and {pinned} is what was measured"
            problems.append(Finding("packages", "wrong", said, name, mended))
    problem = engine_problem(_version("cedarpy") or "none")
    if problem is not None:
        problems.append(Finding("packages", "wrong", str(problem), "cedarpy", mended))
    yield from problems
    if not problems:
        yield ok("packages", f"comity {_version('comity')} with libp2p {_version('libp2p')}, as pinned")


def _required() -> Iterator[tuple[str, str]]:
    """The packages that a node needs, each with its version where only one will do."""
    for line in metadata.requires("comity") or ():
        found = _PINNED.fullmatch(line.strip())
        if found is not None and found[3] in (None, "node"):
            wanted = found[2].strip()
            yield found[1], wanted.removeprefix("==") if wanted.startswith("==") else ""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def environment(examined: Examination) -> Iterator[Finding]:
    """Variables that change how the network library sends."""
    given = {name: value for name, value in examined.environment.items() if name.startswith(YAMUX_PREFIX)}
    strange = sorted(name for name, value in given.items() if YAMUX_MEASURED.get(name) != value)
    if strange:
        said = (
            f"{', '.join(strange)} is set here: a node that is started so sends otherwise than was measured"
        )
        yield Finding("environment", "warning", said, command=f"unset {' '.join(strange)}")
        return
    yield ok(
        "environment", "nothing here changes how connections send" if not given else "as it was measured"
    )


# Port


def port(examined: Examination) -> Iterator[Finding]:
    """The node has its port, or could have it."""
    if examined.config is None:
        yield not_tried("port", "it needs sound settings")
        return
    listen = examined.config.listen
    if examined.runs:
        yield ok("port", f"the node listens on {', '.join(examined.answers['status']['listens']) or listen}")
        return
    _, kind, host, _, number = listen.split("/")
    if number == "0":
        yield ok("port", "it is chosen anew at every start: others are dialled from here")
        return
    problem = _bind_problem(kind, host, int(number))
    if problem is None:
        yield ok("port", f"{listen} is free")
        return
    yield Finding(
        "port",
        "wrong",
        f"{listen}: {problem}; `listen` in node.toml says another",
        command=f"ss -ltnp 'sport = :{number}'",
    )


def _bind_problem(kind: str, host: str, number: int) -> str | None:
    """Why nothing can listen there, or None. It is tried, and given back at once."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
    except OSError as exc:
        return f"{host} is no address of this machine ({exc.strerror or exc})"
    if kind.startswith("ip6") and family != socket.AF_INET6:
        return f"{host} is no IPv6 address"
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        # As a server does: what was closed a moment ago is no program that listens.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(address)
        except OSError as exc:
            return exc.strerror or str(exc)
    return None


# Disk and store


def disk(examined: Examination) -> Iterator[Finding]:
    """The disk of the store has room."""
    place = examined.store.parent if examined.store is not None else examined.home.path
    try:
        free = shutil.disk_usage(place).free
    except OSError as exc:
        yield Finding("disk", "wrong", f"{place}: {exc.strerror or exc}", command=f"df {place}")
        return
    said = f"{free // 1_048_576} MiB are free where the store is"
    if free < FREE_BYTES_MIN:
        yield Finding("disk", "wrong", f"{said}: a node that cannot write stops", command=f"df {place}")
    elif free < FREE_BYTES_WARN:
        yield Finding("disk", "warning", said, command=f"df {place}")
    else:
        yield ok("disk", said)


def store(examined: Examination) -> Iterator[Finding]:
    """The store's file is private, is a store, and of a schema that this release reads."""
    path = examined.store
    if path is None:
        yield not_tried("store", "it needs sound settings")
        return
    if examined.runs:
        yield ok("store", "the node has it open")
        return
    if not path.exists():
        yield ok("store", "it is made when the node starts for the first time")
        return
    if stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        yield Finding("store", "wrong", f"others can read {path}", command=f"chmod 600 {word(path)}")
        return
    if util.find_spec("sqlalchemy") is None:
        yield not_tried("store", "it needs the packages of a node: pip install 'comity[node]'")
        return
    yield _schema_of(path)


def _schema_of(path: Path) -> Finding:
    from comity.node.store_tables import SCHEMA

    log = path.with_name(f"{path.name}-wal")
    unfinished = log.exists() and log.stat().st_size > 0
    try:
        found = _facts(path)
    except sqlite3.Error as exc:
        said = (
            f"{path}: {exc}. Put a backup in its place; without one the node begins anew, and what only it held is"
            " lost"
        )
        return Finding("store", "wrong", said, command=f"mv {word(path)} {word(f'{path}.damaged')}")
    if not found and unfinished:
        return not_tried("store", "it was not closed, and the next start finishes what was written")
    if not found:
        return Finding(
            "store",
            "wrong",
            f"{path} is no store of Comity",
            command=f"mv {word(path)} {word(f'{path}.other')}",
        )
    if found.get("schema") != str(SCHEMA):
        said = f"it has schema {found.get('schema')}, and this release reads {SCHEMA}"
        return Finding("store", "wrong", said, command="pip install --upgrade 'comity[node]'")
    ended = "it was not closed, and the next start finishes that" if unfinished else "it was closed"
    return ok("store", f"schema {SCHEMA}, {path.stat().st_size // 1_024} KiB; {ended}")


def _facts(path: Path) -> dict[str, Any]:
    """What a store says of itself; nothing where it is a database of another sort."""
    connection = _read_only(path)
    try:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        return dict(connection.execute("SELECT name, value FROM facts")) if "facts" in tables else {}
    finally:
        connection.close()


def _read_only(path: Path) -> sqlite3.Connection:
    """A connection that makes no lock, log or index beside the file."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)


def newest_epoch(path: Path, coalition: bytes) -> tuple[int, bytes] | None:
    """Number and id of the newest epoch that a closed store holds; None where it holds none, or cannot be read."""
    query = (
        "SELECT number, id FROM records WHERE kind = 'epoch' AND coalition = ? ORDER BY number DESC LIMIT 1"
    )
    try:
        connection = _read_only(path)
        try:
            row = connection.execute(query, (coalition,)).fetchone()
        finally:
            connection.close()
    except sqlite3.Error:
        return None
    return (int(row[0]), bytes(row[1])) if row is not None else None


CHECKS: Final[tuple[Check, ...]] = (clock, packages, environment, port, disk, store)
