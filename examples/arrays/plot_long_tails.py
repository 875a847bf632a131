"""
Long tails: what the class weights do
=====================================

In most data a few classes are large and many are small. This example makes the digits long-tailed,
shows what ``class_weights_`` says about the sizes of the classes without knowing them, and checks
over three seeds whether weighting by them helps the small classes. Here it does not. The last
figure shows where the gain over ``KMeans`` comes from, and which classes neither of them finds.
"""

# %%
# A long tail
# -----------
#
# :func:`~skdeepcluster.datasets.make_long_tailed` keeps fewer rows of each class than of the one
# before; there are ten times as many zeros as nines then. One draw of few samples is an anecdote,
# so three are made. The digits ``y`` are used for making the tail and for judging, never for a fit.

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix

from skdeepcluster import MiniClustering
from skdeepcluster.datasets import make_long_tailed

digits = load_digits(return_X_y=True)
draws = [
    make_long_tailed(*digits, imbalance_ratio=10, random_state=seed)
    for seed in range(3)
]
class_sizes = np.bincount(draws[0][1])
print(class_sizes)

# %%
# Class weights
# -------------
#
# Besides the ten clusters, :class:`~skdeepcluster.MiniClustering` keeps 40 mini-clusters. A large
# class occupies many of them, a small one few. The weight of a cluster is the number of
# mini-clusters over how many of them it occupies. (No probabilities are needed here, so the
# calibration is left out.)

weighted = [
    MiniClustering(n_clusters=10, calibrate=False, random_state=seed).fit(X)
    for seed, (X, y) in enumerate(draws)
]
print(weighted[0].class_weights_.round(1))

# %%
# To draw the weights beside the classes, every class gets one cluster, in the way that makes most
# samples right: the Hungarian method, on the table of classes and clusters.


def cluster_of_each_class(y, labels):
    return linear_sum_assignment(contingency_matrix(y, labels), maximize=True)[
        1
    ]


matched = cluster_of_each_class(draws[0][1], weighted[0].labels_)

figure, axes = plt.subplots(
    2, 1, figsize=(6.4, 4.6), sharex=True, layout="constrained"
)
axes[0].bar(np.arange(10) - 0.2, class_sizes, 0.4, label="class")
axes[0].bar(
    np.arange(10) + 0.2,
    weighted[0].cluster_sizes_[matched],
    0.4,
    label="its cluster",
)
axes[0].set(ylabel="samples", title="Size")
axes[0].legend(frameon=False)
axes[1].bar(
    np.arange(10) + 0.2,
    weighted[0].class_weights_[matched],
    0.4,
    color="tab:orange",
)
axes[1].set(
    ylabel="weight", title="Class weight of the cluster", xlabel="digit"
)
axes[1].set_xticks(np.arange(10))
plt.show()

# %%
# Large clusters have small weights. The weights count mini-clusters, so they come in steps. They
# know clusters, not classes: where a class has no cluster of its own, what stands beside it here is
# one that was left over.
#
# Do the weights help?
# --------------------
#
# In training, a sample counts as much as the weight of its cluster. ``reweight=False`` turns that
# off and leaves all else as it is. What is compared is the share of samples that are right:
# averaged over all classes, and over the tail, the five smallest classes.


def recall_of_each_class(y, labels):
    table = contingency_matrix(y, labels)
    return table[np.arange(10), cluster_of_each_class(y, labels)] / table.sum(
        axis=1
    )


recalls = {"KMeans": [], "no weights": [], "MiniClustering": []}
print("seed                ARI   all classes   tail")
for seed, (X, y) in enumerate(draws):
    kmeans = KMeans(n_clusters=10, n_init=10, random_state=seed).fit(X)
    without = MiniClustering(
        10, reweight=False, calibrate=False, random_state=seed
    ).fit(X)
    for name, model in zip(
        recalls, (kmeans, without, weighted[seed]), strict=True
    ):
        recall = recall_of_each_class(y, model.labels_)
        recalls[name].append(recall)
        ari = adjusted_rand_score(y, model.labels_)
        print(
            f"{seed} {name:15}{ari:6.2f}"
            f"{recall.mean():14.2f}{recall[5:].mean():7.2f}"
        )
    n_changed = np.sum(without.labels_ != weighted[seed].labels_)
    print(f"  the weights changed {n_changed} of {len(y)} labels")

# %%
# They change no label, or hardly any. On feature arrays like this one the heads start from a
# partition that the training after it moves little, with weights or without. So take
# ``class_weights_`` as a description of the clusters, not as the reason for good ones. The
# measurements on other arrays say the same: :doc:`/methods/mini_clustering`.
#
# Where the gain comes from
# -------------------------
#
# What differs from ``KMeans`` comes before the weights: an embedding in which neighbours were drawn
# together, and a start that merges mini-clusters. Class by class:

figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for shift, name, color in (
    (-0.2, "KMeans", "tab:blue"),
    (0.2, "MiniClustering", "tab:orange"),
):
    axis.bar(
        np.arange(10) + shift,
        np.mean(recalls[name], axis=0),
        0.4,
        color=color,
        label=name,
    )
    for recall in recalls[name]:
        axis.plot(
            np.arange(10) + shift, recall, ".", color="black", markersize=4
        )
ticks = [f"{digit}\n({size})" for digit, size in enumerate(class_sizes)]
axis.set_xticks(np.arange(10), ticks)
axis.set(
    xlabel="digit (number of samples)",
    ylabel="share that is right",
    ylim=(0, 1.18),
)
axis.set(title="Long-tailed digits: mean of three seeds, each a dot")
axis.legend(frameon=False, ncols=2, loc="upper right")
plt.show()

# %%
# Most of the gain is in the twos, some in other digits of medium size. The ones, written in several
# ways, are split by both. Nearly all of the eights and nines, the smallest two classes, are lost by
# both: they lie in clusters with more frequent digits. ARI cannot show that, as so few samples are
# in the tail. The mean over all classes does; it is
# :func:`~skdeepcluster.metrics.class_averaged_accuracy`.
#
# What to read next
# -----------------
#
# * :doc:`/guide/long_tails`: which score to use, and what to do if clusters are lost.
# * :ref:`sphx_glr_auto_examples_judging_plot_compare_methods.py`: the other methods, on several
#   data sets.
# * :ref:`sphx_glr_auto_examples_judging_plot_confidence.py`: how far single labels can be trusted.
