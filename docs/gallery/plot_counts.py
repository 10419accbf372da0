"""
Counts that were collected for different times
==============================================

Each row counts 30 kinds of birds at one place, but some places were watched for an hour and others
for a hundred. Told the hours as ``exposure``, a model explains rates instead of totals.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.metrics import adjusted_rand_score

from priorzoo.guides import CodeThenCluster
from priorzoo.inference import cluster_probabilities, codes, fit
from priorzoo.models import GMVAE, MLP, Poisson

torch.manual_seed(0)
habitat = torch.arange(1500) % 3
birds_per_hour = torch.distributions.Gamma(1.0, 5.0).sample((3, 30))
hours = 100 ** torch.rand(1500)
x = torch.poisson(birds_per_hour[habitat] * hours[:, None])

# %%
# The same model twice: all rows as if they were watched equally long, then with their hours. The
# encoder reads logarithms of the counts.

told = {"without the hours": torch.ones(1500), "with the hours": hours / hours.median()}
figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
agreement = {}
for ax, (name, exposure) in zip(axes, told.items(), strict=True):
    torch.manual_seed(0)
    model = GMVAE(MLP(2, 30, [64]), Poisson(), code=2, clusters=3)
    guide = CodeThenCluster(MLP(30, 4, [64], features=["log"] * 30), model)
    context = {"exposure": exposure}
    fit(model, guide, x, context=context, steps=1500)
    z = codes(model, guide, x, context=context)
    found = cluster_probabilities(model, guide, x, context=context).argmax(1)
    agreement[name] = adjusted_rand_score(habitat, found)
    for k, marker in enumerate("osv"):
        rows = habitat == k
        points = ax.scatter(*z[rows].T, c=hours[rows], marker=marker, s=14, norm="log")
        points.set(label=f"habitat {k}", cmap="cividis", clim=(1, 100), alpha=0.8)
    ax.set(title=f"{name}: ARI {agreement[name]:.2f}", xlabel="$z_1$", ylabel="$z_2$")
axes[0].legend()
figure.colorbar(points, label="hours")
figure.suptitle("Codes of simulated counts; GMVAE, K = 3, all rows, one seed")
plt.show()

# %%
# ARI is the adjusted Rand index of clusters and habitats: 1 if they agree, about 0 by chance.

without, with_hours = agreement.values()
print(
    f"Without the hours, codes are laid out by hours and clusters mix habitats ({without:.2f});\n"
    f"with them, each habitat is a group whatever the hours ({with_hours:.2f})."
)
