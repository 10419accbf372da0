"""
A map of the digits
===================

The nonparametric VAE gives each image a code of 8 numbers and a place in the plane. Images that lie
near each other there get similar codes, so that any place can be decoded.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from priorzoo.guides import CodeAndPlace
from priorzoo.inference import codes, fit, remember
from priorzoo.models import MLP, Gaussian, NonparametricVAE

torch.manual_seed(0)
digits = load_digits()
x, digit = torch.tensor(digits.data / 16, dtype=torch.float32), digits.target
train, test = x[:1400], x[1400:]

# %%
# Labels are not used. The encoder gives codes, the locator places.

model = NonparametricVAE(MLP(8, 64, [128]), Gaussian(0.3, spread="shared"), code=8)
guide = CodeAndPlace(MLP(64, 16, [128]), MLP(64, 2, [128]))
fit(model, guide, train, steps=3000, batch_size=100)

# %%
# A memory of the training images predicts the code at any place.

memory = remember(model, guide, train)
place, asked = memory.places, codes(model, guide, test, site="u")
judge = KNeighborsClassifier(10).fit(place, digit[:1400])
accuracy = judge.score(asked, digit[1400:])

side, BOX = 16, {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none"}
grid = memory.grid(side)
images = memory.sample_at(grid).reshape(side, side, 8, 8)
mosaic = images.permute(0, 2, 1, 3).reshape(8 * side, 8 * side)
(left, bottom), (right, top) = grid.amin(0), grid.amax(0)

figure, (points, decoded) = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
for k in range(10):
    mine = place[digit[:1400] == k]
    points.scatter(*mine.T, s=6, color=f"C{k}")
    points.annotate(k, mine.median(0).values, ha="center", va="center", bbox=BOX)
decoded.imshow(mosaic, cmap="gray_r", vmin=0, vmax=1, extent=(left, right, bottom, top))
for ax, name in ((points, "training images, by digit"), (decoded, "what the places decode to")):
    ax.set(title=name, xlabel="$u_1$", ylabel="$u_2$", aspect="auto")
    ax.set(xlim=(left, right), ylim=(bottom, top))
figure.suptitle("8 × 8 digits in the plane of a nonparametric VAE; no labels, one seed")
plt.show()

# %%
print(
    f"Digits keep apart in the plane: of test images, {accuracy:.0%} have the digit that most of\n"
    "their ten nearest training images have."
)
