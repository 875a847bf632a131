"""
Samples that a clusterer generates
==================================

What does a clusterer think its clusters look like? This example fits
:class:`~skdeepcluster.GenerativeCalibrationClustering` to long-tailed digits, lets it generate new
digits of each cluster, looks at them beside real ones, and checks whether clustering with them is
any better than clustering without.
"""

# %%
# A long tail
# -----------
#
# There are ten times as many zeros as nines. The digits ``y`` are used for making the tail and for
# judging, never for a fit.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score

from skdeepcluster import GenerativeCalibrationClustering
from skdeepcluster.datasets import make_long_tailed
from skdeepcluster.metrics import class_averaged_accuracy

X, y = make_long_tailed(
    *load_digits(return_X_y=True), imbalance_ratio=10, random_state=0
)
model = GenerativeCalibrationClustering(n_clusters=10, random_state=0).fit(X)
print(model.cluster_sizes_)

# %%
# Real and generated
# ------------------
#
# While encoder and head are trained, a diffusion model learns to make samples of a given cluster
# out of noise. Small clusters have as many generated samples in the training as large ones.
# ``sample`` makes more of them. Each row is one cluster, the largest first: six of its samples on
# the left, six that were generated for it on the right.

N_SHOWN = 6
order = np.argsort(-model.cluster_sizes_)
rng = np.random.default_rng(0)
figure, axes = plt.subplots(10, 2, figsize=(6.4, 6.4), layout="constrained")
for cluster, row in zip(order, axes, strict=True):
    real = rng.permutation(X[model.labels_ == cluster])[:N_SHOWN]
    made = model.sample(N_SHOWN, cluster=cluster, random_state=0)
    for axis, digits in zip(row, (real, made), strict=True):
        pictures = np.hstack([np.pad(d.reshape(8, 8), 1) for d in digits])
        axis.imshow(pictures, cmap="gray_r", vmin=0, vmax=16)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    row[0].set_ylabel(
        f"{model.cluster_sizes_[cluster]}", rotation=0, ha="right", va="center"
    )
axes[0, 0].set_title("real (and how many there are)")
axes[0, 1].set_title("generated")
plt.show()

# %%
# Do they belong where they were made for?
# ----------------------------------------
#
# Of a hundred generated samples of each cluster, the share to which the model gives that cluster.
# That is high because both have learned from each other; it does not mean that the clusters are
# right.

for cluster in order:
    samples = model.sample(100, cluster=cluster, random_state=1)
    share = np.mean(model.predict(samples) == cluster)
    print(f"cluster of {model.cluster_sizes_[cluster]:3} samples: {share:.0%}")

# %%
# Is the clustering better for it?
# --------------------------------
#
# ``generated_ratio=0`` is the same method without a generator, ``max_epochs=0`` stops where both
# begin. CAA is the accuracy averaged over the classes, in which rare ones count as much as large
# ones.

models = {
    "the start alone": GenerativeCalibrationClustering(
        10, max_epochs=0, generated_ratio=0, random_state=0
    ),
    "nothing generated": GenerativeCalibrationClustering(
        10, generated_ratio=0, random_state=0
    ),
    "as many generated as real": model,
}
for name, candidate in models.items():
    labels = model.labels_ if candidate is model else candidate.fit_predict(X)
    ari, caa = (
        adjusted_rand_score(y, labels),
        class_averaged_accuracy(y, labels),
    )
    print(f"{name:27}ARI {ari:.2f}  CAA {caa:.2f}")

# %%
# The differences are small, and one seed of one array says little about them. A generator learns
# the clusters that there are: where two digits share one, it generates both, and no number of
# generated samples will part them. What they do on other data, and over several seeds, stands in
# :doc:`/methods/generative_calibration_clustering`.
