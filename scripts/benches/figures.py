"""What every benchmark prints: figures beside their floors, spreads, and the machine that they were taken on."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def figure(
    name: str, value: float, unit: str, floor: float | None, aim: float | None, *, rate: bool = False
) -> dict[str, Any]:
    """One figure: of times the ratio is value over floor, of rates floor over value."""
    ratio = None if floor is None else (floor / value if rate else value / floor)
    met = None if aim is None or ratio is None else ratio <= aim
    return {
        "name": name,
        "value": round(value, 6),
        "unit": unit,
        "floor": None if floor is None else round(floor, 6),
        "ratio": None if ratio is None else round(ratio, 3),
        "aim": aim,
        "met": met,
    }


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def spread(values: Sequence[float]) -> list[float]:
    """Least, median, most."""
    return [round(f(values), 6) for f in (min, statistics.median, max)]


def machine(load_before: float, rounds: int, spreads: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Where it was measured, and how far the single measurements lie apart (least, median, most)."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_before": round(load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "rounds": rounds,
        "spread": {name: spread(values) for name, values in spreads.items()},
    }


def lines(figures: Iterable[Mapping[str, Any]]) -> str:
    """The figures for a person, one a line."""
    return "\n".join(
        f"{entry['name']:>20}  {entry['value']:.6f} {entry['unit']:<4} floor {entry['floor']}"
        f"  ratio {entry['ratio']}  aim {entry['aim']}  met {entry['met']}"
        for entry in figures
    )
