"""The audit: what a demo left shows every claim, and one artefact that is altered takes away what it shows."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from comity.node.visible import is_visible
from demo_audit import artefacts, claims_work
from demo_audit.__main__ import CLAIMS, audit, main, tell
from demo_audit.artefacts import AuditError, copied, files_below, read_file
from demo_audit.event_logs import read_runs
from demo_audit.evidence import Evidence, Made, made_in, read_evidence
from demo_audit.findings import Finding
from demo_audit.stores import read_store
from demo_main import story
from demo_main.accounts import Account
from demo_main.auditing import Audit
from demo_main.organizations import ACCOUNTS, Cast
from demo_runs import (
    DemoRun,
    change_bit,
    copy_of,
    edit_log,
    edit_run,
    fail_run,
    opened,
    spoil_signature,
    withhold_one_more,
)

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "scripts/demo-audit")

pytestmark = pytest.mark.xdist_group("demo")

Alter = Callable[[Path, DemoRun], None]


@dataclass(frozen=True)
class Alteration:
    """One artefact that is altered, and the claims that it shows.

    `of` names the claim that the alteration is for; `too` those that rest on the same artefact.
    """

    of: str
    what: str
    alter: Alter
    too: frozenset[str] = frozenset()


def spoiled(organization: str, claim: str, name: str) -> Alter:
    """Spoil the signature of a record that shows a claim, in one store."""

    def alter(place: Path, demo: DemoRun) -> None:
        spoil_signature(place, organization, demo.record(claim, name))

    return alter


def edited(claim: str, run: str, old: str, new: str) -> Alter:
    """Let the event log of a run that shows a claim say something else."""

    def alter(place: Path, demo: DemoRun) -> None:
        edit_log(place, demo.run(claim, run), old, new)

    return alter


def told_otherwise(organization: str, claim: str, run: str, old: str, new: str) -> Alter:
    """Let Dagster of an organization say something else of a run that shows a claim."""

    def alter(place: Path, demo: DemoRun) -> None:
        edit_run(place, organization, demo.run(claim, run), old, new)

    return alter


def read_bytes_of(claim: str, run: str, digest: Callable[[DemoRun, str], str]) -> Alter:
    """Let the event log say that other bytes were read."""

    def alter(place: Path, demo: DemoRun) -> None:
        runs = read_runs(demo.place / "institute/dagster")
        (said,) = [each.failure()["comity/digest"] for each in runs if each.id == demo.run(claim, run)]
        edit_log(place, demo.run(claim, run), said, digest(demo, said))

    return alter


def genuine(demo: DemoRun, digest: str) -> str:
    """Name the bytes that Clinic South made first."""
    del digest
    store = read_evidence(demo.place).requester
    older = store.find(demo.record("replayed_input_refused", "older"), "actuation")
    found: str = older.body.content.digest.hex()
    return found


def nobodys(demo: DemoRun, digest: str) -> str:
    """Name bytes that nobody made."""
    del demo
    return hashlib.sha256(digest.encode()).hexdigest()


ALTERATIONS = (
    Alteration("homes_private", "a home that others read", lambda p, _: (p / "north").chmod(0o755)),
    Alteration("executed", "a file at home", lambda p, _: change_bit(p / "north/assets/patients.parquet")),
    Alteration("restricted", "what is withheld", lambda p, _: withhold_one_more(p, "south")),
    Alteration(
        "restricted",
        "a file in the exchange",
        lambda p, _: change_bit(p / "exchange/clinic-north.example/released.parquet"),
    ),
    Alteration(
        "deferred_then_executed",
        "the approval",
        spoiled("institute", "deferred_then_executed", "approval"),
        frozenset({"held_run_released"}),
    ),
    Alteration(
        "launched_by_daemon",
        "who handed it on",
        told_otherwise("north", "launched_by_daemon", "launched", '"handed"', '"deciding"'),
    ),
    Alteration(
        "launched_by_daemon",
        "the steward's ticket",
        spoiled("north", "launched_by_daemon", "ticket"),
        # There is no other: what was asked for with it was asked for with none.
        frozenset({"ticket_required", "second_run_refused"}),
    ),
    Alteration("ticket_required", "the refusal", spoiled("north", "ticket_required", "refusal")),
    Alteration("ticket_required", "a vote", spoiled("north", "ticket_required", "vote_clinic-north.example")),
    Alteration(
        "second_run_refused",
        "why it did not begin",
        told_otherwise("north", "second_run_refused", "second", '"ticket_used"', '"nobody_asked"'),
    ),
    Alteration(
        "staged_write_discarded",
        "what was found in it",
        spoiled("south", "staged_write_discarded", "verification"),
        # The governance logs of all four are compared.
        frozenset({"caught_up"}),
    ),
    Alteration(
        "staged_write_discarded", "what was staged", spoiled("south", "staged_write_discarded", "staged")
    ),
    Alteration(
        "held_run_released",
        "that it was held",
        told_otherwise("institute", "held_run_released", "released", '"released"', '"held"'),
    ),
    Alteration("rolled_back", "that a member knows it", spoiled("board", "rolled_back", "report")),
    Alteration(
        "rolled_back",
        "the bytes in the exchange",
        lambda p, _: change_bit(p / "exchange/clinic-south.example/released.parquet"),
        frozenset({"restricted"}),
    ),
    Alteration(
        "descendant_marked", "the mark", spoiled("institute", "descendant_marked", "mark_institute.example")
    ),
    Alteration(
        "curves_equal", "the estimates", lambda p, _: change_bit(p / "institute/assets/survival.parquet")
    ),
    Alteration(
        "owners_released",
        "a clinic's transition",
        spoiled("institute", "owners_released", "transition_clinic-north.example"),
        # The governance logs of all four are compared.
        frozenset({"caught_up"}),
    ),
    Alteration("agent_admitted", "the agent's ticket", spoiled("institute", "agent_admitted", "ticket")),
    Alteration("agent_refused", "the refusal", spoiled("institute", "agent_refused", "refusal")),
    Alteration("bundle_verified", "the bundle", lambda p, _: change_bit(p / "results/survival.bundle")),
    Alteration(
        "bundle_verified",
        "the run that made its target",
        lambda p, demo: fail_run(p, demo.run("bundle_verified", "survival")),
        frozenset({"curves_equal", "owners_released"}),
    ),
    Alteration(
        "tampered_input_refused", "what was read", read_bytes_of("tampered_input_refused", "refused", genuine)
    ),
    Alteration(
        "replayed_input_refused", "what was read", read_bytes_of("replayed_input_refused", "refused", nobodys)
    ),
    Alteration(
        "decided_with_one_member_down",
        "a vote of the permit",
        spoiled("institute", "decided_with_one_member_down", "vote_clinic-north.example"),
    ),
    Alteration("revocation_refused", "the refusal", spoiled("institute", "revocation_refused", "refusal")),
    Alteration("caught_up", "its first vote", spoiled("board", "caught_up", "first_vote")),
    Alteration("caught_up", "what it missed", spoiled("board", "caught_up", "revocation")),
    Alteration(
        "live_owner_deferred",
        "whom the log names",
        edited("live_owner_deferred", "deferred", "clinic-north.example", "clinic-south.example"),
    ),
    Alteration("owner_back_executed", "the permit", spoiled("institute", "owner_back_executed", "permit")),
    Alteration(
        "held_then_executed",
        "whom the log names",
        edited(
            "held_then_executed",
            "held",
            '"ethics-board.example": "silent"',
            '"ethics-board.example": "execute"',
        ),
    ),
    Alteration("held_then_executed", "the permit", spoiled("institute", "held_then_executed", "permit")),
)


def fingerprint_of(folder: Path) -> dict[str, str]:
    """The digests of all files below a folder."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files_below(folder)}


def read_again(evidence: Evidence, place: Path) -> Evidence:
    """Read what was altered in a copy; what is equal to the byte was read already."""
    cast = Cast.at(place, dict.fromkeys(ACCOUNTS, Account()))
    stores, logs = dict(evidence.stores), dict(evidence.logs)
    for before, each in zip(evidence.cast.organizations, cast.organizations, strict=True):
        store = "store.sqlite3"
        if (each.home / store).read_bytes() != (before.home / store).read_bytes():
            stores[each.member] = read_store(each.member, each.home, evidence.roots)
        if each.project and _contents(each.dagster_home / "history") != _contents(
            before.dagster_home / "history"
        ):
            logs[each.name] = read_runs(each.dagster_home)
    return replace(evidence, cast=cast, stores=stores, logs=logs)


def _contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in files_below(folder)]


def test_every_claim_has_an_alteration() -> None:
    assert {alteration.of for alteration in ALTERATIONS} == set(CLAIMS) == set(story.CLAIMS)


@pytest.mark.parametrize("alteration", ALTERATIONS, ids=lambda each: f"{each.of}: {each.what}")
def test_an_altered_artefact_takes_away_what_it_shows(
    alteration: Alteration, demo: DemoRun, evidence: Evidence, tmp_path: Path
) -> None:
    place = copy_of(demo.place, tmp_path / "kept")
    alteration.alter(place, demo)
    findings = audit(read_again(evidence, place))
    assert {name for name, finding in findings.items() if not finding.holds} == {
        alteration.of
    } | alteration.too


def test_what_a_demo_left_shows_every_claim_and_stays_as_it_is(demo: DemoRun) -> None:
    before = fingerprint_of(demo.place)
    done = subprocess.run([SCRIPT, "--json", str(demo.place)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["claims"] == dict.fromkeys(CLAIMS, True)
    assert set(said["unverified"].values()) == {0}
    assert {name: proof["records"] for name, proof in said["proof"].items()} == {
        name: proof["records"] for name, proof in demo.said["proof"].items()
    }
    assert fingerprint_of(demo.place) == before


def test_a_bundle_of_something_else_than_the_run_made_is_not_the_runs(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It verifies, and it is of survival; but the run is said to have made another actuation."""
    (run,) = [each for each in evidence.runs(evidence.cast.institute, "make_survival") if each.succeeded]
    made = made_in(evidence.requester, run, "survival")
    assert claims_work.bundle_verified(evidence).holds
    (other, *_) = (a for a in evidence.requester.of_kind("actuation") if a.id != made.actuation.id)

    def survival(evidence: Evidence) -> list[Made]:
        del evidence
        return [replace(made, actuation=other)]

    monkeypatch.setattr(claims_work, "_survival", survival)
    assert claims_work.bundle_verified(evidence).unseen == ["of what the run of survival made"]


def test_people_are_told_what_is_not_shown_and_why(
    demo: DemoRun, evidence: Evidence, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = copy_of(demo.place, tmp_path / "kept")
    (place / "results/survival.bundle").unlink()
    altered = read_again(evidence, place)
    tell(altered, audit(altered))
    told = capsys.readouterr().out
    assert "NOT SHOWN  bundle verified" in told
    assert "survival.bundle: no such file" in " ".join(told.split())
    assert f"{len(CLAIMS) - 1} of {len(CLAIMS)} claims are shown" in told


def test_what_lay_in_the_folder_moves_no_cursor(
    evidence: Evidence, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "\x1b[2K\u202e\u3164"
    tell(evidence, {"executed": Finding({hostile: False}, problem=hostile)})
    told = capsys.readouterr().out
    assert told.count("\\x1b[2K\\u202e\\u3164") == 2
    assert all(is_visible(line) for line in told.split("\n"))


def test_a_store_of_a_node_that_was_killed_is_read_to_its_end(
    demo: DemoRun, evidence: Evidence, tmp_path: Path
) -> None:
    home = copy_of(demo.place / "board/node", tmp_path / "node")
    with opened(home / "store.sqlite3") as connection:
        assert connection.execute("PRAGMA journal_mode = WAL").fetchall() == [("wal",)]
        connection.execute("UPDATE records SET signatures = x'90' WHERE kind = 'vote'")
        # As it lies there after a kill: what was written last is in the log beside the file.
        copy_of(home, tmp_path / "killed")
    store = read_store("ethics-board.example", tmp_path / "killed", evidence.roots)
    votes = len(evidence.stores["ethics-board.example"].of_kind("vote"))
    assert (store.unverified, store.of_kind("vote")) == (votes, [])


def test_records_under_other_roots_show_nothing(demo: DemoRun, tmp_path: Path) -> None:
    place = copy_of(demo.place, tmp_path / "kept")
    roots = place / "results/roots.toml"
    text = roots.read_text(encoding="utf-8")
    coalition = text.partition('coalition = "')[2][:64]
    roots.write_text(text.replace(coalition, hashlib.sha256(b"another").hexdigest()), encoding="utf-8")
    with pytest.raises(AuditError, match="do not pass through the roots"):
        read_evidence(place)


def test_a_folder_that_no_demo_left_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["demo-audit", "--json", str(tmp_path)])
    assert main() == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{tmp_path}/results/roots.toml: no such file" in said.err


@pytest.mark.parametrize("status", [0, 1])
def test_the_status_says_whether_every_claim_holds(
    status: int, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(evidence: Evidence) -> dict[str, Finding]:
        del evidence
        return {"executed": Finding({"all rows": True}), "restricted": Finding({"columns": status == 0})}

    def read(place: Path) -> Evidence:
        del place
        return evidence

    monkeypatch.setattr("sys.argv", ["demo-audit", "--json", "kept"])
    monkeypatch.setattr("demo_audit.__main__.read_evidence", read)
    monkeypatch.setattr("demo_audit.__main__.audit", found)
    assert main() == status


def test_a_link_is_followed_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"theirs")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").symlink_to(tmp_path / "secret")
    with pytest.raises(AuditError, match="a link"):
        read_file(tmp_path / "kept/file")
    with pytest.raises(AuditError, match="a link"):
        files_below(tmp_path / "kept")


def test_a_linked_folder_is_followed_nowhere(demo: DemoRun, evidence: Evidence, tmp_path: Path) -> None:
    """The link is in the place of a folder above what is read. That the kept folder is reached by one is no matter."""
    place = copy_of(demo.place, tmp_path / "kept")
    (tmp_path / "way").symlink_to(place)
    assert all(finding.holds for finding in audit(read_evidence(tmp_path / "way")).values())
    (place / "north").rename(tmp_path / "elsewhere")
    (place / "north").symlink_to(tmp_path / "elsewhere")
    home = place / "north/node"
    for read in (
        lambda: read_file(home / "roots.toml"),
        lambda: files_below(home),
        lambda: read_store("clinic-north.example", home, evidence.roots),
        lambda: read_runs(place / "north/dagster"),
        lambda: read_evidence(place),
    ):
        with pytest.raises(AuditError, match="a link leads there"):
            read()
    linked = replace(evidence, cast=Cast.at(place, dict.fromkeys(ACCOUNTS, Account())))
    assert "a link leads there" in audit(linked)["homes_private"].problem
    (place / "circle").symlink_to(place / "circle")
    with pytest.raises(AuditError, match="no such file"):
        read_file(place / "circle/file")


def test_what_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artefacts, "FILE_BYTES_MAX", 7)
    monkeypatch.setattr(artefacts, "COPY_BYTES_MAX", 15)
    monkeypatch.setattr(artefacts, "COPY_FILES_MAX", 2)
    paths = [tmp_path / name for name in "abc"]
    for path in paths[:2]:
        path.write_bytes(b"8 bytes.")
    with pytest.raises(AuditError, match="more than 7 bytes"):
        read_file(paths[0])
    with pytest.raises(AuditError, match="more than 15 bytes"), copied(tmp_path, files_below(tmp_path)):
        pass
    paths[2].write_bytes(b"")
    with pytest.raises(AuditError, match="more than 2 files"):
        files_below(tmp_path)


def test_demo_and_audit_that_disagree_are_heard() -> None:
    proof = {"executed": {"seen": {"all rows": False, "at home only": True}}}
    said = Audit({"executed": False, "restricted": True, "caught_up": True}, proof)
    found = said.disagreements({"executed": True, "restricted": False, "caught_up": True})
    assert [text.partition(":")[0] for text in found] == ["executed", "restricted"]
    assert found[0].endswith("does not show it: all rows")
    assert "not observed, and yet" in found[1]
    assert Audit(problem="it was not made").disagreements({"executed": True}) == []


def test_the_page_says_what_shows_each_claim() -> None:
    page = " ".join((ROOT / "docs/demo.md").read_text(encoding="utf-8").split())
    assert [name for name, (_, shown_by) in CLAIMS.items() if f"| `{name}` | {shown_by} |" not in page] == []
