"""The directive ``command-help``: what the commands print about themselves."""

import io
import os
from contextlib import redirect_stdout, suppress

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from priorzoo.cli import main as cli

HELPFUL = ("fit", "predict", "describe", "evaluate", "plot", "sample", "export", "bench", "report")


class CommandHelp(SphinxDirective):
    """The commands in short, and a section for each command's options."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # in each build, since commands may have changed
        found: list[nodes.Node] = [printed("--help")]
        for command in HELPFUL:
            part = nodes.section("", nodes.title("", f"priorzoo {command}"))
            part["ids"] = [f"priorzoo-{command}"]
            part += printed(command, "--help")
            found.append(part)
        return found


def printed(*words: str) -> nodes.literal_block:
    """What a command prints, 88 columns wide."""
    os.environ["COLUMNS"] = "88"
    text = io.StringIO()
    with redirect_stdout(text), suppress(SystemExit):  # by which argparse ends its help
        cli.main(list(words))
    return nodes.literal_block("", text.getvalue(), language="text")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
