"""Checkpoints: the complete state of a training in one safetensors file, without pickle."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from priorzoo.inference.saving import replace_file

FORMAT = 1


Packed = tuple[str, dict[str, Tensor]]  # a state as JSON, and copies of its tensors by place


def save_state(file: str | os.PathLike[str], state: object) -> None:
    """Write nested mappings, sequences, tensors and plain values as one safetensors file.

    A temporary file is written and then renamed, so that the file is never incomplete.
    """
    save_packed(file, pack(state))


def pack(state: object) -> Packed:
    """A copy of a state in memory, which what happens to its tensors does not change."""
    tensors: dict[str, Tensor] = {}
    return json.dumps({"format": FORMAT, "state": _pack(state, "", tensors)}), tensors


def save_packed(file: str | os.PathLike[str], packed: Packed) -> None:
    """Write a state as :func:`save_state` does."""
    text, tensors = packed
    replace_file(Path(file), lambda part: save_file(tensors, str(part), {"state": text}))


def is_state(file: str | os.PathLike[str]) -> bool:
    """Whether a file is one that :func:`save_state` wrote, as far as its head says."""
    try:
        with safe_open(file, "pt") as opened:
            return "state" in (opened.metadata() or {})
    except (SafetensorError, OSError):
        return False


def load_state(file: str | os.PathLike[str]) -> Any:
    """Read what :func:`save_state` wrote; tensors are on the CPU, sequences become lists.

    Raises:
        FileNotFoundError: for a missing file.
        ValueError: for a file that is damaged or of a newer format.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f"Expected a checkpoint at {file} but there is none; train again.")
    try:
        with safe_open(file, "pt") as opened:
            written = json.loads(opened.metadata()["state"])
            names = opened.keys()  # ``opened`` is not a mapping and cannot be iterated over
            tensors = {name: opened.get_tensor(name) for name in names}
        newer = written["format"] > FORMAT
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"Expected a checkpoint at {file} but it is damaged ({error!r}); train again."
        ) from error
    if newer:
        raise ValueError(
            f"Expected format {FORMAT} or older in {file} but got {written['format']}; upgrade "
            "priorzoo."
        )
    return _unpack(written["state"], tensors)


def _pack(value: object, place: str, tensors: dict[str, Tensor]) -> object:
    """The value as JSON, with tensors moved to ``tensors``; mappings may have any plain keys."""
    if isinstance(value, Tensor):
        tensors[place] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": place}
    if isinstance(value, dict):
        items = [[key, _pack(part, f"{place}/{key}", tensors)] for key, part in value.items()]
        return {"items": items}
    if isinstance(value, (list, tuple)):
        return [_pack(part, f"{place}/{i}", tensors) for i, part in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"Expected plain values and tensors to save but got {value!r} at {place}.")


def _unpack(value: object, tensors: dict[str, Tensor]) -> object:
    if isinstance(value, list):
        return [_unpack(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    return {key: _unpack(part, tensors) for key, part in value["items"]}
