"""The columns of a table as lines of text."""

from collections.abc import Sequence

from priorzoo.inference.data.tables.kinds import Column, listed

MANY = 40  # columns, beyond which those that are alike share a line
HEAD = ("column", "kind", "range", "missing", "likelihood", "scaling")
WIDEST = 32  # characters of a name or a range


def column_lines(columns: Sequence[Column], totals: bool = False) -> list[str]:
    """A head and a line for each column, or for those that are alike where there are many.

    Args:
        columns: of a schema.
        totals: whether the total of a row is its exposure.
    """
    groups: dict[object, list[Column]] = {}
    for place, column in enumerate(columns):
        groups.setdefault(_alike(column) if len(columns) > MANY else place, []).append(column)
    rows = [HEAD, *(_row(group) for group in groups.values())]
    rows += [("(total of a row)", "exposure", "", "", "", "")] if totals else []
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    return ["  ".join(f"{c:<{w}}" for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]


def _alike(column: Column) -> tuple[str, str, str]:
    return column.kind, column.likelihood, column.reason.partition(":")[0]


def _row(columns: Sequence[Column]) -> tuple[str, ...]:
    first, last = columns[0], columns[-1]
    if len(columns) == 1:
        name, note = first.name, first.reason or first.likelihood
        scaling = _scaling(first)
    else:
        name, note = f"{first.name} ... {last.name} ({len(columns)})", _alike(first)[1]
        note, scaling = first.reason.partition(":")[0] or note, ""
    missing = f"{100 * max(column.missing for column in columns):.2g} %"
    return _cut(name), first.kind, _cut(_range(columns)), missing, note, scaling


def _range(columns: Sequence[Column]) -> str:
    """The range of numbers, or the categories of one column."""
    if len(columns) == 1 and columns[0].categories:
        return listed(columns[0].categories)
    lows = [column.low for column in columns if column.low is not None]
    highs = [column.high for column in columns if column.high is not None]
    if not lows or not highs:
        return ""
    low, high = f"{min(lows):.3g}", f"{max(highs):.3g}"
    return low if low == high else f"{low} to {high}"


def _scaling(column: Column) -> str:
    if not column.is_data or (column.loc == 0 and column.scale == 1):
        return ""
    less = f"less {column.loc:.3g}, " if column.loc else ""
    return f"{less}divided by {column.scale:.3g}"


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."
