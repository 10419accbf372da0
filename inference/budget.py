"""A limit on the memory that constructors allocate, checked before each operation."""

import math
import os
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from priorzoo.inference.failures import FAILURES
from priorzoo.inference.files import MIB

SMALL = 2**17  # values that a call may return before its shape is known


class Budget(TorchFunctionMode):
    """Inside ``with``, limits how often torch's functions are called and how much they return.

    A function whose result may be large is first called on the meta device, where tensors have a
    shape and no memory.

    Args:
        limit: bytes of all results together.
        calls: number of calls.

    Raises:
        MemoryError: inside, before the call that goes beyond.
    """

    def __init__(self, limit: int, calls: int) -> None:
        super().__init__()
        self.limit, self.calls = limit, calls

    @classmethod
    def of_file(cls, file: str | os.PathLike[str], tensors: int) -> "Budget":
        """The limits for constructors of a pair whose parameters are these tensors of a file."""
        return cls(16 * os.stat(file).st_size + 64 * MIB, 1_000 * tensors + 10_000)

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        named = dict(kwargs or {})
        self.calls -= 1
        if _most(args, named) <= SMALL:
            found = function(*args, **named)
            self._take(_new_bytes(found, (args, named)))
            return found
        self._take(_bytes(function, args, named))
        return function(*args, **named)

    def _take(self, size: int) -> None:
        self.limit -= size
        if self.limit < 0 or self.calls < 0:
            raise MemoryError(
                "it needs more memory, or more operations, than its parameters explain"
            )


def _most(args: Sequence[object], kwargs: Mapping[str, object]) -> int:
    """An upper bound on the values of a result: the product of all sizes and numbers given."""
    leaves = tree_leaves((tuple(args), dict(kwargs)))
    if any(is_lazy(one) for one in leaves):  # without a shape, and made in the first call
        return 0
    sizes = [one.numel() if isinstance(one, Tensor) else one for one in leaves]
    return math.prod(max(1, abs(math.ceil(one))) for one in sizes if _is_number(one))


def _is_number(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _bytes(
    function: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]
) -> int:
    """Bytes of the new tensors that a function returns; 0 where they depend on values."""
    args, kwargs = tree_map(_on_meta, (tuple(args), dict(kwargs)))
    try:
        with torch.device("meta"):
            found = function(*args, **kwargs)
    except FAILURES:  # such as of ``unique``, whose result is no larger than its input
        return 0
    return _new_bytes(found, (args, kwargs))


def _new_bytes(found: object, given: object) -> int:
    old, made = (
        [one for one in tree_leaves(tree) if isinstance(one, Tensor) and not is_lazy(one)]
        for tree in (given, found)
    )
    known = {_storage(one) for one in old}
    return sum(one.untyped_storage().nbytes() for one in made if _storage(one) not in known)


def _on_meta(value: object) -> object:
    if isinstance(value, Tensor):
        return value.detach().to("meta")
    if isinstance(value, torch.device):
        return torch.device("meta")
    return None if isinstance(value, torch.Generator) else value


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
