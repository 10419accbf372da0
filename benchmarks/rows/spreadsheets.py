"""Cells of a CSV file that a spreadsheet takes for no formula."""

import re

FORMULA = re.compile(r"\s*[-=+@\uff0b\uff0d\uff1d\uff20]|[\t\r\n]")  # also as full-width characters
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?inf|nan")


def inert(value: object) -> object:
    """Text that a spreadsheet takes for no formula: an apostrophe comes before one.

    >>> inert("=1+1"), inert("Oslo"), inert("-0.5"), inert(-0.5)
    ("'=1+1", 'Oslo', '-0.5', -0.5)
    """
    if isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value
