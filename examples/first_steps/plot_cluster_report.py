"""
What is in the clusters?
========================

A clusterer returns numbers, and then someone has to find out what they stand for. This example
reads the clusters of the digits without a single label: a report finds the doubtful clusters,
pictures show what they hold, and a map shows what lies next to what.
"""

# %%
# The report
# ----------
#
# :func:`~skdeepcluster.report.cluster_report` has a row for each cluster. Printed it is a table of
# text, in a notebook one of HTML.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skdeepcluster import MiniClustering
from skdeepcluster.display import ClusterMapDisplay, ImageGridDisplay
from skdeepcluster.report import cluster_report

digits = load_digits()
X, images = digits.data, digits.images
model = MiniClustering(n_clusters=10, random_state=0).fit(X)
report = cluster_report(model, X)
report

# %%
# Two clusters are much less sure than the others. One is the largest, twice as large as most; the
# other is the smallest by far.

report.to_frame().nsmallest(3, "confidence")[
    ["size", "confidence", "nearest"]
].round(2)

# %%
# Typical images
# --------------
#
# The first picture of each row is the medoid of the cluster, the others are those that are next
# nearest to its mean in the embedding. Beside them stand size and mean confidence.

grid = ImageGridDisplay.from_estimator(model, X, images=images, cmap="gray_r")
grid.figure_.suptitle("Representatives of the ten clusters")
plt.show()

# %%
# Nine rows show one digit each. The least sure of the large clusters has eights and bars, which are
# ones; the small one has ones with a foot.
#
# The images at the edge
# ----------------------
#
# What is typical does not tell where a cluster ends. The report names the least certain rows, too.
# To see them, they can take the place of the representatives.

doubtful = sorted(report.records, key=lambda record: record["confidence"])[:4]
figure, axes = plt.subplots(4, 5, figsize=(4.6, 3.9), layout="constrained")
for row, record in zip(axes, doubtful, strict=True):
    row[0].set_ylabel(f"cluster {record['label']}")
    for axis, sample in zip(row, record["least_certain"], strict=True):
        axis.imshow(images[sample], cmap="gray_r")
        axis.set(xticks=[], yticks=[])
figure.suptitle(
    "The least certain of the four least sure clusters", fontsize="medium"
)
plt.show()

# %%
# The map
# -------
#
# A point for each sample, the more solid the surer the model is of its cluster, whose number is
# written at its medoid. Principal components are quick, and distances mean something in them, but
# two directions show only a part of what there is. t-SNE keeps apart what they lay on top of each
# other; in it only who is near whom means something.

figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
for axis, method in zip(axes, ("pca", "tsne"), strict=True):
    ClusterMapDisplay.from_estimator(model, X, method=method, ax=axis)
    axis.set_title({"pca": "principal components", "tsne": "t-SNE"}[method])
plt.show()

# %%
# In the right map the doubtful cluster is in pieces: it is no one thing. So much can be seen
# without labels. Now they may judge: how many of each digit are in the two doubtful clusters?

for record in doubtful[:2]:
    members = digits.target[model.labels_ == record["label"]]
    print(f"cluster {record['label']}:", np.bincount(members, minlength=10))

# %%
# The one cluster holds two digits, and the other a part of one of them. Whoever sees that can fit
# with more clusters, make some of them one (``merge``, ``cut``), and then give them names.
#
# What to read next
# -----------------
#
# * :doc:`/guide/reading_the_clusters`: all columns of the report, and the words of texts.
# * :doc:`/guide/confidences`: what the confidences mean.
# * :ref:`sphx_glr_auto_examples_judging_plot_merge_tree.py`: more clusters first, fewer later.

# sphinx_gallery_thumbnail_number = 1
