"""
Factors of faces
================

Generated faces: open eyes or glasses, and four directions. Both are known of one face in five.
"""

from functools import partial

import matplotlib.pyplot as plt
import torch

from priorzoo import MLP, FactorialCode, FactorialMixture, Gaussian
from priorzoo import inference as inf

torch.manual_seed(0)
truth = {"r_1": torch.randint(2, (1500, 1, 1)), "r_2": torch.randint(4, (1500, 1, 1))}
ranges = ((0.6, 0.9), (0.1, 0.35), (0.5, 0.9))
head, mouth, skin = (torch.empty(1500, 1, 1).uniform_(*each) for each in ranges)
to_x, to_y = torch.tensor([[0, 0], [-0.25, 0], [0.25, 0], [0, -0.3]])[truth["r_2"]].unbind(-1)
eye = 0.11 + 0.13 * truth["r_1"]
ovals = [(0, 0.05, head, 0.95), (to_x, 0.5 + to_y, mouth, 0.07)]  # place, width and height
ovals += [(to_x + side * head, to_y - 0.1, eye, eye) for side in (-0.4, 0.4)]
side = torch.linspace(-1, 1, 24)
radii = [((side - a) / w) ** 2 + ((side[:, None] - b) / h) ** 2 for a, b, w, h in ovals]
face, *holes = (torch.sigmoid(8 - 8 * radius) for radius in radii)
faces = skin * face * torch.stack([1 - hole for hole in holes]).prod(0)
x, test = faces.flatten(1).split([1000, 500])

# %%
# The code splits in three: eyes, direction, and all else. Pretraining comes first.

known = torch.rand(1000) < 0.2
labels = {site: k.flatten()[:1000].where(known, -1) for site, k in truth.items()}
model = FactorialMixture(MLP(12, 576, [256]), Gaussian(0.1), code=12, clusters=[2, 4, 8])
guide = FactorialCode(MLP(576, 24, [256]), code=12, clusters=[2, 4, 8])
tied = {site: inf.Classification(1000.0, site) for site in labels}
kl = {f"z_{i}": inf.KL(weight=inf.Linear(20, 1, fraction=1.0)) for i in (1, 2, 3)}
objective = inf.ConjugateELBO(model, guide, kl, penalties=tied)
adam = partial(inf.ConjugateAdam, lr=1e-3, rate=0.05, delay=200.0)
inf.fit(model, guide, x, objective=inf.Pretraining(model, guide), steps=300)
inf.seed_components(objective, x, labels)
inf.fit(model, guide, x, objective=objective, labels=labels, steps=1000, optimiser=adam)
story, _ = inf.predictive(model, guide)
figure, axes = plt.subplots(4, 9, figsize=(9, 4.4), layout="constrained")
for row, one in zip(axes, test, strict=False):
    rest = inf.codes(model, guide, one[None], site="z_3").expand(20, -1)
    for ax, k in zip(row, range(-1, 8), strict=True):
        given = {"r_1": max(k, 0) // 4, "r_2": k % 4, "z_3": rest}
        image = one if k < 0 else inf.draw(story, 20, given=given).mean(0)
        ax.imshow(image.reshape(24, 24), cmap="gray", vmin=0, vmax=1).axes.set_axis_off()
figure.suptitle("Test faces (left), with open eyes and with glasses; K = 2, 4 and 8, one seed")
plt.show()

# %%
# Where an image shows two pairs of eyes, the rest of the code still held the face's own.
for site, name in (("r_1", "eyes"), ("r_2", "direction")):
    found = inf.cluster_probabilities(model, guide, test, site).argmax(1)
    right = (found == truth[site].flatten()[1000:]).float().mean()
    print(f"Recognised on {right:.0%} of the test faces: the {name}.")
