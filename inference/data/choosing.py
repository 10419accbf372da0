"""Randomly chosen rows of a data set, on which moves between training steps are based."""

import torch

from priorzoo.inference.batch import Batch, Transform


def chosen_rows(whole: Batch, count: int, seed: int, transform: Transform | None = None) -> Batch:
    """Some rows in random order, each at most once, with what is told beside them.

    Args:
        whole: all rows ``(N, P)`` with their context.
        count: of rows to choose; all if there are fewer.
        seed: of the choice.
        transform: of batches, which is applied to the chosen rows.
    """
    order = torch.randperm(len(whole.x), generator=torch.Generator().manual_seed(seed))
    index = order[:count].to(whole.x.device)
    x = whole.x[index]
    context = {name: value[index] for name, value in whole.context.items()}
    return Batch(x if transform is None else transform(x), context=context)
