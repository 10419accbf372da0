"""
Images with missing pixels
==========================

Half of all pixels are missing, in training and in test images. The mask ``observed`` says which
ones; the model learns from the others alone, and then says what may have been in the gaps.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.impute import KNNImputer

from priorzoo.guides import CodeThenCluster
from priorzoo.inference import fit, impute
from priorzoo.models import GMVAE, MLP, Gaussian

torch.manual_seed(0)
whole = torch.tensor(load_digits().data / 16, dtype=torch.float32)
holes = torch.where(torch.rand(whole.shape) < 0.5, torch.nan, whole)
train, test, truth = holes[:1400], holes[1400:], whole[1400:]

# %%
# The encoder reads the mask too (``masked=True``).

model = GMVAE(MLP(8, 64, [128]), Gaussian(0.3, spread="shared"), code=8, clusters=10)
guide = CodeThenCluster(MLP(64, 16, [128], masked=True), model)
fit(model, guide, train, context={"observed": ~train.isnan()}, steps=1500, lr=2e-3)
imputed = impute(model, guide, test, context={"observed": ~test.isnan()})

others = torch.tensor(KNNImputer(n_neighbors=10).fit(train).transform(test))
ways = {
    "GMVAE": imputed.values,
    "ten neighbours": others,
    "means": train.nanmean(0).expand(397, -1),
}
errors = {name: (filled - truth)[test.isnan()] for name, filled in ways.items()}
near = (errors["GMVAE"].abs() < 2 * imputed.doubt[test.isnan()]).float().mean()
rows = {"given": test, "imputed": imputed.values, "truth": truth, "doubt": imputed.doubt}
figure, axes = plt.subplots(len(rows), 10, figsize=(8, 4), layout="constrained")
for row, (name, images) in zip(axes, rows.items(), strict=True):
    row[0].set_title(name, loc="left")
    for ax, image in zip(row, images, strict=False):
        ax.set_axis_off()
        drawn = ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        if name == "doubt":
            drawn.set(cmap="cividis", clim=(0, 0.3))
figure.colorbar(drawn, ax=axes[-1], label="deviation")
figure.suptitle("8 × 8 test digits, half of the pixels missing; GMVAE, K = 10, one seed")
plt.show()

# %%
# The root mean squared errors of missing pixels, which are in [0, 1], beside those of two simple
# ways to fill them. ``doubt`` is the standard deviation of each pixel.

print(", ".join(f"{name} {error.square().mean().sqrt():.3f}" for name, error in errors.items()))
print(f"Of the missing pixels, {near:.0%} are within two standard deviations.")
