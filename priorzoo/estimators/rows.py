"""What a user gives to an estimator, as the frame of columns that a model is trained on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, validate_data

from priorzoo.inference.data.tables.cells import Frame
from priorzoo.inference.data.tables.frames import frame_of
from priorzoo.inference.data.tables.kinds import LIKELIHOODS
from priorzoo.inference.data.tables.reading import WIDE
from priorzoo.inference.data.tables.said import read_said
from priorzoo.inference.data.tables.schema import Schema, infer_schema

UNKNOWN = -1
MOST_COPIES = 10  # times as many rows as there are, that whole-numbered weights may make of them
SMALLEST, LARGEST = 1e-6, 1e9  # of the largest weight, for gradients of float32
ORDER = 200  # columns by which rows are sorted
Columns = str | Mapping[str, str]
Numbers = NDArray[np.float64]


def is_frame(x: object) -> bool:
    """Whether rows are a data frame, whose columns have names and types of their own."""
    return hasattr(x, "columns") and not isinstance(x, np.ndarray)


def checked(estimator: BaseEstimator, x: object, *, reset: bool) -> Frame:
    """Rows as scikit-learn checks them: numbers with NaN for missing cells, or a data frame.

    Args:
        estimator: keeps the number and the names of the columns.
        x: the rows.
        reset: whether they are those of a training.

    Raises:
        ValueError: for another number of columns, other names, infinity or too few rows.
    """
    least = 2 if reset else 1
    if not is_frame(x):
        how: dict[str, Any] = {"dtype": "numeric"}
        how |= {"ensure_all_finite": "allow-nan", "ensure_min_samples": least}
        x = validate_data(estimator, x, reset=reset, **how)
        return frame_of(x, "X")
    frame = frame_of(x, "X")  # names of columns twice are refused here
    validate_data(estimator, x, skip_check_array=True, reset=reset)
    if frame.rows < least:
        raise ValueError(f"Expected at least {least} rows but got n_samples={frame.rows} in X.")
    return frame


def schema_of(frame: Frame, likelihood: Columns, alike: bool) -> Schema:
    """The columns of training rows; of many columns of counts, the total of a row is its exposure.

    Args:
        frame: of the rows.
        likelihood: ``auto``; one likelihood for all columns that vary; or what columns are, see
            :func:`read_said`.
        alike: whether ``auto`` chooses one likelihood for all columns.

    Raises:
        ValueError: for an unknown likelihood, and for rows that it does not fit.
    """
    if not isinstance(likelihood, (str, Mapping)):
        raise ValueError(
            f"Expected likelihood as text or as a mapping of columns but got {likelihood!r}; give "
            "'auto' to infer it."
        )
    try:
        return _schema(frame, likelihood, alike)
    except ValueError as error:
        said = str(error).replace("say --columns ", "say in likelihood ")
        raise ValueError(said.replace("--columns", "likelihood")) from error


def _schema(frame: Frame, likelihood: Columns, alike: bool) -> Schema:
    if isinstance(likelihood, str) and likelihood in LIKELIHOODS:
        found = infer_schema(frame, {}, alike=alike)
        said = {column.name: likelihood for column in found.data}
        return infer_schema(frame, said)
    if likelihood == "auto":
        found = infer_schema(frame, {}, alike=alike)
        counts = len(found.of_kind("count")) == len(found.data) >= WIDE
        return found.with_totals(frame) if counts else found
    if isinstance(likelihood, str) and "=" not in likelihood:
        raise ValueError(
            f"Expected likelihood 'auto', one of {', '.join(LIKELIHOODS)}, or columns such as "
            f"'age=student-t,city=categorical', but got {likelihood!r}."
        )
    return infer_schema(frame, read_said(likelihood), alike=alike)


def repeated(weights: object, rows: int) -> tuple[NDArray[np.intp], Numbers | None]:
    """Which rows to train on, and their weights if these are no whole numbers.

    A row of weight 2 is trained on twice, and one of weight 0 is left out.

    Args:
        weights: ``sample_weight`` of fit, one number for all rows, or None.
        rows: N.

    Raises:
        ValueError: for weights of another length, negative ones, all zero, or out of range.
    """
    everyone = np.arange(rows)
    if weights is None:
        return everyone, None
    w = np.asarray(weights, dtype=np.float64)
    w = np.full(rows, w) if w.ndim == 0 else w
    w = check_array(w, ensure_2d=False, input_name="sample_weight")
    if w.ndim != 1:
        raise ValueError("Sample weights must be 1D array or scalar")
    if w.shape != (rows,):
        raise ValueError(f"sample_weight.shape == {w.shape}, expected {(rows,)}!")
    if (w < 0).any() or not w.any():
        raise ValueError(
            "Expected sample_weight of at least 0 with a positive sum but got all zero or "
            "negative numbers; give some rows a positive weight."
        )
    if not SMALLEST <= w.max() <= LARGEST:
        raise ValueError(
            f"Expected sample_weight whose largest is from {SMALLEST:g} to {LARGEST:g} but got "
            f"{w.max():g} in row {w.argmax()}; divide all of them by their mean."
        )
    if (w == np.round(w)).all() and w.sum() <= MOST_COPIES * rows:
        return everyone.repeat(w.astype(int)), None
    kept = everyone[w > 0]
    return kept, w[kept]


def in_order(frame: Frame, last: NDArray[np.int64] | None = None) -> NDArray[np.intp]:
    """The order of the rows by their values, so that a training does not depend on theirs.

    Args:
        frame: of the rows.
        last: ``(N,)``: values by which equal rows are ordered.
    """
    keys: list[NDArray[Any]] = [] if last is None else [last]
    for cells in [*frame.columns.values()][:ORDER][::-1]:
        if cells.numbers is not None:
            keys.append(cells.numbers)
        else:
            texts = ["" if text is None else str(text) for text in cells.as_texts()]
            keys.append(np.unique(np.array(texts), return_inverse=True)[1])
    return np.lexsort(keys)


def _is_missing(label: object) -> bool:
    # The NA of pandas is neither equal to itself nor different.
    return not isinstance(label, str) and str(label) in ("None", "nan", "<NA>", "NaT")


def partly_known(y: object, rows: int) -> tuple[NDArray[np.generic], NDArray[np.int64]] | None:
    """Classes and their numbers, -1 for unknown, where some labels are -1; None where none is.

    As scikit-learn's clusterings do, fit takes no notice of labels that are all known.

    Raises:
        ValueError: for labels of another length, or a missing label that is not -1.
    """
    if y is None:
        return None
    labels = np.asarray(y)
    missing = [row for row, each in enumerate(labels.ravel()) if _is_missing(each)]
    if missing:
        raise ValueError(
            f"Expected -1 for an unknown label but got {labels.ravel()[missing[0]]} in row "
            f"{missing[0]} of y; replace it."
        )
    if labels.ndim != 1 or labels.dtype.kind == "f":
        return None
    unknown = np.array([str(label) == str(UNKNOWN) for label in labels], dtype=bool)
    if not unknown.any() or unknown.all():
        return None
    if len(labels) != rows:
        raise ValueError(
            f"Expected a label for each of {rows} rows but got {len(labels)}; give -1 for unknown."
        )
    classes = np.unique(labels[~unknown])
    numbers = np.searchsorted(classes, np.where(unknown, classes[0], labels))
    return classes, np.where(unknown, UNKNOWN, numbers).astype(np.int64)
