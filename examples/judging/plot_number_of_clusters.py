"""
How many clusters?
==================

Nobody tells how many clusters there are. This example fits several numbers of clusters at once with
:class:`~skdeepcluster.StableClusterDiscrimination`, searches over them with ``GridSearchCV``, and
compares what the label-free scores say with the truth. In short: they rule out numbers that are
much too small, and none of them should be followed blindly.
"""

# %%
# Several numbers from one fit
# ----------------------------
#
# The digits have ten classes; let us pretend not to know. ``n_clusters`` takes a list, and every
# number gets heads of its own on a shared encoder. ``head_scores_`` tells how well the clusters of
# each number are separated: their median silhouette by centroids. No labels enter; ``y`` is here to
# check.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.model_selection import GridSearchCV, ShuffleSplit

from skdeepcluster import MiniClustering, StableClusterDiscrimination

X, y = load_digits(return_X_y=True)
numbers = [6, 8, 10, 12, 14]
model = StableClusterDiscrimination(n_clusters=numbers, random_state=0).fit(X)
print("chosen:", model.n_clusters_)

# %%
# ``choose`` gives a fitted model for each of the numbers, with labels and probabilities. So the
# decision can wait until the clusters have been looked at.

print("clusters  score   ARI  smallest  largest")
for number in numbers:
    other = model.choose(number)
    sizes = other.cluster_sizes_
    print(
        f"{number:8}{model.head_scores_[number]:7.3f}"
        f"{adjusted_rand_score(y, other.labels_):6.2f}"
        f"{sizes.min():10}{sizes.max():9}"
    )

# %%
# Six and eight clusters are scored clearly lower. From ten on the score is nearly level, so which
# of these numbers comes out on top is chance; another seed can choose another. The ARI is level
# there, too: a few clusters too many split classes and cost little, while too few must fuse some.
#
# Grid search
# -----------
#
# Every clusterer has a ``score`` that needs no labels: the mutual information between samples and
# clusters. It is high if every sample is sure of its cluster, by its calibrated probabilities, and
# clusters are many. With it ``GridSearchCV`` works as usual. One split keeps this short, and no
# model is fitted again in the end.

split = ShuffleSplit(n_splits=1, test_size=0.3, random_state=0)
search = GridSearchCV(
    MiniClustering(random_state=0),
    {"n_clusters": numbers},
    cv=split,
    refit=False,
).fit(X)
scores = search.cv_results_["mean_test_score"]
print("chosen:", search.best_params_)
print(dict(zip(numbers, scores.round(2).tolist(), strict=True)))

# %%
# Do not take that for the number of clusters. The highest score possible is the logarithm of the
# number of clusters, so larger numbers start with an advantage. The share of the limit that is
# reached is a fairer comparison:

shares = scores / np.log(numbers)
print(dict(zip(numbers, shares.round(2).tolist(), strict=True)))

# %%
# All side by side
# ----------------
#
# The usual way is the silhouette of ``KMeans`` for each number. It belongs in the picture, because
# it takes a fraction of the time.

silhouettes = [
    silhouette_score(
        X, KMeans(number, n_init=10, random_state=0).fit_predict(X)
    )
    for number in numbers
]
curves = {
    "Silhouette of KMeans": silhouettes,
    "head_scores_": [model.head_scores_[number] for number in numbers],
    "Grid search: score": scores,
    "Grid search: share of the limit": shares,
}

figure, axes = plt.subplots(
    2, 2, figsize=(6.8, 4.8), sharex=True, layout="constrained"
)
for axis, (name, values) in zip(axes.flat, curves.items(), strict=True):
    axis.axvline(10, color="0.7", linestyle="--")
    axis.plot(numbers, values, "o-", color="tab:blue")
    axis.plot(
        numbers[np.argmax(values)],
        np.max(values),
        "o",
        color="tab:orange",
        markersize=9,
    )
    axis.set(title=name, xticks=numbers)
for axis in axes[1]:
    axis.set_xlabel("number of clusters")
figure.legend(
    [axis.lines[0], axis.lines[2]],
    ["number of classes", "highest score"],
    loc="outside lower center",
    ncols=2,
    frameon=False,
)
plt.show()

# %%
# What to make of it
# ------------------
#
# * All scores put six far below the rest, and eight below ten. That can be relied on most.
# * Between ten and fourteen they do not decide. ``head_scores_`` chose 10, 11 and 14 for the digits
#   on three other seeds when 6 to 15 were on offer, and failed for three kinds of digits; it found
#   clear blobs every time (:doc:`/methods/stable_cluster_discrimination`).
# * The share of the limit has its top at the truth here. That is one array and one seed; how often
#   it happens has not been measured yet.
#
# If a number is not given by the task, take the smallest from which the scores are level, look at
# the surest and least sure samples of each cluster, and go on from there.
#
# What to read next
# -----------------
#
# * :doc:`/guide/number_of_clusters`: choosing by looking, and pairs of clusters that may be one.
# * :ref:`sphx_glr_auto_examples_first_steps_plot_digits.py`: samples of each cluster, surest and
#   least sure.
# * :ref:`sphx_glr_auto_examples_judging_plot_confidence.py`: the probabilities behind the score.
