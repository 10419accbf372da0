"""Schemas of values that were read as JSON: types, ranges, lengths and depth, declared as values.

>>> schema = Record({"seed": Whole()}, {"history": Many(Text())})
>>> schema.problem({"seed": -1}, "row")
'Expected a whole number from 0 to 9007199254740992 at row.seed but got -1'
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

LARGEST = 2**53  # the whole numbers up to here are floats too


class Schema(Protocol):
    """What a value may be."""

    @property
    def said(self) -> str:
        """The kind of value in words."""

    def problem(self, value: object, place: str) -> str:
        """What is wrong with a value, without a full stop; empty if it fits."""


def check(schema: Schema, value: object, place: str, where: object, remedy: str) -> None:
    """Check a value that was read.

    Args:
        schema, value: what is expected, and what came.
        place: its name.
        where: the file, and perhaps the line.
        remedy: what to do about it.

    Raises:
        ValueError: with the name of the entry, what was expected and what came.
    """
    try:
        found = schema.problem(value, place)
    except RecursionError:
        found = f"Expected {schema.said} at {place} but it is nested too deep"
    if found:
        raise ValueError(f"{found}, in {where}; {remedy}.")


def wrong(schema: Schema, value: object, place: str) -> str:
    """The sentence that says what was expected and what came."""
    return f"Expected {schema.said} at {place} but got {_shown(value)}"


@dataclass(frozen=True)
class Whole:
    """A whole number in a range."""

    least: int = 0
    most: int = LARGEST

    @property
    def said(self) -> str:
        return f"a whole number from {self.least} to {self.most}"

    def problem(self, value: object, place: str) -> str:
        if not isinstance(value, int) or isinstance(value, bool):
            return wrong(self, value, place)
        return "" if self.least <= value <= self.most else wrong(self, value, place)


@dataclass(frozen=True)
class Number:
    """A number in a range; one that is not finite only if that is allowed."""

    least: float = -1e100
    most: float = 1e100
    finite: bool = True

    @property
    def said(self) -> str:
        return f"a number from {self.least:g} to {self.most:g}"

    def problem(self, value: object, place: str) -> str:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if self.least <= value <= self.most:
                return ""
            if isinstance(value, float) and not math.isfinite(value) and not self.finite:
                return ""
        return wrong(self, value, place)


@dataclass(frozen=True)
class Text:
    """A text of at most so many characters, perhaps among some choices."""

    longest: int = 100_000
    among: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        return f"one of {', '.join(self.among)}" if self.among else "a text"

    def problem(self, value: object, place: str) -> str:
        fits = isinstance(value, str) and len(value) <= self.longest
        return "" if fits and (not self.among or value in self.among) else wrong(self, value, place)


@dataclass(frozen=True)
class Flag:
    """True or false."""

    said: str = "true or false"

    def problem(self, value: object, place: str) -> str:
        return "" if isinstance(value, bool) else wrong(self, value, place)


@dataclass(frozen=True)
class Nothing:
    """Null."""

    said: str = "null"

    def problem(self, value: object, place: str) -> str:
        return "" if value is None else wrong(self, value, place)


@dataclass(frozen=True)
class Plain:
    """Any value of JSON of a limited depth, with so many parts at most."""

    depth: int = 64
    most: int = 1_000_000

    @property
    def said(self) -> str:
        return f"plain values, nested at most {self.depth} deep, {self.most:,} at most"

    def problem(self, value: object, place: str) -> str:
        level, count = [value], 0
        for _ in range(self.depth + 1):
            below: list[object] = []
            for part in level:
                if isinstance(part, (dict, list)):
                    count += len(part)
                    if count > self.most:  # what is named twice in YAML counts twice
                        break
                    below += part.values() if isinstance(part, dict) else part
            if not below:
                break
            level = below
        fits = not below and count <= self.most
        return "" if fits else f"Expected {self.said} at {place} but got more"


@dataclass(frozen=True)
class Either:
    """What fits one of several schemas."""

    options: tuple[Schema, ...]

    @property
    def said(self) -> str:
        return " or ".join(option.said for option in self.options)

    def problem(self, value: object, place: str) -> str:
        found = [option.problem(value, place) for option in self.options]
        if not all(found):
            return ""
        inner = [one for one in found if f" at {place} " not in one]  # of the kind that was meant
        return inner[0] if inner else wrong(self, value, place)


@dataclass(frozen=True)
class Many:
    """A list, each of whose parts fits."""

    item: Schema
    least: int = 0
    most: int = 1_000_000

    @property
    def said(self) -> str:
        length = "" if not self.least else f" of at least {self.least}"
        return f"a list{length}"

    def problem(self, value: object, place: str) -> str:
        if not (isinstance(value, list) and self.least <= len(value) <= self.most):
            return wrong(self, value, place)
        found = (self.item.problem(one, f"{place}.{i}") for i, one in enumerate(value))
        return next(filter(None, found), "")


@dataclass(frozen=True)
class Map:
    """An object with any keys, each of whose values fits."""

    item: Schema
    most: int = 100_000
    said: str = "an object"

    def problem(self, value: object, place: str) -> str:
        if not (isinstance(value, dict) and len(value) <= self.most):
            return wrong(self, value, place)
        found = (self.item.problem(one, f"{place}.{str(key)[:60]}") for key, one in value.items())
        return next(filter(None, found), "")


@dataclass(frozen=True)
class Record:
    """An object with needed entries, optional ones, and others if a schema for these is given.

    ``begins`` has the schemas of entries whose names begin so.
    """

    needed: Mapping[str, Schema]
    optional: Mapping[str, Schema] = field(default_factory=dict)
    others: Schema | None = field(default_factory=Plain)
    begins: Mapping[str, Schema] = field(default_factory=dict)

    @property
    def said(self) -> str:
        return f"an object with {', '.join(self.needed)}" if self.needed else "an object"

    def problem(self, value: object, place: str) -> str:
        if not isinstance(value, dict):
            return wrong(self, value, place)
        if missing := [name for name in self.needed if name not in value]:
            return f"Expected {', '.join(missing)} at {place} but there is none"
        known = {**self.optional, **self.needed}
        for name, one in value.items():
            family = (kind for begin, kind in self.begins.items() if str(name).startswith(begin))
            schema = known.get(name) or next(family, self.others)
            inner = f"{place}.{str(name)[:60]}"
            found = wrong(Nothing("no such entry"), one, inner) if schema is None else ""
            if found := found or (schema.problem(one, inner) if schema is not None else ""):
                return found
        return ""


def optional(schema: Schema) -> Either:
    """What fits a schema, or null."""
    return Either((schema, Nothing()))


def _shown(value: object) -> str:
    """The beginning of a value; of what is nested, its kind alone, since it may be deep."""
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, int) and abs(value) > LARGEST:
        return "a larger number"
    return " ".join(f"{value!r:.60}".split())
