"""Checkpoints: the complete state of a training in one safetensors file, without pickle."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from priorzoo.inference.files import MIB, check_regular, parse
from priorzoo.inference.saving import replace_file
from priorzoo.inference.schema import Many, Plain, Record, Text, Whole, check

FORMAT = 2  # 1 had no checksum
LARGEST = 2**20 * MIB
WRITTEN = Record({"format": Whole(), "state": Plain(200, 10_000_000)}, others=None)
TENSOR = Record({"tensor": Text()}, others=None)
ITEMS = Record({"items": Many(Many(Plain(200, 10_000_000), 2, 2))}, others=None)
DAMAGED = "it is damaged: train again"
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
    more = {"state": text, "checksum": _checksum(text, tensors)}
    replace_file(Path(file), lambda part: save_file(tensors, str(part), more))


def is_state(file: str | os.PathLike[str]) -> bool:
    """Whether a file is one that :func:`save_state` wrote, as far as its head says."""
    try:
        check_regular(file, LARGEST)
        with safe_open(file, "pt") as opened:
            return "state" in (opened.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError):
        return False


def load_state(file: str | os.PathLike[str]) -> Any:
    """Read what :func:`save_state` wrote; tensors are on the CPU, sequences become lists.

    Raises:
        FileNotFoundError: for a missing file.
        ValueError: for a file that is damaged, also in a single bit, of another format, or that is
            no regular file.
    """
    if not os.path.lexists(file):
        raise FileNotFoundError(f"Expected a checkpoint at {file} but there is none; train again.")
    check_regular(file, LARGEST)
    try:
        with safe_open(file, "pt") as opened:
            more = opened.metadata() or {}
            names = opened.keys()  # ``opened`` is not a mapping and cannot be iterated over
            tensors = {name: opened.get_tensor(name) for name in names}
        text, checksum = more["state"], more.get("checksum")
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"Expected a checkpoint at {file} but it is damaged ({error!r}); train again."
        ) from error
    written = parse(text, f"the state of {file}")
    check(WRITTEN, written, "the state", file, DAMAGED)
    assert isinstance(written, dict)
    if (found := written["format"]) != FORMAT:
        remedy = "upgrade priorzoo" if found > FORMAT else "an older priorzoo wrote it; train again"
        raise ValueError(f"Expected format {FORMAT} in {file} but got {found}; {remedy}.")
    if checksum != _checksum(text, tensors):
        raise ValueError(
            f"Expected the checksum {checksum!r:.40} of {file} but its content has another: it is "
            "damaged; train again."
        )
    return _unpack(written["state"], tensors, f"the state of {file}")


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Of the state as JSON, and of name, type, shape and bytes of each tensor."""
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


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


def _unpack(value: object, tensors: Mapping[str, Tensor], place: str) -> object:
    if isinstance(value, list):
        return [_unpack(part, tensors, place) for part in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        check(TENSOR, value, "an entry", place, DAMAGED)
        if value["tensor"] not in tensors:
            raise ValueError(f"Expected {value['tensor']!r:.100} in {place} but {DAMAGED}.")
        return tensors[value["tensor"]]
    check(ITEMS, value, "an entry", place, DAMAGED)
    for key, _ in value["items"]:
        if isinstance(key, (dict, list)):
            raise ValueError(f"Expected plain keys in {place} but {DAMAGED}.")
    return {key: _unpack(part, tensors, place) for key, part in value["items"]}
