"""What the user says of columns: ``age=student-t,city=categorical,gene_*=poisson,id=ignore``."""

import csv
import difflib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from priorzoo.inference.data.tables.kinds import BESIDE, DATA, LIKELIHOODS, Kind

KNOWN: tuple[str, ...] = tuple(dict.fromkeys((*DATA, *LIKELIHOODS, *BESIDE)))


def read_said(text: str | Mapping[str, str]) -> dict[str, str]:
    """Kinds and likelihoods by the name or the pattern of columns.

    Args:
        text: ``name=kind`` separated by commas; quotes go around names with commas. Or a mapping.

    Raises:
        ValueError: for a pair without ``=`` and an unknown kind, with the nearest one.
    """
    if isinstance(text, Mapping):
        found = {str(name): str(kind) for name, kind in text.items()}
    else:
        found = {}
        for pair in next(csv.reader([text], skipinitialspace=True), []):
            name, equals, kind = pair.rpartition("=")
            if not equals or not name:
                raise ValueError(
                    f"Expected --columns NAME=KIND,... but got {pair!r}; name a column and one of "
                    f"{', '.join(KNOWN)}."
                )
            found[name.strip()] = kind.strip()
    for name, kind in found.items():
        if kind.partition(":")[0] not in KNOWN:
            raise ValueError(
                f"Expected one of {', '.join(KNOWN)} for column {name!r} but got {kind!r}"
                f"{_near(kind, KNOWN)}."
            )
    return found


def match_said(said: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """What is said of each column; its own name goes before a pattern, the last before others.

    Raises:
        ValueError: for a name or a pattern that no column has.
    """
    every, found = list(names), dict[str, str]()
    for pattern, kind in sorted(said.items(), key=lambda item: item[0] in every):
        matched = [pattern] if pattern in every else []
        if not matched and any(sign in pattern for sign in "*?["):
            matched = [name for name in every if fnmatchcase(name, pattern)]
        if not matched:
            raise ValueError(
                f"Expected a column named {pattern!r} for {kind} but there is none"
                f"{_near(pattern, every)}."
            )
        found |= dict.fromkeys(matched, kind)
    return found


def only_one(kinds: Mapping[str, Kind], kind: Kind) -> str | None:
    """The one column of a kind, or None.

    Raises:
        ValueError: for several.
    """
    names = [name for name, one in kinds.items() if one == kind]
    if len(names) > 1:
        raise ValueError(
            f"Expected at most one column of kind {kind} but got {', '.join(names)}; say "
            f"{names[1]}=ignore."
        )
    return names[0] if names else None


def _near(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names[:12])}"
