"""The pictures that the demo leaves: the survival curves, and the lineage of the target."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from demo_main.lineage import Lineage, Made
from demo_main.patients import Fits

SEXES: Final = {"sex=1": "men", "sex=2": "women"}
COLOURS: Final = {"sex=1": "#1f5f8b", "sex=2": "#c2571a"}
MODE_COLOURS: Final = {"execute": "#e3f1e3", "restrict": "#fdf0d5"}
INK: Final = "#333333"
_DPI: Final = 150
_CARD_WIDTH: Final = 2.35
"""Width of what stands for one actuation, in inches. Four of them side by side are read on a page."""
_GAP: Final = 0.35
"""Between two columns, in inches: room for an arrow."""
_LINE: Final = 0.165
"""Height of a line of text, in inches."""
_TEXT: Final = 8.0
"""Size of the text in points."""
_LINE_CHARS: Final = 36
"""Characters that fit into one line of a card."""
_HEADING_CHARS: Final = 130
"""Characters that fit above three cards."""


def _plot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def draw_curves(fits: Fits, direct: Fits, path: Path) -> None:
    """The Kaplan-Meier curves that the pipeline made, and on them those that were fitted directly."""
    plt = _plot()
    figure, axes = plt.subplots(figsize=(7.2, 4.4), layout="constrained")
    for sex, name in SEXES.items():
        axes.step(
            *_points(fits, sex),
            where="post",
            color=COLOURS[sex],
            linewidth=2.2,
            label=f"{name}, through Comity",
        )
    for sex in SEXES:
        label = "both, fitted directly" if sex == next(iter(SEXES)) else None
        axes.step(
            *_points(direct, sex), where="post", color="black", linewidth=1.0, linestyle=":", label=label
        )
    axes.set_xlabel("days")
    axes.set_ylabel("share alive")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    axes.set_title("NCCTG lung cancer: survival of the patients whom two clinics released", fontsize=11)
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)


def _points(fits: Fits, sex: str) -> tuple[list[float], list[float]]:
    """The steps of one curve: times, and the share alive from then on."""
    found = sorted(
        (time, value) for (what, of, time), value in fits.items() if (what, of) == ("survival", sex)
    )
    return [time for time, _ in found], [value for _, value in found]


def draw_lineage(lineage: Lineage, names: Mapping[str, str], *paths: Path) -> None:
    """Who made what from what, and who decided it.

    Args:
        names: members to what people call them.
    """
    plt = _plot()
    places = _places(lineage)
    texts = {made.id: _lines(made, names) for made in lineage.made}
    heights = {key: (len(lines) + 2.5) * _LINE for key, lines in texts.items()}
    tallest = max(heights.values())
    columns = 1 + max(column for column, _ in places.values())
    rows = 1 + max(row for _, row in places.values())
    step = (_CARD_WIDTH + _GAP, tallest + 2.2 * _LINE)
    heading = _heading(lineage)
    top = (len(heading) + 1.2) * _LINE
    width, height = columns * step[0] - _GAP + 0.3, top + rows * step[1] + 0.1
    figure = plt.figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(-height, 0)
    axes.axis("off")
    # Cards of one row have their middles side by side, so that arrows between them are level.
    middles = {
        key: (0.15 + column * step[0], -top - row * step[1] - tallest / 2)
        for key, (column, row) in places.items()
    }
    for made in lineage.made:
        for source in made.inputs:
            _draw_arrow(axes, middles[source], middles[made.id])
    for made in lineage.made:
        _draw_card(axes, made, texts[made.id], names, middles[made.id], heights[made.id])
    for index, line in enumerate(heading):
        axes.text(0.15, -(index + 1) * _LINE, line, fontsize=_TEXT, color=INK, va="center")
    for path in paths:
        figure.savefig(path, dpi=_DPI)
    plt.close(figure)


def _heading(lineage: Lineage) -> list[str]:
    """What the picture shows, and what it is made from."""
    kinds = ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in lineage.kinds.items())
    made = "What was made from what, by whose votes. Green: all that was asked for; yellow: part of it."
    from_what = f"From {lineage.records} records of the bundle: {kinds}."
    return [made, *textwrap.wrap(from_what, _HEADING_CHARS)]


def _lines(made: Made, names: Mapping[str, str]) -> list[str]:
    """What a card says of one actuation, in lines that fit."""
    said = [f"{made.mode}: {made.rows} rows, {len(made.columns)} columns"]
    said += list(made.obligations)
    for what, members in (
        ("carried by votes of", made.voters),
        ("approved by", made.approvals),
        ("released by", made.transitions),
        ("has a say over it:", made.owners),
    ):
        if members:
            # Names are not broken in two.
            listed = ", ".join(names.get(m, m).replace(" ", "\N{NO-BREAK SPACE}") for m in members)
            said.append(f"{what} {listed}")
    return [line for each in said for line in textwrap.wrap(each, _LINE_CHARS, subsequent_indent="   ")]


def _places(lineage: Lineage) -> dict[str, tuple[int, float]]:
    """A column for each generation, and rows so that each stands in the middle of what it was made from."""
    columns: dict[str, int] = {}
    for made in lineage.made:
        columns[made.id] = 1 + max((columns[i] for i in made.inputs), default=-1)
    places: dict[str, tuple[int, float]] = {}
    first = [made for made in lineage.made if columns[made.id] == 0]
    for row, made in enumerate(first):
        places[made.id] = (0, float(row))
    for made in lineage.made:
        if made.inputs:
            rows = [places[i][1] for i in made.inputs]
            places[made.id] = (columns[made.id], sum(rows) / len(rows))
    return places


def _draw_arrow(axes: Any, source: tuple[float, float], target: tuple[float, float]) -> None:
    """From the right side of one card to the left side of another, by the middles of their left sides."""
    start = (source[0] + _CARD_WIDTH, source[1])
    axes.annotate(
        "", xy=target, xytext=start, arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.2}
    )


def _draw_card(
    axes: Any,
    made: Made,
    lines: list[str],
    names: Mapping[str, str],
    middle: tuple[float, float],
    height: float,
) -> None:
    """A card; `middle` is the middle of its left side."""
    from matplotlib.patches import FancyBboxPatch

    corner = (middle[0], middle[1] - height / 2)
    axes.add_patch(
        FancyBboxPatch(
            corner,
            _CARD_WIDTH,
            height,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=MODE_COLOURS[made.mode],
            edgecolor=INK,
            linewidth=1.0,
        )
    )
    x, right, top = corner[0] + 0.08, corner[0] + _CARD_WIDTH - 0.08, corner[1] + height
    axes.text(x, top - 1.1 * _LINE, made.name, fontsize=_TEXT + 3, weight="bold", color=INK, va="center")
    who = names.get(made.member, made.member)
    axes.text(right, top - 1.1 * _LINE, who, fontsize=_TEXT, color=INK, va="center", ha="right")
    for index, line in enumerate(lines):
        axes.text(x, top - (2.5 + index) * _LINE, line, fontsize=_TEXT, color=INK, va="center")
    below = f"actuation {made.id[:16]}"
    axes.text(x, corner[1] - 0.7 * _LINE, below, fontsize=_TEXT - 1, color="#777777", va="center")
