"""
More clusters first, fewer later
================================

Nobody says how many clusters there are, and a class may come in several shapes. This example fits
the digits with thirty clusters, three times as many as there are digits, draws the tree in which
they merge, and cuts it. In short: clusters that are one digit in several shapes lie side by side in
the tree; at which number to cut it, the scores only hint at.
"""

# %%
# Thirty clusters, and their tree
# -------------------------------
#
# Two clusters meet the further to the left, the more of their samples are neighbours. The colours
# are those of the clusters of a cut, whose number has the highest of the ``cut_scores``. No label
# enters.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score

from skdeepcluster import MiniClustering
from skdeepcluster.display import (
    ChoiceDisplay,
    ImageGridDisplay,
    MergeTreeDisplay,
)

digits = load_digits()
X, y = digits.data, digits.target
model = MiniClustering(n_clusters=30, random_state=0).fit(X)
scores = model.cut_scores(X)
best = max(scores, key=scores.get)
tree = MergeTreeDisplay.from_estimator(model, n_clusters=best)
tree.figure_.suptitle("Thirty clusters of the digits, coloured by a cut")
plt.show()

# %%
# The scores
# ----------
#
# They say how compact and how separate the clusters of each cut are, again without labels. The
# curve is nearly level over a wide range, so it is a hint and no more. Below it, what labels say:
# how close each cut is to the digits.

truth = {
    number: adjusted_rand_score(y, model.cut(number).labels_)
    for number in scores
}
figure, axes = plt.subplots(
    2, 1, figsize=(5.5, 4.8), sharex=True, layout="constrained"
)
ChoiceDisplay(scores).plot(ax=axes[0])
ChoiceDisplay(truth, chosen=best).plot(ax=axes[1])
axes[0].set(xlabel="", ylabel="cut_scores")
axes[1].set(ylabel="ARI")
figure.suptitle("Scores of the cuts, and how close they are to the digits")
plt.show()

# %%
# Beside a fit with the right number
# ----------------------------------
#
# A fit with ten clusters has to give up something: ones come in several shapes, which are further
# from each other than some of them are from the eights. A cut can come closer to the digits, or not
# as close: over random states 0 to 3 the cut that the scores choose has an ARI of .69 to .88, a fit
# with ten clusters .82 to .83, ``KMeans`` .67.

cut = model.cut(best)
others = {
    f"cut to {best}": cut.labels_,
    "cut to 10": model.cut(10).labels_,
    "MiniClustering(10)": MiniClustering(10, random_state=0).fit_predict(X),
    "KMeans(10)": KMeans(10, n_init=10, random_state=0).fit_predict(X),
}
for name, labels in others.items():
    print(f"{name:20} ARI {adjusted_rand_score(y, labels):.2f}")

# %%
# What is in the clusters
# -----------------------
#
# A cut is a fitted model with calibrated probabilities, and everything that shows clusters takes
# it.

grid = ImageGridDisplay.from_estimator(
    cut, X, images=digits.images, n_images=10, cmap="gray_r"
)
grid.figure_.suptitle("Representatives of the clusters of the cut")
plt.show()

# %%
# Merging by hand
# ---------------
#
# Whoever looks at the pictures sees several rows of ones. ``merge`` makes them one cluster; labels
# tell how many of its samples are ones.

ones = [
    k for k in range(best) if np.bincount(y[cut.labels_ == k]).argmax() == 1
]
merged = cut.merge([ones])
print("merged:", ones)
print("clusters:", len(merged.cluster_sizes_))
print(f"ARI {adjusted_rand_score(y, merged.labels_):.2f}")
print("digits in it:", np.bincount(y[merged.labels_ == min(ones)]))

# %%
# What to read next
# -----------------
#
# * :doc:`/guide/number_of_clusters`: how far the scores can be trusted, with figures.
# * :ref:`sphx_glr_auto_examples_first_steps_plot_cluster_report.py`: reading clusters without
#   labels.

# sphinx_gallery_thumbnail_number = 1
