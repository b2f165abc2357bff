"""The pages under docs/ and the code say the same: codes, references, numbers of decision records.

What a page says of bytes and rules is tested beside those rules; here is only what would silently drift apart.
Links are `test_tidy`'s.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
import typer.main

from comity.attestation.holdings import Holdings
from comity.attestation.roots import fingerprint, parse_roots
from comity.attestation.weighting import combine
from comity.gossip import framing
from comity.node.cli import app
from comity.protocol import limits
from comity.protocol.execution import Intent, Permit
from comity.protocol.frames import FeedFrame, encode_frame
from comity.protocol.kinds import KINDS
from comity.protocol.notices import Notice, SlotHead, decode_notice, encode_notice
from comity.protocol.records import BODIES
from stories import Pooled
from world import INSTITUTE, NORTH

ROOT = Path(__file__).resolve().parents[1]
SPEC = ROOT / "docs" / "spec"
ADR = ROOT / "docs" / "adr"
ROOMS = ("protocol", "attestation", "gossip", "node", "dagster_bridge")

Codes = dict[str, set[str]]
"""The heading in causes.md, to the codes under it."""


# Codes in the code

CAUSES, NEEDS, DECLINES = "Causes", "Needs", "Declines"
PROBLEMS, FAULTS, VERIFICATION = "Problems between nodes", "Faults of the policy engine", "Verification"
NODE, BRIDGE = "The local node", "The bridge"

# Who is called with a code: as which positional argument, or under `code` or `reason`, and of which family it is.
CALLS: Mapping[str, tuple[int, str]] = {
    "refuse": (0, CAUSES),
    "defer": (0, CAUSES),
    "Cause": (0, CAUSES),
    "Need": (0, NEEDS),
    "Decline": (1, DECLINES),
    "Declined": (2, DECLINES),
    "DeclineFrame": (0, DECLINES),
    "Fault": (0, DECLINES),
    "ProblemFrame": (0, PROBLEMS),
    "PolicyFault": (0, FAULTS),
    "EngineError": (0, FAULTS),
    "VerificationError": (0, VERIFICATION),
    "Refused": (0, NODE),
    "Problem": (0, NODE),
    "TermForm": (0, NODE),
    "_not_admitted": (0, NODE),
    "_unwritable": (0, BRIDGE),
}
# Functions that answer with a code, or with a code and a sentence.
RETURNS: Mapping[str, str] = {"epoch_problem": VERIFICATION}


def strings(expression: ast.expr | None, scope: ast.AST) -> Iterator[str]:
    """Return the texts that an expression can be, as far as it says so itself or by a name given in the scope."""
    match expression:
        case ast.Constant(value=str(text)) if text:
            yield text
        case ast.IfExp(body=body, orelse=orelse):
            yield from strings(body, scope)
            yield from strings(orelse, scope)
        case ast.Name():
            value = assigned(expression, scope)
            yield from () if isinstance(value, ast.Name) else strings(value, scope)
        case _:
            return


def assigned(name: ast.Name, scope: ast.AST) -> ast.expr | None:
    """Return what the name was given last before it is used."""
    given: dict[int, ast.expr] = {}
    for node in ast.walk(scope):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value: ast.expr | None = getattr(node, "value", None)
        if not isinstance(node, ast.Assign | ast.AnnAssign) or value is None or node.lineno >= name.lineno:
            continue
        if any(isinstance(target, ast.Name) and target.id == name.id for target in targets):
            given[node.lineno] = value
    return given[max(given)] if given else None


def scopes(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Return every node with the function that it stands in, or the module."""

    def below(node: ast.AST, scope: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
        for child in ast.iter_child_nodes(node):
            inner = child if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else scope
            yield child, inner
            yield from below(child, inner)

    yield from below(tree, tree)


def family_in(family: str, room: str) -> str:
    """Return the family of a call: what the bridge says in a term of the API is its own."""
    return BRIDGE if room == "dagster_bridge" and family == NODE else family


def codes_of_call(call: ast.Call, scope: ast.AST) -> Iterator[tuple[str, str]]:
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    if name == "setdefault" and ast.unparse(call.func).endswith(".declined.setdefault"):
        yield from ((DECLINES, code) for code in strings(call.args[1], scope))
    if name not in CALLS:
        return
    position, family = CALLS[name]
    given = call.args[position] if position < len(call.args) else None
    for keyword in call.keywords:
        # `reason` is a parameter of some causes.
        if keyword.arg == "code" or (keyword.arg == "reason" and family not in (CAUSES, NEEDS)):
            given = keyword.value
    yield from ((family, code) for code in strings(given, scope))


def codes_of_module(tree: ast.Module, room: str) -> Iterator[tuple[str, str]]:
    for node, scope in scopes(tree):
        match node:
            case ast.Call():
                for family, code in codes_of_call(node, scope):
                    yield family_in(family, room), code
            case ast.Return(value=ast.Tuple(elts=[ast.Constant(value=str(code)), *_])):
                returned = RETURNS.get(getattr(scope, "name", ""))
                if returned is not None:
                    yield returned, code
            case ast.Assign(targets=[ast.Name(id="default_code")], value=value):
                # What the client calls an answer that names no code.
                yield from ((NODE, code) for code in strings(value, scope))
            case ast.Dict(keys=keys, values=values) if room == "dagster_bridge":
                for key, value in zip(keys, values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "code":
                        yield from ((BRIDGE, code) for code in strings(value, scope))
            case _:
                pass


def codes_by_outcome() -> set[str]:
    """Return the causes that `adverse` builds from a kind and its outcome, for kinds that can be held."""
    return {
        f"{kind.name}_{outcome}"
        for kind in KINDS.values()
        if kind.name in BODIES
        for outcome in kind.adverse_outcomes
    }


@cache
def codes_in_code() -> Codes:
    found: Codes = defaultdict(set)
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for family, code in codes_of_module(tree, room):
                found[family].add(code)
    found[CAUSES] |= codes_by_outcome()
    return dict(found)


def parameters_of_call(call: ast.Call, scope: ast.AST) -> set[str] | None:
    """Return the names of the parameters that a call gives to its code; None where it does not show them."""
    name = getattr(call.func, "id", "")
    if name in ("refuse", "defer"):
        return {keyword.arg for keyword in call.keywords if keyword.arg is not None}
    given = next((keyword.value for keyword in call.keywords if keyword.arg == "parameters"), None)
    if given is None:
        return set()
    if isinstance(given, ast.Name):
        given = assigned(given, scope)
    if not isinstance(given, ast.Dict) or not all(isinstance(key, ast.Constant) for key in given.keys):
        return None
    return {str(key.value) for key in given.keys if isinstance(key, ast.Constant)}


@cache
def parameters_in_code() -> dict[tuple[str, str], list[set[str] | None]]:
    """Return for every cause and need the parameters of each call that makes it."""
    found: dict[tuple[str, str], list[set[str] | None]] = defaultdict(list)
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            for node, scope in scopes(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    for family, code in codes_of_call(node, scope):
                        if family in (CAUSES, NEEDS):
                            found[family, code].append(parameters_of_call(node, scope))
    return dict(found)


# Codes in the page


def codes_in_page(text: str) -> Codes:
    """Return the codes in the first column of the tables under each heading of the second level."""
    found: Codes = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading = re.sub(r"^[0-9]+\. ", "", section.partition("\n")[0]).strip()
        codes = set(re.findall(r"^\| `([a-z][a-z0-9_]*)`", section, re.MULTILINE))
        if codes:
            found[heading] = codes
    return found


def test_the_code_uses_codes_of_every_family() -> None:
    assert {family for _, family in CALLS.values()} == set(codes_in_code())


@pytest.mark.parametrize("family", sorted({family for _, family in CALLS.values()}))
def test_codes_of_the_code_and_of_the_page_are_the_same(family: str) -> None:
    page = codes_in_page((SPEC / "causes.md").read_text(encoding="utf-8"))
    code = codes_in_code()
    assert sorted(code[family] - page.get(family, set())) == [], "used, and not in docs/spec/causes.md"
    assert sorted(page.get(family, set()) - code[family]) == [], "in docs/spec/causes.md, and not used"


@pytest.mark.parametrize("family", [CAUSES, NEEDS])
def test_parameters_of_the_code_and_of_the_page_are_the_same(family: str) -> None:
    """`name` where every call gives it, (`name`) where some do."""
    section = (
        (SPEC / "causes.md")
        .read_text(encoding="utf-8")
        .partition(f"\n## {family}\n")[2]
        .partition("\n## ")[0]
    )
    given = parameters_in_code()
    problems: list[str] = []
    for code, cell in re.findall(r"^\| `([a-z_]+)` \|([^|]*)\|", section, re.MULTILINE):
        calls = given.get((family, code), [])
        shown = [names for names in calls if names is not None]
        if not shown or len(shown) < len(calls):
            continue
        sometimes = set(re.findall(r"\(`([a-z_]+)`\)", cell))
        always = set(re.findall(r"`([a-z_]+)`", cell)) - sometimes
        if always != set.intersection(*shown) or always | sometimes != set.union(*shown):
            problems.append(f"{code}: the code gives {[sorted(names) for names in shown]}")
    assert problems == []


def test_no_code_stands_twice_in_a_table() -> None:
    text = (SPEC / "causes.md").read_text(encoding="utf-8")
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        codes = re.findall(r"^\| `([a-z][a-z0-9_]*)`", section, re.MULTILINE)
        assert sorted(set(codes)) == sorted(codes)


def test_reasons_of_approvals_are_in_the_page() -> None:
    """The values of `reason` in `approval_not_counted` are stable too."""
    tree = ast.parse((ROOT / "attestation/approvals.py").read_text(encoding="utf-8"))
    function = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "_approver")
    said = {
        n.value.value
        for n in ast.walk(function)
        if isinstance(n, ast.Return) and isinstance(n.value, ast.Constant)
    }
    assert said
    page = (SPEC / "decision.md").read_text(encoding="utf-8")
    assert [reason for reason in sorted(map(str, said)) if f"| `{reason}` |" not in page] == []


def test_reasons_of_striking_are_in_the_page() -> None:
    """The values of `reason` in `input_struck`."""
    tree = ast.parse((ROOT / "attestation/adverse.py").read_text(encoding="utf-8"))
    said = {
        text
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and "struck[" in ast.unparse(node.targets[0])
        for text in strings(node.value, tree)
    }
    said |= {
        text
        for node in ast.walk(tree)
        if isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple)
        for pair in node.iter.elts
        if isinstance(pair, ast.Tuple)
        for text in strings(pair.elts[-1], tree)
    }
    assert {"revoked", "rivalled"} <= said
    page = (SPEC / "decision.md").read_text(encoding="utf-8").partition("### 3.2")[2].partition("### 3.3")[0]
    assert [reason for reason in sorted(said) if f"`{reason}`" not in page] == []


# References


REFERENCE = re.compile(
    r"docs/spec/(?P<page>[a-z_]+)\.md"
    r"(?:[\s#]+(?P<word>sections?|steps?)[\s#]+(?P<numbers>[0-9.]+(?:(?:,| and| to)[\s#]+[0-9.]+)*))?"
)


def references(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Return page, word (`section` or `step`) and numbers of every reference, also over the end of a line."""
    for found in REFERENCE.finditer(text):
        numbers = [number.rstrip(".") for number in re.findall(r"[0-9][0-9.]*", found["numbers"] or "")]
        yield found["page"], (found["word"] or "").rstrip("s"), numbers


def dead_reference(page: str, word: str, numbers: Iterable[str]) -> str | None:
    path = SPEC / f"{page}.md"
    if not path.exists():
        return f"docs/spec/{page}.md does not exist"
    text = path.read_text(encoding="utf-8")
    for number in numbers:
        heading = rf"Step {number}\b" if word == "step" else rf"{re.escape(number)}\.?[ \t]"
        if re.search(rf"^#+ {heading}", text, re.MULTILINE) is None:
            return f"docs/spec/{page}.md has no {word} {number}"
    return None


def python_files() -> list[Path]:
    """All source files, and those of tests but this one, which shows dead references on purpose."""
    folders = (*ROOMS, "tests", "scripts")
    return [p for folder in folders for p in sorted((ROOT / folder).rglob("*.py")) if p != Path(__file__)]


def test_references_from_code_resolve() -> None:
    problems: list[str] = []
    seen = 0
    for path in python_files():
        for reference in references(path.read_text(encoding="utf-8")):
            seen += 1
            problem = dead_reference(*reference)
            if problem is not None:
                problems.append(f"{path.relative_to(ROOT)}: {problem}")
    assert seen
    assert problems == []


LINK = re.compile(
    r"\[[a-z_]+\.md\]\((?P<page>[a-z_]+)\.md\)\s+(?P<word>sections?|steps?)\s+(?P<numbers>[0-9.]+)"
)


def test_references_between_pages_resolve() -> None:
    """`[decision.md](decision.md) section 5.4`, also over the end of a line."""
    problems = [
        f"{path.name}: {problem}"
        for path in sorted(SPEC.glob("*.md"))
        for found in LINK.finditer(path.read_text(encoding="utf-8"))
        if (
            problem := dead_reference(
                found["page"], found["word"].rstrip("s"), [found["numbers"].rstrip(".")]
            )
        )
    ]
    assert problems == []


def test_a_dead_reference_is_found() -> None:
    text = "docs/spec/decision.md sections 1, 2 and 99.\n# docs/spec/absent.md\n# docs/spec/judgement.md\n# step 8."
    found = [dead_reference(*reference) for reference in references(text)]
    assert found == ["docs/spec/decision.md has no section 99", "docs/spec/absent.md does not exist", None]


# Limits


def written_values(name: str) -> set[str]:
    """Return the ways in which a page may write a limit."""
    value: int = getattr(limits, name)
    written = {f"{value:,}", str(value)}
    for unit, size in (("KiB", 1_024), ("MiB", 1_048_576), ("days", 86_400)):
        if value % size == 0:
            written.add(f"{value // size} {unit}")
    return written


def test_limits_in_pages_are_those_of_the_code() -> None:
    """A row of a table of limits names one or more limits, and gives a value for each."""
    problems: list[str] = []
    seen = 0
    for path in sorted(SPEC.glob("*.md")):
        for names, values in re.findall(
            r"^\| ((?:`[A-Z_]+`(?:, )?)+) \| ([^|]+) \|", path.read_text("utf-8"), re.MULTILINE
        ):
            listed = [name.strip("`") for name in names.split(", ")]
            given = re.split(r"[,;] (?=[0-9])", values.strip()) if len(listed) > 1 else [values.strip()]
            for name, value in zip(listed, given, strict=False):
                if hasattr(limits, name):
                    seen += 1
                    if value not in written_values(name):
                        problems.append(f"{path.name}: {name} is {getattr(limits, name)}, not {value}")
    assert seen
    assert problems == []


# Decision records


def test_decision_records_are_numbered_and_say_what_was_rejected() -> None:
    paths = sorted(path for path in ADR.glob("*.md") if path.name != "README.md")
    assert paths
    assert [path.name[:4] for path in paths] == [f"{number:04}" for number in range(1, len(paths) + 1)]
    for path in paths:
        headings = re.findall(r"^## (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert headings == ["Context", "Decision", "Rejected", "Consequences"], path.name


def test_every_decision_record_is_in_the_index() -> None:
    index = (ADR / "README.md").read_text(encoding="utf-8")
    missing = [p.name for p in sorted(ADR.glob("[0-9]*.md")) if f"]({p.name})" not in index]
    assert missing == []


# ARCHITECTURE.md


def test_threats_are_shown_by_tests_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", text))
    there = {
        node.name
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert named
    assert sorted(named - there) == []


def test_files_and_functions_of_the_stages_are_there() -> None:
    """A row of the stages names functions and the files that hold them."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:[a-z_]+/)+[a-z0-9_]+\.py)`", text))
    assert paths
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    stages = text.partition("## The stages")[2].partition("\n## ")[0]
    for row in re.findall(r"^\| (?!from|---)(.+) \|$", stages, re.MULTILINE):
        cells = row.split(" | ")
        sources = "".join(
            (ROOT / path).read_text(encoding="utf-8") for path in re.findall(r"`([a-z_/]+\.py)`", cells[3])
        )
        for name in re.findall(r"`([A-Za-z_.]+)`", cells[2]):
            assert re.search(rf"def {name.rpartition('.')[2]}\(", sources), f"{name} is not in {cells[3]}"


# Examples


def test_example_frames_are_what_is_sent() -> None:
    page = (SPEC / "peer.md").read_text(encoding="utf-8").partition("## Example")[2].partition("\n## ")[0]
    lines = re.findall(r"^ {4,}([0-9a-f]{2}(?: [0-9a-f]{2})*)(?= {2}|$)", page, re.MULTILINE)
    feed, *request, failure = [bytes.fromhex(line) for line in lines]
    assert encode_frame(FeedFrame()) == feed
    assert framing.encode_frame(framing.Frame(framing.FrameKind.REQUEST, 7, feed)) == b"".join(request)
    assert framing.encode_frame(framing.Frame(framing.FrameKind.FAILURE, 7, b"busy")) == failure


def test_example_notice_is_what_is_gossiped() -> None:
    page = (SPEC / "peer.md").read_text(encoding="utf-8").partition("A notice with")[2].partition("\n## ")[0]
    written = bytes.fromhex("".join(re.findall(r"^ {4}([0-9a-f ]+)$", page, re.MULTILINE)))
    head = SlotHead("clinic-north.example/released", 3, b"\x22" * 32)
    notice = Notice(bytes(32), (b"\x11" * 32,), (head,))
    assert encode_notice(notice) == written
    assert decode_notice(written) == notice


def test_example_roots_have_the_fingerprint_of_the_page() -> None:
    page = (SPEC / "bundle.md").read_text(encoding="utf-8")
    written = re.search(r"^    name = .+?\n\n", page, re.MULTILINE | re.DOTALL)
    assert written is not None
    roots = parse_roots(re.sub(r"^    ", "", written[0], flags=re.MULTILINE))
    assert f"`{fingerprint(roots).hex()}`" in page


def test_example_decision_and_bundle_are_those_of_the_story() -> None:
    """Ids, numbers and sizes of the examples; what a decision says is told by other tests."""
    story = Pooled.told()
    bundle = story.bundle()
    page = (SPEC / "bundle.md").read_text(encoding="utf-8").partition("## Example")[2].partition("\n## ")[0]
    assert f"{len(bundle.records)} records, {len(bundle.encoded()):,} bytes" in page
    assert f"targets: [{bundle.targets[0].hex()[:8]}...]" in page
    counted = Counter(record.header.kind for record in bundle.records)
    listed = re.search(r"records: \[(.+?), by their ids", page, re.DOTALL)
    assert listed is not None
    given: dict[str, int] = {}
    for number, name in re.findall(r"([0-9]+) ([a-z ]+?)(?:,|$)", " ".join(listed[1].split())):
        kind = str(name).replace(" ", "_")
        given[kind if kind in counted else kind.removesuffix("s")] = int(number)
    assert given == counted

    held = story.world[INSTITUTE].holdings
    verified = [record for record in (held.get(record.id) for record in bundle.records) if record is not None]
    permit = next(
        record.body
        for record in verified
        if isinstance(record.body, Permit)
        and [group.asset for group in _intent(held, record.body).classes] == [f"{NORTH}/released"]
    )
    ask = held.get(permit.ask)
    assert ask is not None
    page = (SPEC / "decision.md").read_text(encoding="utf-8").partition("## Example")[2].partition("\n## ")[0]
    first = min(ask.body.relied).hex()[:8]
    assert f"relied: [{first}, ... {len(ask.body.relied)} ids]" in page
    shown = re.findall(r"\b(?:intent|ask): ([0-9a-f]{8})", page)
    assert set(shown) == {permit.intent.hex()[:8], permit.ask.hex()[:8]}
    assert f"votes: [{', '.join(vote.hex()[:8] for vote in permit.votes)}]" in page
    assert {int(text) for text in re.findall(r"expires: ([0-9]+)", page)} == {permit.expires}


def _intent(held: Holdings, permit: Permit) -> Intent:
    record = held.get(permit.intent)
    assert record is not None
    assert isinstance(record.body, Intent)
    return record.body


def test_example_weight_is_right() -> None:
    page = (SPEC / "weighting.md").read_text(encoding="utf-8")
    weights = re.search(r"weights, ascending +([0-9, ]+)$", page, re.MULTILINE)
    total = re.search(r"weight +1000000 - [0-9]+ = ([0-9]+)$", page, re.MULTILINE)
    assert weights is not None
    assert total is not None
    assert combine([int(weight) for weight in weights[1].split(", ")]) == int(total[1])


# Commands


def commands_of(command: object, name: str) -> Iterator[str]:
    yield name
    for inner_name, inner in getattr(command, "commands", {}).items():
        yield from commands_of(inner, f"{name} {inner_name}")


def test_commands_that_mend_exist() -> None:
    text = (SPEC / "causes.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(comity [a-z-]+(?: [a-z-]+)?)`", text))
    assert named
    assert sorted(named - set(commands_of(typer.main.get_command(app), "comity"))) == []
