"""Rows of :mod:`priorzoo.benchmarks.speed.measure` as a table and as a figure."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from priorzoo.benchmarks.charts.axes import HUES, new_axes, save

Row = Mapping[str, Any]

HEAD = (
    "| recipe, batch, K, code, networks | arm | microseconds a step | ratio (quartiles) "
    "| operations | peak, MiB | device |\n|---|---|---|---|---|---|---|\n"
)
SIZES = {"batch": "batch size B", "clusters": "clusters K", "code": "code size D"}


def speed_table(rows: Iterable[Row]) -> str:
    """Markdown: a line for each arm; its ratio is to the arm whose ratio is 1."""
    return HEAD + "".join(map(_line, rows))


def summary(rows: Iterable[Row]) -> str:
    """Markdown: a line for each case, a column for each arm, the median ratio and its quartiles.

    Of what a sweep varies only the point with the recipe's K and D and a batch of 20 is shown; of
    cases measured twice, the first.
    """
    kept = [row for row in rows if row["hidden"] is None or _named(row)]
    kept = [row for row in kept if not row["arm"].startswith("plain")]
    arms = list(dict.fromkeys(row["arm"] for row in kept))
    table: dict[str, dict[str, str]] = {}
    for row in kept:
        low, high = row["ratio_quartiles"]
        own = row["arm"] == row["base"]
        cell = "1" if own else f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"
        case = _case(row).replace("\n", ", ") + f", {row['precision']}"
        case += ", by a plain VAE's step" if row["base"].startswith("plain") else ""
        table.setdefault(case, {}).setdefault(row["arm"], cell)
    head = f"| recipe and sizes | {' | '.join(arms)} |\n{'|---' * (len(arms) + 1)}|\n"
    lines = [
        f"| {case} | {' | '.join(cells.get(arm, '-') for arm in arms)} |\n"
        for case, cells in table.items()
    ]
    return head + "".join(lines)


def _named(row: Row) -> bool:
    return (row["batch"], row["clusters"] or 10, row["code"]) == (20, 10, 64)


def draw_growth(rows: Sequence[Row], size: str, ax: Axes | None = None) -> Axes:
    """Microseconds a step against a size that was swept, a line for each arm.

    Args:
        rows: of one recipe and device.
        size: ``batch``, ``clusters`` or ``code``; the others are those of most rows.
    """
    ax = new_axes(4.5, 3.5) if ax is None else ax
    fixed = [name for name in SIZES if name != size]
    kept = [row for row in rows if row[size] is not None]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in kept:
        groups.setdefault((str(row["hidden"]), *(row[name] for name in fixed)), []).append(row)
    widest = max(groups.values(), key=lambda group: len({row[size] for row in group}))
    for arm, colour in zip(dict.fromkeys(row["arm"] for row in widest), HUES, strict=False):
        points = sorted((row[size], row["microseconds"]) for row in widest if row["arm"] == arm)
        ax.plot(*zip(*points, strict=True), marker="o", color=colour, label=arm)
    first = widest[0]
    ax.set(xscale="log", yscale="log", xlabel=SIZES[size], ylabel="microseconds a step")
    sizes = sorted({row[size] for row in widest})
    ax.set_xticks(sizes, [str(value) for value in sizes])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_title(
        f"{first['recipe']}, {', '.join(f'{name} {first[name]}' for name in fixed)}",
        parse_math=False,
    )
    ax.legend(frameon=False)
    return ax


def draw_ratios(rows: Sequence[Row], ax: Axes | None = None) -> Axes:
    """Time of each arm by that of the yardstick, a group of bars for each case, with quartiles."""
    cases = list(dict.fromkeys(map(_case, rows)))
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    ax = new_axes(max(5.5, 2 + 1.6 * len(cases)), 4) if ax is None else ax
    width = 0.8 / len(arms)
    for place, (arm, colour) in enumerate(zip(arms, HUES, strict=False)):
        mine = [row for row in rows if row["arm"] == arm]
        across = [cases.index(_case(row)) + (place + 0.5) * width - 0.4 for row in mine]
        heights = [row["ratio"] for row in mine]
        low = [row["ratio"] - row["ratio_quartiles"][0] for row in mine]
        high = [row["ratio_quartiles"][1] - row["ratio"] for row in mine]
        ax.bar(across, heights, width, yerr=[low, high], color=colour, label=arm)
    ax.axhline(1, color="black", linewidth=0.8)
    ax.set_xticks(range(len(cases)), cases, fontsize="small", parse_math=False)
    ax.set_ylabel("time of a step, yardstick = 1")
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return ax


def draw_speed(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write the ratios of the cases, and the growth with each size that has several values."""
    swept = [size for size in SIZES if len({row[size] for row in rows}) > 2]
    drawn = {f"growth-{size}": draw_growth(rows, size) for size in swept}
    plain = rows if not swept else [row for row in rows if row["hidden"] is None]
    drawn |= {"ratios": draw_ratios(plain)} if plain else {}
    for name, axes in drawn.items():
        save(axes, folder / f"speed-{name}.png")
    return [folder / f"speed-{name}.png" for name in drawn]


def _case(row: Row) -> str:
    clusters = "" if row["clusters"] is None else f", K = {row['clusters']}"
    networks = "" if row["hidden"] is None else f"\n{'-'.join(map(str, row['hidden']))}"
    return f"{row['recipe']}\nB = {row['batch']}{clusters}, D = {row['code']}{networks}"


def _line(row: Row) -> str:
    networks = "the recipe's" if row["hidden"] is None else "-".join(map(str, row["hidden"]))
    low, high = row["ratio_quartiles"]
    cells = [
        f"{row['recipe']}, {row['batch']}, {row['clusters'] or '-'}, {row['code']}, {networks}",
        row["arm"],
        f"{row['microseconds']:,.0f}",
        f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})",
        str(row.get("kernels", row.get("operations"))),
        f"{row['peak_mib']:.1f}",
        f"{row['device']}, {row['threads']} threads",
    ]
    return f"| {' | '.join(cells)} |\n"
