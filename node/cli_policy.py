"""`comity policy` and `comity taxonomy`: write rules, look at them, and bring them into force."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comity.node.cli_coalition_words import say_changes, say_warnings
from comity.node.cli_terminal import (
    NEGATIVE,
    ForceOption,
    HomeOption,
    JsonOption,
    OrganizationKeyOption,
    PassphraseOption,
    examples,
    new_app,
    reported,
    require_free,
    show,
)

if TYPE_CHECKING:
    from rich.console import Console

app = new_app("policy", "Policies: start from templates, lint, publish.")
taxonomy = new_app("taxonomy", "The taxonomy: the published classes of authority.")


@app.command("template", epilog=examples("comity policy template site/"))
@reported
def template(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write; nothing is overwritten.")],
    as_json: JsonOption = False,
) -> None:
    """Write a taxonomy, a policy and its rules to start from, with comments."""
    from comity.node.governance_files import POLICY_TEMPLATE, RULES_TEMPLATE, TAXONOMY_TEMPLATE
    from comity.node.owner_files import PUBLIC, write_file
    from comity.protocol.errors import ConfigError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"{folder}: cannot be made: {exc.strerror}") from exc
    texts = {
        "taxonomy.toml": TAXONOMY_TEMPLATE,
        "policy.toml": POLICY_TEMPLATE,
        "policy.cedar": RULES_TEMPLATE,
    }
    for name, text in texts.items():
        write_file(folder / name, text.encode(), mode=PUBLIC, replace=False)
    files = [str(folder / name) for name in texts]

    def say(out: Console) -> None:
        out.print("Wrote " + ", ".join(files))
        out.print("Next: change them to what you share and for what, and have them looked through:")
        out.print(f"  comity policy lint {files[1]} --taxonomy {files[0]}")
        out.print("Then draft a coalition by them: `comity coalition new`, with the cards of its members.")

    show({"files": files}, as_json, say)


@app.command(
    "lint",
    epilog=examples(
        "comity policy lint site/policy.toml --taxonomy site/taxonomy.toml", "comity policy lint policy.cedar"
    ),
)
@reported
def lint_policy(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A policy (TOML), or its rules alone (.cedar).")
    ],
    taxonomy_file: Annotated[
        Path | None,
        typer.Option("--taxonomy", metavar="FILE", help="The taxonomy, to find names that nobody published."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Status 1 where there are warnings, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong in a policy, where, and what was probably meant.

    Errors are those for which the policy would not be accepted (status 1); warnings are of rules that say
    something else than their author thinks (status 1 with --strict).
    """
    from comity.attestation.policy_lint import PolicyNames, lint
    from comity.node.governance_files import read_policy, read_rules, read_taxonomy
    from comity.node.governance_names import NameWarning, name_warnings

    names: list[NameWarning]
    published = read_taxonomy(taxonomy_file) if taxonomy_file is not None else None
    if file.suffix == ".cedar":
        rules_path, problems, names = file, lint(read_rules(file)), []
    else:
        source = read_policy(file)
        rules_path = source.rules_path
        problems = lint(source.policy.rules, PolicyNames.of(source.policy, published))
        names = name_warnings([file], taxonomy_file)
    errors = [problem for problem in problems if problem.severity == "error"]
    value = {
        "file": str(rules_path),
        "errors": len(errors),
        "warnings": len(problems) - len(errors) + len(names),
        "names": names,
        "problems": [
            {name: getattr(p, name) for name in ("line", "column", "severity", "code", "message", "hint")}
            for p in problems
        ],
    }

    def say(out: Console) -> None:
        say_warnings(out, names)
        for problem in problems:
            hint = f" ({problem.hint})" if problem.hint else ""
            out.print(
                f"{rules_path}:{problem.line}:{problem.column}: {problem.severity}: {problem.message}"
                f" [{problem.code}]{hint}"
            )
        out.print(f"{len(errors)} errors, {value['warnings']} warnings.")

    show(value, as_json, say)
    if errors or (strict and (problems or names)):
        raise typer.Exit(NEGATIVE)


@app.command(
    "publish",
    epilog=examples(
        "comity policy publish site/policy.toml --home HOME --out next.toml",
        "comity coalition sign next.toml --home EVERY-MEMBERS-HOME",
        "comity coalition join next.toml --home EVERY-MEMBERS-HOME",
    ),
)
@reported
def publish(
    files: Annotated[
        list[Path], typer.Argument(metavar="POLICY...", help="All policies of the next epoch (TOML).")
    ],
    taxonomy_file: Annotated[
        Path | None, typer.Option("--taxonomy", metavar="FILE", help="Another taxonomy, too.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The coalition file to write.")] = Path(
        "next.toml"
    ),
    force: ForceOption = False,
    home: HomeOption = None,
    organization_key: OrganizationKeyOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draft the next epoch with these policies in the place of those in force.

    A policy is in force once an epoch names it, and an epoch once all members have signed it: send the file
    round as for a new coalition. Says what changes, and what `comity policy lint` warns of.
    """
    from comity.node.cards import read_card
    from comity.node.coalition_file import write_coalition
    from comity.node.coalition_view import changes_of, standing_of, taxonomy_of
    from comity.node.coalitions import NamedPolicy, draft_successor, sign_draft
    from comity.node.governance_files import read_policies, read_taxonomy, warnings_of
    from comity.node.signed_successors import keep_to_successor
    from comity.node.signing_hand import Hand, now
    from comity.protocol.errors import ConfigError

    require_free(out, force=force)
    hand = Hand.of(home, passphrase_file)
    sources = read_policies(files)
    held = hand.coalition()
    classes = read_taxonomy(taxonomy_file) if taxonomy_file is not None else None
    author = hand.organization(organization_key, held.coalition)
    policies = [NamedPolicy(source.name, source.policy) for source in sources]
    file = draft_successor(held, author, now(), taxonomy=classes, policies=policies)
    changes = changes_of(file)
    before = held.epochs[-1]
    number = before.header.number + 1
    if not changes:
        raise ConfigError(
            f"nothing changes: these are the policies of epoch {number - 1}, which is in force; nothing was drafted"
        )
    warnings = warnings_of(sources, classes or taxonomy_of(held, before), file.draft)
    keep_to_successor(hand.home, author.member, file.draft, drafted_now=True)
    file = sign_draft(file, author, read_card(hand.home.card), now())
    value: dict[str, Any] = {
        "file": str(out),
        "epoch": number,
        "policies": [source.name for source in sources],
        "complete": standing_of(file)["complete"],
        "changes": changes,
        "warnings": warnings,
    }
    write_coalition(out, file, replace=force)

    def say(console: Console) -> None:
        say_warnings(console, warnings)
        say_changes(console, changes, number - 1)
        console.print(f"Drafted epoch {number} with {', '.join(value['policies'])} in {out}.")
        console.print(f"Next: every member signs it (comity coalition sign {out}), then joins with it.")

    show(value, as_json, say)


@taxonomy.command("check", epilog=examples("comity taxonomy check site/taxonomy.toml"))
@reported
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The taxonomy (TOML).")],
    as_json: JsonOption = False,
) -> None:
    """Read a taxonomy and say what it publishes; errors name file, line and key."""
    from comity.node.cli_terminal import table
    from comity.node.governance_files import read_taxonomy

    classes = read_taxonomy(file).classes
    value = [
        {"name": c.name, "weight": c.weight, "issuers": list(c.issuers), "within": c.within or ""}
        for c in classes
    ]

    def say(out: Console) -> None:
        table(
            out,
            ("CLASS", "WEIGHT (ppm)", "WITHIN", "ISSUED BY"),
            ((c.name, c.weight, c.within or "-", ", ".join(c.issuers) or "all members") for c in classes),
            "",
        )

    show(value, as_json, say)
