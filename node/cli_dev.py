"""`comity dev`: a coalition of three throw-away members on one laptop, and a Dagster project under it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from comity.node.cli_dev_words import say_end, say_ready
from comity.node.cli_terminal import (
    NEGATIVE,
    JsonOption,
    console,
    examples,
    print_json,
    reported,
    show,
)

if TYPE_CHECKING:
    from comity.node.dev import DevFolder
    from comity.node.dev_dagster import Bench, Work
    from comity.node.dev_processes import Household

INTERRUPTED: Final = 130
LOOK_EVERY_S: Final = 0.2
"""How often is looked whether a process has ended."""

KeepOption = Annotated[
    Path | None,
    typer.Option(
        "--keep",
        metavar="DIR",
        help="Make everything in this folder, absent or empty, and leave it there; one of an earlier `comity dev"
        " --keep` is gone on with. Otherwise a temporary folder is made and removed.",
    ),
]
DagsterOption = Annotated[
    str | None,
    typer.Option(
        "--dagster",
        metavar="PATH",
        help="Govern a Dagster project: the file with its definitions, its folder, or the name of a module.",
    ),
]
OnceOption = Annotated[
    str, typer.Option("--once", metavar="JOB", help="Run this job of the project once, and end.")
]
MaterializeOption = Annotated[
    str,
    typer.Option(
        "--materialize",
        metavar="SELECTION",
        help="Materialize these assets of the project once, and end; * for all, +NAME with what it is made from.",
    ),
]
PartitionOption = Annotated[
    str,
    typer.Option("--partition", metavar="KEY", help="The partition to make, with --once or --materialize."),
]
PortOption = Annotated[
    int, typer.Option(min=1, max=65_535, help="Where Dagster's webserver listens, on 127.0.0.1 alone.")
]
UnboundOption = Annotated[
    Literal["refuse", "allow"],
    typer.Option(
        help="Whether a step of the project may read or write past the IO manager that binds its content to lineage."
    ),
]


def register(root: typer.Typer) -> None:
    """Add the command."""
    root.command(
        "dev",
        epilog=examples(
            "comity dev",
            "comity dev --keep ./coalition",
            "comity dev --dagster .",
            "comity dev --dagster my_project/definitions.py --materialize '*'",
            "comity dev --dagster my_project.definitions --once nightly --json",
        ),
    )(dev)


@reported
def dev(
    keep: KeepOption = None,
    dagster: DagsterOption = None,
    once: OnceOption = "",
    materialize: MaterializeOption = "",
    partition: PartitionOption = "",
    port: PortOption = 3000,
    unbound: UnboundOption = "refuse",
    as_json: JsonOption = False,
) -> None:
    """Try Comity on one laptop: a coalition of three throw-away members, until Ctrl-C.

    Makes the homes of three organizations (first.dev.test, second.dev.test, third.dev.test), founds their coalition
    with a taxonomy and a policy that governs every asset, starts a node process for each, and gives each node a
    credential. It then says what to try: every other command works on these homes, e.g. with COMITY_HOME=DIR/first.

    With --dagster the first member governs an existing project, whose files are not changed: its definitions are
    imported by a generated code location, each step asks the three nodes for a permit, and tables are kept in this
    folder, also those that the project's own io_manager would write elsewhere. An asset that a function writes by
    itself, or that a resource of another key keeps, is refused with a sentence that says what to do; --unbound allow
    lets it be made, and its record then names no content. Without --once and --materialize, Dagster's webserver and
    daemon run on 127.0.0.1.

    It is no coalition to rely on. All three keys lie in one folder of one user: whoever can read it is all three
    members, and none is protected from another. Everything is of the realm preview/dev: credentials, the policy that
    all three have signed and the owners' rules refuse any other, and nobody admits a preview's output in production.

    For a real coalition each organization makes its own home (comity node init) on its own machine, one drafts
    (comity policy template, comity coalition new), all sign and join; in the project, definitions.py gets one line,
    govern(defs). docs/dev.md goes from here to there.

    With --json it prints one line when it is ready and one at its end.
    """
    began = time.time()
    from comity.node.dev import dev_folder

    work = _work(dagster, once, materialize, partition, port, unbound)
    folder = dev_folder(keep)
    _Session(folder, work, as_json, began).run()


def _work(
    dagster: str | None,
    once: str,
    materialize: str,
    partition: str,
    port: int,
    unbound: Literal["refuse", "allow"],
) -> Work | None:
    """What is to be done with a project; None where none is named.

    Raises:
        ConfigError: options do not go together, there is no such project, or something is not installed.
    """
    from comity.node.dev_dagster import Work
    from comity.node.dev_founding import require_free_port
    from comity.node.dev_project import find_project, require_packages
    from comity.protocol.errors import ConfigError

    if dagster is None:
        if once or materialize or partition:
            raise ConfigError(
                "--once, --materialize and --partition are about a project: name it with --dagster"
            )
        return None
    if once and materialize:
        raise ConfigError("give --once JOB or --materialize SELECTION, not both")
    runs = bool(once or materialize)
    if partition and not runs:
        raise ConfigError("--partition goes with --once or --materialize")
    project = find_project(dagster)
    if not runs:
        require_free_port(port, "choose another one with --port")
    require_packages(webserver=not runs)
    return Work(project, runs, once, materialize or "*", partition, port, unbound)


@dataclass
class _Session:
    """One `comity dev`, from the founding to the clearing away."""

    folder: DevFolder
    work: Work | None
    as_json: bool
    began: float
    bench: Bench | None = None

    def run(self) -> None:
        import signal

        from comity.node.dev_processes import Household

        # A supervisor that ends us and a terminal that is closed mean the same as Ctrl-C, which a background job of a
        # shell would have ignored. Who is to outlive the terminal (nohup) does.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler)
        household = Household(self.folder)
        resumed, ready = self.folder.mark.exists(), False
        end: dict[str, Any] = {"reason": "failed"}
        try:
            made = self._set_up(household, resumed=resumed)
            ready = True
            if self.as_json:
                print_json(made)
            else:
                say_ready(console(), made, runs=self.work is not None and self.work.once)
            end = self._last(household)
        except KeyboardInterrupt:
            end = {"reason": "interrupted"}
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            if household.nodes:
                self._say("Ending the nodes.")
            household.end()
            if not (self.folder.kept and (ready or resumed)):
                self.folder.clear()
        end |= {
            "ended": True,
            "folder": str(self.folder.path),
            "kept": self.folder.kept and (ready or resumed),
        }
        show(end, self.as_json, lambda out: say_end(out, end))
        if not ready:
            raise typer.Exit(INTERRUPTED)
        if not (end["reason"] == "interrupted" or end.get("run", {}).get("success")):
            raise typer.Exit(NEGATIVE)

    def _set_up(self, household: Household, *, resumed: bool) -> dict[str, Any]:
        """From nothing to three nodes that have decided something, or that wait for Dagster to ask."""
        from comity.node.coalition_file import read_coalition
        from comity.node.dev import COALITION, REALM
        from comity.node.dev_dagster import load, serve
        from comity.node.dev_founding import (
            FIRST_ASSET,
            found,
            make_first_asset,
            publish_authority,
            require_resumable,
        )
        from comity.node.owner_files import write_file
        from comity.node.visible import json_line

        folder = self.folder
        if resumed:
            require_resumable(folder)
            folder.make()
            file = read_coalition(folder.coalition)
        else:
            self._say(f"Founding a coalition of three throw-away members in {folder.path}")
            file = found(folder)
        bench = self.bench = load(household, self.work) if self.work is not None else None
        self._say("Starting three nodes" + (", and loading the project" if bench else ""))
        household.start_nodes()
        if not resumed:
            # Later, what people have published since would be replaced by it.
            publish_authority(folder)
        household.wait_until_voting(bench.look if bench is not None else lambda: None)
        coalition = file.coalition.hex() if file.coalition is not None else ""
        made: dict[str, Any] = {
            "ready": True,
            "realm": REALM,
            "coalition": coalition,
            "coalition_name": COALITION,
            "folder": str(folder.path),
            "kept": folder.kept,
            "members": [
                {
                    "member": each.member,
                    "home": str(each.home.path),
                    "socket": str(each.home.socket),
                    "log": str(each.log),
                    "pid": household.nodes[each.member].pid,
                }
                for each in folder.members
            ],
        }
        if self.work is None or bench is None:
            answer = make_first_asset(folder)
            made["first"] = {"asset": FIRST_ASSET, "intent": answer.intent, "outcome": answer.outcome}
        else:
            made["project"] = bench.wait_until_loaded()
            made["unbound"] = self.work.unbound
            if not self.work.once:
                made["webserver"] = serve(household, self.work)
        write_file(folder.mark, (json_line({"realm": REALM, "coalition": coalition}) + "\n").encode())
        made["seconds"] = round(time.time() - self.began, 1)
        return made

    def _last(self, household: Household) -> dict[str, Any]:
        """Run what is to be run once, or wait until something ends it."""
        from comity.node.dev_dagster import first_made

        if self.work is not None and self.work.once and self.bench is not None:
            said = self.bench.run()
            at = first_made(said["outcomes"])
            said["first_made_s"] = round(at - self.began, 1) if at else None
            return {"reason": "done", "run": said}
        gone: set[str] = set()
        while True:
            time.sleep(LOOK_EVERY_S)
            for child in household.others:
                # The program that loaded the project has done its work.
                if child.process.poll() is not None and child.name.endswith("webserver"):
                    return {"reason": f"{child.name} has ended", "log": str(child.log)}
            for member, child in household.nodes.items():
                if member not in gone and child.process.poll() is not None:
                    gone.add(member)
                    home = next(e.home.path for e in self.folder.members if e.member == member)
                    self._say(f"{child.name} has ended. To start it again: comity node start --home {home}")

    def _say(self, line: str) -> None:
        if not self.as_json:
            console().print(line)
