"""
Clusters of digits
==================

A Gaussian-mixture VAE sorts small images of handwritten digits without seeing a label.
"""

# %%
# The data: 1797 images of 8 x 8 pixels, from scikit-learn, binarised.
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

import priorzoo

digits = load_digits()
x = (digits.data > 7).astype("float32")

# %%
# Three lines find ten clusters.
clusterer = priorzoo.Clusterer(n_components=10, max_iter=20, random_state=0)
clusters = clusterer.fit_predict(x)

# %%
# Each row shows the first members of one cluster.
figure, axes = plt.subplots(10, 12, figsize=(6, 5))
for row, found in zip(axes, range(10), strict=True):
    members = x[clusters == found]
    for axis, image in zip(row, [*members[:12], *[None] * (12 - len(members[:12]))], strict=True):
        axis.set_axis_off()
        if image is not None:
            axis.imshow(image.reshape(8, 8), cmap="gray_r")
