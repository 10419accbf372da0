"""Pictures with channels first and last are the same rows."""

import pytest
import torch

from priorzoo.inference.data.pictures import flat_rows


@pytest.mark.parametrize(
    "shape", [(28, 28, 1), (12, 12, 3), (8, 12, 1), (5, 5, 2), (7, 7, 4), (28, 20, 3)]
)
def test_channels_first_and_last_are_the_same_rows(shape):
    """Those of channels last, flattened in order, with the shape (H, W) or (H, W, C)."""
    last = torch.rand(4, *shape)
    height, width, channels = shape
    places = [(i, j, c) for i in range(height) for j in range(width) for c in range(channels)]
    by_hand = torch.stack([torch.stack([picture[at] for at in places]) for picture in last])
    for given in (last, last.permute(0, 3, 1, 2)):
        rows, found = flat_rows(given)
        assert torch.equal(rows, by_hand)
        assert found == ((height, width) if channels == 1 else shape)


@pytest.mark.parametrize("shape", [(28, 28), (6,), (2, 3, 4, 5)])
def test_rows_without_channels_are_flattened_in_order(shape):
    x = torch.rand(4, *shape)
    rows, found = flat_rows(x)
    assert torch.equal(rows, x.reshape(4, -1))
    assert found == shape


@pytest.mark.parametrize(
    "shape", [(3, 8, 3), (1, 28, 1), (1, 28, 3), (3, 4, 1), (16, 16, 16), (4, 5, 6)]
)
def test_pictures_whose_channels_may_be_at_either_end_are_refused(shape):
    with pytest.raises(ValueError, match=r"channels may be first or last; give flat rows"):
        flat_rows(torch.rand(4, *shape))
