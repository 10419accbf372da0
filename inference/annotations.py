"""Schemas of a constructor's arguments, as far as its annotations say what they may be."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Literal, Union, get_args, get_origin

from torch import nn

from priorzoo.inference.schema import (
    LARGEST,
    Either,
    Flag,
    Many,
    Nothing,
    Number,
    Plain,
    Record,
    Schema,
    Text,
    Whole,
)

SIMPLE: Mapping[object, Schema] = {
    int: Whole(-LARGEST, LARGEST),
    float: Number(),
    bool: Flag(),
    str: Text(),
    None: Nothing(),
    NoneType: Nothing(),
}


def schema_of(kind: Callable[..., object]) -> Record:
    """The schema of a constructor's arguments, where JSON objects stand for modules."""
    try:
        found = inspect.signature(kind, eval_str=True).parameters
    except NameError:  # of a type that is imported for the type checker alone
        return Record({})
    hints = {name: one.annotation for name, one in found.items()}
    return Record({}, {name: _schema(hint) or Plain() for name, hint in hints.items()})


def _schema(hint: object) -> Schema | None:
    """None for a type that says nothing about values of JSON."""
    origin, inner = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and issubclass(hint, nn.Module):
        return Record({})
    if origin is Literal and all(isinstance(one, str) for one in inner):
        return Text(among=inner)
    if origin in (Union, UnionType):
        options = tuple(filter(None, map(_schema, inner)))
        return Either(options) if len(options) == len(inner) else None
    if isinstance(origin, type) and issubclass(origin, Sequence):
        parts = [one for one in inner if one is not ...]
        return Many(_schema(parts[0]) or Plain()) if len(parts) == 1 else Many(Plain())
    return SIMPLE.get(hint) if isinstance(hint, (type, NoneType)) else None
