"""From the command line to the demo's last line.

scripts/demo [--json] [--keep DIR] [--serve] [--no-browser]
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, Final

from comity.protocol.errors import ComityError
from demo_main import phases_absence, phases_faults, phases_launch, phases_work, phases_wrong
from demo_main.accounts import choose_accounts
from demo_main.auditing import Audit, audit
from demo_main.commands import Commands, program
from demo_main.doors import open_doors
from demo_main.founding import found
from demo_main.lineage import read_lineage
from demo_main.officer import OfficersBrowser, browser_program
from demo_main.organizations import ACCOUNTS, Cast
from demo_main.preparing import dagster_import_cpu_s, load_patients, prepare
from demo_main.processes import DemoError, Interrupted, Supervisor
from demo_main.serving import serve
from demo_main.stage import Stage
from demo_main.story import CLAIMS, Story

ROOT: Final = Path(__file__).resolve().parents[2]
PLACE_BYTES_MAX: Final = 64
"""Length of the demo's folder: the path of a node's socket below it has at most 103 bytes."""
USAGE_STATUS: Final = 2
INTERRUPTED_STATUS: Final = 130
PHASES_AFTER: Final = (
    phases_launch.ask,
    phases_wrong.discard,
    phases_work.pool,
    phases_work.estimate,
    phases_work.delegate,
    phases_faults.export,
    phases_faults.tamper,
    phases_faults.replay,
    phases_absence.lose_board,
    phases_absence.revoke,
    phases_absence.bring_board_back,
    phases_absence.lose_north,
    phases_absence.lose_two,
    phases_absence.bring_both_back,
    phases_wrong.find_wrong,
)


def main() -> int:
    """Run the demo and return its exit status: 0 only if all that it claims was observed."""
    arguments = read_arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    out = sys.stderr if arguments.json else sys.stdout
    story = Story(out)
    supervisor = Supervisor()
    place = _place(arguments.keep)
    outcome: dict[str, Any] = {}
    problem = ""
    audited = Audit()
    try:
        outcome = play(place, story, supervisor, hold=arguments.serve, look=not arguments.no_browser)
    except Interrupted:
        problem = "interrupted"
    except (DemoError, ComityError, OSError) as exc:
        problem = f"{type(exc).__name__}: {exc}"
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        supervisor.end_all()
        if not problem:
            # When nothing runs any more, and before anything is removed.
            audited = audit(place)
            problem = audited.problem or _disagreement(audited, story)
        results = _clean_up(place, keep=arguments.keep is not None, finished=not problem)
    if problem:
        print(f"\nthe demo has failed: {problem}", file=out, flush=True)
    _conclude(story, audited, results, out, arguments.keep, problem)
    summary = summarize(story, audited, outcome, results, problem)
    if arguments.json:
        print(json.dumps(summary), flush=True)
    if problem == "interrupted":
        return INTERRUPTED_STATUS
    return 0 if story.complete and all(audited.claims.values()) and not problem else 1


def _disagreement(audited: Audit, story: Story) -> str:
    found = audited.disagreements(story.claims)
    return f"demo and audit disagree: {'; '.join(found)}" if found else ""


def read_arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="Four organizations decide together: one federated pipeline over clinical data, "
        "each organization with its own node process, keys and store.",
        epilog="Ends with 0 only if everything that it claims was observed.",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="the output is one line, a JSON object; what is told goes to the error output",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="leave homes, bundle and pictures in DIR (new or empty)"
    )
    parser.add_argument(
        "--serve",
        action="store_true",
        help="leave the nodes running until Ctrl-C, and say what to look at and to try",
    )
    parser.add_argument(
        "--no-browser",
        action="store_true",
        help="the officer approves by `comity approve`, also where there is a browser",
    )
    arguments = parser.parse_args()
    keep: Path | None = arguments.keep
    if keep is not None:
        arguments.keep = keep = keep.absolute()
        if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
            parser.error(f"{keep} is there already, and not an empty folder")
        if len(str(keep).encode()) > PLACE_BYTES_MAX:
            parser.error(
                f"the path of --keep has at most {PLACE_BYTES_MAX} bytes: a node's socket lies below it"
            )
    return arguments


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise Interrupted


def _place(keep: Path | None) -> Path:
    """The demo's folder. Other users pass through it to their own homes; only its owner lists it."""
    place = keep if keep is not None else Path(tempfile.mkdtemp(prefix="comity-demo-", dir="/tmp"))
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(0o711)
    return place


def play(place: Path, story: Story, supervisor: Supervisor, *, hold: bool, look: bool) -> dict[str, Any]:
    """The demo itself. Returns what the summary says beside the claims.

    Args:
        hold: leave everything running in the end, until somebody interrupts.
        look: have the officer use a browser, where there is one.
    """
    seen = open_doors((Path(sys.base_prefix), Path(sys.prefix), ROOT, place))
    accounts = choose_accounts(ACCOUNTS, place)
    cast = Cast.at(place, accounts.by_name)
    results = place / "results"
    results.mkdir(mode=0o755)
    with story.phase("prepare", "Homes, and what programs need to start quickly"):
        story.say(accounts.sentence + (f"; {seen}" if seen else ""))
        prepare(cast, supervisor)
        patients = load_patients(cast)
    stage = Stage(cast, story, supervisor, Commands(supervisor), {}, {}, patients, results)
    try:
        browser = browser_program() if look else ""
        stage.browser = OfficersBrowser(browser) if browser else None
        found(stage)
        phases_work.release(stage)
        with ThreadPoolExecutor(1) as pool:
            # The next phases wait for others: there is time to measure.
            import_cpu = pool.submit(dagster_import_cpu_s, supervisor)
            for phase in PHASES_AFTER:
                phase(stage)
            import_cpu_s = import_cpu.result()
        stage.look_at_decisions()
        outcome = _counts(stage) | {
            "import_dagster_cpu_s": round(import_cpu_s, 2),
            "accounts": accounts.sentence,
        }
        if hold:
            serve(stage, own_view=bool(seen))
        return outcome
    finally:
        for service in stage.services.values():
            service.end()
        if stage.browser is not None:
            stage.browser.close()


def _counts(stage: Stage) -> dict[str, Any]:
    outcomes = Counter(row["outcome"] for row in stage.decisions.values())
    return {
        "organizations": len(stage.nodes),
        "permits": {"execute": outcomes["execute"], "restrict": outcomes["restrict"]},
        "refusals": outcomes["refuse"],
        "rows_released": stage.rows_released,
        "lineage_records": read_lineage(stage.results / "survival.bundle").records,
    }


def _clean_up(place: Path, *, keep: bool, finished: bool) -> Path:
    """Remove the homes unless they are to be kept; results are left, for the last line names them."""
    results = place / "results"
    if keep:
        return results
    if not finished:
        shutil.rmtree(place, ignore_errors=True)
        return results
    for child in place.iterdir():
        if child != results:
            shutil.rmtree(child, ignore_errors=True)
    return results


def _conclude(story: Story, audited: Audit, results: Path, out: Any, keep: Path | None, problem: str) -> None:
    """The end, for people."""
    missing = list(story.missing())
    print(f"\n{story.seconds:7.1f} s  ", end="", file=out)
    if missing:
        print(f"not observed: {', '.join(name.replace('_', ' ') for name in missing)}", file=out)
    else:
        print("everything was observed", file=out)
    if audited.claims:
        shown = sum(audited.claims.values())
        print(
            f"          the audit: {shown} of {len(audited.claims)} claims are shown by what was left behind alone",
            file=out,
        )
    if results.exists():
        for path in sorted(results.iterdir()):
            print(f"          {path}", file=out)
        if keep is None:
            print(f"          homes are removed; these are not: rm -r {results.parent}", file=out)
    if not missing and not problem:
        _say_what_next(results, out)
    out.flush()


def _say_what_next(results: Path, out: Any) -> None:
    verify = f"{program('comity')} verify {results / 'survival.bundle'} --roots {results / 'roots.toml'}"
    print("\n          What next?", file=out)
    kept = f"{ROOT / 'scripts/demo'} --keep DIR && {ROOT / 'scripts/demo-audit'} DIR"
    for what, how in (
        ("verify the lineage yourself, with neither node nor network", verify),
        ("keep everything, and see what shows each claim", kept),
        ("ask the nodes while they run, and take one away", f"{ROOT / 'scripts/demo'} --serve"),
        ("found a coalition, and govern a project of your own", f"{ROOT / 'README.md'}, In your own project"),
    ):
        print(f"          {what}:\n              {how}", file=out)


def summarize(
    story: Story, audited: Audit, outcome: dict[str, Any], results: Path, problem: str
) -> dict[str, Any]:
    """The last line: the claims, and the proof of each, are the audit's; `observed` is what the demo itself saw.

    `bundle` and `roots` are null where the demo has ended before they were made.
    """
    files = {"bundle": results / "survival.bundle", "roots": results / "roots.toml"}
    return {
        **outcome,
        **{name: audited.claims.get(name, False) for name in CLAIMS},
        "claims": dict(audited.claims),
        "observed": {
            name: {"holds": held, **story.proofs[name].as_json()} for name, held in story.claims.items()
        },
        **{name: str(path) if path.exists() else None for name, path in files.items()},
        "seconds": round(story.seconds, 1),
        "phases": [
            {"name": phase.name, "title": phase.title, "seconds": round(phase.seconds, 1), "said": phase.said}
            for phase in story.phases
        ],
        "proof": dict(audited.proof),
        **({"problem": problem} if problem else {}),
    }


if __name__ == "__main__":
    sys.exit(main())
