"""What all commands share: parsers that raise, and options that many commands have."""

import argparse
import inspect
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from priorzoo.benchmarks.recipes.parts import unknown_name

PLACES = ["--seed", "--out", "--rows", "--figures", "--data-root", "--device"]
PLACES += ["--checkpoints", "--checkpoint-minutes"]


OPTION = re.compile(
    r"^  (-h, --help|--[\w-]+|[A-Z]+)(?: ([\w|,=/-]+))?( \.\.\.)?(?:  +.*?(?:\[(\S+)\])?)?$", re.M
)


def spelt(words: Sequence[str]) -> list[str]:
    """Words of a command whose options are spelt with hyphens.

    >>> spelt(["train", "--batch_size=20", "--model.learn_weights", "my_model"])
    ['train', '--batch-size=20', '--model.learn-weights', 'my_model']
    """
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        found.append(f"{name.replace('_', '-') if name.startswith('--') else name}{equals}{value}")
    return found


def names(text: str) -> list[str]:
    """``a,b`` or ``[a,b]`` as a list.

    >>> names("a,b"), names("[a, b]"), names("[]")
    (['a', 'b'], ['a', 'b'], [])
    """
    inner = text.strip("[] ")
    return [word.strip(" '\"") for word in inner.split(",")] if inner else []


def path(text: str) -> Path:
    """A path in which ``~`` is the home folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # of a user that this machine does not have
        raise argparse.ArgumentTypeError(f"expected a path but got {text!r}: {error}") from error


def seed(text: str) -> int:
    """Any whole number, modulo 2**32: a seed that torch, NumPy and scikit-learn all accept.

    >>> seed("7"), seed("-1"), seed("4294967297")
    (7, 4294967295, 1)
    """
    if not re.fullmatch(r"[+-]?\d{1,1000}", text):
        raise argparse.ArgumentTypeError(f"expected a whole number but got {text[:40]!r}")
    return int(text) % 2**32


TYPES: dict[str, Callable[[str], object]] = {"A,B": names, "N": int, "K": int, "M": float}
TYPES |= {"MODULE": names, "--seed": seed}
TYPES |= dict.fromkeys(("FILE", "RUN", "RUNS", "FOLDER", "DIR"), path)


class Parser(argparse.ArgumentParser):
    """The parser of one command, whose errors are ``ValueError`` in one line.

    The command's docstring is its help. Each indented line of it declares an option or, in
    capitals, a word: the name, what it takes (``a|b`` are choices, nothing a switch, and ``...``
    any number), what it means, and its default in brackets.
    """

    def __init__(self, name: str, command: Callable[..., object]) -> None:
        self.text = inspect.getdoc(command) or ""
        super().__init__(f"priorzoo {name}", add_help="--help" not in self.text, allow_abbrev=False)
        for option, takes, many, default in OPTION.findall(self.text):
            if option.startswith("-") and not takes:
                self.add_argument(*option.split(", "), action="store_true")
                continue
            self.add_argument(
                option if option.startswith("-") else option.lower(),
                type=TYPES.get(option) or TYPES.get(takes or option, str),
                choices=takes.split("|") if "|" in takes else None,
                nargs="*" if many else None,
                action="extend" if takes == "MODULE" else "store",  # it may be given several times
                default=default or None,
            )

    def format_help(self) -> str:
        return f"{self.text}\n"

    def known(self, words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """What the words say, and those that are left over, spelt with hyphens."""
        return self.parse_known_args(spelt(words))

    def error(self, message: str) -> NoReturn:
        """Raise the message in place of leaving the program."""
        raise ValueError(message)

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """What the words say.

        Raises:
            ValueError: for what is unknown, with the nearest option, or of another type.
        """
        settings, rest = self.known(words)
        for word in rest:
            if word.startswith("--"):
                raise ValueError(unknown_name("option", word.partition("=")[0], self.options))
        if rest:
            raise ValueError(f"Expected no {rest[0]!r}; {self.prog} --help shows what there is.")
        return settings

    @property
    def options(self) -> list[str]:
        """All option strings."""
        return list(self._option_string_actions)


def require(*names: str) -> None:
    """Refuse to begin what cannot end without libraries that are not installed.

    Raises:
        ModuleNotFoundError: for the first that is missing.
    """
    for name in names:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def repeatable(words: Sequence[str], command: str = "train") -> str:
    """The command that makes the same again under any seed: without seed, places, checkpoints.

    >>> repeatable(["m2", "--seed", "3", "--steps", "9", "--overwrite", "--out=a"])
    'priorzoo train m2 --steps 9'
    """
    left_out = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in PLACES:
        left_out.add_argument(name)
    for name in ("--overwrite", "--resume", "--download"):
        left_out.add_argument(name, action="store_true")
    return shlex.join(["priorzoo", *command.split(), *left_out.parse_known_args(spelt(words))[1]])


def trusting(modules: Sequence[str] | None) -> str:
    """The options that trust these modules, as the end of a command."""
    return "".join(f" --trust {name}" for name in modules or ())


def print_table(rows: Mapping[str, str], indent: int = 0) -> None:
    """Two aligned columns."""
    width = max(map(len, rows), default=0)
    for name, text in rows.items():
        print(f"{' ' * indent}{name:<{width}}  {text}".rstrip())


def quoted(path: Path) -> str:
    """A path as a shell reads it, in quotes where it has spaces or other signs."""
    return shlex.quote(str(path))


def print_next(*commands: str) -> None:
    """What to try next, on the error stream, so that output stays what was asked for."""
    print("next: " + "\n      ".join(commands), file=sys.stderr)
