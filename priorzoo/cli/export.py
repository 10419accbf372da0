"""``priorzoo export``: the predictions of a trained run as a file for other programs."""

from collections.abc import Sequence

from priorzoo.cli.options import Parser
from priorzoo.inference import export, load


def export_command(words: Sequence[str]) -> None:
    """Write the predictions of a run as a file that needs no Pyro to run, .onnx not even torch.

    usage: priorzoo export RUN FILE

      RUN   run folder
      FILE  .onnx, or .pt2 of torch.export
    """
    settings = Parser("export", export_command).parse(words)
    names = export(*load(settings.run), settings.file)
    size = settings.file.stat().st_size
    print(f"{settings.file}: x -> {', '.join(names)}; {size / 1024:,.0f} KiB")
