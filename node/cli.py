"""`comity`: the commands of a node, of a coalition's members, and of whoever verifies what they made.

One module per group of commands. What a command needs is imported when it runs, so that help costs nothing and
`comity` alone, without the packages of a node, has all commands that need none.
"""

from __future__ import annotations

from typing import Annotated

import typer

from comity import __version__
from comity.node import (
    cli_coalition,
    cli_credential,
    cli_intent,
    cli_lineage,
    cli_node,
    cli_policy,
    cli_publish,
)
from comity.node.cli_terminal import STATUSES

app = typer.Typer(
    name="comity",
    help="A peer-to-peer attested execution network for data pipelines: organizations decide together what runs.",
    epilog=(
        "**First steps**\n\n"
        "`comity node init --member clinic-north.example HOME` makes a node's home and its public card.\n\n"
        "`comity coalition new`, `sign` and `join` found a coalition from the cards of its members.\n\n"
        "`comity node start --home HOME` runs the node; `comity node status` says how it is.\n\n"
        "`comity waiting` lists what waits for whom; `comity verify` checks a bundle without any node.\n\n"
        f"{STATUSES} Every command has `--json` and `--help` with examples."
    ),
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_node.app)
app.add_typer(cli_node.config)
app.add_typer(cli_coalition.app)
app.add_typer(cli_credential.app)
app.add_typer(cli_credential.keys)
app.add_typer(cli_policy.app)
app.add_typer(cli_policy.taxonomy)
app.add_typer(cli_intent.app)
app.add_typer(cli_intent.decision)
app.add_typer(cli_publish.transition)
app.add_typer(cli_publish.owner_policy)
app.add_typer(cli_publish.reference)
app.add_typer(cli_publish.record)
app.add_typer(cli_lineage.app)
cli_intent.register(app)
cli_lineage.register(app)


def _print_version(value: bool) -> None:  # noqa: FBT001  Typer calls it so
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of `comity` itself."""
    del version  # its callback has printed it


def main() -> None:
    """The entry point."""
    app()


if __name__ == "__main__":
    main()
