"""The one look of all charts: fonts, sizes, colours, figures with title and caption, and saving.

A figure that a chart makes for itself has a title that says what it shows, and a caption below that
says how to read it; axes that a caller hands over stay as they are. No figure is held by pyplot.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from textwrap import fill
from typing import Any

from cycler import cycler
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

# The muted scheme of Tol, "Colour Schemes", 2021, made for the colour-blind; black is its tenth.
HUES = ["#332288", "#cc6677", "#117733", "#88ccee", "#ddcc77"]
HUES += ["#882255", "#44aa99", "#999933", "#aa4499", "#000000"]
OTHERS = "#dddddd"
# Matplotlib's own font, which is the same everywhere. README, pages, gallery and reports use this.
LOOK: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=HUES),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.titlesize": "medium",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.fontsize": "small",
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "savefig.facecolor": "white",
}
LEGIBLE = 20  # categories that colours, counts or rows can tell apart
NUMBER: dict[str, Any] = {"weight": "bold"}  # or letter over points
NUMBER |= {"path_effects": [withStroke(linewidth=2, foreground="white")]}
BESIDE: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
BESIDE |= {"frameon": False, "fontsize": "small"}
NARROWEST = 4.0  # inches that a title and a caption take, however narrow the figure


def look() -> AbstractContextManager[None]:
    """Draws and saves in :data:`LOOK` inside ``with``, whatever the user's own settings are."""
    settings: Any = LOOK  # whose keys matplotlib's types list one by one
    return rc_context(settings)


def new_figure(width: float, height: float, title: str = "", caption: str = "") -> Figure:
    """A figure of that size in inches, and of what title and caption need beside."""
    room = max(width, NARROWEST)
    below = fill(caption, int(16 * room))
    heads = 0.3 * bool(title) + 0.17 * len(below.splitlines())
    figure = Figure(figsize=(width, height + heads), layout="constrained")
    if title:
        _entitle(figure, title)
    if caption:
        figure.supxlabel(below, x=0.01, ha="left", fontsize="small", color="#444444")
    return figure


def new_axes(width: float, height: float, title: str = "", caption: str = "") -> Axes:
    """Axes of a new figure of that size in inches."""
    return new_figure(width, height, title, caption).add_subplot()


def new_row(panels: int, title: str = "", caption: str = "") -> list[Axes]:
    """Axes side by side in a new figure."""
    return list(new_figure(4.2 * panels, 3.6, title, caption).subplots(1, panels, squeeze=False)[0])


def _entitle(figure: Figure, title: str) -> None:
    words = fill(title, int(12 * max(figure.get_figwidth(), NARROWEST)), break_on_hyphens=False)
    figure.suptitle(words, x=0.01, ha="left", fontsize="medium", weight="bold")


def figure_of(drawn: Axes | Figure) -> Figure:
    """The whole figure that something is part of."""
    figure = drawn.get_figure(root=True)
    assert figure is not None
    return figure


def save(drawn: Axes | Figure, path: str | Path, dpi: int = 150, run: str = "") -> Path:
    """Writes the whole figure, cut to what is drawn, as a PNG that depends on nothing else.

    A ``run``, such as "gmvae, seed 0", is added to the title. Returns the path.
    """
    figure, path = figure_of(drawn), Path(path)
    if run:
        _entitle(figure, ": ".join(filter(None, [figure.get_suptitle(), run])))
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        path.unlink()  # nothing is written through links and FIFOs of a run's folder
    marks = {"Software": "priorzoo"}  # by which --overwrite knows what a run drew
    figure.savefig(path, format="png", dpi=dpi, bbox_inches="tight", metadata=marks)
    return path


def divide(ax: Axes, rows: int, columns: int = 1, heights: Sequence[float] = ()) -> list[Axes]:
    """Gives the place of ``ax`` to a grid of axes with its abscissa, of which it is the first.

    Rows are as high as the ``heights`` say, in proportion; by default alike.

    Raises:
        ValueError: for axes that were not made by ``subplots``.
    """
    place = ax.get_subplotspec()
    if place is None:
        raise ValueError("Expected axes made by subplots; these have no place that can be split.")
    inside = place.subgridspec(rows, columns, height_ratios=heights or None)
    ax.set_subplotspec(inside[0])
    more = (figure_of(ax).add_subplot(inside[i], sharex=ax) for i in range(1, rows * columns))
    return [ax, *more]


def legend_beside(ax: Axes, *more: Line2D, title: str | None = None) -> Legend:
    """Legend on the right of the axes, where it hides nothing; ``more`` entries come last."""
    handles = [*ax.get_legend_handles_labels()[0], *more]
    columns = 1 + (len(handles) > LEGIBLE // 2)
    return ax.legend(handles=handles, title=title, ncols=columns, **BESIDE)
