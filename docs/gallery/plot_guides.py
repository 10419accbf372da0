"""
One mixture of digits, four guides
==================================

A ``GMVAE`` says how an image arises: a cluster y, a code z drawn from the Gaussian of that cluster,
and pixels x decoded from the code. A *guide* infers y and z from x; the model stays as it is.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score

from priorzoo.guides import ClusterThenCode, ClusterThenFlow, CodeThenCluster, MeanField
from priorzoo.inference import cluster_probabilities, component_means, evaluate, fit
from priorzoo.models import GMVAE, MLP, Gaussian

digits = load_digits()
x, digit = torch.tensor(digits.data / 16, dtype=torch.float32), digits.target
train, test, test_digit = x[:1400], x[1400:], digit[1400:]

# %%
# Each guide takes the networks that it needs: ``MLP(64, 10)`` gives the scores of ten clusters,
# ``MLP(64, 16)`` the mean and the variance of a code of 8 numbers, with ``clusters=10`` one code
# for each cluster.

H = [128]
guides = {
    "q(z|x) p(y|z)": lambda model: CodeThenCluster(MLP(64, 16, H), model),
    "q(y|x) q(z|x,y)": lambda _: ClusterThenCode(MLP(64, 10, H), MLP(64, 16, H, clusters=10)),
    "q(y|x) q(z|x)": lambda _: MeanField(MLP(64, 10, H), MLP(64, 16, H)),
    "q(y|x) flow(z|x,y)": lambda _: ClusterThenFlow(
        MLP(64, 10, H), MLP(64, 16, H, clusters=10), code=8, transforms=1, hidden=[32]
    ),
}

# %%
# The bound on log p(x) of test images is comparable between guides. The adjusted Rand index (ARI)
# compares the clusters of test images with the digits: 1 if they agree, about 0 by chance.

figure, axes = plt.subplots(len(guides), 10, figsize=(8, 4.8), gridspec_kw={"hspace": 0.5})
bounds, scores = {}, {}
for (name, guide_of), row in zip(guides.items(), axes, strict=True):
    torch.manual_seed(0)
    model = GMVAE(MLP(8, 64, H), Gaussian(0.3, spread="shared"), code=8, clusters=10)
    guide = guide_of(model)
    fit(model, guide, train, steps=1000, lr=3e-3)
    clusters = cluster_probabilities(model, guide, test).argmax(1)
    bounds[name] = evaluate(model, guide, test)["elbo"]
    scores[name] = adjusted_rand_score(test_digit, clusters)
    row[0].set_title(f"{name}: {bounds[name]:.1f} nats, ARI {scores[name]:.2f}", loc="left")
    for ax, image in zip(row, component_means(model), strict=True):
        ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        ax.set_axis_off()
figure.suptitle("Means of the K = 10 clusters of 8 × 8 digits, by guide; one seed")
plt.show()

# %%
best, clearest = max(bounds, key=bounds.get), max(scores, key=scores.get)
print(f"The bound is highest with {best}; the clusters agree best with the digits with {clearest}.")
