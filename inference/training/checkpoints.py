"""Everything that a training needs to go on as if it had never stopped, in one file, no pickle."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from priorzoo.inference.saving import replace_file

FORMAT = 1


def save_state(file: str | os.PathLike[str], state: object) -> None:
    """Write nested mappings, sequences, tensors and plain values as one safetensors file.

    Written beside the file and then renamed, so that it is never there by half.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps({"format": FORMAT, "state": _pack(state, "", tensors)})
    replace_file(Path(file), lambda part: save_file(tensors, str(part), {"state": text}))


def load_state(file: str | os.PathLike[str]) -> Any:
    """What :func:`save_state` wrote, its tensors on the CPU; sequences come back as lists.

    Raises:
        FileNotFoundError: for a file that is missing.
        ValueError: for one that is damaged or of a newer format.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f"Expected a checkpoint at {file} but there is none; train anew.")
    try:
        with safe_open(file, "pt") as opened:
            written = json.loads(opened.metadata()["state"])
            names = opened.keys()  # no mapping: it has nothing to iterate over but these
            tensors = {name: opened.get_tensor(name) for name in names}
        newer = written["format"] > FORMAT
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"Expected a checkpoint at {file} but it is damaged ({error!r}); train anew."
        ) from error
    if newer:
        raise ValueError(
            f"Expected format {FORMAT} or older in {file} but got {written['format']}; upgrade "
            "priorzoo."
        )
    return _unpack(written["state"], tensors)


def _pack(value: object, place: str, tensors: dict[str, Tensor]) -> object:
    """As JSON can write it, tensors laid aside; keys of mappings need not be strings."""
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
