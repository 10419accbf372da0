"""The bound of test rows against the number of mixture components."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from priorzoo.benchmarks.charts.axes import HUES, divide, new_axes

PARTS = {  # of the bound, and how the names of their terms begin
    "ELBO": "elbo",
    "reconstruction": "reconstruction",
    "KL[z]": "kl[z_",
    "KL[r]": "kl[r_",
}


def draw_sweep(rows: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """The parts of the bound of test rows against the number of components, in nats per datum.

    Figure 3 of Paquet, Ghaisas and Tieleman, 2018: ELBO, reconstruction, KL[z] and KL[r], in four
    panels in the place of ``ax``, the first of which is returned. Lines are means over the seeds,
    and bands a standard deviation to each side.

    Args:
        rows: results of one recipe that differ in ``model.clusters`` and seed.

    Raises:
        ValueError: for no rows, for rows of several recipes, data sets or lengths, and for several
            factors.
    """
    protocol = _protocol(rows)
    groups: dict[int, list[Mapping[str, float]]] = {}
    for row in sorted(rows, key=_components):
        groups.setdefault(_components(row), []).append(row["terms"])
    caption = "Means over seeds, and bands of one standard deviation to each side."
    panels = divide(new_axes(7, 5, caption=caption) if ax is None else ax, 2, 2)
    for panel, hue, (name, start) in zip(panels, HUES, PARTS.items(), strict=False):
        parts = {k: [_part(terms, start) for terms in found] for k, found in groups.items()}
        _draw_part(panel, parts, hue)
        panel.set(xlabel="components K", ylabel=f"{name}, nats")
    seeds = sorted({len(found) for found in groups.values()})
    runs = " to ".join(str(count) for count in (seeds[0], seeds[-1])[: len(seeds)])
    figure = panels[0].get_figure()
    assert figure is not None
    over = f"mean and deviation of {runs} seeds" if seeds[-1] > 1 else "1 seed"
    figure.suptitle(f"{protocol}; {over} for each K")
    return panels[0]


def _draw_part(ax: Axes, values: Mapping[int, Sequence[float]], hue: str) -> None:
    """Mean and standard deviation of the values of each K."""
    middle = np.array([mean(found) for found in values.values()])
    spread = np.array([stdev(found) if len(found) > 1 else 0.0 for found in values.values()])
    counts = list(values)
    ax.plot(counts, middle, "o-", color=hue, markersize=3.5, linewidth=1.2)
    ax.fill_between(counts, middle - spread, middle + spread, color=hue, alpha=0.25, linewidth=0)
    ax.set_xscale("log", base=2)
    ax.set_xticks(counts, [str(k) for k in counts])


def _protocol(rows: Sequence[Mapping[str, Any]]) -> str:
    """Recipe, data set and steps, the same for all rows."""
    found = {f"{r['recipe']} on {r['settings']['data']}, {r['steps']:,} steps" for r in rows}
    if len(found) != 1:
        raise ValueError(
            "Expected rows of one recipe, data set and number of steps but got "
            f"{sorted(found) or 'none'}; choose among them."
        )
    return found.pop()


def _components(row: Mapping[str, Any]) -> int:
    clusters = row["settings"]["model"]["init_args"]["clusters"]
    if not isinstance(clusters, int):
        raise ValueError(f"Expected rows of one factor but got clusters={clusters}.")
    return clusters


def _part(terms: Mapping[str, float], start: str) -> float:
    return sum(value for name, value in terms.items() if name.startswith(start))
