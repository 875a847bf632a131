"""
Embeddings in a Pipeline
========================

Many arrays that are clustered are embeddings: each row is a sentence, a picture or a product as a
pretrained network sees it. This example makes such an array, puts
:class:`~skdeepcluster.MiniClustering` after a PCA in a Pipeline of scikit-learn, and compares it
with ``KMeans`` in the same place, topic by topic.
"""

# %%
# Something like sentence embeddings
# ----------------------------------
#
# Real embeddings would have to be downloaded, so these are made up, after what embeddings of
# sentences look like when they are measured:
#
# * Every row has length 1, in 384 dimensions, and there is a direction that all rows share.
# * Few directions hold most of the variance, for topics and sentences alike: the variance of
#   direction i falls about as 1 / i.
# * Topics explain a fifth of the variance. The rest is what sentences of one topic differ in. A
#   part of that lies in five directions of the topic's own, as topics have aspects.
# * There are 20 topics, the largest with ten times as many sentences as the smallest. They belong
#   to seven fields, and topics of the same field are close to each other.

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, confusion_matrix
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import normalize

from skdeepcluster import MiniClustering
from skdeepcluster.metrics import class_averaged_accuracy

n_topics, n_fields, n_dims = 20, 7, 384
rng = np.random.default_rng(0)
spread = (np.arange(n_dims) + 10) ** -0.5
spread /= np.linalg.norm(spread)


def draw(*shape):
    return rng.normal(size=(*shape, n_dims)) * spread


topic_sizes = np.geomspace(500, 50, n_topics).astype(int)
y = np.repeat(np.arange(n_topics), topic_sizes)
field = np.arange(n_topics) % n_fields
topics = (draw(n_fields)[field] + draw(n_topics)) / np.sqrt(2)
aspects = draw(n_topics, 5)
mixture = rng.normal(size=(len(y), 1, 5)) / np.sqrt(5)
within = np.sqrt(0.3) * (mixture @ aspects[y])[:, 0] + np.sqrt(0.7) * draw(
    len(y)
)
X = np.sqrt(0.06) * draw(1) + np.sqrt(0.2) * topics[y] + np.sqrt(0.74) * within
X = normalize(X).astype(np.float32)

# %%
# Two sentences of one topic are not very similar, and two of one field not much less:

cosines = X @ X.T
same_topic = y[:, None] == y
same_field = field[y][:, None] == field[y]
print(X.shape)
print(f"mean cosine, same topic:          {cosines[same_topic].mean():.2f}")
print(
    "other topic of the same field:   "
    f" {cosines[same_field & ~same_topic].mean():.2f}"
)
print(f"other field:                      {cosines[~same_field].mean():.2f}")

# %%
# A Pipeline
# ----------
#
# A fifth of the rows are kept as new data. The topics ``y`` judge the result; no fit uses them.
# Embeddings need no scaling: how much a direction varies tells how much it means.

X, X_new, y, y_new = train_test_split(
    X, y, test_size=0.2, stratify=y, random_state=0
)

kmeans = make_pipeline(
    PCA(n_components=64, random_state=0),
    KMeans(n_clusters=n_topics, n_init=10, random_state=0),
).fit(X)
deep = make_pipeline(
    PCA(n_components=64, random_state=0),
    MiniClustering(n_clusters=n_topics, random_state=0),
).set_output(transform="pandas")
deep.fit(X)

# %%
# The Pipeline has the methods of its last step, so it labels new rows, too. ARI counts pairs of
# samples, so large topics decide it; the class-averaged accuracy (CAA) counts every topic the same.

print("                 ARI   CAA   ARI (new)  CAA (new)")
for name, pipeline in {"KMeans": kmeans, "MiniClustering": deep}.items():
    scores = []
    for true, found in (
        (y, pipeline[-1].labels_),
        (y_new, pipeline.predict(X_new)),
    ):
        scores += [
            adjusted_rand_score(true, found),
            class_averaged_accuracy(true, found),
        ]
    print(
        f"{name:15}{scores[0]:5.2f}{scores[1]:6.2f}"
        f"{scores[2]:11.2f}{scores[3]:11.2f}"
    )

# %%
# Parameters of a step have its name in front, as in a grid. ``transform`` gives the 64-dimensional
# embedding in which the clusters lie, as a dataframe here, because ``set_output`` asked for that.

print(deep.get_params()["miniclustering__n_clusters"])
print(deep.transform(X_new).iloc[:3, :4].round(2))

# %%
# Topic by topic
# --------------
#
# The scores say how good, not what is good. Here each row is a topic, the largest at the top, and
# each column a cluster; every topic is given a column on the diagonal, in the way that makes most
# samples right.

figure, axes = plt.subplots(
    1, 2, figsize=(6.8, 3.3), sharey=True, layout="constrained"
)
for axis, pipeline in zip(axes, (kmeans, deep), strict=True):
    table = confusion_matrix(y, pipeline[-1].labels_)
    table = table[:, linear_sum_assignment(table, maximize=True)[1]]
    shares = table / table.sum(axis=1, keepdims=True)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set(
        title=type(pipeline[-1]).__name__,
        xlabel="cluster",
        xticks=[],
        yticks=[],
    )
axes[0].set_yticks([0, n_topics - 1], ["largest", "smallest"])
axes[0].set_ylabel("topic")
figure.colorbar(image, ax=axes, label="share of the topic", shrink=0.9)
plt.show()

# %%
# The two fail in different ways. ``KMeans`` likes clusters of similar size: it cuts the largest
# topics into several, and has none left for some small ones. ``MiniClustering`` keeps every large
# topic whole, and some of the smaller ones are in the cluster of a larger one of their field. That
# is why ARI, which large topics decide, differs much more than CAA.
#
# Without topics there are still the sizes to look at:

print("KMeans", np.sort(np.bincount(kmeans[-1].labels_)), sep="\n")
print("MiniClustering", np.sort(deep[-1].cluster_sizes_), sep="\n")

# %%
# A cluster of a few samples is of no use here: it holds stray rows, while two topics share another
# one. So on an array like this the number of clusters is rather an upper limit.
#
# The array is made up, and how much the one is ahead of the other says little about yours.
# :doc:`/methods/mini_clustering` has what was measured on real sentence embeddings.
#
# What to read next
# -----------------
#
# * :doc:`/guide/features_or_images`: where embeddings come from, and what else may be passed as X.
# * :ref:`sphx_glr_auto_examples_judging_plot_confidence.py`: which of the labels to trust.
# * :ref:`sphx_glr_auto_examples_judging_plot_number_of_clusters.py`: what if nobody knows that
#   there are 20.
# * :ref:`sphx_glr_auto_examples_arrays_plot_memmap.py`: arrays that do not fit into memory.
