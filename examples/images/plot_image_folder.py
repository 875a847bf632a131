"""
Sort a folder of image files
============================

A folder of pictures, no labels, no order: which of them belong together? This example clusters the
files where they lie, writes the result to a table and to one folder for each cluster, and draws a
contact sheet.
"""

# %%
# A folder
# --------
#
# Two photographs come with scikit-learn, a temple by a lake and a flower. They are cut into tiles
# of 40 x 40 pixels, and each tile becomes a file. All of them lie in one folder. If there were
# sub-folders, their names would be ignored.

import csv
import shutil
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.datasets import load_sample_images
from sklearn.metrics import homogeneity_score
from sklearn.metrics.cluster import contingency_matrix

from skdeepcluster import MiniClustering
from skdeepcluster.datasets import ImageFiles
from skdeepcluster.pretraining import SimCLR

temporary = tempfile.TemporaryDirectory()
folder, result = (
    Path(temporary.name) / "tiles",
    Path(temporary.name) / "clusters",
)
folder.mkdir()
side = 40
photographs = dict(
    zip(("temple", "flower"), load_sample_images().images, strict=True)
)
for name, photograph in photographs.items():
    n_rows, n_columns = (
        photograph.shape[0] // side,
        photograph.shape[1] // side,
    )
    for row, column in np.ndindex(n_rows, n_columns):
        tile = photograph[
            row * side : (row + 1) * side, column * side : (column + 1) * side
        ]
        Image.fromarray(tile).save(folder / f"{name}-{row:02}-{column:02}.png")

# %%
# The fit
# -------
#
# The folder itself may be passed to ``fit``, or a list of files.
# :class:`~skdeepcluster.datasets.ImageFiles` is for saying more: here, that smaller pictures are
# enough, which saves most of the time. Files that cannot be read would be named in an error, or
# left out with ``unreadable="skip"``.

print(ImageFiles(folder))
files = ImageFiles(folder, image_size=16)
print(files)

# %%
# A pretrained network looks at each picture once, and its features are clustered. The usual choice
# is ``backbone="resnet50", pretrained=True``, which loads published weights. So that this runs
# without a connection, a tiny network stands in for it, which learns from the tiles themselves, in
# twenty epochs of SimCLR. It is too small for several threads to be of use.

torch.set_num_threads(1)
simclr = SimCLR(
    backbone="test_byobnet", max_epochs=20, batch_size=32, random_state=0
).fit(files)

# %%
# Nobody can say how many kinds of tiles there are. Six are a guess.

n_clusters = 6
model = MiniClustering(
    n_clusters, backbone=simclr.backbone_, random_state=0, verbose=1
)
model.fit(files)
for path, label in list(zip(model.paths_, model.labels_, strict=True))[:3]:
    print(Path(path).name, label)

# %%
# ``paths_`` has the files in the order of ``labels_``. ``predict`` takes files as well, and brings
# them to the size of the fit.

print("the same again:", np.array_equal(model.predict(folder), model.labels_))
print(
    "some files:",
    model.predict([folder / "temple-00-00.png", folder / "flower-05-07.png"]),
)

# %%
# A table, and a folder for each cluster
# --------------------------------------
#
# The table also gets the confidence, so that doubtful files can be looked at by hand.

confidence = model.predict_proba(files).max(axis=1)
result.mkdir()
with open(result / "clusters.csv", "w", newline="") as table:
    writer = csv.writer(table)
    writer.writerow(["file", "cluster", "confidence"])
    for path, label, sure in zip(
        model.paths_, model.labels_, confidence, strict=True
    ):
        writer.writerow([Path(path).name, label, f"{sure:.2f}"])
        (result / str(label)).mkdir(exist_ok=True)
        shutil.copy(path, result / str(label))

for cluster in sorted(result.iterdir()):
    print(cluster.name, len(list(cluster.glob("*.png"))) or "")

# %%
# Where the clusters are
# ----------------------
#
# The clusters know nothing of where a tile was. Here each tile is back in its place, in the colour
# of its cluster, beside the clusters that KMeans finds on the same small pictures. KMeans goes by
# colour alone: what lies in the shade of the temple is with the dark leaves of the flower. The
# network also sees what is smooth and what is full of detail: trees and temple are one cluster, and
# hardly a tile of them is among the leaves. Its mistakes are at the edges, where a tile is half
# flower and half leaves. The homogeneity says how well the clusters keep the two photographs apart,
# 1 being perfect; the names of the files are used for this alone. (So small a network, trained so
# shortly, is no pretrained one: after ten or forty epochs instead of twenty it comes to .64 and
# .76.)

pixels = files.decode().numpy().reshape(len(files), -1)
kmeans = KMeans(n_clusters, n_init=10, random_state=0).fit(pixels)
from_temple = ["temple" in Path(path).name for path in model.paths_]
print(f"KMeans: {homogeneity_score(from_temple, kmeans.labels_):.2f}")
print(f"MiniClustering: {homogeneity_score(from_temple, model.labels_):.2f}")

# Clusters of the two that have many tiles in common get the same colour.
_, partners = linear_sum_assignment(
    -contingency_matrix(kmeans.labels_, model.labels_)
)
partitions = partners[kmeans.labels_], model.labels_
colors = np.array(
    [
        (0, 114, 178),
        (230, 159, 0),
        (0, 158, 115),
        (240, 228, 66),
        (86, 180, 233),
        (204, 121, 167),
    ]
)
figure, axes = plt.subplots(2, 3, figsize=(6.6, 3.2), layout="constrained")
for (name, photograph), row_of_axes in zip(
    photographs.items(), axes, strict=True
):
    row_of_axes[0].imshow(photograph)
    inside = [
        name in Path(path).name for path in model.paths_
    ]  # in the order of their names
    for axis, labels in zip(row_of_axes[1:], partitions, strict=True):
        axis.imshow(colors[labels[inside]].reshape(n_rows, n_columns, 3))
for axis, title in zip(
    axes[0], ("Photograph", "KMeans", "MiniClustering"), strict=True
):
    axis.set_title(title)
for axis in axes.flat:
    axis.set_axis_off()
plt.show()

# %%
# The contact sheet
# -----------------
#
# Ten files of each folder, taken at random, beside the colour that the cluster has above.

rng = np.random.default_rng(0)
figure, axes = plt.subplots(
    n_clusters, 11, figsize=(6.6, 4), layout="constrained"
)
figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
for cluster, row_of_axes in enumerate(axes):
    members = sorted((result / str(cluster)).iterdir())
    row_of_axes[0].imshow(np.tile(colors[cluster], (side, side, 1)))
    row_of_axes[0].text(
        side / 2, side / 2, len(members), ha="center", va="center"
    )
    for axis, path in zip(
        row_of_axes[1:], rng.permutation(members), strict=False
    ):
        axis.imshow(Image.open(path))
    for axis in row_of_axes:
        axis.set_axis_off()
figure.suptitle("Six clusters of tiles, with their sizes")
plt.show()
temporary.cleanup()

# %%
# What to read next
# -----------------
#
# * :class:`~skdeepcluster.datasets.ImageFiles`: sizes, damaged files, endings.
# * :doc:`/guide/features_or_images`: pretrained networks, and working without a connection.
# * :ref:`sphx_glr_auto_examples_images_plot_images_byol.py`: what the pretraining does.
# * :doc:`/guide/big_data`: folders that do not fit into memory.

# sphinx_gallery_thumbnail_number = 2
