"""
VaDE in stages
==============

VaDE (Jiang et al., 2017) trains an autoencoder, fits a Gaussian mixture to its codes, and then
trains both together.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from priorzoo import place_mixture
from priorzoo.guides import CodeThenCluster
from priorzoo.inference import Autoencoder, cluster_probabilities, codes, fit
from priorzoo.models import GMVAE, MLP, Gaussian

torch.manual_seed(0)
digits = load_digits()
x, digit = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
model = GMVAE(MLP(8, 64, [128]), Gaussian(0.3, spread="shared"), code=8, clusters=10)
guide = CodeThenCluster(MLP(64, 16, [128]), model)
scores, BOX = [], {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none"}


def draw(ax, stage):
    """Draw the codes in the plane of most variance, coloured by their cluster."""
    found = cluster_probabilities(model, guide, x).argmax(1)
    plane = torch.tensor(PCA(2, svd_solver="full").fit_transform(codes(model, guide, x)))
    for k in range(10):
        ax.scatter(*plane[found == k].T, s=4, color=f"C{k}")
        ax.annotate(k, plane[digit == k].median(0).values, ha="center", va="center", bbox=BOX)
    scores.append(adjusted_rand_score(digit, found))
    ax.set(title=f"{stage}, ARI {scores[-1]:.2f}", xlabel="component 1", ylabel="component 2")


# %%
# In the first stage, the reconstruction is the objective, and the clusters stay as they were.

figure, axes = plt.subplots(1, 3, figsize=(10, 3.8), layout="constrained")
fit(model, guide, x, objective=Autoencoder(model, guide), steps=1000)
draw(axes[0], "autoencoder")

place_mixture(model, guide, x, seed=0)
draw(axes[1], "mixture of its codes")

fit(model, guide, x, steps=1500)
draw(axes[2], "trained together")
figure.suptitle("Codes of 8 × 8 digits by cluster, a number at each digit; K = 10, one seed")
plt.show()

# %%
# ARI is the adjusted Rand index of clusters and digits: 1 if they agree, about 0 by chance.

text = "ARI {:.2f} where the clusters begin, {:.2f} with the mixture, {:.2f} trained together."
print(text.format(*scores))
