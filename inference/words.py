"""What networks that read words learn from the documents before they are trained."""

from torch import Tensor, nn

from priorzoo.models.words import TfIdf


def weigh_words(model: nn.Module, guide: nn.Module, x: Tensor, *, seed: int) -> None:
    """Let every :class:`TfIdf` in model and guide learn from training rows; recipes call it.

    Args:
        model, guide: changed in place.
        x: counts ``(N, P)``.
        seed: not used, since nothing is random.

    Raises:
        ValueError: for programs that read no weights of words.
    """
    found = [part for part in nn.ModuleList([model, guide]).modules() if isinstance(part, TfIdf)]
    if not found:
        raise ValueError(
            "Expected a network that weighs words but got none; build the encoder with "
            "weighting='tf-idf'."
        )
    for part in found:
        part.learn(x)
