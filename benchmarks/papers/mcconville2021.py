"""McConville et al., "N2D: (Not Too) Deep Clustering", 2021, as a baseline of the mixtures here."""

from collections.abc import Iterator

from priorzoo.benchmarks.papers.paper import HUNGARIAN, MAJORITY, NMI, Line, Measure, Paper, lengths
from priorzoo.benchmarks.recipes import Changes

_PROTOCOL = (
    "one run of 1,000 epochs of the autoencoder, on all 70,000 images, on which it is scored too"
)
_LENGTHS = lengths(1_000, 20_000, 60_000)  # rows
EPOCHS = 20.0  # of the autoencoder with all rows; fewer rows have as many fewer epochs
_PUBLISHED = {"mnist": (0.987, 0.964), "fashion_mnist": (0.672, 0.684)}


def _lines(data: str, title: str) -> Iterator[Line]:
    """N2D of one data set."""
    accuracy, nmi = _PUBLISHED[data]
    shown: tuple[Measure, ...] = (
        HUNGARIAN.beside(accuracy, _PROTOCOL),
        MAJORITY,
        NMI.beside(nmi, _PROTOCOL),
    )
    changes: Changes = {"epochs": EPOCHS, **({} if data == "mnist" else {"data": data})}
    yield Line(
        f"{title}, autoencoder, UMAP, mixture", "n2d", _LENGTHS, changes, shown, optional=True
    )


PAPER = Paper(
    "mcconville2021",
    "An autoencoder, UMAP and a mixture: no generative model",
    "McConville et al., N2D: (Not Too) Deep Clustering via Clustering the Local Manifold of an "
    "Autoencoded Embedding, 2021",
    (*_lines("mnist", "MNIST"), *_lines("fashion_mnist", "Fashion-MNIST")),
    "Ours learns from the first 20,000 training images, with 6.7 epochs of the autoencoder where "
    "the paper has 1,000, and is scored on the 10,000 test images, which UMAP places afterwards.",
)
