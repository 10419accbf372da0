"""
A few labels
============

Of 1,400 images of digits, few have a label. Like Kingma et al. (2014), we let a VAE learn codes
from all images, and M2 learn from all codes: the digit of those without label is summed out.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from priorzoo import M2, MLP, VAE, ClusterThenCode, Code, Gaussian
from priorzoo.inference import ELBO, Classification, cluster_probabilities, codes, fit

digits = load_digits()
x, digit = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
test, test_digit, x, digit = x[1400:], digit[1400:], x[:1400], digit[:1400]

torch.manual_seed(0)
vae, guide = VAE(MLP(8, 64, [128]), Gaussian(0.3, spread="shared"), 8), Code(MLP(64, 16, [128]))
fit(vae, guide, x, steps=1500, lr=2e-3)
z, test_z = codes(vae, guide, x), codes(vae, guide, test)

# %%
# Unknown labels are -1. The classification term trains q(y | z) on the known ones.

counts, names = [2, 5, 10, 20], ("VAE and M2", "logistic regression", "nearest labelled image")
right = {name: [] for name in names}
for each in counts:
    known = torch.cat([(digit == k).nonzero()[:each, 0] for k in range(10)])
    labels = torch.full((1400,), -1).index_put((known,), digit[known])

    torch.manual_seed(0)
    m2 = M2(MLP(4, 8, [64], clusters=10), Gaussian(0.5, spread="shared"), code=4, clusters=10)
    pair = m2, ClusterThenCode(MLP(8, 10, [64]), MLP(8, 8, [64], clusters=10))
    objective = ELBO(*pair, penalties={"labels": Classification(50.0)})
    fit(*pair, z, objective=objective, labels={"y": labels}, steps=700, lr=2e-3)

    found = cluster_probabilities(*pair, test_z).argmax(1)
    right[names[0]].append((found == test_digit).float().mean().item())
    for name, rival in zip(names[1:], (LogisticRegression(), KNeighborsClassifier(1)), strict=True):
        right[name].append(rival.fit(x[known], digit[known]).score(test, test_digit))

figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for name, marker in zip(names, "osv", strict=True):
    ax.plot(counts, right[name], marker=marker, label=name)
ax.set(xticks=counts, xlabel="labels of each digit", ylabel="share of 397 test images")
ax.set_title("Recognised digits of 8 × 8 pixels; K = 10, one seed")
ax.legend()
plt.show()

# %%
for name, shares in right.items():
    print(f"{name}: {shares[0]:.0%} with 2 labels of each digit, {shares[-1]:.0%} with 20.")
