"""The memory of a nonparametric VAE: the places and codes of training data."""

import os
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from priorzoo.inference.data.checks import admit
from priorzoo.inference.data.tensors import check_count
from priorzoo.inference.parameters import FLOATS, Shapes, not_finite, read_shapes
from priorzoo.inference.prediction import codes, draw
from priorzoo.inference.randomness import Stream
from priorzoo.inference.saving import replace_file
from priorzoo.inference.seeding import k_means_plus_plus
from priorzoo.models.nonparametric import SquaredExponential

FILE = "memory.safetensors"


class Memory:
    r"""Places and mean codes of training data, which predict the code at any place of the plane.

    .. math:: z(u) = \textstyle\sum_j W(u, u_j)\, E[z_j], \quad x(u) = \mathrm{decoder}(z(u))

    W is the weight matrix of the model's coupling, over the whole memory instead of a batch. For
    :class:`LeaveOneOutGP` the prediction is the mean of the Gaussian process given the memory; its
    factorisation takes time proportional to M^3, so use a subset of the data.

    Args:
        model: a :class:`NonparametricVAE`, with its decoder and coupling.
        places: ``(M, 2)``.
        codes: ``(M, D)``.
        held: maximal number of pairs of query and memory that are computed at a time.
    """

    def __init__(
        self, model: nn.Module, places: Tensor, codes: Tensor, held: int = 4_000_000
    ) -> None:
        self._coupling = _coupling_of(model)
        if self._coupling is None:
            raise ValueError(
                f"Expected a model with a coupling but got {type(model).__name__}; only a "
                "NonparametricVAE has places to remember."
            )
        if len(places) != len(codes) or not len(places):
            raise ValueError(
                f"Expected as many places as codes but got {len(places)} and {len(codes)}."
            )
        self.model, self.places, self.codes, self.held = model, places, codes, held
        with torch.no_grad():
            self._targets = self._coupling.targets(places, codes)

    def codes_at(self, u: Tensor) -> Tensor:
        """``(Q, D)`` codes at places ``(Q, 2)``."""
        chunk = max(1, self.held // len(self.places))
        # Filled in place, since a list of chunks allocated between large arrays fragments memory.
        found = self.codes.new_empty(len(u), self.codes.shape[1])
        with torch.no_grad():
            assert self._coupling is not None
            for at, part in zip(u.split(chunk), found.split(chunk), strict=True):
                part.copy_(self._coupling.predict(at, self.places, self._targets))
        return found

    def sample_at(self, u: Tensor, means: bool = True) -> Tensor:
        """``(Q, P)`` rows at places ``(Q, 2)``: the likelihood's means, or draws from it."""
        return draw(self.model, len(u), given={"z": self.codes_at(u)}, means=means)

    def between(self, first: Tensor, last: Tensor, steps: int = 11) -> Tensor:
        """``(Q, steps, P)`` means of x on straight lines between places ``(Q, 2)``."""
        lines = interpolate(first, last, steps)
        return self.sample_at(lines.flatten(0, 1)).unflatten(0, lines.shape[:2])

    def grid(self, side: int = 20) -> Tensor:
        """``(side * side, 2)`` places on a grid, row by row from the upper left.

        In each dimension it spans the 1st to the 99th percentile of the memory's places.
        """
        ordered = self.places.sort(0).values
        last = len(ordered) - 1
        low, high = ordered[round(0.01 * last)], ordered[round(0.99 * last)]
        share = torch.linspace(0, 1, side, dtype=low.dtype, device=low.device)
        across, up = (low + (high - low) * share[:, None]).unbind(1)
        return torch.cartesian_prod(up.flip(0), across).flip(1)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``memory.safetensors`` beside the model."""
        tensors = {"places": self.places.contiguous(), "codes": self.codes.contiguous()}
        replace_file(Path(folder) / FILE, lambda part: save_file(tensors, part))

    @classmethod
    def load(cls, folder: str | os.PathLike[str], model: nn.Module) -> "Memory":
        """Load the memory that :meth:`save` wrote beside this model, on the model's device.

        Raises:
            FileNotFoundError: for a folder without a memory.
            ValueError: for a file that is damaged, or a memory that is not of this model.
        """
        path = Path(folder) / FILE
        if not os.path.lexists(path):
            raise FileNotFoundError(f"Expected {FILE} in {path.parent}; save a memory there first.")
        own = next(model.parameters())
        _check_shapes(read_shapes(path), model, own.dtype, path)
        saved = {name: tensor.to(own.device) for name, tensor in load_file(path).items()}
        for name, tensor in saved.items():
            if count := not_finite(tensor):
                raise ValueError(
                    f"Expected finite {name} in {path} but {count} values are NaN or infinite; "
                    "make the memory again."
                )
        return cls(model, saved["places"], saved["codes"])


def remember(
    model: nn.Module, guide: nn.Module, x: Tensor, size: int | None = None, *, seed: int = 0
) -> Memory:
    """Make a memory of training rows ``(N, P)``, or of ``size`` of them that cover the plane.

    k-means++ (Arthur & Vassilvitskii, 2007) on the places chooses the subset.

    Raises:
        ValueError: for a model without places, and for the reasons of :func:`check_memory`.
    """
    x = admit(model, x, on_device=True).x
    check_memory(model, len(x), size)
    places = codes(model, guide, x, site="u")
    if size is not None and size < len(x):
        with Stream(seed, places.device):
            chosen = k_means_plus_plus(places, size, places[:0])
        x, places = x[chosen], places[chosen]
    return Memory(model, places, codes(model, guide, x))


def check_memory(model: nn.Module, rows: int, size: int | None = None) -> None:
    """Check the number of rows in a memory: at least 1, and at most the coupling's capacity.

    Raises:
        ValueError: for another number of rows.
    """
    if size is not None:
        check_count(size, "size")
    kept = rows if size is None else min(size, rows)
    coupling = _coupling_of(model)
    capacity = None if coupling is None else coupling.capacity
    if capacity is not None and kept > capacity:
        raise ValueError(
            f"Expected a memory of at most {capacity} rows for this coupling but got {kept}; "
            "remember fewer rows."
        )


def _check_shapes(shapes: Shapes, model: nn.Module, dtype: torch.dtype, path: Path) -> None:
    """Check that the head of a file is that of a memory of the model, before values are read."""
    rows = shapes["places"].size[:1] if "places" in shapes else (0,)
    wanted = {"places": (*rows, getattr(model, "plane", 2))}
    wanted["codes"] = (*rows, *shapes["codes"].size[1:2]) if "codes" in shapes else rows
    if isinstance(code := getattr(model, "code", None), int):
        wanted["codes"] = (*rows, code)
    for name, size in wanted.items():
        found = shapes.get(name)
        if found is None or found.size != size or FLOATS.get(found.dtype) != dtype:
            got = "none" if found is None else found
            raise ValueError(
                f"Expected {name} of shape {size} as {dtype} in {path} but got {got}; make the "
                "memory again."
            )
    if len(shapes) > 2 or not all(rows):
        raise ValueError(f"Expected places and codes of data in {path}; make the memory again.")
    check_memory(model, *rows)


def _coupling_of(model: nn.Module) -> SquaredExponential | None:
    return cast(SquaredExponential | None, getattr(model, "coupling", None))


def interpolate(first: Tensor, last: Tensor, steps: int) -> Tensor:
    """``(Q, steps, D)`` points on straight lines from points ``(Q, D)`` to points ``(Q, D)``."""
    share = torch.linspace(0, 1, steps, dtype=first.dtype, device=first.device)
    return first[:, None] + (last - first)[:, None] * share[:, None]


def reconstructions_through(
    memory: Memory, guide: nn.Module, x: Tensor, batch_size: int = 500
) -> Tensor:
    """``(N, P)`` reconstructions of x from its place only: encode u, predict z(u), decode x."""
    return memory.sample_at(codes(memory.model, guide, x, site="u", batch_size=batch_size))
