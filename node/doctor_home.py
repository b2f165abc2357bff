"""The doctor's look at the files of a home: who may read them, whether they are sound and fit each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

from comity.attestation.engine import engine_id
from comity.attestation.toml_text import date_of
from comity.node.cards import read_card
from comity.node.coalition_file import read_coalition
from comity.node.coalition_view import policies_of
from comity.node.coalitions import DAY_S, certificate_for, epoch_of, verified
from comity.node.config import read_config
from comity.node.doctor_findings import Check, Examination, Finding, not_tried, ok
from comity.node.home import NODE_KEY, ORGANIZATION_KEY, TRANSPORT_KEY
from comity.node.keystore import is_encrypted, load_key
from comity.node.tokens import read_tokens
from comity.node.visible import word
from comity.protocol.errors import ConfigError, DecodeError
from comity.protocol.records import decode_body

CERTIFICATE_DAYS_MIN: Final = 30
"""With less left a certificate is warned of: `comity coalition sign` renews it from then on."""


def _wrong(check: str, exc: ConfigError | DecodeError, command: str) -> Finding:
    return Finding(check, "wrong", str(exc), command=command)


def home(examined: Examination) -> Iterator[Finding]:
    """The folder is there, this user's, and nobody else may look into it."""
    place = examined.home
    if not place.path.is_dir():
        said = f"there is no home at {place.path}"
        yield Finding("home", "wrong", said, command=f"comity node init --member DOMAIN {place.word}")
        return
    if not os.access(place.path, os.R_OK | os.X_OK):
        owner = f"#{place.path.stat().st_uid}"
        said = f"this user may not look into {place.path}: the node and its doctor run as its owner, user {owner}"
        yield Finding(
            "home", "wrong", said, command=f"sudo -u '{owner}' comity node doctor --home {place.path}"
        )
        return
    examined.entered = True
    try:
        place.require_private()
    except ConfigError as exc:
        mended = f"chmod -R go= {place.word}" if "chmod" in str(exc) else f"cp -a BACKUP {place.word}"
        yield _wrong("home", exc, mended)
        return
    yield ok("home", f"{place.path}: nobody else may look into it")


def settings(examined: Examination) -> Iterator[Finding]:
    """`node.toml` says nothing that a node would not take."""
    try:
        examined.config = read_config(examined.home.config)
    except ConfigError as exc:
        yield _wrong("settings", exc, f"comity config check --home {examined.home.word}")
        return
    yield ok(
        "settings",
        f"{examined.home.config.name}: {examined.config.node}, listens at {examined.config.listen}",
    )


def keys(examined: Examination) -> Iterator[Finding]:
    """The keys that a running node needs are there, private, and fit their companions."""
    problems: list[Finding] = []
    for name in (NODE_KEY, TRANSPORT_KEY):
        path = examined.home.key(name)
        try:
            examined.keys[name] = load_key(path).public
        except ConfigError as exc:
            mended = f"chmod 600 {word(path)}" if "chmod" in str(exc) else f"cp BACKUP {word(path)}"
            problems.append(Finding("keys", "wrong", str(exc), name, mended))
    yield from problems
    if not problems:
        yield ok("keys", "the keys of the node and of its connections are here and private")


def organization_key(examined: Examination) -> Iterator[Finding]:
    """The organization's key, which a running node never needs."""
    path = examined.home.key(ORGANIZATION_KEY)
    if not path.exists():
        yield ok("organization_key", "it is not in the home: a running node never needs it")
        return
    try:
        encrypted = is_encrypted(path)
    except ConfigError as exc:
        yield _wrong("organization_key", exc, f"chmod 600 {word(path)}")
        return
    if encrypted:
        yield ok("organization_key", "it is in the home, encrypted")
        return
    said = (
        "it lies in the home, not encrypted: whoever takes this home speaks for the organization. A running node never"
        " needs it; --organization-key FILE names it where it is kept"
    )
    yield Finding("organization_key", "warning", said, command=f"mv {word(path)} FOLDER")


def tokens(examined: Examination) -> Iterator[Finding]:
    """The tokens of the local API are there and private."""
    try:
        read_tokens(examined.home)
    except ConfigError as exc:
        mended = (
            f"chmod -R go= {word(examined.home.tokens)}"
            if "chmod" in str(exc)
            else f"comity node start --home {examined.home.word}"
        )
        yield _wrong("tokens", exc, mended)
        return
    yield ok("tokens", "one for each role")


def card(examined: Examination) -> Iterator[Finding]:
    """The card that others get says the keys and the names that the home has."""
    try:
        said = read_card(examined.home.card)
    except ConfigError as exc:
        yield _wrong("card", exc, f"cp BACKUP {word(examined.home.card)}")
        return
    config = examined.config
    differs: list[str] = []
    if config is not None and (said.member, said.node) != (config.member, config.node):
        differs.append(f"it names {said.node}, the settings {config.node}")
    if NODE_KEY in examined.keys and said.node_key != examined.keys[NODE_KEY]:
        differs.append("its node key is another than the home's")
    if TRANSPORT_KEY in examined.keys and said.transport_key != examined.keys[TRANSPORT_KEY].value:
        differs.append("its transport key is another than the home's")
    if differs:
        yield Finding("card", "wrong", "; ".join(differs), command=f"cp BACKUP {word(examined.home.card)}")
    elif not said.addresses:
        yield ok(
            "card", "it fits the keys, and holds no address: nobody dials this node, it dials the others"
        )
    else:
        yield ok("card", f"it fits the keys, and says {', '.join(said.addresses)}")


# The coalition


def coalition(examined: Examination) -> Iterator[Finding]:
    """The coalition file is there, founded, and every record of it verifies."""
    path = examined.home.coalition
    if not path.exists():
        said = "the home belongs to no coalition yet"
        yield Finding(
            "coalition", "wrong", said, command=f"comity coalition join FILE --home {examined.home.word}"
        )
        return
    try:
        file = read_coalition(path)
        _, standing = verified(file)
    except ConfigError as exc:
        yield _wrong("coalition", exc, f"comity coalition join FILE --home {examined.home.word}")
        return
    if not file.epochs:
        said = (
            f"{file.name}: the genesis is not signed by all yet; {', '.join(standing.unsigned)} has to sign"
        )
        yield Finding(
            "coalition", "wrong", said, command=f"comity coalition sign FILE --home {examined.home.word}"
        )
        return
    examined.file = file
    newest = len(file.epochs) - 1
    if standing.missing:
        said = f"{file.name}: the file lacks {', '.join(standing.missing)}"
        yield Finding(
            "coalition", "warning", said, command=f"comity coalition join FILE --home {examined.home.word}"
        )
        return
    drafted = f"; epoch {newest + 1} is being signed" if file.draft is not None else ""
    yield ok("coalition", f"{file.name}, epoch {newest}: every record verifies{drafted}")


def membership(examined: Examination) -> Iterator[Finding]:
    """The newest epoch has the organization, with the key of the card."""
    file, config = examined.file, examined.config
    if file is None or config is None:
        yield not_tried("membership", "it needs sound settings and a founded coalition")
        return
    body = epoch_of(file.epochs[-1])
    member = next((each for each in body.members if each.id == config.member), None)
    if member is None:
        said = f"{config.member} is no member of epoch {len(file.epochs) - 1}"
        yield Finding("membership", "wrong", said, command="comity coalition admit CARD --out FILE")
        return
    try:
        own = read_card(examined.home.card).organization_key
    except ConfigError:
        yield not_tried("membership", "it needs a sound card")
        return
    if own not in member.keys:
        said = "the epoch gives the organization another key than the card"
        yield Finding("membership", "wrong", said, command="comity coalition show")
        return
    yield ok(
        "membership", f"{config.member} is one of {len(body.members)} members; {body.quorum} votes decide"
    )


def certificate(examined: Examination) -> Iterator[Finding]:
    """The node's certificate is for its keys, in force, and lasts a while."""
    file, config = examined.file, examined.config
    if file is None or config is None or not {NODE_KEY, TRANSPORT_KEY} <= examined.keys.keys():
        yield not_tried("certificate", "it needs sound settings and keys, and a founded coalition")
        return
    sign = "comity coalition sign FILE"
    try:
        record = certificate_for(file.of_kind("node_certificate"), config.node, examined.keys[NODE_KEY])
        body: Any = decode_body(record) if record is not None else None
    except DecodeError as exc:
        yield _wrong("certificate", exc, sign)
        return
    if body is None:
        yield Finding(
            "certificate", "wrong", f"there is none for {config.node} and this home's key", command=sign
        )
        return
    now = examined.clock.now()
    left = (body.not_after - now) // DAY_S
    if body.transport_key != examined.keys[TRANSPORT_KEY].value:
        yield Finding("certificate", "wrong", "it is for another transport key than the home's", command=sign)
    elif not body.not_before <= now < body.not_after:
        said = (
            f"it holds from {date_of(body.not_before)} to {date_of(body.not_after)}, and it is {date_of(now)}"
        )
        yield Finding("certificate", "wrong", said, command=sign)
    elif left < CERTIFICATE_DAYS_MIN:
        said = f"it ends on {date_of(body.not_after)}, in {left} days"
        yield Finding("certificate", "warning", said, command=sign)
    else:
        yield ok("certificate", f"it fits the keys and holds until {date_of(body.not_after)}")


def engine(examined: Examination) -> Iterator[Finding]:
    """The epoch accepts the engine by which this release judges."""
    if examined.file is None:
        yield not_tried("engine", "it needs a founded coalition")
        return
    accepted = epoch_of(examined.file.epochs[-1]).engines
    if engine_id() in accepted:
        yield ok("engine", f"the coalition accepts engine {engine_id().hex()[:16]}")
        return
    listed = ", ".join(each.hex()[:16] for each in accepted)
    said = f"this release judges by engine {engine_id().hex()[:16]}; accepted are {listed}: its votes do not count"
    yield Finding("engine", "wrong", said, command="pip install 'comity[node]==RELEASE'")


def policies(examined: Examination) -> Iterator[Finding]:
    """Policies in force name only members, as observers and as writers of assets."""
    if examined.file is None:
        yield not_tried("policies", "it needs a founded coalition")
        return
    newest = examined.file.epochs[-1]
    members = epoch_of(newest).members
    names = {member.id for member in members}
    domains = {domain for member in members for domain in member.namespaces}
    unknown: list[str] = []
    try:
        held = policies_of(examined.file, newest)
    except (ConfigError, DecodeError) as exc:
        yield _wrong("policies", exc, "comity coalition show --full")
        return
    for name, policy in held.items():
        unknown += [f"{name} names the observer {each}" for each in policy.observers if each not in names]
        written = (rule.pattern.partition("/")[0] for rule in policy.assets)
        unknown += [
            f"{name} speaks of assets of {each}"
            for each in dict.fromkeys(written)
            if each not in {"*", *domains}
        ]
    if unknown:
        said = f"{'; '.join(unknown)}: no member is called so"
        yield Finding("policies", "warning", said, command="comity policy publish POLICY --out FILE")
    else:
        yield ok("policies", f"{len(held)} in force; whom they name is a member")


CHECKS_OF_FILES: Final[tuple[Check, ...]] = (settings, keys, organization_key, tokens, card)
CHECKS_OF_COALITION: Final[tuple[Check, ...]] = (coalition, membership, certificate, engine, policies)
