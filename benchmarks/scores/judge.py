"""A classifier of images that judges what models draw."""

import torch
from torch import Tensor, nn

from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.scores.metrics import contingency
from priorzoo.inference import Stream
from priorzoo.models import ConvEncoder


def train_judge(dataset: Dataset, epochs: int = 3) -> nn.Module:
    """A small convolutional classifier of the training rows, which judges every run alike."""
    assert dataset.y_train is not None
    told = dataset.y_train >= 0
    x, y = dataset.values(dataset.train[told]), dataset.y_train[told]
    with Stream(0):
        judge = ConvEncoder(x.shape[1], int(y.max()) + 1, dataset.shape, (16, 32), (128,))
        optimiser = torch.optim.Adam(judge.parameters(), 1e-3)
        for _ in range(epochs):
            for index in torch.randperm(len(x)).split(128):
                loss = nn.functional.cross_entropy(judge(x[index]), y[index])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return judge


def judged(judge: nn.Module, x: Tensor) -> Tensor:
    """The probabilities ``(..., C)`` of the classes by the classifier, of rows ``(..., P)``."""
    with torch.no_grad():
        found = [judge(rows).softmax(-1) for rows in x.flatten(0, -2).split(2_000)]
    return torch.cat(found).unflatten(0, x.shape[:-1])


def sample_scores(
    judge: nn.Module, samples: Tensor, probabilities: Tensor, labels: Tensor
) -> dict[str, float]:
    """How well samples of a category belong to its class, which labels of data tell.

    The class of a category is the most frequent label of the rows whose most probable category it
    is; a category without such rows has none, and its samples count for nothing. Categories count
    alike.

    Args:
        judge: classifier of rows.
        samples: ``(K, S, P)``, drawn from each category.
        probabilities, labels: of data, ``(N, K)`` and ``(N,)``, -1 for an unknown label.

    Returns:
        ``sample_share``, the mean over categories of the share of samples that the judge gives to
        the category's class; ``sample_purity``, the same for the class that it gives to most
        samples of the category; and ``sample_classes``, the number of different classes of the
        categories.

    Raises:
        ValueError: for samples of another number of categories.
    """
    clusters = probabilities.shape[1]
    if len(samples) != clusters:
        raise ValueError(
            f"Expected samples of {clusters} categories but got {len(samples)}; draw from each."
        )
    table = contingency(probabilities.argmax(-1), labels, clusters)
    used = table.sum(-1) > 0
    own = labels[labels >= 0].unique()[table.argmax(-1)][used]
    given = judged(judge, samples[used]).argmax(-1)
    most = given.mode(-1).values
    return {
        "sample_share": (given == own[:, None]).double().mean().item(),
        "sample_purity": (given == most[:, None]).double().mean().item(),
        "sample_classes": float(len(own.unique())),
    }
