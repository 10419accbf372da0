"""The bound of test rows against the number of mixture components."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

import numpy as np
from matplotlib.axes import Axes

from priorzoo.benchmarks.charts.axes import HUES, divide, figure_of, new_axes
from priorzoo.benchmarks.rows.files import Row, grouped
from priorzoo.inference.schema import Plain, Record, Text, check

PARTS = {  # of the bound, and how the names of their terms begin
    "ELBO": "elbo",
    "reconstruction": "reconstruction",
    "KL[z]": "kl[z_",
    "KL[r]": "kl[r_",
}

SWEPT = Record(
    {
        "settings": Record(
            {"data": Text(), "model": Record({"init_args": Record({"clusters": Plain()})})}
        )
    }
)


def draw_sweep(rows: Sequence[Row], ax: Axes | None = None) -> Axes:
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
    for row in rows:
        check(SWEPT, row, "row", "rows of a sweep", "make them again")
    protocol = _protocol(rows)
    groups = grouped(sorted(rows, key=_components), _components)
    caption = "Means over seeds, and bands of one standard deviation to each side."
    panels = divide(new_axes(7, 5, caption=caption) if ax is None else ax, 2, 2)
    for panel, hue, (name, start) in zip(panels, HUES, PARTS.items(), strict=False):
        found = [[_part(row["terms"], start) for row in group] for group in groups.values()]
        middle, spread = np.array([(mean(v), stdev(v) if len(v) > 1 else 0.0) for v in found]).T
        panel.plot([*groups], middle, "o-", color=hue, markersize=3.5, linewidth=1.2)
        panel.fill_between([*groups], middle - spread, middle + spread, color=hue, alpha=0.25, lw=0)
        panel.set_xscale("log", base=2)
        panel.set_xticks([*groups], [str(k) for k in groups])
        panel.set(xlabel="components K", ylabel=f"{name}, nats")
    seeds = sorted({len(group) for group in groups.values()})
    runs = " to ".join(dict.fromkeys(map(str, (seeds[0], seeds[-1]))))
    over = f"mean and deviation of {runs} seeds" if seeds[-1] > 1 else "1 seed"
    figure_of(panels[0]).suptitle(f"{protocol}; {over} for each K")
    return panels[0]


def _protocol(rows: Sequence[Row]) -> str:
    """Recipe, data set and steps, the same for all rows."""
    found = {f"{r['recipe']} on {r['settings']['data']}, {r['steps']:,} steps" for r in rows}
    if len(found) != 1:
        raise ValueError(
            "Expected rows of one recipe, data set and number of steps but got "
            f"{sorted(found) or 'none'}; choose among them."
        )
    return found.pop()


def _components(row: Row) -> int:
    clusters = row["settings"]["model"]["init_args"]["clusters"]
    if not isinstance(clusters, int):
        raise ValueError(f"Expected rows of one factor but got clusters={clusters}.")
    return clusters


def _part(terms: Mapping[str, float], start: str) -> float:
    return sum(value for name, value in terms.items() if name.startswith(start))
