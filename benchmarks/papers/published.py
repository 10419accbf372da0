"""What each paper reports, and the recipes that make the same figures here."""

from collections.abc import Mapping
from dataclasses import replace

from priorzoo.benchmarks.grid.clusterings import Clustering
from priorzoo.benchmarks.papers.paper import Budget, Line, Measure, Paper


def lengths(quick: float, standard: float | None, paper: float) -> Mapping[Budget, float]:
    """A length for each budget; without a standard one, the line waits for a GPU."""
    found: dict[Budget, float] = {"quick": quick, "paper": paper}
    return found if standard is None else found | {"standard": standard}


def metric(name: str, title: str, published: float | Mapping[int, float] | None = None) -> Measure:
    """A measure among the metrics of a row."""
    return Measure(title, ("metrics", name), published)


NEGATIVE = Measure("-ELBO, nats", ("terms", "elbo"), sign=-1, higher=False, digits=2)
ELBO = Measure("ELBO, nats", ("terms", "elbo"), digits=2)
MAJORITY = metric("accuracy_majority", "majority accuracy")
BEST = metric("accuracy_best_example", "best-example accuracy")
HUNGARIAN = metric("accuracy_hungarian", "Hungarian accuracy")
ENTROPY = replace(metric("entropy", "H(y given x), nats"), higher=False)
NMI = metric("nmi", "NMI")
ARI = metric("ari", "ARI")
MIXTURE = (NEGATIVE, ENTROPY, MAJORITY)
CLUSTERING = (MAJORITY, BEST, HUNGARIAN, NMI, ARI)

# Means over the runs of Shu's logs, at 500 steps an epoch.
_LOGS = "mean of Shu's logged runs at as many steps, majority, K = 10"
_SHU = {
    "m2": (
        {10_000: 96.3, 25_000: 94.3, 50_000: 93.1, 100_000: 92.7, 250_000: 92.2},
        {10_000: 0.123, 25_000: 0.114, 50_000: 0.114, 100_000: 0.114, 250_000: 0.114},
    ),
    "modified-m2": (
        {10_000: 99.8, 25_000: 97.0, 50_000: 95.5, 100_000: 94.5},
        {10_000: 0.556, 25_000: 0.618, 50_000: 0.649, 100_000: 0.690},
    ),
    "gmvae": (
        {10_000: 97.0, 25_000: 95.0, 50_000: 94.2, 100_000: 93.5, 250_000: 93.1},
        {10_000: 0.666, 25_000: 0.722, 50_000: 0.766, 100_000: 0.799, 250_000: 0.835},
    ),
}


def _shu(title: str, recipe: str, paper: int, **changes: str) -> Line:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    measures: tuple[Measure, ...] = MIXTURE
    if not changes:
        bound, accuracy = _SHU[recipe]
        spread = {"gmvae": 0.05, "modified-m2": 0.06}.get(recipe)
        measures = (
            replace(NEGATIVE, published=bound, protocol=_LOGS),
            ENTROPY,
            replace(MAJORITY, published=accuracy, spread=spread, protocol=_LOGS),
        )
    return Line(title, recipe, lengths(100, 10_000, paper), named, measures)


SHU = Paper(
    "shu2016",
    "M2, modified M2 and the explicit mixture on MNIST",
    "Shu, Gaussian Mixture VAE: Lessons in Variational Inference, 2016",
    (
        _shu("M2", "m2", 250_000),
        _shu("modified M2 (relu)", "modified-m2", 100_000),
        replace(
            _shu("modified M2 (relu), KL of z in closed form", "modified-m2", 100_000),
            changes={"kl.z.analytic": "true"},
        ),
        _shu("Gaussian-mixture VAE", "gmvae", 250_000),
        _shu("Gaussian-mixture VAE, K = 16", "gmvae", 250_000, model__clusters="16"),
        *(
            replace(
                _shu(f"{title}, flow for q(z given x, y)", name, 250_000, guide="ClusterThenFlow"),
                lengths=lengths(50, 5_000, 250_000),
            )
            for title, name in (("M2", "m2"), ("Gaussian-mixture VAE", "gmvae"))
        ),
    ),
    "The reference's modified M2 ends in NaN between 113,000 and 128,000 steps in all its runs.",
    ("elbo", "accuracy_majority", "entropy"),
)

_AVERAGE = "average of runs after full training, best-example protocol"


def _dilokthanakul(title: str, recipe: str, mean: float, spread: float, **changes: str) -> Line:
    return Line(
        title,
        recipe,
        lengths(50, 20_000 if "particles" not in changes else None, 200_000),
        {name.replace("__", "."): value for name, value in changes.items()},
        (
            NEGATIVE,
            replace(BEST, published=mean, spread=spread, protocol=_AVERAGE),
            MAJORITY,
        ),
    )


DILOKTHANAKUL = Paper(
    "dilokthanakul2016",
    "Mixture components made by a second code, on MNIST and on a toy",
    "Dilokthanakul et al., Deep Unsupervised Clustering with Gaussian Mixture VAEs, 2016",
    (
        _dilokthanakul("exact p(y given z, w), K = 10", "dilokthanakul", 0.7778, 0.0575),
        _dilokthanakul(
            "exact p(y given z, w), K = 16", "dilokthanakul", 0.8509, 0.0199, model__clusters="16"
        ),
        _dilokthanakul(
            "exact p(y given z, w), K = 10, M = 10",
            "dilokthanakul",
            0.8231,
            0.0375,
            particles="10",
        ),
        _dilokthanakul("network q(y given x), K = 10", "dilokthanakul-network", 0.7447, 0.1020),
        *(
            Line(
                f"toy, {words}, K = {k}",
                recipe,
                lengths(50, 10_000, 10_000),
                {} if k == 8 else {"model.clusters": str(k)},
                (ARI,),
            )
            for k in (8, 10)
            for recipe, words in (("pinwheel-plain", "plain objective"), ("pinwheel", "remedy"))
        ),
    ),
    "The reference's networks have batch normalisation; ours are plain MLPs.",
    ("elbo", "accuracy_best_example", "kl[y]"),
)


def _after(stage: str, *path: str, title: str) -> Measure:
    return Measure(title, ("stages", stage, *path))


VADE = Paper(
    "jiang2017",
    "Autoencoder, mixture of its codes, both together, on MNIST",
    "Jiang et al., Variational Deep Embedding, 2017",
    (
        Line(
            "VaDE",
            "vade",
            lengths(0.1, 20, 300),
            {},
            (
                replace(
                    _after(
                        "autoencoder",
                        "k-means",
                        "accuracy_hungarian",
                        title="autoencoder, then k-means",
                    ),
                    published=0.792,
                    spread=0.019,
                    protocol="published autoencoder + k-means, Hungarian",
                ),
                _after("mixture", "metrics", "accuracy_hungarian", title="mixture of its codes"),
                replace(
                    HUNGARIAN,
                    title="trained together",
                    published=0.716,
                    spread=0.044,
                    protocol="a public re-run, 20 seeds, Hungarian; the paper's best run is .945",
                ),
                NEGATIVE,
            ),
        ),
    ),
    curves=("elbo",),
)

_KNOWN = replace(metric("accuracy", "accuracy"), protocol="Pyro's tutorial, 50 epochs of batch 200")
SEMI = Paper(
    "kingma2014",
    "M2 with a few labels, on MNIST",
    "Kingma et al., Semi-supervised Learning with Deep Generative Models, 2014",
    tuple(
        Line(
            f"M2, {labels} labels",
            "m2-semi",
            lengths(50, 12_500, 12_500),
            {} if labels == 100 else {"labelled": str(labels)},
            (replace(_KNOWN, published=figure), NEGATIVE),
        )
        for labels, figure in ((100, 0.932), (600, 0.944), (1000, 0.949), (3000, 0.958))
    ),
    "Labelled rows are a tenth of a pass at least, and the weight of KL[y] rises from 0 to 1: with "
    "neither, M2 does not begin to use y in as many steps.",
    curves=("accuracy",),
)

_KLZ = Measure("KL[z], nats", ("terms", "kl[z_1]"), digits=2)
_KLR = Measure("KL[r], nats", ("terms", "kl[r_1]"), digits=2)
_LATE = replace(ELBO, protocol="test ELBO after 320,000 iterations")
FACTORIAL = Paper(
    "paquet2018",
    "Factorial mixtures with conjugate SVI",
    "Paquet et al., A Factorial Mixture Prior for Compositional Deep Generative Models, 2018",
    (
        Line(
            "binary MNIST, one factor, K = 512",
            "factorial",
            lengths(20, None, 200_000),
            {},
            (
                replace(_LATE, published={320_000: -85.77}),
                _KLZ,
                _KLR,
            ),
        ),
        *(
            Line(
                f"binary MNIST, one factor, learning rate .001, K = {k}",
                "factorial",
                lengths(20, 3_000, 200_000),
                {"optimiser.lr": "0.001"} | ({} if k == 512 else {"model.clusters": str(k)}),
                (ELBO, _KLZ, _KLR),
            )
            for k in (1, 8, 32, 128, 512)
        ),
        Line(
            "binary Omniglot, one factor, K = 256",
            "factorial-omniglot",
            lengths(20, None, 200_000),
            {},
            (
                replace(
                    _LATE,
                    published={320_000: -90.89},
                    incomparable="our split of Omniglot is another",
                ),
                _KLZ,
                _KLR,
            ),
        ),
        Line(
            "CMU faces: eyes, pose and a free factor, 40 % labelled",
            "factorial-faces",
            lengths(20, 1_000, 1_000),
            {},
            (
                metric("r_1.accuracy", "assignment of eyes"),
                metric("r_1.agreement", "drawn eyes as asked"),
                metric("r_2.accuracy", "assignment of pose"),
                metric("r_2.agreement", "drawn pose as asked"),
            ),
        ),
        Line(
            "CMU faces: two factors without labels",
            "factorial-faces-free",
            lengths(20, 1_000, 1_000),
            {},
            (ELBO,),
        ),
        Line(
            "CelebA: gender, glasses, smile and two free factors, 40 % labelled",
            "factorial-celeba",
            lengths(20, None, 300_000),
            {},
            (
                metric("r_1.accuracy", "assignment of gender", 0.97),
                metric("r_2.accuracy", "of glasses", 0.99),
                metric("r_3.accuracy", "of smile", 0.91),
            ),
            optional=True,
        ),
    ),
    sweep="factorial",
)

_PLANE = (
    Measure("10 nearest neighbours", ("embedding", "neighbour_accuracy")),
    Measure("trustworthiness", ("embedding", "trustworthiness")),
    Measure("reconstruction, nats", ("terms", "reconstruction"), digits=1),
    Measure("through the plane, nats", ("embedding", "through_plane"), digits=1),
    Measure("confident in between", ("embedding", "confident_between")),
)
NONPARAMETRIC = Paper(
    "bodin2017",
    "A plane tied to the code",
    "Bodin et al., Nonparametric Inference for Auto-Encoding Variational Bayes, 2017",
    (
        *(
            Line(
                f"MNIST, {what} of {code} dimensions",
                f"{name}-{code}",
                lengths(0.1, 10, 200),
                {},
                _PLANE,
                plane=True,
            )
            for code in (2, 10, 50, 500)
            for name, what in (("nonparametric", "tied to a plane, code"), ("plain-vae", "code"))
        ),
        Line(
            "MNIST, 500 dimensions, gradients stopped at the code",
            "nonparametric-500",
            lengths(0.1, 10, 200),
            {"model.stop_gradient": "true"},
            _PLANE,
            plane=True,
        ),
        Line(
            "Fashion-MNIST, 50 dimensions",
            "nonparametric-fashion",
            lengths(0.1, 10, 200),
            {},
            _PLANE,
            plane=True,
        ),
        Line("Frey faces, 20 dimensions", "nonparametric-frey", lengths(5, 300, 300), {}, (ELBO,)),
    ),
    "The paper has pictures and no figures.",
)

_NEIGHBOURS = "error of k nearest neighbours on latents, fully trained"
STICKS = Paper(
    "nalisnick2017",
    "The stick-breaking VAE, on MNIST",
    "Nalisnick & Smyth, Stick-Breaking Variational Autoencoders, 2017",
    (
        Line(
            "Kumaraswamy sticks",
            "sb-vae",
            lengths(50, 20_000, 100_000),
            {},
            (
                *(
                    Measure(
                        f"error, k = {k}",
                        ("metrics", f"knn_error_{k}"),
                        figure,
                        protocol=_NEIGHBOURS,
                        higher=False,
                        digits=4,
                    )
                    for k, figure in ((3, 0.0934), (5, 0.0865), (10, 0.0890))
                ),
                Measure(
                    "-log p(x), nats",
                    ("importance", "log p(x)"),
                    98.01,
                    protocol="100 importance samples, fully trained",
                    higher=False,
                    sign=-1,
                    digits=2,
                ),
            ),
            importance=100,
        ),
    ),
)

_COINCIDENCE = (
    "the paper's figures equal averages on MNIST in another paper, and exceed supervised baselines"
)


def _clustered(title: str, recipe: str, lasts: Mapping[Budget, float], **changes: str) -> Line:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return Line(title, recipe, lasts, named, (*CLUSTERING, NEGATIVE))


_ROWS = lengths(2_000, 60_000, 60_000)
_ALIKE = {  # the networks, codes and batches of the NGGP recipes
    "model__code": "20",
    "encoder__hidden": "[400, 200]",
    "decoder__hidden": "[200, 400]",
    "batch_size": "64",
}
_GROWING = lengths(1, 20, 200)


def _told(k: int) -> dict[str, str]:
    return {} if k == Clustering.clusters else {"clusters": str(k)}


def _nggp(name: str, shown: str) -> tuple[Line, ...]:
    data = {} if name == "mnist" else {"data": name}
    return (
        _clustered(f"{shown}, NGGP, Gaussian components", f"nggp-{name.split('_')[0]}", _GROWING),
        _clustered(
            f"{shown}, NGGP, Dirichlet components", f"nggp-{name.split('_')[0]}-dirichlet", _GROWING
        ),
        *(
            _clustered(
                f"{shown}, Gaussian-mixture VAE, K = {k}",
                "gmvae",
                lengths(100, 10_000, 100_000),
                **data,
                **_ALIKE,
                model__clusters=str(k),
            )
            for k in (20, 32, 40)
        ),
        _clustered(f"{shown}, stick-breaking VAE", "sb-vae", lengths(50, 20_000, 100_000), **data),
        *(
            replace(
                _clustered(f"{shown}, k-means, K = {k}", "k-means", _ROWS, **data, **_told(k)),
                measures=CLUSTERING,
            )
            for k in (10, 20, 32, 40)
        ),
        *(
            replace(
                _clustered(f"{shown}, {words}, K = 20", recipe, _ROWS, **data, **_told(20)),
                measures=CLUSTERING,
            )
            for recipe, words in (
                ("pca-mixture", "PCA, then a Gaussian mixture"),
                ("bayesian-mixture", "PCA, then a variational Dirichlet-process mixture"),
                ("autoencoder-k-means", "autoencoder, then k-means"),
            )
        ),
    )


NGGP = Paper(
    "mehta2018",
    "Normalised generalised gamma process mixtures, beside others under one protocol",
    "Mehta & Lu, NGGP-VAE, 2018",
    (
        *_nggp("fashion_mnist", "Fashion-MNIST"),
        *_nggp("mnist", "MNIST"),
        _clustered("BBC news, NGGP, Gaussian components", "nggp-bbc", lengths(5, 200, 200)),
        *(
            replace(
                _clustered(
                    f"BBC news, {words}, K = {k}", recipe, _ROWS, data="bbc_news", **_told(k)
                ),
                measures=CLUSTERING,
            )
            for k in (5, 10)
            for recipe, words in (
                ("tf-idf-k-means", "k-means on TF-IDF"),
                ("lda", "latent Dirichlet allocation"),
            )
        ),
    ),
    f"Table 1 of the paper is no target: {_COINCIDENCE}.",
    ("elbo", "clusters"),
)

PAPERS: tuple[Paper, ...] = (
    SHU,
    DILOKTHANAKUL,
    VADE,
    SEMI,
    FACTORIAL,
    NONPARAMETRIC,
    STICKS,
    NGGP,
)
