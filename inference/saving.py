"""Saving a trained pair: its configuration as JSON, and its parameters as safetensors."""

import importlib
import inspect
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import AutoGuide
from safetensors import SafetensorError
from safetensors.torch import load_file, save_model
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import type_before_parametrizations

from priorzoo.inference.randomness import Stream
from priorzoo.inference.rebuilding import (
    check_names,
    check_outputs,
    plain_state,
    without_compilation,
)
from priorzoo.inference.running import PROGRAM_LOCK

FORMAT = 2


def save(folder: str | os.PathLike[str], model: nn.Module, guide: nn.Module) -> None:
    """Write ``config.json`` and ``model.safetensors`` to a folder, which is created if missing.

    Each module must keep its constructor arguments as attributes of the same names (the
    scikit-learn convention), so that :func:`load` can construct it again. The pair is constructed
    and compared before anything is written; of a module that ``torch.compile`` has wrapped, the
    module is saved.

    Warns:
        UserWarning: for a class of a script or notebook, which :func:`load` finds only there.

    Raises:
        ValueError: for a module that does not keep an argument, keeps a value that JSON does not
            have, or was changed after its construction.
    """
    path = Path(folder)
    with PROGRAM_LOCK:  # no training in another thread takes a step meanwhile
        config = configuration(model, guide)
        text = json.dumps(config, indent=2)
        again = rebuild(config, model, guide)
    path.mkdir(parents=True, exist_ok=True)
    replace_file(path / "model.safetensors", lambda file: save_model(again, str(file)))
    replace_file(path / "config.json", lambda file: file.write_text(text + "\n"))


def configuration(model: nn.Module, guide: nn.Module) -> dict[str, Any]:
    """The content of ``config.json``.

    Raises:
        ValueError: for the reasons of :func:`save`.
    """
    seen: dict[int, str] = {}
    return {
        "format": FORMAT,
        "model": describe(model, "model", seen),
        "guide": describe(guide, "guide", seen),
        "versions": versions(),
    }


def load(
    folder: str | os.PathLike[str], device: torch.device | str = "cpu"
) -> tuple[nn.Module, nn.Module]:
    """Load the model and guide that :func:`save` wrote, to a device, in evaluation mode.

    This imports and constructs the classes that the folder names: load only folders that you trust.

    Raises:
        FileNotFoundError: for a folder that is missing or half-written.
        ValueError: for another format, a damaged file, or classes that have changed since.
    """
    path = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (path / name).is_file():
            state = "half-written" if path.is_dir() and any(path.iterdir()) else "no run folder"
            raise FileNotFoundError(
                f"Expected {name} in {path} but it is {state}; train a run there."
            )
    try:
        config = json.loads((path / "config.json").read_text())
        other = int(config["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"Expected a configuration in {path / 'config.json'} but it is damaged ({error!r}); "
            "train the run again."
        ) from error
    if other != FORMAT:
        remedy = "upgrade priorzoo" if other > FORMAT else "an older priorzoo wrote it; train again"
        raise ValueError(f"Expected format {FORMAT} in {path} but got {other}; {remedy}.")
    try:
        model, guide = _build_both(config)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"Expected a model and guide in {path / 'config.json'} but it is damaged ({error!r}); "
            "train the run again."
        ) from error
    pair = _pair(model, guide)
    try:
        _load_parameters(pair, load_file(path / "model.safetensors"))
    except (RuntimeError, OSError, SafetensorError) as error:
        raise ValueError(
            f"Expected parameters in {path} that fit its classes but got {error}; train again."
        ) from error
    pair.to(device).eval()
    return model, guide


def _build_both(config: Mapping[str, Any]) -> tuple[nn.Module, nn.Module]:
    seen: dict[str, nn.Module] = {}
    with Stream(0):
        return build(config["model"], "model", seen), build(config["guide"], "guide", seen)


def _load_parameters(pair: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Load parameters and buffers in the precision in which they were saved.

    Where several names share one tensor, a file has only one of them.
    """
    dtypes = {tensor.dtype for tensor in saved.values() if tensor.is_floating_point()}
    if len(dtypes) == 1:  # also of buffers that are not saved
        pair.to(dtypes.pop())
    state = pair.state_dict(keep_vars=True)
    for name in state.keys() & saved.keys():
        if is_lazy(state[name]):
            state[name].materialize(saved[name].shape, dtype=saved[name].dtype)
        state[name].data = state[name].data.to(saved[name].dtype)
    missing, unexpected = pair.load_state_dict(saved, strict=False)
    filled = {id(state[name]) for name in state.keys() & saved.keys()}
    missing = [name for name in missing if id(state[name]) not in filled]
    if missing or unexpected:
        raise RuntimeError(f"missing names {missing} and unexpected names {unexpected}")


def rebuild(config: Mapping[str, Any], model: nn.Module, guide: nn.Module) -> nn.ModuleDict:
    """The pair as :func:`load` would construct it, with the parameters of the given one.

    Call it before a long training to check that the pair can be saved.

    Raises:
        ValueError: if it differs from the given pair, which was then changed after construction.
    """
    try:
        pair = _pair(*_build_both(config))
    except Exception as error:  # of any type, from constructors
        raise ValueError(
            f"Expected a pair whose classes can construct it again but got {error!r}; keep the "
            "constructor's arguments as they were given, as attributes of the same names."
        ) from error
    check_names(_pair(model, guide), pair)
    _load_parameters(pair, plain_state(_pair(model, guide)))
    check_outputs((model, guide), (pair["model"], pair["guide"]))
    return pair


def describe(module: nn.Module, place: str, seen: dict[int, str]) -> dict[str, Any]:
    """Class path and constructor arguments of a module as JSON values.

    Args:
        module: the module to describe.
        place: its name from the root, such as ``guide.encoder``.
        seen: names of the modules already described, by identity; a module that occurs again is
            written as a reference to the first.
    """
    module = without_compilation(module)
    if isinstance(module, AutoGuide):
        raise ValueError(
            f"Expected a guide whose class can construct it again but {place} is an automatic "
            f"{type(module).__name__}, made of a function; save its state_dict() yourself, or "
            "write the guide as a module."
        )
    if id(module) in seen:
        return {"same_as": seen[id(module)]}
    seen[id(module)] = place
    kind = type_before_parametrizations(module)
    entry: dict[str, Any] = {"class_path": f"{kind.__module__}.{kind.__qualname__}"}
    _check_class(kind, entry["class_path"], place)
    if kind in (nn.Sequential, nn.ModuleList):
        parts = module.named_children()
        return entry | {"children": [describe(part, f"{place}.{i}", seen) for i, part in parts]}
    arguments: dict[str, Any] = {}
    torchs = kind.__module__.startswith("torch.nn.")
    for name, parameter in inspect.signature(kind).parameters.items():
        if torchs and name in ("device", "dtype", "_weight"):
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if not hasattr(module, name):
            raise ValueError(
                f"Expected {kind.__name__} to keep its argument {name!r} as an attribute of that "
                f"name, so that it can be saved; add self.{name} = {name} to its constructor."
            )
        value = getattr(module, name)
        if torchs and isinstance(value, nn.Parameter):  # such as bias=True, kept as a parameter
            value = True
        arguments[name] = _plain(value, f"{place}.{name}", seen)
    return entry | {"init_args": arguments}


def build(entry: Mapping[str, Any], place: str, seen: dict[str, nn.Module]) -> nn.Module:
    """Construct a module from its :func:`describe` entry, with newly initialised parameters."""
    if "same_as" in entry:
        return seen[entry["same_as"]]
    kind = locate(entry["class_path"])
    if "children" in entry:
        parts = [build(part, f"{place}.{i}", seen) for i, part in enumerate(entry["children"])]
        module = kind(*parts) if issubclass(kind, nn.Sequential) else kind(parts)
    else:
        arguments = {
            name: _revive(value, f"{place}.{name}", seen)
            for name, value in entry["init_args"].items()
        }
        try:
            module = kind(**arguments)
        except TypeError as error:
            raise ValueError(
                f"Expected {entry['class_path']} as it was saved but it has changed: {error}"
            ) from error
    seen[place] = module
    return module


def locate(class_path: str, family: type = nn.Module) -> type[Any]:
    """The class at an import path such as ``package.file.Class``, a subclass of ``family``."""
    kind = _imported(class_path, "class")
    if not (isinstance(kind, type) and issubclass(kind, family)):
        raise ValueError(f"Expected a {family.__name__} at {class_path!r} but got {kind!r}.")
    return kind


def locate_function(path: str) -> Callable[..., Any]:
    """The function at an import path such as ``package.file.function``."""
    found = _imported(path, "function")
    if not callable(found):
        raise ValueError(f"Expected a function at {path!r} but got {found!r}.")
    function: Callable[..., Any] = found
    return function


def _imported(path: str, what: str) -> object:
    home, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(home), name)
    except (ImportError, AttributeError, ValueError) as error:
        script = "; run the script or notebook cell that defines it first, or move it to a module"
        raise ValueError(
            f"Expected a {what} at {path!r} but it cannot be imported: {error}"
            f"{script if home == '__main__' else ''}"
        ) from error


def versions() -> dict[str, str]:
    """Versions of the libraries that a result depends on."""
    from importlib.metadata import version

    return {
        "priorzoo": version("priorzoo"),
        "torch": torch.__version__,
        "pyro-ppl": pyro.__version__,
    }


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a temporary file and rename it, so that the file is never incomplete.

    Raises:
        OSError: if it cannot be written, such as to a full disk; a file that was there is kept.
    """
    part = path.with_name(path.name + ".part")
    try:
        write(part)
        part.replace(path)
    except SafetensorError as error:
        raise OSError(f"Expected to write {path} but got: {error}.") from error
    finally:
        part.unlink(missing_ok=True)


def _plain(value: object, place: str, seen: dict[int, str]) -> object:
    if isinstance(value, nn.Module):
        return describe(value, place, seen)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v, f"{place}.{i}", seen) for i, v in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(
        f"Expected a module or a plain value at {place} but got a {type(value).__name__}; pass "
        "numbers, strings or lists to the constructor, and create other objects inside it."
    )


def _revive(value: object, place: str, seen: dict[str, nn.Module]) -> object:
    if isinstance(value, dict):
        return build(value, place, seen)
    if isinstance(value, list):
        return [_revive(part, f"{place}.{i}", seen) for i, part in enumerate(value)]
    return value


def _check_class(kind: type, class_path: str, place: str) -> None:
    """Check that a class can be imported; warn if it may be another one when it is loaded."""
    try:
        found = locate(class_path)
    except ValueError as error:
        raise ValueError(
            f"Expected the class of {place} at {class_path} but it is not there; define it at the "
            "top level of a Python module."
        ) from error
    if found is not kind:
        warnings.warn(
            f"Expected the present class at {class_path} but {place} is of one that was defined "
            "before; it is saved, and will be loaded as the present one.",
            stacklevel=5,
        )
    if kind.__module__ == "__main__":
        warnings.warn(
            f"Expected the class of {place} in a module but {class_path} is in a script or "
            "notebook; before load, define it there too, or move it to a module now.",
            stacklevel=5,
        )


def _pair(model: nn.Module, guide: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict({"model": model, "guide": guide})
