"""Tasks with the best published value that was reached without labels, and its protocol."""

from dataclasses import dataclass

from priorzoo.benchmarks.papers.paper import (
    BEST,
    BOUND,
    HUNGARIAN,
    LIKELIHOOD,
    MAJORITY,
    NMI,
    Measure,
    metric,
)

MIXTURE = "Shu's GMVAE, mean of six logged runs after 250,000 steps"
UMAP = (
    "N2D (McConville et al., 2021): autoencoder, UMAP and a mixture, which is no generative model"
)
MINIMUM = "Dilokthanakul et al., 2016, first version, average of runs"
DPM = (
    "DeepDPM (Ronen et al., 2022): a Dirichlet-process mixture of codes that an "
    "autoencoder and UMAP made before, which is no generative model of images"
)
TREE = "TreeVAE (Manduchi et al., 2023): a VAE whose code is a tree"
KNN = "SB-VAE (Nalisnick & Smyth, 2017), codes of grey pixels"

PURITY = metric("dendrogram_purity", "dendrogram purity, no accuracy")
TREE_PROTOCOL = "of the learned tree, test images"


@dataclass(frozen=True)
class Task:
    """A measure of runs on a data set, beside the best published value.

    Args:
        title: of the task.
        data: name of the data set in the settings of the runs.
        measure: with the published value, its spread and its protocol.
        by: who published it; what ``beside`` is where nothing is published.
        clusters: least and largest number of clusters that a run may use, and no clusters at all if
            None.
        beside: where nothing is published, a measure of the same runs to compare with.
        binary: whether the rows of the runs must be binarised.
        inferred: whether components that were merged to as many as there are classes do not count,
            since the number is to be inferred.
    """

    title: str
    data: str
    measure: Measure
    by: str
    clusters: tuple[int, int] | None = None
    beside: Measure | None = None
    binary: bool = False
    inferred: bool = False


TASKS = (
    Task(
        "MNIST, ten clusters",
        "mnist",
        HUNGARIAN.beside(0.987, "Hungarian, K = 10"),
        UMAP,
        (1, 10),
    ),
    Task(
        "MNIST, ten clusters, by a generative model",
        "mnist",
        HUNGARIAN.beside(0.945, "Hungarian, K = 10, best run"),
        "VaDE (Jiang et al., 2017), from weights that its authors ship; a public re-run has "
        "0.716 ± 0.044",
        (1, 10),
    ),
    Task(
        "MNIST, ten clusters",
        "mnist",
        MAJORITY.beside(0.835, "majority, K = 10", spread=0.052),
        MIXTURE,
        (1, 10),
    ),
    Task(
        "MNIST, ten clusters",
        "mnist",
        BEST.beside(0.8694, "best example, K = 10, M = 10", spread=0.0662),
        MINIMUM,
        (1, 10),
    ),
    Task(
        "MNIST, up to sixteen clusters",
        "mnist",
        BEST.beside(0.9024, "best example, K = 16, M = 10", spread=0.0574),
        MINIMUM,
        (11, 16),
    ),
    Task(
        "MNIST, up to thirty clusters",
        "mnist",
        MAJORITY.beside(0.920, "majority, K = 25 in each facet", spread=0.030),
        "MFCVAE (Falck et al., 2021)",
        (17, 30),
    ),
    Task(
        "Fashion-MNIST, ten clusters",
        "fashion_mnist",
        HUNGARIAN.beside(0.672, "Hungarian, K = 10"),
        UMAP,
        (1, 10),
    ),
    Task(
        "MNIST, open number of clusters",
        "mnist",
        NMI.beside(0.94, "NMI, K inferred"),
        DPM,
        (1, 30),
        inferred=True,
    ),
    Task("MNIST, a tree of clusters", "mnist", PURITY.beside(0.879, TREE_PROTOCOL), TREE),
    Task(
        "Fashion-MNIST, a tree of clusters",
        "fashion_mnist",
        PURITY.beside(0.534, TREE_PROTOCOL),
        TREE,
    ),
    Task(
        "binary MNIST, density",
        "mnist",
        BOUND.beside(-85.77, "ELBO after 320,000 steps, K = 512"),
        "factorial mixture prior (Paquet et al., 2018)",
        binary=True,
    ),
    Task(
        "binary MNIST, density by importance samples",
        "mnist",
        LIKELIHOOD.beside(-85.79, "importance samples"),
        "VampPrior (Tomczak & Welling, 2018), in Pythae's table",
        binary=True,
    ),
    Task(
        "MNIST, neighbours of codes",
        "mnist",
        metric("knn_error_5", "error of 5 neighbours", higher=False, digits=4).beside(
            0.0865, "five nearest neighbours, fully trained"
        ),
        KNN,
    ),
    Task(
        "BBC news, open number of clusters",
        "bbc_news",
        NMI,
        "k-means on TF-IDF with as many clusters as each run uses",
        (1, 10),
        metric("tf_idf_k_means_nmi", "NMI of k-means"),
    ),
)
