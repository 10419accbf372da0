"""Writing the predictions of a trained pair to a file that other programs run."""

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from priorzoo.inference.batch import Context
from priorzoo.inference.failures import first_line
from priorzoo.inference.saving import replace_file
from priorzoo.inference.serving.predictor import Recorded, recorded

if TYPE_CHECKING:
    from torch.export import ExportedProgram

FORMATS = (".onnx", ".pt2")


def export(
    model: nn.Module,
    guide: nn.Module,
    file: str | os.PathLike[str],
    *,
    context: Context | None = None,
) -> tuple[str, ...]:
    """Write the predictions of a pair as ``.onnx`` or as ``.pt2`` of :func:`torch.export.export`.

    The file takes ``x``, rows ``(N, P)`` of any number, and each of the context by its name. Its
    outputs are those of :class:`Predictor`. An ``.onnx`` file needs no torch to run, a ``.pt2``
    file needs neither Pyro nor priorzoo; both keep the parameters.

    Args:
        model, guide: a trained pair.
        file: ends with the format.
        context: if the programs take keyword arguments beside x, an example of each with at least
            one row.

    Returns:
        The names of the outputs.

    Raises:
        ValueError: for another ending, or a pair whose predictions cannot be exported.
        ModuleNotFoundError: for ``.onnx`` without onnx and onnxscript.
    """
    path = Path(file)
    if path.suffix not in FORMATS:
        raise ValueError(f"Expected a file that ends with .onnx or .pt2 but got {path.name!r}.")
    if path.suffix == ".onnx":
        for name in ("onnx", "onnxscript"):  # missing ones are told before anything is recorded
            import_module(name)
    made = recorded(model, guide, context)
    pair = f"{type(model).__name__} and {type(guide).__name__}"
    with _quiet():
        try:
            program = _program(made)
            written: Any = _onnx(program, made) if path.suffix == ".onnx" else program
        except Exception as error:  # of any type, from torch's exporters
            reason = _reason(error)
            raise ValueError(
                f"Expected predictions that {path.suffix} can hold but those of {pair} cannot be "
                f"exported: {reason}; use serve(model, guide)."
            ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".onnx":
        replace_file(path, lambda part: written.save(part, external_data=False))
    else:
        replace_file(path, lambda part: _save_program(program, part))
    return made.names


def _program(made: Recorded) -> "ExportedProgram":
    from torch.export import Dim
    from torch.export import export as export_graph

    shapes = tuple({0: Dim("rows", min=1)} for _ in made.example)
    return export_graph(made.graph, made.example, dynamic_shapes=shapes, strict=False)


def _onnx(program: "ExportedProgram", made: Recorded) -> object:
    solve = torch.ops.aten.linalg_solve_triangular.default
    return torch.onnx.export(
        program.run_decompositions({solve: _solved}),
        made.example,
        input_names=["x", *made.beside],
        output_names=list(made.names),
        dynamo=True,
        verbose=False,
    )


def _solved(
    a: Tensor, b: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """Solution x of ``a x = b`` by substitution, in operations that ONNX has.

    Args:
        a: triangular, ``(..., D, D)``, such as the Cholesky factor of a covariance.
        b: ``(..., D, M)``.
        upper, left, unitriangular: as those of :func:`torch.linalg.solve_triangular`.
    """
    if not left:
        return _solved(a.mT, b.mT, upper=not upper, unitriangular=unitriangular).mT
    shape = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    b = b.expand(*shape, *b.shape[-2:])
    found: dict[int, Tensor] = {}
    for row in reversed(range(a.shape[-1])) if upper else range(a.shape[-1]):
        rest = b[..., row, :]
        for column, known in found.items():
            rest = rest - a[..., row, column, None] * known
        found[row] = rest if unitriangular else rest / a[..., row, row, None]
    return torch.stack([found[row] for row in range(a.shape[-1])], -2)


def _save_program(program: "ExportedProgram", path: Path) -> None:
    from torch.export import save

    with path.open("wb") as file:
        save(program, file)


def _reason(error: BaseException) -> str:
    """The operation that the format lacks, or else the first line of the innermost error."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if missing := re.search(r"(?:aten|prims)\.(\w+)", str(error)):
        return f"the format has no {missing[1]}"
    return first_line(error)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporters say about themselves."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
