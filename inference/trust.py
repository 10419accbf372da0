"""Which classes a file may name: those of priorzoo, torch.nn and modules that are trusted."""

import re
from collections.abc import Iterator, Mapping, Sequence

# The floors alone, since importing ``priorzoo.__main__`` or the command line runs or reads more.
OWN = ("priorzoo.models", "priorzoo.guides", "priorzoo.inference", "priorzoo.benchmarks")
KNOWN = (*OWN, "torch.nn")
PATH = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")


def is_within(class_path: str, modules: Sequence[str]) -> bool:
    """Whether an import path lies in one of these modules, or in a module below them."""
    return class_path.startswith(tuple(f"{name}." for name in modules))


def check_trusted(found: object, place: object, trust: Sequence[str]) -> None:
    """Check all class paths in a value read from a file, without importing anything.

    Args:
        found: nested mappings and lists, in which ``class_path`` is the key of an import path.
        place: the file that it was read from.
        trust: names of modules that the caller trusts, beside priorzoo and torch.nn.

    Raises:
        ValueError: for other modules, all of which are named, and for what is no import path.
    """
    if isinstance(trust, str):
        raise ValueError(f"Expected a list of modules to trust but got {trust!r}; put it in one.")
    others: dict[str, str] = {}
    for path in class_paths(found):
        if not PATH.fullmatch(path):
            raise ValueError(
                f"Expected the import path of a class in {place} but got {path!r:.80}, which "
                "cannot be imported; train the run again."
            )
        if not is_within(path, (*KNOWN, *trust)):
            others.setdefault(path.rpartition(".")[0], path)
    if others:
        words = " ".join(f"--trust {name}" for name in others)
        raise ValueError(
            f"Expected classes of priorzoo and torch.nn in {place} but got "
            f"{', '.join(others.values()):.200}; importing them runs code. If you trust it, add "
            f"{words:.200}, in Python trust={list(others)!s:.200}."
        )


def class_paths(found: object) -> Iterator[str]:
    """All values of ``class_path`` in nested mappings and lists; if not text, their type."""
    level = [found]
    while level:
        value = level.pop()
        if isinstance(value, Mapping):
            if "class_path" in value:
                path = value["class_path"]
                yield path if isinstance(path, str) else f"{type(path).__name__}"
            level += value.values()
        elif isinstance(value, (list, tuple)):
            level += value


def homes(found: object) -> list[str]:
    """The modules, other than those of priorzoo and torch.nn, of all class paths in a value."""
    others = [path for path in class_paths(found) if not is_within(path, KNOWN)]
    return list(dict.fromkeys(path.rpartition(".")[0] for path in others))
