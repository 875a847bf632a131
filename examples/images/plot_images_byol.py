"""
Images, with BYOL as the pretraining
====================================

How are images clustered when there is no pretrained network for them? A network from timm learns to
see on the images themselves, by BYOL, and is then part of the clusterer. This example does that
with a small network and small pictures of fabrics, in half a minute. It shows how; photographs of
the world take hundreds of epochs and a GPU.
"""

# %%
# Pictures of fabrics
# -------------------
#
# Grey pictures of 16 x 16 pixels: stripes in two directions, checks, a lattice and dots, of random
# width, place, contrast and noise. Images are arrays of shape (n, channels, height, width), best of
# type uint8. The pattern ``y`` is used for judging alone.

import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from skdeepcluster import MiniClustering
from skdeepcluster.pretraining import BYOL, SimCLR

n_images, n_patterns, side = 300, 5, 16
rng = np.random.default_rng(0)
y = rng.integers(n_patterns, size=n_images)
rows, columns = np.mgrid[:side, :side]
X = np.empty((n_images, 1, side, side), np.uint8)
for image, pattern in zip(X, y, strict=True):
    width, place = rng.uniform(4, 6), rng.uniform(0, 2 * np.pi, size=2)
    across = np.sin(2 * np.pi * rows / width + place[0])
    down = np.sin(2 * np.pi * columns / width + place[1])
    waves = [
        across,
        down,
        1.6 * across * down,
        np.maximum(across, down),
        np.minimum(across, down),
    ]
    threads = 1 / (1 + np.exp(-4 * waves[pattern]))
    dark, light = rng.uniform(0, 0.3), rng.uniform(0.7, 1)
    picture = (
        dark
        + (light - dark) * threads
        + rng.normal(scale=0.08, size=(side, side))
    )
    image[0] = (255 * picture).clip(0, 255)
print(X.shape, X.dtype, "images of each pattern:", np.bincount(y))

# %%
# KMeans on the pixels
# --------------------
#
# Two pictures of the same pattern may have no pixel in common: it is enough that one is shifted.

kmeans = KMeans(n_patterns, n_init=10, random_state=0).fit(
    X.reshape(n_images, -1)
)
print(
    f"KMeans on the pixels: ARI {adjusted_rand_score(y, kmeans.labels_):.2f}"
)

# %%
# BYOL, then clusters
# -------------------
#
# BYOL shows a network two random views of a picture, crops and flips of different brightness, and
# has it predict how a slow copy of itself sees the other view. It never hears which pictures belong
# together. What the views change, the network learns to overlook: place, size and brightness, here.
#
# ``backbone`` is the name of a timm model; "test_byobnet" is one that timm's own tests use, tiny
# enough for a CPU, and too small for several threads to be of use. The published ``hidden_dim`` of
# 4096 is for large networks. The default batch of 256 would leave one step per epoch for 300
# pictures, hence 32. ``max_epochs`` is what to raise: on photographs to several hundred.

torch.set_num_threads(1)
model = MiniClustering(
    n_patterns,
    backbone="test_byobnet",
    pretraining=BYOL(max_epochs=12, batch_size=32, hidden_dim=512),
    random_state=0,
)
started = time.perf_counter()
model.fit(X)
print(f"BYOL: ARI {adjusted_rand_score(y, model.labels_):.2f} in", end=" ")
print(f"{time.perf_counter() - started:.0f} s")

# %%
# SimCLR instead
# --------------
#
# The parameters of the pretraining are those of the clusterer, with a prefix, as everywhere in
# scikit-learn. SimCLR, the default, also repels the views of different pictures. It needs fewer
# epochs.

other = MiniClustering(n_patterns, backbone="test_byobnet", random_state=0)
other.set_params(
    pretraining=SimCLR(), pretraining__max_epochs=8, pretraining__batch_size=32
)
started = time.perf_counter()
other.fit(X)
print(f"SimCLR: ARI {adjusted_rand_score(y, other.labels_):.2f} in", end=" ")
print(f"{time.perf_counter() - started:.0f} s")

# %%
# The embedding
# -------------
#
# ``transform`` gives a vector of unit length for each picture. Here they are in a plane, by their
# principal components, each drawn as itself. Pictures of one pattern lie together. Where two
# patterns touch, there are more dimensions than these two to tell them apart.

plane = PCA(2).fit_transform(model.transform(X))
plane /= np.abs(plane).max()
figure, axis = plt.subplots(figsize=(6.4, 5.4), layout="constrained")
half = 0.03
for image, (right, up) in zip(X[:200], plane, strict=False):
    extent = right - half, right + half, up - half, up + half
    axis.imshow(image[0], cmap="gray_r", vmin=0, vmax=255, extent=extent)
axis.set(
    xlim=(-1.1, 1.1), ylim=(plane[:, 1].min() - 0.1, plane[:, 1].max() + 0.1)
)
axis.set(
    xticks=[], yticks=[], xlabel="first component", ylabel="second component"
)
axis.set_title("200 pictures in the embedding")
plt.show()

# %%
# What is in the clusters
# -----------------------
#
# Pictures taken at random from each cluster. KMeans goes by brightness and by where the threads
# happen to lie, and mixes the patterns. Nearly all on the right are sorted by pattern.
#
# The patterns were made to be told apart by what the views leave alone. That is what to think about
# with images of your own: a digit that is flipped is another sign, and where classes differ by
# colour or by brightness, views that change it do harm. The other way round, in pictures of random
# colours this short fit finds the colours and not the patterns, because they are easier to learn.
# Where a pretrained network suits the images, use that: :doc:`/guide/features_or_images`.

figure, axes = plt.subplots(1, 2, figsize=(6.6, 2.7), layout="constrained")
titles = "KMeans on the pixels", "MiniClustering after BYOL"
for axis, labels, title in zip(
    axes, (kmeans.labels_, model.labels_), titles, strict=True
):
    chosen = [
        rng.permutation(np.flatnonzero(labels == k))[:8]
        for k in range(n_patterns)
    ]
    pictures = np.pad(X[chosen][:, :, 0], ((0, 0), (0, 0), (2, 2), (2, 2)))
    sheet = pictures.transpose(0, 2, 1, 3).reshape(
        n_patterns * (side + 4), 8 * (side + 4)
    )
    axis.imshow(sheet, cmap="gray_r", vmin=0, vmax=255)
    axis.set_title(title)
    axis.set_xticks([])
    axis.set_yticks(
        (side + 4) * (np.arange(n_patterns) + 0.5), np.bincount(labels)
    )
    axis.set_frame_on(False)
    axis.tick_params(length=0)
axes[0].set_ylabel("clusters with their sizes")
plt.show()

# %%
# What to read next
# -----------------
#
# * :class:`~skdeepcluster.pretraining.BYOL`, :class:`~skdeepcluster.pretraining.MoCo` and
#   :class:`~skdeepcluster.pretraining.SimCLR` also work alone, as transformers.
# * :doc:`/methods/pretraining`: what each of them costs, and what it found.
# * :ref:`sphx_glr_auto_examples_images_plot_image_folder.py`: images that are files.
# * :doc:`/guide/gpus`: for the hundreds of epochs.

# sphinx_gallery_thumbnail_number = 2
