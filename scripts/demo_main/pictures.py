"""The pictures that the demo leaves: the survival curves, and the lineage of the target."""

from __future__ import annotations

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
_BOX: Final = (3.5, 1.9)
"""Width and height of what stands for one actuation, in the picture's own units."""
_STEP: Final = (4.6, 2.7)
"""From one column to the next, and from one row to the next."""


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
    columns = 1 + max(column for column, _ in places.values())
    rows = 1 + max(row for _, row in places.values())
    width, height = columns * _STEP[0], rows * _STEP[1] + 0.9
    figure = plt.figure(figsize=(width * 0.72, height * 0.72))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(-height, 0)
    axes.axis("off")
    corners = {
        key: (0.5 * (_STEP[0] - _BOX[0]) + column * _STEP[0], -0.8 - _BOX[1] - row * _STEP[1])
        for key, (column, row) in places.items()
    }
    for made in lineage.made:
        for source in made.inputs:
            _draw_arrow(axes, corners[source], corners[made.id])
    for made in lineage.made:
        _draw_made(axes, made, corners[made.id], names)
    kinds = ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in lineage.kinds.items())
    axes.text(0.3, -0.35, f"{lineage.records} records: {kinds}", fontsize=7.5, color=INK, va="center")
    for path in paths:
        figure.savefig(path, dpi=_DPI)
    plt.close(figure)


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
    start = (source[0] + _BOX[0], source[1] + _BOX[1] / 2)
    end = (target[0], target[1] + _BOX[1] / 2)
    axes.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.1})


def _draw_made(axes: Any, made: Made, corner: tuple[float, float], names: Mapping[str, str]) -> None:
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(
        FancyBboxPatch(
            corner,
            *_BOX,
            boxstyle="round,pad=0,rounding_size=0.12",
            facecolor=MODE_COLOURS[made.mode],
            edgecolor=INK,
            linewidth=1.0,
        )
    )
    x, top = corner[0] + 0.14, corner[1] + _BOX[1] - 0.28
    axes.text(x, top, made.name, fontsize=10, weight="bold", color=INK, va="center")
    axes.text(
        corner[0] + _BOX[0] - 0.14,
        top,
        names.get(made.member, made.member),
        fontsize=7.5,
        color=INK,
        va="center",
        ha="right",
    )
    said = [f"{made.mode}: {made.rows} rows, {len(made.columns)} columns"]
    said += list(made.obligations)
    said.append(f"votes: {', '.join(names.get(m, m) for m in made.voters)}")
    said += [f"approved by {', '.join(names.get(m, m) for m in made.approvals)}"] if made.approvals else []
    said += (
        [f"released by {', '.join(names.get(m, m) for m in made.transitions)}"] if made.transitions else []
    )
    said.append(f"say over it: {', '.join(names.get(m, m) for m in made.owners)}")
    for index, line in enumerate(said):
        axes.text(x, top - 0.33 - index * 0.25, line, fontsize=6.5, color=INK, va="center")
    axes.text(x, corner[1] - 0.16, made.id[:16], fontsize=6, color="#888888", va="center", family="monospace")
