"""What the file of a paper declares: its recipes, and the lines of its table with their values."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.recipes.recipe import Recipe
from priorzoo.benchmarks.scores.run import Result, Run

Budget = Literal["quick", "standard", "paper"]
BUDGETS: tuple[Budget, ...] = get_args(Budget)
HOW = {"precision", "step", "steps", "epochs", "every", "curve"}  # a recipe is run, not what it is

Published = float | Mapping[int, float]
Extra = Callable[[Run, Dataset, bool], Result]  # the last argument: whether it has to be quick


@dataclass(frozen=True)
class Measure:
    """A value of a result row that stands beside the published one.

    Args:
        title: heading of its column.
        path: keys of the row from the outside in, such as ``("metrics", "nmi")``.
        published: one value, or one for each number of steps after which it was taken.
        spread: standard deviation of the published value, where the paper gives one.
        protocol: how the published value was taken: runs, accuracy protocol, K.
        higher: whether more is better.
        sign: -1 to show the negative of what the row holds.
        incomparable: why the published value is no target; empty where it is one.
        digits: after the point.
    """

    title: str
    path: tuple[str, ...]
    published: Published | None = None
    spread: float | None = None
    protocol: str = ""
    higher: bool = True
    sign: float = 1.0
    incomparable: str = ""
    digits: int = 3

    def of(self, row: Mapping[str, Any]) -> float | None:
        """The value that a row has, or None."""
        value: object = row
        for key in self.path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return self.sign * float(value) if isinstance(value, int | float) else None

    def beside(self, published: Published, protocol: str, **more: Any) -> "Measure":
        """The same measure beside a published value, with further fields that change."""
        return replace(self, published=published, protocol=protocol, **more)

    def published_at(self, steps: int) -> float | None:
        """The published value to compare with one of ours after so many steps."""
        return self.published.get(steps) if isinstance(self.published, Mapping) else self.published


@dataclass(frozen=True)
class Line:
    """A line of a paper's table: a recipe, what is changed in it, and what is shown of the result.

    Args:
        title: of the line.
        recipe: name of a recipe or of a clustering; one that does not exist yet is skipped.
        lengths: for each budget, how long the recipe trains, in its own unit (steps or epochs); its
            stages are lengthened in proportion. A budget that is left out makes no row.
        changes: settings of the recipe that are overridden: a value for each option.
        measures: what the table shows.
        extra: what else is measured of the trained run: for each further key of its row, a function
            of the run, the data set and whether it has to be quick.
        importance: samples of an importance-weighted bound, 0 for none.
        optional: whether it must be asked for by name, for its data or for a library that
            the extra ``benchmarks`` does not install.
    """

    title: str
    recipe: str
    lengths: Mapping[Budget, float]
    changes: Mapping[str, Any] = field(default_factory=dict)
    measures: tuple[Measure, ...] = ()
    extra: Mapping[str, Extra] = field(default_factory=dict)
    importance: int = 0
    optional: bool = False

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is of this line, however long and in whatever precision it was trained."""
        theirs, ours = (
            {name: value for name, value in changes.items() if name not in HOW}
            for changes in (row["changes"], self.changes)
        )
        return row["recipe"] == self.recipe and theirs == ours


@dataclass(frozen=True)
class Paper:
    """A paper, with all that this zoo makes anew of it.

    Args:
        name: author and year, for the command line; also the name of the paper's file.
        title: of the paper or of the comparison.
        source: author, title, year.
        lines: of its table.
        note: what a reader must know before comparing.
        curves: terms or metrics of the history to draw over the steps, of test rows if there are
            any.
        logs: for the title of a line, its name in ``results/reference/NAME.csv``, the means of the
            author's own runs, which are drawn beside the curves.
        sweep: recipe whose number of clusters varies over the lines, for a chart of the bound.
        recipes: by name, for ``priorzoo train``.
        commands: measurements of its own for ``priorzoo bench NAME``, whose docstrings list their
            options.
    """

    name: str
    title: str
    source: str
    lines: tuple[Line, ...]
    note: str = ""
    curves: tuple[str, ...] = ("elbo",)
    sweep: str = ""
    logs: Mapping[str, str] = field(default_factory=dict)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    commands: Mapping[str, Callable[[Namespace], None]] = field(default_factory=dict)


def lengths(quick: float, standard: float | None, paper: float) -> Mapping[Budget, float]:
    """A length for each budget; without a standard one, the line waits for a GPU."""
    found: dict[Budget, float] = {"quick": quick, "paper": paper}
    return found if standard is None else found | {"standard": standard}


def metric(name: str, title: str, **more: Any) -> Measure:
    """A measure among the metrics of a row, with further fields of :class:`Measure`."""
    return Measure(title, ("metrics", name), **more)


NEGATIVE = Measure("-ELBO, nats", ("terms", "elbo"), sign=-1, higher=False, digits=2)
# Of an NGGP mixture, whose rows had it as their ELBO before the collapsed bound was reported.
PSEUDO = Measure(
    "-pseudo-likelihood, nats",
    ("terms", "pseudo-likelihood"),
    sign=-1,
    higher=False,
    digits=2,
)
BOUND = Measure("ELBO, nats", ("terms", "elbo"), digits=2)
LIKELIHOOD = Measure("log p(x), nats", ("importance", "log p(x)"), digits=2)
MAJORITY = metric("accuracy_majority", "majority accuracy")
BEST = metric("accuracy_best_example", "best-example accuracy")
HUNGARIAN = metric("accuracy_hungarian", "Hungarian accuracy")
ENTROPY = metric("entropy", "H(y given x), nats", higher=False)
NMI, ARI = metric("nmi", "NMI"), metric("ari", "ARI")
CLUSTERING = (MAJORITY, BEST, HUNGARIAN, NMI, ARI)
