"""Images of a folder or an array as flat rows in [0, 1]."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from priorzoo.inference.data.pictures import flat_rows
from priorzoo.inference.data.tables.kinds import listed
from priorzoo.inference.data.tables.schema import Schema, Table
from priorzoo.inference.data.tensors import as_tensor

if TYPE_CHECKING:
    from PIL.Image import Image

Mode = Literal["L", "RGB"]
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
GREY, COLOUR = ("1", "L"), ("RGB", "P")  # modes of Pillow that are converted without being asked
LARGEST = 128  # side of an image that is not resized


def is_image_folder(path: Path) -> bool:
    """Whether a folder holds images, or folders of images."""
    return path.is_dir() and any(_files(path))


def read_images(
    folder: Path,
    size: tuple[int, int] | None = None,
    mode: Mode | None = None,
    schema: Schema | None = None,
) -> Table:
    """The images of a folder, ``FOLDER/class/name.png`` or ``FOLDER/name.png``, sorted by path.

    Args:
        folder: of the images.
        size: height and width to which they are resized; if None they must be of one size.
        mode: ``L`` for grey, ``RGB`` for colour; if None, colour where an image has it.
        schema: of the images of a training, whose size, mode and classes are kept.

    Raises:
        ValueError: for files that are no images, images of other sizes or modes, and for classes
            that the training did not have, naming the file.
    """
    from PIL import Image

    files = _files(folder)
    if deeper := _files(folder, ("*/*/**/*",)):
        raise ValueError(
            f"Expected images in {folder} or FOLDER/CLASS/NAME.png but got {len(deeper)} further "
            f"down, the first is {deeper[0]}; give the folder of the classes, or move them there."
        )
    if not files:
        raise ValueError(
            f"Expected images ({', '.join(ENDINGS[:4])}, ...) in {folder} but got none; put "
            "them in it or in folders of classes, FOLDER/CLASS/NAME.png."
        )
    if schema is not None:
        if not schema.shape:
            raise ValueError(
                f"Expected a table like that of the training but got images in {folder}; give the "
                "file of a table."
            )
        height, width, *channels = schema.shape
        size, mode = (height, width), "RGB" if channels else "L"
    opened = [_opened(file, Image) for file in files]
    chosen = mode or _mode(files, [image.mode for image in opened])
    side = size or _size(files, [(image.height, image.width) for image in opened])
    arrays = [_array(image, chosen, side, file) for image, file in zip(opened, files, strict=True)]
    names = [file.relative_to(folder).as_posix() for file in files]
    classes = _classes(folder, files)
    if schema is None:
        schema = Schema(shape=arrays[0].shape, classes=tuple(sorted({*classes} - {""})))
    rows = torch.from_numpy(np.stack(arrays)).flatten(1).float() / 255
    labels = None if not any(classes) else _labels(schema.classes, classes, names)
    return Table(schema, rows, labels=labels, names=tuple(names))


def image_array(array: NDArray[np.generic], source: str, schema: Schema | None = None) -> Table:
    """Images ``(N, H, W)``, or with channels, as flat rows; bytes are divided by 255.

    Raises:
        ValueError: for values outside [0, 255], and another shape than that of the training.
    """
    x = as_tensor(array, source)
    rows, shape = flat_rows(x.float(), source)
    low, high = float(rows.min()), float(rows.max())
    if low < 0 or high > 255 or not bool(rows.isfinite().all()):
        raise ValueError(
            f"Expected images within [0, 1], or bytes up to 255, in {source} but got values from "
            f"{low:g} to {high:g}; rescale them, or give flat rows (N, P)."
        )
    if not x.is_floating_point() or high > 1:
        rows = rows / 255
    if schema is not None and schema.shape != shape:
        raise ValueError(
            f"Expected images of shape {schema.shape} in {source}, like those of the training, but "
            f"got {shape}; resize them."
        )
    return Table(schema or Schema(shape=shape), rows)


def _files(folder: Path, patterns: Sequence[str] = ("*", "*/*")) -> list[Path]:
    """Images directly in the folder or one folder below, hidden ones left out."""
    found = [path for pattern in patterns for path in folder.glob(pattern)]
    shown = [p for p in found if not any(part[0] == "." for part in p.relative_to(folder).parts)]
    return sorted(p for p in shown if p.suffix.lower() in ENDINGS and p.is_file())


def _opened(file: Path, library: ModuleType) -> "Image":
    """A decoded image.

    Raises:
        ValueError: for a broken file.
    """
    try:
        with library.open(file) as image:
            frames = getattr(image, "n_frames", 1)
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Warning) as error:
        raise ValueError(
            f"Expected an image in {file} but it cannot be read "
            f"({str(error).partition(chr(10))[0]}); replace or remove the file."
        ) from error
    if frames > 1:
        raise ValueError(
            f"Expected one image in {file} but it has {frames} frames; save one of them alone."
        )
    return image


def _mode(files: Sequence[Path], modes: Sequence[str]) -> Mode:
    for file, mode in zip(files, modes, strict=True):
        _check_bits(file, mode)
        if mode not in (*GREY, *COLOUR):
            raise ValueError(
                f"Expected grey or RGB images but {file} has mode {mode}; say --mode L or RGB, to "
                "which all are converted, or convert the files."
            )
    return "RGB" if any(mode in COLOUR for mode in modes) else "L"


def _size(files: Sequence[Path], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    first = sizes[0]
    for file, size in zip(files, sizes, strict=True):
        if size != first:
            raise ValueError(
                f"Expected images of one size, {first[0]} x {first[1]} as in {files[0]}, but "
                f"{file} is {size[0]} x {size[1]}; say --size HEIGHTxWIDTH to resize them."
            )
    if max(first) > LARGEST:
        raise ValueError(
            f"Expected images up to {LARGEST} x {LARGEST} but got {first[0]} x {first[1]}; say "
            "--size HEIGHTxWIDTH, to which all are resized."
        )
    return first


def _array(image: "Image", mode: Mode, size: tuple[int, int], file: Path) -> NDArray[np.uint8]:
    if mode not in get_args(Mode):
        raise ValueError(f"Expected --mode among {get_args(Mode)} but got {mode!r}.")
    _check_bits(file, image.mode)
    resized = image.convert(mode)
    if (image.height, image.width) != size:
        resized = resized.resize((size[1], size[0]))
    return np.asarray(resized, dtype=np.uint8)


def _check_bits(file: Path, mode: str) -> None:
    if mode.startswith(("I", "F")):
        raise ValueError(f"Expected images of 8 bits but {file} has mode {mode}; convert the file.")


def _classes(folder: Path, files: Sequence[Path]) -> list[str]:
    """The name of the folder that each file is in; empty where it is in none."""
    parts = [file.relative_to(folder).parts for file in files]
    return [part[0] if len(part) > 1 else "" for part in parts]


def _labels(known: Sequence[str], classes: Sequence[str], names: Sequence[str]) -> torch.Tensor:
    for name, kind in zip(names, classes, strict=True):
        if kind and kind not in known and known:
            raise ValueError(
                f"Expected folders of the classes of the training, {listed(known)}, but got "
                f"{name}; move it to one of them, or out of its folder for unknown."
            )
    numbers = {name: i for i, name in enumerate(known)}
    return torch.tensor([numbers.get(kind, -1) for kind in classes])
