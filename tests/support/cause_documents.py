"""The pages under docs/causes as they have to be: written from the texts that `comity cause` prints.

`scripts/causes` compares them with the files, or writes those.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from comity.node.cause_page import FAMILIES, CausePage, Family
from comity.node.cause_pages import example_of, pages

FOLDER = Path(__file__).parents[2] / "docs" / "causes"
OWN_PAGE: frozenset[Family] = frozenset({"cause", "need", "obligation"})
"""Families whose codes have a page each; of the others a page for all."""
GROUPS: dict[Family, str] = {
    "decline": "declines",
    "problem": "between-nodes",
    "policy fault": "policy-faults",
    "verification": "verification",
    "node": "local-node",
    "bridge": "bridge",
}
TITLES: dict[Family, str] = {
    "cause": "Causes",
    "need": "Needs",
    "obligation": "Obligations",
    "decline": "Declines",
    "problem": "Problems between nodes",
    "policy fault": "Faults of the policy engine",
    "verification": "Verification",
    "node": "The local node",
    "bridge": "The bridge",
}
SHOWN: dict[Family, str] = {
    "decline": "    gave no vote: clinic-south.example (clock)",
    "problem": "    (in the log of the node that asked) frame_wrong",
    "policy fault": "    policy_fault: policy_rule_error",
    "verification": "    comity: signature_wrong: by clinic-north.example (record 0123456789abcdef)",
    "node": '    {"error": {"code": "node_not_running", "message": "no Comity node listens on ...", "hint": "..."}}',
    "bridge": '    comity/causes: [{"code": "output_not_bound"}]',
}
"""How a code of the family meets somebody."""
EFFECTS = {
    "refuses": "It refuses.",
    "defers": "It defers: it may still be lifted.",
    "explains": "It changes no outcome.",
}
HEAD = "<!-- Written by scripts/causes from node/cause_texts_*.py: change it there. -->\n"


def place_of(code: str) -> str:
    """Where a code is explained, as a link beside the other pages."""
    listed = pages()[code]
    if any(page.family in OWN_PAGE for page in listed):
        return f"{code}.md"
    return f"{GROUPS[listed[0].family]}.md#{code}"


def documents() -> dict[str, str]:
    """File name to text."""
    written = {"README.md": _index()}
    for code, listed in pages().items():
        if any(page.family in OWN_PAGE for page in listed):
            written[f"{code}.md"] = "\n".join((HEAD, f"# `{code}`\n", *_own(listed)))
    for family, name in GROUPS.items():
        written[f"{name}.md"] = "\n".join((HEAD, *_group(family)))
    return written


def _own(listed: tuple[CausePage, ...]) -> Iterator[str]:
    for page in listed:
        if len(listed) > 1:
            yield f"## {TITLES[page.family]}\n"
        yield from _body(page)


def _group(family: Family) -> Iterator[str]:
    yield f"# {TITLES[family]}\n"
    yield f"Codes of the family: {FAMILIES[family]}. For instance:\n"
    yield SHOWN[family] + "\n"
    for code, listed in pages().items():
        if any(page.family in OWN_PAGE for page in listed):
            continue
        for page in listed:
            if page.family == family:
                yield f"## {code}\n"
                yield from _body(page)


def _body(page: CausePage) -> Iterator[str]:
    yield _filled(f"{page.meaning} {EFFECTS.get(page.effect, '')}")
    shown = example_of(page)
    if shown:
        yield "\n".join(f"    {line}" for line in shown) + "\n"
    yield _filled(f"**Who can mend it:** {page.who}.")
    yield _filled(f"**How:** {page.how}")
    if page.commands:
        yield "\n".join(f"    {command}" for command in page.commands) + "\n"
    if page.related:
        yield "Related: " + ", ".join(f"[`{each}`]({place_of(each)})" for each in page.related) + ".\n"


def _filled(text: str) -> str:
    """A paragraph, broken where the lines of other pages are."""
    return textwrap.fill(text, 116, break_long_words=False, break_on_hyphens=False) + "\n"


def _index() -> str:
    lines = [
        HEAD,
        "# What each code means\n",
        _filled(
            "Who was refused or has to wait finds here what the code means, who can mend it, and by which command."
            " `comity cause CODE` prints the same without a network, and `comity why` of a run, an asset or an intent"
            " puts it beside each cause. Codes and parameters as programs read them are in"
            " [causes.md](../spec/causes.md); codes of a policy's own rules are explained by whoever wrote the policy."
        ),
    ]
    for family, title in TITLES.items():
        lines.append(f"## {title}\n")
        lines.append(f"{FAMILIES[family].capitalize()}.\n")
        lines.append("| code | who can mend it |")
        lines.append("|---|---|")
        for code, listed in pages().items():
            where = place_of(code)
            if "#" in where and len(listed) > 1:
                where = f"{GROUPS[family]}.md#{code}" if family in GROUPS else where
            lines += [f"| [`{code}`]({where}) | {page.who} |" for page in listed if page.family == family]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Compare, or with `--write` write. Ends with 1 where something differs."""
    wanted = documents()
    if "--write" in sys.argv[1:]:
        FOLDER.mkdir(exist_ok=True)
        for path in FOLDER.glob("*.md"):
            if path.name not in wanted:
                path.unlink()
        for name, text in wanted.items():
            (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{len(wanted)} pages written to {FOLDER}\n")
        return
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    differing = sorted(name for name in wanted | there if wanted.get(name) != there.get(name))
    if differing:
        sys.exit(f"{', '.join(differing)}: other than the texts; scripts/causes --write writes them")
    sys.stdout.write(f"{len(wanted)} pages are as the texts say\n")


if __name__ == "__main__":
    main()
