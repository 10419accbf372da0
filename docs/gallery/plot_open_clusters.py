"""
How many clusters are there?
============================

An NGGP mixture is not told the number of clusters. Here it begins with one; between training steps,
clusters are created, split, merged and removed where that raises the bound.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import make_blobs

from priorzoo.guides import CollapsedCode
from priorzoo.inference import Collapsed, Training, cluster_probabilities, move_clusters
from priorzoo.models import MLP, Gaussian, NGGPMixture

angles = torch.arange(7) * 2 * torch.pi / 7
centres = 3 * torch.stack([angles.cos(), angles.sin()], 1)
sizes = [700, 500, 300, 200, 150, 100, 50]
points, group = make_blobs(sizes, centers=centres.numpy(), cluster_std=0.4, random_state=0)
x = torch.tensor(points, dtype=torch.float32)

# %%
# There is room for 30 clusters. ``move_clusters`` proposes changes, which held-out points judge.

torch.manual_seed(0)
model = NGGPMixture(MLP(2, 2, [64]), Gaussian(0.3), code=2, clusters=30, start=1, family="full")
guide = CollapsedCode(MLP(2, 4, [64]), model)
training = Training(model, guide, x, objective=Collapsed(model, guide))
count = [1]
for seed in range(12):
    training.run(steps=50)
    move_clusters(model, guide, x, seed=seed, margin=0.3)
    count.append(int(model.active.sum()))

# %%
# Now every place of the plane can be asked for its cluster; the last probability is that of a new
# one.

axis = torch.linspace(-5, 5, 150)
places = torch.cartesian_prod(axis, axis).flip(1)
new = cluster_probabilities(model, guide, places)[:, -1].reshape(150, 150)
found = cluster_probabilities(model, guide, x).argmax(1)

figure, (plane, growth) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
shade = plane.imshow(new, extent=(-5, 5, -5, 5), origin="lower", cmap="Greys", vmin=0, vmax=1)
figure.colorbar(shade, ax=plane, label="probability of a new cluster")
for i, k in enumerate(found.unique()):
    plane.scatter(*x[found == k].T, s=6, color=f"C{i % 10}")
plane.set(title="2,000 points, by cluster", xlabel="$x_1$", ylabel="$x_2$")
growth.step(range(0, 601, 50), count, where="post")
growth.set(title="clusters during the training", xlabel="step", ylabel="number of clusters")
figure.suptitle("Seven simulated groups of 50 to 700 points; K is open, one seed")
plt.show()

# %%
print(
    f"{count[-1]} clusters at the end, for 7 groups. In the middle, far from all of them, a point\n"
    f"would be in a new cluster with probability {new[75, 75]:.2f}."
)
