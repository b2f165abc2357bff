"""Leave it running, and say what there is to look at and to try."""

from __future__ import annotations

import contextlib
import signal

from demo_main.commands import program
from demo_main.processes import Interrupted
from demo_main.stage import Stage


def serve(stage: Stage) -> None:
    """Say what to try, and wait until somebody wants the demo to end."""
    cast, say = stage.cast, stage.story.say
    with stage.story.phase("serve", "All nodes are running. Ctrl-C ends them. In another terminal:"):
        home = cast.institute.home
        bundle, roots = stage.results / "survival.bundle", stage.results / "roots.toml"
        variables = (
            f"COMITY_HOME={home} COMITY_EXCHANGE={cast.exchange} DAGSTER_HOME={cast.institute.dagster_home}"
        )
        comity = program("comity")
        for what, command in (
            ("who is there, and how many faults are tolerated", f"{comity} node status --home {home}"),
            ("what was decided, by whose votes", f"{comity} decision list --home {home}"),
            ("what waits, and what would help", f"{comity} waiting --home {home}"),
            (
                "where survival comes from",
                f"{comity} lineage show {cast.institute.member}/survival --home {home}",
            ),
            ("the same for a stranger", f"{comity} verify {bundle} --roots {roots}"),
            ("take a member away, and look again", f"kill -9 {stage.node(cast.board).pid}"),
            (
                "Dagster's own pages (needs dagster-webserver)",
                f"{variables} dagster-webserver -f {cast.institute.project_folder / 'definitions.py'}",
            ),
        ):
            say(f"{what}:")
            stage.story.show(command)
        say(f"Each organization's files are under {cast.place}: node/ is its node's home, assets/ its data.")
        # The handler of the signal raises.
        with contextlib.suppress(Interrupted):
            signal.pause()
