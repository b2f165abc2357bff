"""`comity page`: a link that lets one browser onto the people's page of the local node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from comity.node.cli_terminal import HomeOption, JsonOption, examples, reported, show

if TYPE_CHECKING:
    from rich.console import Console


def register(root: typer.Typer) -> None:
    """Add the command."""
    root.command(
        "page", epilog=examples("comity page", "comity page --look-only", "comity page --home HOME")
    )(page)


@reported
def page(
    look_only: Annotated[
        bool,
        typer.Option("--look-only", help="The browser only looks: it hands in nothing that is signed there."),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a link to the page of the local node, for the person on duty: what waits, what was decided, who is there.

    The link lets one browser on this machine in, once, within two minutes; its session lasts eight hours. The node
    serves the page where node.toml sets listen under [page]. Nothing is signed by the session: an approval is signed
    in the browser by the person's own key.
    """
    from comity.node.signing_hand import Hand

    hand = Hand.of(home)
    made: Any = (hand.reader() if look_only else hand.operator()).page_link()

    def say(out: Console) -> None:
        out.print(made["link"])
        does = "it only looks" if made["role"] == "reader" else "it looks, and hands in what is signed there"
        out.print(f"Open it within {made['seconds']} seconds. It lets one browser in, once; {does}.")

    show(made, as_json, say)
