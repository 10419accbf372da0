"""``priorzoo export``: the predictions of a trained run as a file for other programs."""

from collections.abc import Sequence

from priorzoo.cli.options import Parser
from priorzoo.inference import export, load


def export_command(words: Sequence[str]) -> None:
    """Write the predictions of a run as a file that needs no Pyro to run, .onnx not even torch.

    usage: priorzoo export RUN FILE [--trust MODULE]

      RUN             run folder
      FILE            .onnx, or .pt2 of torch.export
      --trust MODULE  import classes from this module of yours, which runs its code
    """
    settings = Parser("export", export_command).parse(words)
    names = export(*load(settings.run, trust=settings.trust or ()), settings.file)
    size = settings.file.stat().st_size
    print(f"{settings.file}: x -> {', '.join(names)}; {size / 1024:,.0f} KiB")
