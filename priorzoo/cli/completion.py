"""``priorzoo completion``: the script by which a shell completes commands, options and recipes."""

import argparse
import inspect
from collections.abc import Sequence
from importlib import import_module

from priorzoo.benchmarks.papers import PAPERS, RECIPES
from priorzoo.benchmarks.recipes.parts import option
from priorzoo.cli.main import COMMANDS
from priorzoo.cli.options import Parser, require
from priorzoo.cli.settings import FIELDS

FOLDERS = ("out", "figures", "data_root", "folder", "run")
FILES = ("file", "config", "rows", "update", "data")


def completion_command(words: Sequence[str]) -> None:
    """Print the script by which a shell completes commands, options and recipes.

    usage: priorzoo completion bash|zsh|tcsh

      SHELL bash|zsh|tcsh  the shell that reads the script
    """
    settings = Parser("completion", completion_command).parse(words)
    require("shtab")
    import shtab

    print(shtab.complete(whole_parser(), settings.shell))


def whole_parser() -> argparse.ArgumentParser:
    """A parser of all commands, for their names and options alone."""
    import shtab

    parser = argparse.ArgumentParser("priorzoo")
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers()
    for name, module in COMMANDS.items():
        command = getattr(import_module(f"priorzoo.cli.{module}"), f"{name}_command")
        own = Parser(name, command)
        told = (inspect.getdoc(command) or "").partition("\n")[0]
        one = commands.add_parser(name, parents=[own], add_help=False, help=told)
        if name == "train":
            one.add_argument("recipe", choices=list(RECIPES), help="what to train")
            for field in FIELDS:
                if option(field) not in own.options:
                    one.add_argument(option(field), help="a setting of the recipe")
        for action in one._actions:
            if name == "bench" and action.dest == "names":
                action.choices = [*RECIPES, *(paper.name for paper in PAPERS)]
            if action.dest in FOLDERS + FILES:
                chosen = shtab.DIRECTORY if action.dest in FOLDERS else shtab.FILE
                vars(action)["complete"] = chosen  # where shtab looks
    return parser
