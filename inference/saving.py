"""Saving a trained pair: its configuration as JSON, and its parameters as safetensors."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyro
import torch
from safetensors import SafetensorError
from safetensors.torch import save_model
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from priorzoo.inference.budget import Budget
from priorzoo.inference.construction import DAMAGED, build, describe
from priorzoo.inference.files import read_json
from priorzoo.inference.parameters import check_shapes, read_parameters, read_shapes
from priorzoo.inference.randomness import Stream
from priorzoo.inference.rebuilding import (
    check_names,
    check_outputs,
    plain_state,
)
from priorzoo.inference.running import PROGRAM_LOCK
from priorzoo.inference.schema import Map, Record, Text, Whole, check
from priorzoo.inference.trust import check_trusted

FORMAT = 2
FORMATTED = Record({"format": Whole()})
CONFIGURATION = Record(
    {"format": Whole(), "model": Record({}), "guide": Record({})}, {"versions": Map(Text())}
)


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
    folder: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    *,
    trust: Sequence[str] = (),
) -> tuple[nn.Module, nn.Module]:
    """Load the model and guide that :func:`save` wrote, to a device, in evaluation mode.

    Args:
        folder: of the run.
        device: of the parameters.
        trust: modules whose classes may be imported and constructed, beside those of priorzoo and
            torch.nn, each with the modules below it. Importing a module runs its code.

    Raises:
        FileNotFoundError: for a folder that is missing or half-written.
        ValueError: for another format, a damaged file, classes of other modules, classes that have
            changed since, and parameters that are not finite.
    """
    path = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not os.path.lexists(path / name):
            state = "half-written" if path.is_dir() and any(path.iterdir()) else "no run folder"
            raise FileNotFoundError(
                f"Expected {name} in {path} but it is {state}; train a run there."
            )
    config = _read_configuration(path / "config.json")
    check_trusted([config["model"], config["guide"]], path / "config.json", trust)
    file = path / "model.safetensors"
    shapes = read_shapes(file)
    with Budget.of_file(file, len(shapes)):
        try:
            model, guide = _build_both(config)
        except RecursionError as error:
            raise ValueError(f"Expected fewer nested modules in {path}; {DAMAGED}.") from error
    pair = _pair(model, guide)
    check_shapes(pair, shapes, path)
    try:
        _load_parameters(pair, read_parameters(file, pair))
    except (RuntimeError, OSError, SafetensorError) as error:
        raise ValueError(
            f"Expected parameters in {path} that fit its classes but got {error}; train again."
        ) from error
    pair.to(device).eval()
    return model, guide


def _read_configuration(file: Path) -> dict[str, Any]:
    try:
        found = read_json(file)
        check(FORMATTED, found, "the configuration", file, DAMAGED)
    except ValueError as error:
        raise ValueError(f"{error} The file {file} is {DAMAGED}.") from error
    assert isinstance(found, dict)
    if (other := found["format"]) != FORMAT:
        remedy = "upgrade priorzoo" if other > FORMAT else "an older priorzoo wrote it; train again"
        raise ValueError(f"Expected format {FORMAT} in {file.parent} but got {other}; {remedy}.")
    check(CONFIGURATION, found, "the configuration", file, DAMAGED)
    return found


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
        part.unlink(missing_ok=True)  # perhaps a link, through which another file would be written
        write(part)
        part.replace(path)
    except SafetensorError as error:
        raise OSError(f"Expected to write {path} but got: {error}.") from error
    finally:
        part.unlink(missing_ok=True)


def _pair(model: nn.Module, guide: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict({"model": model, "guide": guide})
