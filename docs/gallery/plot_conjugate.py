"""
Conjugate updates beside Adam
=============================

The same networks under two mixtures of 30 clusters. Adam moves the weights, means and variances of
the first like those of a network. Over those of the second there is a posterior, which natural
gradients update in closed form.
"""

from functools import partial

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

from priorzoo import inference as inf
from priorzoo.guides import CodeThenCluster, FactorialCode
from priorzoo.models import GMVAE, MLP, FactorialMixture, Gaussian

x = torch.tensor(load_digits().data / 16, dtype=torch.float32)
train, test = x[:1400], x[1400:]
K, shown = 30, {"every": 100, "validation": test}

torch.manual_seed(0)
points = GMVAE(MLP(8, 64, [128]), Gaussian(0.3, spread="shared"), 8, K, learn_weights=True)
encoder = CodeThenCluster(MLP(64, 16, [128]), points)
by_adam = inf.fit(points, encoder, train, steps=1500, **shown)
q_adam = inf.cluster_probabilities(points, encoder, train)

# %%
# Adam for the networks only: 500 steps before there is a mixture, then 1,000 with both.

torch.manual_seed(0)
mixture = FactorialMixture(MLP(8, 64, [128]), Gaussian(0.3, spread="shared"), 8, K)
guide = FactorialCode(MLP(64, 16, [128]), 8, K)
inf.fit(mixture, guide, train, objective=inf.Pretraining(mixture, guide), steps=500)
bound = inf.ConjugateELBO(mixture, guide)
inf.seed_components(bound, train)
both = partial(inf.ConjugateAdam, lr=1e-3, rate=0.05, delay=500.0)
natural = inf.fit(mixture, guide, train, objective=bound, optimiser=both, steps=1000, **shown)
q_natural = inf.cluster_probabilities(mixture, guide, train, "r_1")

figure, (bounds, sizes) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
runs = {"Adam": (0, by_adam, q_adam), "conjugate": (500, natural, q_natural)}
for name, (start, history, q) in runs.items():
    held = [(start + row["step"], row["elbo"]) for row in history if row["split"] == "valid"]
    bounds.plot(*zip(*held, strict=True), ".-", label=name)
    size = q.argmax(1).bincount(minlength=K).sort(descending=True).values
    sizes.plot(range(1, K + 1), size, ".-", label=name)
bounds.set(xlabel="step", ylabel="bound on log p(x), nats", title="test images")
sizes.set(xlabel="rank of the cluster", ylabel="training images", title="sizes of the clusters")
bounds.legend()
figure.suptitle(f"8 × 8 digits; two Gaussian mixtures of K = {K}, one seed")
plt.show()

# %%
last = [history[-1]["elbo"] for history in (by_adam, natural)]
used = [len(q.argmax(1).unique()) for q in (q_adam, q_natural)]
print("Bound of test images: {:.1f} nats with Adam, {:.1f} with conjugate updates.".format(*last))
print("Clusters in use: {} and {} of 30.".format(*used))
