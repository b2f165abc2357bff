"""The reader that was written from docs/spec alone and the product accept and refuse the same bundles.

Where they differ, page or program has a defect. The bundles of the first half come from the product and are
damaged; those of the second are written by the pages, whole and rightly signed, with one rule broken.
"""

from __future__ import annotations

import ast
import json
import random
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from comity.attestation.authoring import NO_SALT
from comity.attestation.offline import verify_bundle
from comity.protocol import governance
from comity.protocol.bundle import Bundle
from comity.protocol.errors import DecodeError, VerificationError
from comity.protocol.governance import OwnerPolicy
from stories import Pooled
from world import ENGINE, SOUTH, START

HERE = Path(__file__).parent
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(HERE))
    forms: Any = import_module("reader_forms")
    reader: Any = import_module("reader")
    writer: Any = import_module("writer")
    cases: Any = import_module("written_cases")

STORY = Pooled.told()
ROOTS = STORY.roots()
GOOD = {"permitted": STORY.bundle().encoded(), "refused": STORY.refusal_bundle().encoded()}
EITHER = pytest.mark.parametrize("name", GOOD)
FLIPS = 150


def said_by_the_reader(data: bytes, roots: Any) -> str:
    try:
        reader.verify(data, roots.coalition, roots.epoch_number, roots.epoch)
    except reader.Bad as bad:
        return str(bad.reason)
    return "verified"


def said_by_the_product(data: bytes, roots: Any) -> str:
    try:
        verify_bundle(data, roots, ENGINE)
    except DecodeError:
        return "malformed"
    except VerificationError as error:
        return error.reason
    return "verified"


def both_say(data: bytes, roots: Any, case: object) -> str:
    """What both say; a code has to be the same too, for programs read codes."""
    ours, theirs = said_by_the_reader(data, roots), said_by_the_product(data, roots)
    assert ours == theirs, f"{case}: the reader says {ours}, the product {theirs}"
    return ours


def other_roots(**changes: Any) -> Any:
    values = {name: getattr(ROOTS, name) for name in ("name", "coalition", "epoch_number", "epoch", "made")}
    return type(ROOTS)(**(values | changes))


def opened(name: str) -> Any:
    return forms.decode(GOOD[name], forms.BUNDLE_RECORDS_MAX)


def closed(bundle: Any) -> bytes:
    data: bytes = forms.encode(bundle, forms.BUNDLE_RECORDS_MAX)
    return data


def record_id(record: bytes) -> bytes:
    found: bytes = reader.read_record(record).id
    return found


def with_records(bundle: Any, records: list[bytes]) -> bytes:
    return closed({**bundle, "records": records})


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


@EITHER
def test_both_verify_what_the_product_exports(name: str) -> None:
    assert both_say(GOOD[name], ROOTS, name) == "verified"


@EITHER
def test_both_spell_a_bundle_alike(name: str) -> None:
    assert closed(opened(name)) == GOOD[name]


@EITHER
def test_a_flipped_bit_anywhere_is_refused(name: str) -> None:
    dice = random.Random(name)
    for bit in sorted(dice.sample(range(8 * len(GOOD[name])), FLIPS // 2)):
        damaged = flipped(GOOD[name], bit)
        assert refused_by_both(damaged), f"bit {bit}"


def refused_by_both(data: bytes) -> bool:
    """Damage breaks several rules at once, so only the verdict is compared, and not the code."""
    ours, theirs = said_by_the_reader(data, ROOTS), said_by_the_product(data, ROOTS)
    assert (ours == "verified") == (theirs == "verified"), f"the reader says {ours}, the product {theirs}"
    return ours != "verified"


@given(bit=st.integers(0, 8 * len(GOOD["permitted"]) - 1))
@example(bit=0)
@example(bit=8 * len(GOOD["permitted"]) - 1)
@settings(max_examples=40, deadline=None)
def test_any_flipped_bit_is_refused(bit: int) -> None:
    assert refused_by_both(flipped(GOOD["permitted"], bit))


@given(at=st.integers(0, len(GOOD["refused"]) - 1), count=st.integers(0, 40), put=st.binary(max_size=40))
@settings(max_examples=40, deadline=None)
def test_a_replaced_stretch_of_bytes_is_refused(at: int, count: int, put: bytes) -> None:
    data = GOOD["refused"]
    damaged = data[:at] + put + data[at + count :]
    assert damaged == data or refused_by_both(damaged)


@EITHER
def test_a_record_less_is_refused(name: str) -> None:
    bundle = opened(name)
    for at, record in enumerate(bundle["records"]):
        rest = bundle["records"][:at] + bundle["records"][at + 1 :]
        said = both_say(with_records(bundle, rest), ROOTS, f"without {reader.read_record(record).kind}")
        assert said in {"record_missing", "authority_missing"}


@EITHER
def test_records_out_of_order_or_twice_are_malformed(name: str) -> None:
    bundle = opened(name)
    records = bundle["records"]
    orders = [
        records[::-1],
        [records[1], records[0], *records[2:]],
        [*records[:-2], records[-1], records[-2]],
        [records[0], *records],
        [*records, records[-1]],
    ]
    for order in orders:
        assert both_say(with_records(bundle, order), ROOTS, "order") == "malformed"


def test_a_record_that_no_target_needs_is_foreign() -> None:
    bundle, other = opened("permitted"), opened("refused")
    added = 0
    for record in other["records"]:
        if record not in bundle["records"]:
            kind = reader.read_record(record).kind
            more = sorted([*bundle["records"], record], key=record_id)
            assert both_say(with_records(bundle, more), ROOTS, f"with {kind}") == "record_foreign"
            added += 1
    assert added > 3


def test_targets_are_what_the_closure_begins_with() -> None:
    bundle = opened("permitted")
    ids = [record_id(record) for record in bundle["records"]]
    for target in ids[::7]:
        both_say(closed({**bundle, "targets": [target]}), ROOTS, f"target {target.hex()}")
    for targets in (ids, ids[::-1], [*bundle["targets"] * 2], [], [bytes(32)], [b"short"]):
        both_say(closed({**bundle, "targets": targets}), ROOTS, f"{len(targets)} targets")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"coalition": bytes(32), "epoch": bytes(32)}, "roots_other"),
        ({"epoch_number": 1, "epoch": bytes(32)}, "pin_not_reached"),
    ],
)
def test_other_roots_are_refused(changes: dict[str, Any], code: str) -> None:
    for data in GOOD.values():
        assert both_say(data, other_roots(**changes), changes) == code


def test_a_fork_of_the_pinned_epoch_is_refused() -> None:
    data, genesis, second = writer.write({})
    fork, _, other = writer.write({"second.body.started": writer.T - 1})
    assert other != second
    pinned = other_roots(coalition=genesis, epoch_number=1, epoch=second)
    assert both_say(data, pinned, "the chain of the pin") == "verified"
    assert both_say(fork, pinned, "a fork") == "pin_missed"


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_a_bundle_written_by_the_pages(case: Any) -> None:
    data, genesis, second = writer.write(case.changes, case.after)
    roots = other_roots(coalition=genesis, epoch_number=1, epoch=second)
    assert both_say(data, roots, case.name) in case.code.split(" or ")


def of_owner_policy(rules: str = "", name: str = "owner") -> bytes:
    """A bundle of one owner policy alone."""
    world = STORY.world
    body = OwnerPolicy(salt=NO_SALT, consents=(), rules=rules)
    policy = world[SOUTH].owner.write("owner_policy", body, START, name=name, number=9)
    return Bundle(world.genesis.id, (policy.id,), (world.genesis,), (policy,)).encoded()


@pytest.mark.parametrize("name", ["", "Owner", "owners", "old"])
def test_an_owner_policy_has_one_name(name: str) -> None:
    assert both_say(of_owner_policy(), ROOTS, "owner") == "verified"
    assert both_say(of_owner_policy(name=name), ROOTS, name) == "name_wrong"


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\U0001f600"])
@pytest.mark.parametrize("beyond", [0, 1])
def test_rules_of_an_owner_are_bounded_in_bytes(
    letter: str, beyond: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = '@id("x") permit(principal, action, resource);' + " " * 15 + "// "
    rules = head + letter * ((8_192 - len(head)) // len(letter.encode()) + beyond)
    # A liar's own software knows no bound.
    monkeypatch.setattr(governance, "OWNER_RULES_BYTES_MAX", 1 << 20)
    data = of_owner_policy(rules)
    monkeypatch.undo()
    assert both_say(data, ROOTS, letter) == ("record_unreadable" if beyond else "verified")


TEXTS = json.loads((HERE.parent / "vectors" / "texts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", TEXTS["accepted"] + TEXTS["rejected"], ids=lambda case: case["name"])
def test_texts_of_the_vectors(case: dict[str, str]) -> None:
    assert forms.fits("short", case["text"]) == (case in TEXTS["accepted"])


def test_roots_have_the_fingerprint_of_the_page(tmp_path: Path) -> None:
    coalition = "c5f780265b206f8e8b1050660900778c54d36796cdc5a4e18e7ea12e2b254bf5"
    text = f'name = "test"\ncoalition = "{coalition}"\nepoch_number = 0\nepoch = "{coalition}"\n'
    roots = reader.read_roots(f"{text}made = 2027-01-15T08:00:00Z\n".encode())
    assert reader.fingerprint(roots) == "20236f86e238d97fe171d1d5c075e37182b8587c8a26b769686fc0dd1ee239a7"
    good = "made = 2027-01-15T08:00:00Z\n"
    for wrong in (
        text,
        text + good + "more = 1\n",
        text + "made = 2027-01-15T08:00:00\n",
        text + "made = 2027-01-15T08:00:00+01:00\n",
        text + "made = 2027-01-15T08:00:00.5Z\n",
        text + "made = 1969-12-31T23:59:59Z\n",
        text + "made = 1800000000\n",
        text.replace("epoch_number = 0", "epoch_number = -1") + good,
        text.replace("epoch_number = 0", "epoch_number = true") + good,
        text.replace('epoch = "c', 'epoch = "d') + good,
        text.replace(coalition, coalition.upper()) + good,
        text.replace("test", "t" * 256) + good,
    ):
        with pytest.raises(reader.Bad):
            reader.read_roots(wrong.encode())


def test_the_program_says_by_its_exit_whether_a_bundle_verifies(tmp_path: Path) -> None:
    coalition = ROOTS.coalition.hex()
    roots, bundle, damaged = tmp_path / "roots.toml", tmp_path / "good.bundle", tmp_path / "bad.bundle"
    roots.write_text(
        f'name = "test"\ncoalition = "{coalition}"\nepoch_number = 0\nepoch = "{coalition}"\n'
        "made = 2027-01-15T08:00:00Z\n"
    )
    bundle.write_bytes(GOOD["permitted"])
    damaged.write_bytes(flipped(GOOD["permitted"], 80_000))
    assert reader.main([str(bundle), str(roots)]) == 0
    assert reader.main([str(bundle)]) == 2
    for path, status in ((bundle, 0), (damaged, 1), (tmp_path / "none", 1)):
        program = [sys.executable, str(HERE / "reader.py"), str(path), str(roots)]
        ended = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
        assert ended.returncode == status, ended.stderr
        assert ("level: signed" in ended.stdout) == (status == 0)


@pytest.mark.parametrize(
    "name", [path.name for path in HERE.glob("*.py") if not path.name.startswith("test_")]
)
def test_the_reader_shares_no_code_with_the_product(name: str) -> None:
    tree = ast.parse((HERE / name).read_text(encoding="utf-8"))
    imported = {
        module.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    ours = {"reader", "reader_forms", "reader_records", "writer", "written_spellings"}
    roads = {"libp2p", "multiaddr", "trio"} if name == "peer.py" else set[str]()
    assert imported - ours - set(sys.stdlib_module_names) <= {"msgpack", "nacl"} | roads
