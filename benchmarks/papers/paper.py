"""The tables of the papers: the recipe behind each line, and the figures published for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from priorzoo.benchmarks.rows.files import read_value

Budget = Literal["quick", "standard", "paper"]
BUDGETS: tuple[Budget, ...] = get_args(Budget)
HOW = {"precision", "step", "steps", "epochs", "every", "curve"}  # a recipe is run, not what it is


@dataclass(frozen=True)
class Measure:
    """A figure of a result row, beside the published one.

    Args:
        title: as the head of a column has it.
        path: keys of the row from the outside in, such as ``("metrics", "nmi")``.
        published: one figure, or one for each number of steps after which it was taken.
        spread: standard deviation of the published figure, where the paper gives one.
        protocol: how the published figure was taken: runs, accuracy protocol, K.
        higher: whether more is better.
        sign: -1 to show the negative of what the row holds.
        incomparable: why the published figure is no target; empty where it is.
        digits: after the point.
    """

    title: str
    path: tuple[str, ...]
    published: float | Mapping[int, float] | None = None
    spread: float | None = None
    protocol: str = ""
    higher: bool = True
    sign: float = 1.0
    incomparable: str = ""
    digits: int = 3

    def of(self, row: Mapping[str, Any]) -> float | None:
        """What a row has for it, None where it has not."""
        value: Any = row
        for key in self.path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return None if value is None else self.sign * float(value)

    def published_at(self, steps: int) -> float | None:
        """The published figure to hold against one of ours after so many steps."""
        return self.published.get(steps) if isinstance(self.published, Mapping) else self.published


@dataclass(frozen=True)
class Line:
    """A line of a table.

    Args:
        title: of the line.
        recipe: a recipe or a baseline; one that does not exist yet keeps its place.
        lengths: for each budget, how long, in the recipe's own unit (steps or epochs); a recipe's
            stages are lengthened in proportion. A budget that is left out makes no row.
        changes: settings of the recipe that are overridden, by option.
        measures: what the table shows.
        plane: whether neighbours, paths and interpolations are scored too.
        importance: samples of an importance-weighted bound, 0 for none.
        optional: whether its data must be asked for by name.
    """

    title: str
    recipe: str
    lengths: Mapping[Budget, float]
    changes: Mapping[str, str] = field(default_factory=dict)
    measures: tuple[Measure, ...] = ()
    plane: bool = False
    importance: int = 0
    optional: bool = False

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is of this line, however long and in whatever precision it was trained."""
        changes = {name: value for name, value in row["changes"].items() if name not in HOW}
        own = {name: read_value(text) for name, text in self.changes.items()}
        return row["recipe"] == self.recipe and changes == own


@dataclass(frozen=True)
class Paper:
    """A paper, whose tables are made anew.

    Args:
        name: for the command line.
        title: of the paper or of the comparison.
        source: author, title, year.
        lines: of its table.
        note: what a reader must know before he compares.
        curves: terms or metrics of the history to draw over the steps, test rows if it has them.
        sweep: recipe whose number of clusters varies over the lines, for a figure of the bound.
    """

    name: str
    title: str
    source: str
    lines: tuple[Line, ...]
    note: str = ""
    curves: tuple[str, ...] = ("elbo",)
    sweep: str = ""
