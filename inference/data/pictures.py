"""Where the channels of pictures are, and pictures as flat rows."""

from collections.abc import Sequence

from torch import Tensor

CHANNELS = (1, 3)


def flat_rows(x: Tensor, name: str = "x") -> tuple[Tensor, tuple[int, ...]]:
    """Flat rows ``(N, P)``, and the shape of a row as a picture: ``(H, W)`` or ``(H, W, C)``.

    Pictures are flattened with their channels last, as the convolutional networks take them,
    wherever the channels were. Rows that are no pictures are flattened as they are.

    Args:
        x: ``(N, P)``, ``(N, H, W)``, ``(N, H, W, C)``, ``(N, C, H, W)``, or rows of more
            dimensions.
        name: name of the rows in error messages.

    Raises:
        ValueError: for pictures whose channels may be either their first or their last dimension.
    """
    shape = tuple(x.shape[1:])
    if len(shape) == 3:
        if channels_first(shape, name):
            x = x.movedim(1, -1)
        shape = tuple(x.shape[1:])
        shape = shape[:2] if shape[2] == 1 else shape
    return x.flatten(1), shape


def channels_first(shape: Sequence[int], name: str = "x") -> bool:
    """Whether the channels of a picture of three dimensions come first, and not last.

    They are the dimension that is 1 or 3, and if neither end is, the one beside two equal sides.

    Raises:
        ValueError: if that holds for both ends or for none.
    """
    height, middle, width = shape
    first, last = height in CHANNELS, width in CHANNELS
    if not (first or last):
        first, last = height != middle == width, height == middle != width
    if first == last:
        raise ValueError(
            f"Expected pictures (N, H, W, C) or (N, C, H, W) in {name} but got rows of shape "
            f"({height}, {middle}, {width}), whose channels may be first or last; give flat rows "
            "(N, P) of channels last, or pictures of one channel as (N, H, W)."
        )
    return first
