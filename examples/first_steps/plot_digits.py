"""
Cluster the digits
==================

What does deep clustering look like when it is used like ``KMeans``? This example clusters small
pictures of handwritten digits, compares the clusters with those of ``KMeans``, labels samples that
the fit has not seen, and looks at the samples of which the model is surest and least sure.
"""

# %%
# An array, and some rows of it for later
# ---------------------------------------
#
# The digits of scikit-learn are 8 x 8 pictures, one row of 64 numbers for each. A part of them
# plays the new data that arrive after the fit. The true digits ``y`` are used for judging alone, in
# all that follows; no fit sees them.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.model_selection import train_test_split

from skdeepcluster import MiniClustering

X, y = load_digits(return_X_y=True)
X, X_new, y, y_new = train_test_split(X, y, test_size=300, random_state=0)
print(X.shape, X_new.shape)

# %%
# Fit
# ---
#
# The number of clusters is the only argument to think about. The features need no scaling here:
# they are pixels, all of the same range.

model = MiniClustering(n_clusters=10, random_state=0)
labels = model.fit_predict(X)
print(labels[:10])

# %%
# Against KMeans
# --------------
#
# Both scores compare two partitions and do not care how the clusters are numbered. 1 is a perfect
# match; 0 is what chance gives in the adjusted Rand index (ARI).

kmeans = KMeans(n_clusters=10, n_init=10, random_state=0).fit(X)

print("                 ARI   NMI")
for name, found in {
    "KMeans": kmeans.labels_,
    "MiniClustering": labels,
}.items():
    ari, nmi = (
        adjusted_rand_score(y, found),
        normalized_mutual_info_score(y, found),
    )
    print(f"{name:15}{ari:5.2f} {nmi:5.2f}")

# %%
# New data
# --------
#
# ``predict`` labels samples that were not there during the fit. The scores are about those above.

print("on new data      ARI   NMI")
for name, estimator in {"KMeans": kmeans, "MiniClustering": model}.items():
    found = estimator.predict(X_new)
    ari, nmi = (
        adjusted_rand_score(y_new, found),
        normalized_mutual_info_score(y_new, found),
    )
    print(f"{name:15}{ari:5.2f} {nmi:5.2f}")

# %%
# Which digits are in which cluster
# ---------------------------------
#
# The digits that make up at least five per cent of each cluster. Most clusters are one digit. The
# ones are the exception: some are plain bars, some have a flag at the top, some a foot, and they
# were divided among several clusters.

for cluster, size in enumerate(model.cluster_sizes_):
    shares = np.bincount(y[labels == cluster], minlength=10) / size
    digits = [digit for digit in np.argsort(-shares) if shares[digit] >= 0.05]
    made_of = ", ".join(f"{shares[digit]:.0%} are {digit}" for digit in digits)
    print(f"cluster {cluster}: {size:3} samples; {made_of}")

# %%
# The surest and the least sure
# -----------------------------
#
# ``predict_proba`` says how sure the model is of a label. Without any classes this is the first
# thing to look at: the surest samples tell what a cluster is about, and the least sure ones where
# it ends. Clusters are ordered by their size.

confidence = model.predict_proba(X).max(axis=1)
order = np.argsort(-model.cluster_sizes_)
surest, least_sure = [], []
for cluster in order:
    members = np.flatnonzero(labels == cluster)
    members = members[np.argsort(-confidence[members], kind="stable")]
    surest.append(members[:8])
    least_sure.append(members[-8:])

figure, axes = plt.subplots(
    1, 2, figsize=(6.8, 4.4), sharey=True, layout="constrained"
)
figure.get_layout_engine().set(wspace=0.05)
titles = "the eight surest samples", "the eight least sure"
for axis, samples, title in zip(
    axes, (surest, least_sure), titles, strict=True
):
    # The axes: cluster, sample, height, width.
    pictures = X[samples].reshape(10, 8, 8, 8)
    pictures = np.pad(pictures, ((0, 0), (0, 0), (1, 1), (1, 1)))
    axis.imshow(pictures.transpose(0, 2, 1, 3).reshape(100, 80), cmap="gray_r")
    axis.set_title(title)
    axis.set_xticks([])
    axis.set_frame_on(False)
    axis.tick_params(length=0)
axes[0].set_yticks(5 + 10 * np.arange(10) - 0.5, model.cluster_sizes_[order])
axes[0].set_ylabel("one cluster per row, with its size")
plt.show()

# %%
# What to read next
# -----------------
#
# * :class:`~skdeepcluster.MiniClustering`: all parameters, most of which the others share.
# * :ref:`sphx_glr_auto_examples_judging_plot_confidence.py`: what the probabilities mean.
# * :ref:`sphx_glr_auto_examples_arrays_plot_embeddings_pipeline.py`: embeddings, in a Pipeline.
# * :ref:`sphx_glr_auto_examples_judging_plot_number_of_clusters.py`, if you do not know that
#   there are ten.
