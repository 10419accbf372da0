"""Charts of the rows of :mod:`priorzoo.benchmarks.speed.measure`."""

from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from priorzoo.benchmarks.charts.axes import HUES, legend_beside, look, new_axes, save
from priorzoo.benchmarks.rows.files import Row, grouped
from priorzoo.benchmarks.speed.products import LIMIT

ARMS = ["hand-written", "hand-written, compiled", "eager", "compiled", "pyro", "pythae"]
ARMS += ["cudagraph", "jax", "numpyro"]
COLOURS = dict(zip(ARMS, HUES, strict=False))  # the same in all charts
COLOURS |= {"plain": COLOURS[ARMS[0]], "plain-compiled": COLOURS[ARMS[1]]}
ABREAST = 3  # recipes in one chart of ratios
COMPARED = (
    "Bars are medians over rounds in which all arms take turns, with quartiles. Lower is faster."
)
GROWING = "Medians. A line that is flatter than the diagonal grows less than in proportion."
SIZES = {"batch": "batch size B", "clusters": "clusters K", "code": "code size D"}


def draw_growth(rows: Sequence[Row], size: str) -> Axes:
    """Microseconds a step against a size that was swept, a line for each arm.

    Of several measurements at one size the median is drawn.

    Args:
        rows: of one recipe and device.
        size: ``batch``, ``clusters`` or ``code``; the others are those of most rows.
    """
    ax = new_axes(6, 3.5, f"Time of a step by {SIZES[size]}", GROWING)
    fixed = [name for name in SIZES if name != size]
    kept = [row for row in rows if row[size] is not None]
    groups = grouped(kept, lambda row: (str(row["hidden"]), *(row[name] for name in fixed)))
    widest = max(groups.values(), key=lambda group: len({row[size] for row in group}))
    for arm, mine in grouped(widest, itemgetter("arm")).items():
        timed = sorted(grouped(mine, itemgetter(size)).items())
        times = [(value, median(row["microseconds"] for row in group)) for value, group in timed]
        ax.plot(*zip(*times, strict=True), marker="o", color=COLOURS.get(arm), label=arm)
    ax.set(xscale="log", yscale="log", xlabel=SIZES[size], ylabel="microseconds a step")
    sizes = sorted({row[size] for row in widest})
    ax.set_xticks(sizes, [str(value) for value in sizes])
    ax.xaxis.set_minor_locator(NullLocator())
    others = ", ".join(f"{name} {widest[0][name]}" for name in fixed)
    ax.set_title(f"{widest[0]['recipe']}, {others}", parse_math=False)
    legend_beside(ax)
    return ax


def draw_ratios(rows: Sequence[Row]) -> Axes:
    """Time of each arm divided by that of the baseline, with quartiles: bars for each case.

    The matrix products alone are a line across them.
    """
    cases = list(dict.fromkeys(map(case, rows)))
    arms = grouped([row for row in rows if row["arm"] != LIMIT], itemgetter("arm"))
    where = f"{rows[0]['device']}, {rows[0].get('precision')}"
    ax = new_axes(max(5.5, 2 + 1.6 * len(cases)), 4, f"Time of a step, {where}", COMPARED)
    width = 0.8 / len(arms)
    for place, (arm, mine) in enumerate(arms.items()):
        across = [cases.index(case(row)) + (place + 0.5) * width - 0.4 for row in mine]
        heights = np.array([row["ratio"] for row in mine])
        errors = np.abs(np.array([row["ratio_quartiles"] for row in mine]).T - heights)
        ax.bar(across, heights, width, yerr=errors, color=COLOURS.get(arm), label=arm)
    for i, row in enumerate(row for row in rows if row["arm"] == LIMIT):
        label = "" if i else LIMIT
        place = cases.index(case(row))
        ax.hlines(row["ratio"], place - 0.4, place + 0.4, "black", "dashed", label=label)
    ax.axhline(1, color="black", linewidth=0.8)
    ax.set_xticks(range(len(cases)), cases, fontsize="small", parse_math=False)
    ax.set_ylabel("time of a step, baseline = 1")
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return ax


def draw_speed(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write the charts of :func:`speed_charts` into a folder."""
    with look():
        return [
            save(axes, folder / f"speed-{number}-{words.split(':')[0].replace(' ', '-')}.png")
            for number, (words, axes) in enumerate(speed_charts(rows), 1)
        ]


def speed_charts(rows: Sequence[Row]) -> Iterator[tuple[str, Axes]]:
    """For each device and precision the ratios, and the growth with each size that was swept.

    Each chart comes after its words: ``ratios: gmvae, cpu, float32``.
    """
    machines = grouped(rows, lambda row: (row["device"], str(row.get("precision"))))
    for machine, mine in machines.items():
        parts = grouped(mine, itemgetter("recipe"))
        swept = {n: [s for s in SIZES if len({r[s] for r in parts[n]}) > 2] for n in parts}
        for first in range(0, len(parts), ABREAST):
            shown = list(parts)[first : first + ABREAST]
            plain = [r for n in shown for r in parts[n] if not (swept[n] and r["hidden"])]
            if plain:
                yield f"ratios: {', '.join((*shown, *machine))}", draw_ratios(plain)
        for name, sizes in swept.items():
            for size in sizes:
                words = f"growth with {size}: {', '.join((name, *machine))}"
                yield words, draw_growth(parts[name], size)


def case(row: Row) -> str:
    """Recipe, sizes and networks, over up to three lines."""
    clusters = "" if row["clusters"] is None else f", K = {row['clusters']}"
    networks = "" if row["hidden"] is None else f"\n{'-'.join(map(str, row['hidden']))}"
    return f"{row['recipe']}\nB = {row['batch']}{clusters}, D = {row['code']}{networks}"
