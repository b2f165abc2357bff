"""What every command shares: options, output for people and for programs, errors and exit statuses.

Imports nothing heavy: `comity --help` costs as much as this and Typer do.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, ParamSpec, TypeAlias

import typer
from typer.core import TyperGroup

from comity.node.visible import json_line, visible
from comity.protocol.errors import ComityError, ConfigError, DecodeError, StoreError, VerificationError

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")

OK: Final = 0
NEGATIVE: Final = 1
"""It was refused, or the answer is no."""
USAGE: Final = 2
"""What was given is wrong: an option, a file, a setting."""
UNREACHABLE: Final = 3
"""The node does not answer."""

STATUSES: Final = (
    "[bold]Exit status:[/bold] 0 done; 1 refused, or the answer is no; 2 an option, a file or a setting is wrong;"
    " 3 the node does not answer."
)
EXTRAS: Final = frozenset(
    {"fastapi", "hypercorn", "libp2p", "multiaddr", "prometheus_client", "sqlalchemy", "structlog", "trio"}
)
"""Packages of `comity[node]`, which `comity` alone does not bring."""
WIDTH: Final = 160
"""Columns where output is no terminal: no id is broken."""

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON value for programs, instead of text for people.")
]
HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="DIR", help="The node's home; otherwise COMITY_HOME, otherwise ~/.comity."
    ),
]
OrganizationKeyOption = Annotated[
    Path | None,
    typer.Option(
        "--organization-key",
        metavar="FILE",
        help="The organization's private key, where it is kept outside of the home.",
    ),
]
PassphraseOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="Holds the passphrase of an encrypted key; without it the passphrase is asked for.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Write the signed record here instead of publishing it."),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Sign nothing where something is warned of (status 2).")
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Write over a file that is there already under the name of --out.")
]
Json: TypeAlias = Any


def new_app(name: str, text: str) -> typer.Typer:
    """A group of commands."""
    return typer.Typer(
        name=name,
        help=text,
        no_args_is_help=True,
        rich_markup_mode="rich",
        add_completion=False,
        pretty_exceptions_enable=False,
    )


def examples(*lines: str) -> str:
    """The epilog of a command: examples, and what its exit status says."""
    listed = "\n\n".join(f"[cyan]{line}[/cyan]" for line in lines)
    return f"[bold]Examples[/bold]\n\n{listed}\n\n{STATUSES}"


@contextmanager
def naming(file: Path) -> Generator[None, None, None]:
    """Errors of what a file says begin with its name."""
    try:
        yield
    except ConfigError as exc:
        raise exc if str(exc).startswith(str(file)) else ConfigError(f"{file}: {exc}") from exc


def require_free(out: Path | None, *others: Path, force: bool) -> None:
    """Check that nothing is written over by accident. `others` are files that the command changes anyway.

    Raises:
        ConfigError: there is such a file already.
    """
    if out is None or force or out.resolve() in {each.resolve() for each in others}:
        return
    if out.exists():
        raise ConfigError(f"{out}: there is such a file already; --force writes over it")


# Output


def show(value: Json, as_json: bool, people: Callable[[Console], None]) -> None:  # noqa: FBT001  the switch
    """Print a value: as JSON in one line, or in words."""
    if as_json:
        print_json(value)
        return
    people(console())


def print_json(value: Json) -> None:
    sys.stdout.write(json_line(value) + "\n")
    sys.stdout.flush()


def console() -> Console:
    """Where lines are printed. A line is one line: whatever a record says, it begins no other and moves nothing."""
    from rich.console import Console

    class Lines(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*(visible(o) if isinstance(o, str) else o for o in objects), **options)

    width = None if sys.stdout.isatty() else WIDTH
    return Lines(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True)


def warn(warnings: Sequence[str], *, strict: bool) -> None:
    """Say on the error output what is probably not meant.

    Raises:
        ConfigError: with `strict` there is something.
    """
    if warnings and strict:
        raise ConfigError(f"nothing is signed: {'; '.join(warnings)}")
    for warning in warnings:
        sys.stderr.write(f"comity: warning: {visible(warning)}\n")


def table(out: Console, columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Rows under headings, or a sentence where there are none."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, show_edge=False)
    for column in columns:
        shown.add_column(column, overflow="fold")
    count = 0
    for row in rows:
        shown.add_row(*(visible(str(cell)) for cell in row))
        count += 1
    out.print(shown if count else empty)


def short(record_id: str) -> str:
    """The beginning of an id: enough to tell records apart."""
    return record_id[:16]


def when(seconds: int) -> str:
    """A time for people, in UTC."""
    from comity.attestation.toml_text import date_of

    return date_of(seconds) if seconds else "-"


# Errors


_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]
"""What a wrong option raises. Where its class lives depends on the release of Typer."""


class Commands(TyperGroup):
    """All commands. With `--json` a wrong option is said as JSON, too, like any other error."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001  Typer's own signature
        windows_expand_args: bool = True,  # noqa: FBT001
        **extra: Any,
    ) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        _flags_take_no_value(self)
        run = functools.partial(super().main, words, prog_name, complete_var)
        if "--json" not in words or not standalone_mode:
            return run(standalone_mode, windows_expand_args, **extra)
        status: Any = OK
        try:
            status = run(False, windows_expand_args, **extra)
        except _USAGE_ERROR as exc:
            message = visible(exc.format_message())
            print_json(
                {"error": {"code": "option_wrong", "message": message, "hint": "--help lists the options"}}
            )
            sys.stderr.write(f"comity: {message}\n  --help lists the options\n")
            sys.exit(USAGE)
        except typer.Abort:
            sys.exit(NEGATIVE)
        sys.exit(status if isinstance(status, int) else OK)


def _flags_take_no_value(command: Any) -> None:
    """Have help show a flag without the type that its parser gives it."""
    for parameter in command.get_params(typer.Context(command)):
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
    for each in getattr(command, "commands", {}).values():
        _flags_take_no_value(each)


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """A command whose errors become a message and an exit status."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        as_json = bool(kwargs.get("as_json"))
        try:
            command(*args, **kwargs)
        except ComityError as exc:
            fail(exc, as_json=as_json)
        except ModuleNotFoundError as exc:
            package = (exc.name or "").partition(".")[0]
            if package not in EXTRAS:
                raise
            fail(
                ConfigError(
                    f"this needs the packages of a node ({package} is missing): pip install 'comity[node]'"
                ),
                as_json=as_json,
            )
        except BrokenPipeError:
            # Whoever read the output has seen enough.
            sys.stderr.close()
            raise typer.Exit(OK) from None

    # Help breaks lines where the terminal ends, not where the source does.
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    run.__doc__ = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return run


def fail(exc: ComityError, *, as_json: bool) -> NoReturn:
    """Say what went wrong, on the error output and for programs on the output, and end."""
    code, message, hint = described(exc)
    if as_json:
        print_json({"error": {"code": code, "message": message, "hint": hint}})
    sys.stderr.write(f"comity: {visible(message)}\n" + (f"  {visible(hint)}\n" if hint else ""))
    raise typer.Exit(status_of(exc))


def described(exc: ComityError) -> tuple[str, str, str]:
    """Code, message and hint of an error."""
    from comity.node.client import NodeError
    from comity.node.problems import Refused

    if isinstance(exc, NodeError | Refused):
        return exc.code, exc.message, exc.hint
    if isinstance(exc, VerificationError):
        return exc.reason, str(exc), ""
    codes: dict[type[ComityError], str] = {
        ConfigError: "config_wrong",
        DecodeError: "unreadable",
        StoreError: "store_failed",
    }
    return next((code for kind, code in codes.items() if isinstance(exc, kind)), "failed"), str(exc), ""


def status_of(exc: ComityError) -> int:
    """The exit status that an error gives."""
    from comity.node.client import (
        FormInvalidError,
        NodeUnreachableError,
        RoleForbiddenError,
        TokenWrongError,
    )

    if isinstance(exc, NodeUnreachableError):
        return UNREACHABLE
    if isinstance(exc, ConfigError | StoreError | TokenWrongError | RoleForbiddenError):
        return USAGE
    if isinstance(exc, FormInvalidError) and exc.code == FormInvalidError.default_code:
        return USAGE
    return NEGATIVE
