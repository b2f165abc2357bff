"""Taxonomy and policy as people write them: TOML files, and the rules in a Cedar file beside.

What is read becomes the body of a record, with a salt of its own; whoever drafts an epoch names its digest.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec

from comity.attestation.policy_guard import LintProblem
from comity.attestation.policy_lint import PolicyNames, lint
from comity.attestation.toml_text import POLICY, TAXONOMY
from comity.node.owner_files import read_file
from comity.node.toml_document import Key, TomlDocument, read_toml
from comity.protocol.envelope import SignedRecord
from comity.protocol.errors import ConfigError
from comity.protocol.governance import (
    AssetRule,
    AuthorityClass,
    ColumnClass,
    ColumnName,
    Epoch,
    Policy,
    Purpose,
    RuleText,
    Taxonomy,
)
from comity.protocol.identifiers import AssetPattern, ClassName, Code, MemberId, PartsPerMillion, ShortText
from comity.protocol.limits import SALT_BYTES, STRING_BYTES_MAX
from comity.protocol.records import decode_body
from comity.protocol.ways import WAYS, Way, least_harmful_first

FILE_BYTES_MAX: Final = 1_048_576
"""A classification of a thousand assets with their columns: as large as a body."""

T = TypeVar("T")

TAXONOMY_TEMPLATE: Final = """\
# The taxonomy of a coalition: its published classes of authority.

[[classes]]
name = "data-steward"
# What an intent of this class weighs by itself, in parts per million.
weight = 600000

[[classes]]
name = "data-protection-officer"
weight = 800000
# Members that may issue credentials of this class; all of them where the list is empty.
issuers = []

[[classes]]
name = "agent"
weight = 200000
# A class may lie within another one; rules that name the wider class hold for it, too.
# within = "data-steward"
"""

POLICY_TEMPLATE: Final = """\
# A policy of a coalition: what is governed, how it is classed, and the file with the rules.
name = "main"
rules = "policy.cedar"
# The weight that an intent must reach, in parts per million.
weight_min = 0
# Members whose failed checks count against assets that are not theirs.
observers = []

# What is governed. The first rule whose pattern matches an asset holds for it.
[[assets]]
pattern = "*/patients"
data_class = "health"

[[assets]]
pattern = "*/released"
data_class = "released"
# The column that partitions the rows, e.g. for min_group_rows.
rows_by = "inst"
# The columns that the asset is known to have, in their order, each with its class.
columns = { inst = "quasi_identifier", time = "plain", status = "plain" }

# What the data may be used for, and the columns that it takes.
[[purposes]]
name = "survival_study"
columns = ["time", "status"]
"""

RULES_TEMPLATE: Final = """\
// Rules of a policy (docs/spec/policy.md). Without a permit that fires everything is refused.
@id("base") permit(principal, action == Action::"materialize", resource is Asset);
@id("base-columns") permit(principal, action == Action::"include", resource is Column);

@id("quasi-identifiers") @mode("restrict") @reason("quasi_identifier")
forbid(principal, action == Action::"include", resource is Column)
when { resource.column_class == "quasi_identifier" };
"""


class _ClassEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: ClassName
    weight: PartsPerMillion
    issuers: tuple[MemberId, ...] = ()
    within: ClassName | None = None


class _TaxonomyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    classes: Annotated[tuple[_ClassEntry, ...], msgspec.Meta(min_length=1, max_length=256)]


class _ColumnEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: ColumnName
    column_class: Code


class _AssetEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pattern: AssetPattern
    data_class: ClassName
    rows_by: ShortText = ""
    columns: dict[ColumnName, Code] | tuple[_ColumnEntry, ...] = ()

    def classed(self) -> tuple[ColumnClass, ...]:
        if isinstance(self.columns, dict):
            return tuple(ColumnClass(name=name, column_class=kind) for name, kind in self.columns.items())
        return tuple(ColumnClass(name=each.name, column_class=each.column_class) for each in self.columns)


class _PurposeEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Code
    columns: tuple[ColumnName, ...] = ()
    ways: tuple[Way, ...] = ()


class _PolicyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rules: Annotated[str, msgspec.Meta(min_length=1, max_length=1_024)]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] = "main"
    assets: tuple[_AssetEntry, ...] = ()
    purposes: tuple[_PurposeEntry, ...] = ()
    observers: tuple[MemberId, ...] = ()
    weight_min: PartsPerMillion = 0


_WANTED: Final = {
    "assets": "a list of tables, each begun with [[assets]]",
    "classes": "1 to 256 tables, each begun with [[classes]]",
    "column_class": "a name of lower-case letters, digits and underscores, e.g. quasi_identifier",
    "columns": "a table of columns with their class (of an asset), or a list of names (of a purpose)",
    "data_class": "a class in lower case, e.g. health/released",
    "issuers": "a list of members' domains",
    "name": "a name in lower case; of a purpose with letters, digits and underscores",
    "observers": "a list of members' domains",
    "pattern": "an asset id, or a pattern such as */released or clinic-north.example/**",
    "purposes": "a list of tables, each begun with [[purposes]]",
    "rows_by": "the name of a column",
    "rules": "the path of a Cedar file, relative to this file",
    "ways": f"a list of {', '.join(WAYS)}",
    "weight": "parts per million: a whole number from 0 to 1000000",
    "weight_min": "parts per million: a whole number from 0 to 1000000",
    "within": "the name of a wider class",
}
_PLACE: Final = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<name>[^`]*)`")
_MISSING: Final = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
_STEP: Final = re.compile(r"\.([A-Za-z0-9_-]+)|\[(\d+|\.\.\.)\]")


@dataclass(frozen=True, slots=True)
class PolicySource:
    """A policy as it was read.

    Attributes:
        name: the name under which it is published.
        policy: the body, with a fresh salt.
        rules_path: the Cedar file.
    """

    name: str
    policy: Policy
    rules_path: Path

    def problems(
        self, taxonomy: Taxonomy | None = None, epoch: Epoch | None = None, others: Iterable[Policy] = ()
    ) -> tuple[LintProblem, ...]:
        """What is wrong or doubtful in the rules, by place in `rules_path`.

        Args:
            taxonomy, epoch: those under which the policy will be in force, if they are known.
            others: the other policies of that epoch.
        """
        return lint(self.policy.rules, PolicyNames.of(self.policy, taxonomy, epoch, others))

    def require_sound(self) -> None:
        """Check that the rules compile.

        Raises:
            ConfigError: naming the file and every problem that prevents it.
        """
        wrong = [p for p in self.problems() if p.severity == "error"]
        if wrong:
            listed = "; ".join(f"{self.rules_path}:{p.line}:{p.column}: {p.message}" for p in wrong)
            raise ConfigError(f"the rules do not compile; `comity policy lint` says more: {listed}")


def read_policies(paths: Iterable[Path]) -> list[PolicySource]:
    """Read the policies of an epoch.

    Raises:
        ConfigError: there is none, one is malformed, or its rules do not compile.
    """
    sources = [read_policy(path) for path in paths]
    if not sources:
        raise ConfigError(
            "a coalition has at least one policy: --policy FILE; `comity policy template` starts one"
        )
    for source in sources:
        source.require_sound()
    return sources


def warnings_of(
    sources: Sequence[PolicySource], taxonomy: Taxonomy | None, draft: SignedRecord | None
) -> list[dict[str, Any]]:
    """What is doubtful in the policies of a drafted epoch, each with its place, as `comity policy lint` says it."""
    body: Any = decode_body(draft) if draft is not None else None
    epoch = body if isinstance(body, Epoch) else None
    return [
        {"file": str(source.rules_path)}
        | {name: getattr(problem, name) for name in ("line", "column", "code", "message", "hint")}
        for source in sources
        for problem in source.problems(taxonomy, epoch, [s.policy for s in sources if s is not source])
        if problem.severity == "warning"
    ]


def read_taxonomy(path: Path) -> Taxonomy:
    """Read a taxonomy.

    Raises:
        ConfigError: naming file, line and key, and what is allowed.
    """
    document = read_toml(path, FILE_BYTES_MAX)
    document.require_kind(TAXONOMY)
    read = _converted(document, _TaxonomyFile)
    names = [entry.name for entry in read.classes]
    for index, entry in enumerate(read.classes):
        if names.index(entry.name) != index:
            raise document.error(("classes", index, "name"), f"{entry.name} stands twice")
        if entry.within is not None and entry.within not in names:
            raise document.unknown_value(("classes", index, "within"), "class", entry.within, names)
    return Taxonomy(
        salt=secrets.token_bytes(SALT_BYTES),
        classes=tuple(
            AuthorityClass(name=e.name, weight=e.weight, issuers=e.issuers, within=e.within)
            for e in read.classes
        ),
    )


def read_policy(path: Path) -> PolicySource:
    """Read a policy and its rules.

    Raises:
        ConfigError: naming file, line and key, and what is allowed. Whether the rules compile is
            `PolicySource.problems`'s to say.
    """
    document = read_toml(path, FILE_BYTES_MAX)
    document.require_kind(POLICY)
    read = _converted(document, _PolicyFile)
    rules_path = path.parent / read.rules
    policy = Policy(
        salt=secrets.token_bytes(SALT_BYTES),
        language="cedar-4",
        rules=read_rules(rules_path),
        assets=tuple(
            AssetRule(
                pattern=e.pattern,
                data_class=e.data_class,
                columns=e.classed(),
                rows_by=e.rows_by,
            )
            for e in read.assets
        ),
        purposes=tuple(
            Purpose(name=e.name, columns=e.columns, ways=least_harmful_first(e.ways)) for e in read.purposes
        ),
        observers=tuple(sorted(set(read.observers))),
        weight_min=read.weight_min,
    )
    return PolicySource(read.name, policy, rules_path)


def read_rules(path: Path) -> str:
    """The text of a Cedar file.

    Raises:
        ConfigError: it is missing, too long or not UTF-8.
    """
    data, _ = read_file(path, STRING_BYTES_MAX)
    try:
        return msgspec.convert(data.decode(), RuleText)
    except (UnicodeDecodeError, msgspec.ValidationError) as exc:
        raise ConfigError(f"{path}: not UTF-8 text of at most {STRING_BYTES_MAX} bytes") from exc


def _converted(document: TomlDocument, form: type[T]) -> T:
    try:
        return msgspec.convert(document.values, form, strict=True)
    except msgspec.ValidationError as exc:
        raise _explained(document, form, str(exc)) from exc


def _explained(document: TomlDocument, form: type[Any], message: str) -> ConfigError:
    """What a schema says of a value, with the place in the file and in words that help."""
    place = _PLACE.search(message)
    key = _key(place["path"]) if place is not None else ()
    unknown, missing = _UNKNOWN.search(message), _MISSING.search(message)
    if unknown is not None:
        return document.unknown((*key, unknown["name"]), _fields(form, key))
    if missing is not None:
        name = missing["name"]
        return document.error((*key, name), f"missing; it is {_WANTED.get(name, 'required')}")
    name = next((str(part) for part in reversed(key) if isinstance(part, str)), "")
    return document.error(key or ("",), f"not {_WANTED.get(name, 'what it has to be')}")


def _key(path: str) -> Key:
    """A key of the path that a schema's error names. An index that it leaves open is the first that is wrong."""
    key: list[str | int] = []
    for name, index in _STEP.findall(path):
        key.append(name or (int(index) if index.isdigit() else 0))
    return tuple(key)


def _fields(form: type[Any], key: Key) -> tuple[str, ...]:
    """The keys of the table that a key leads to."""
    tables: dict[str, type[msgspec.Struct]] = {
        "classes": _ClassEntry,
        "assets": _AssetEntry,
        "purposes": _PurposeEntry,
    }
    table = tables.get(str(key[0]), form) if key else form
    return tuple(table.__struct_fields__)
