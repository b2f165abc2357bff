"""`comity`: the commands of a node, of a coalition's members, and of whoever verifies what they made.

One module per group of commands. What a command needs is imported when it runs, so that help costs nothing and
`comity` alone, without the packages of a node, has all commands that need none.
"""

from __future__ import annotations

from typing import Annotated

import typer

from comity import __version__
from comity.node import (
    cli_approve,
    cli_coalition,
    cli_credential,
    cli_dev,
    cli_doctor,
    cli_exec,
    cli_intent,
    cli_launch,
    cli_lineage,
    cli_node,
    cli_page,
    cli_policy,
    cli_publish,
    cli_verification,
    cli_why,
)
from comity.node.cli_terminal import STATUSES, Commands

app = typer.Typer(
    name="comity",
    cls=Commands,
    help="A peer-to-peer attested execution network for data pipelines: organizations decide together what runs.",
    epilog=(
        "[bold]First steps[/bold]\n\n"
        "[cyan]comity node init --member clinic-north.example HOME[/cyan] makes a node's home and its public card.\n\n"
        "[cyan]comity policy template DIR[/cyan] writes a taxonomy, a policy and rules to start from.\n\n"
        "[cyan]comity coalition new[/cyan], [cyan]comity coalition sign[/cyan] and"
        " [cyan]comity coalition join[/cyan] found a coalition from the cards of its members;"
        " [cyan]comity coalition admit[/cyan] takes a newcomer into one.\n\n"
        "[cyan]comity node start --home HOME[/cyan] runs the node;"
        " [cyan]comity node status[/cyan] says how it is.\n\n"
        "[cyan]comity key new[/cyan] and [cyan]comity credential issue[/cyan] give people and programs authority;"
        " [cyan]comity intent explain[/cyan] says what would be decided.\n\n"
        "[cyan]comity waiting[/cyan] lists what waits for whom;"
        " [cyan]comity verify[/cyan] checks a bundle without any node.\n\n"
        f"{STATUSES} Every command has [cyan]--json[/cyan] and [cyan]--help[/cyan] with examples."
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli_doctor.register(cli_node.app)
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
app.add_typer(cli_verification.app)
cli_approve.register(app)
cli_dev.register(app)
cli_exec.register(app)
cli_launch.register(app)
cli_lineage.register(app)
cli_page.register(app)
cli_why.register(app)


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
