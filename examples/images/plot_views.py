"""
What may be done to an image: views
===================================

A network that learns to see without labels is shown two views of each image, and learns that they
are the same. What a view changes, it learns to overlook. So a view must leave an image what it is:
the mirror image of a photograph is a photograph, that of a digit is no digit. This example shows
which views are chosen for three sets of images, and clusters the digits by theirs.
"""

# %%
# Three sets of images
# --------------------
#
# Digits; tiles of the two photographs that come with scikit-learn; and discs of two colours, whose
# colour is all that tells them apart. With ``max_epochs=0`` nothing is trained, but views are
# chosen: no label has a part in that, see :ref:`views`.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, load_sample_images
from sklearn.metrics import adjusted_rand_score

from skdeepcluster import MiniClustering
from skdeepcluster.data import RandomImageViews
from skdeepcluster.pretraining import SimCLR

pixels, y = load_digits(return_X_y=True)
digits = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)

side = 32
tiles = []
for photograph in load_sample_images().images:
    for row, column in np.ndindex(
        photograph.shape[0] // side, photograph.shape[1] // side
    ):
        top, left = row * side, column * side
        tiles.append(photograph[top : top + side, left : left + side])
tiles = np.stack(tiles).transpose(0, 3, 1, 2)

rng = np.random.default_rng(0)
rows, columns = np.mgrid[:16, :16]
discs = np.zeros((200, 3, 16, 16), np.float32)
for disc, is_red in zip(discs, rng.random(200) < 0.5, strict=True):
    radius, (down, right) = rng.uniform(3, 5), rng.uniform(6, 10, size=2)
    inside = (rows - down) ** 2 + (columns - right) ** 2 < radius**2
    disc[:] = rng.normal(0.5, 0.02, size=disc.shape)
    disc[:, inside] = np.array(
        [[0.8], [0.3], [0.3]] if is_red else [[0.3], [0.52], [0.3]]
    )

sets = {"digits": digits, "photographs": tiles, "discs": discs}
views = {
    name: SimCLR(max_epochs=0, random_state=0).fit(X).views_
    for name, X in sets.items()
}
for name, chosen in views.items():
    print(f"{name:12}", ", ".join(chosen))

# %%
# What they look like
# -------------------
#
# An image of each set, two views of each kind, and in blue the kinds that were chosen. The stronger
# crop, to as little as 8 % of the area, is the published one. Where images bear it they are taken
# for photographs, whose pixels say little of what they show; elsewhere crops are slight, and other
# images that have nearly the same pixels ("neighbor") are views as well. A slight turn of
# the hue leaves the discs red or green; without colour they would all be the same.

still = {"flip": 0.0, "jitter": (0, 0, 0, 0), "grey_probability": 0.0}
whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
kinds = {
    "crop": still,
    "slight crop": still | {"scale": (0.7, 1.0)},
    "mirror": still | whole | {"flip": 1.0},
    "light": still
    | whole
    | {"jitter": (0.4, 0.4, 0, 0), "jitter_probability": 1.0},
    "colour": still
    | whole
    | {"jitter": (0, 0, 0.4, 0.1), "jitter_probability": 1.0},
    "grey": still | whole | {"grey_probability": 1.0},
}
generator = torch.Generator().manual_seed(0)
figure, axes = plt.subplots(6, 7, figsize=(6.6, 5.8), layout="constrained")
shown = {"digits": 3, "photographs": 150, "discs": 60}
for number, (name, X) in enumerate(sets.items()):
    image = torch.from_numpy(X[[shown[name]]])
    image = image / 255 if image.dtype == torch.uint8 else image
    pair = axes[2 * number : 2 * number + 2]
    for kind, parameters, column in zip(
        kinds, kinds.values(), pair.T[1:], strict=True
    ):
        chosen = kind in views[name]
        if kind in ("colour", "grey") and len(image[0]) == 1:
            continue
        for axis in column:
            seen = RandomImageViews(**parameters)(image, generator)[0]
            axis.imshow(
                seen.permute(1, 2, 0).numpy(), cmap="gray_r", vmin=0, vmax=1
            )
        style = (
            {"color": "#0072b2", "weight": "bold"}
            if chosen
            else {"color": "0.5"}
        )
        column[0].set_title(kind, fontsize=9, **style)
    pair[0, 0].imshow(
        image[0].permute(1, 2, 0).numpy(), cmap="gray_r", vmin=0, vmax=1
    )
    pair[0, 0].set_title(name, fontsize=9)
for axis in axes.flat:
    axis.set_axis_off()
plt.show()

# %%
# Digits as images
# ----------------
#
# ``views_`` are used by the pretraining, by default SimCLR with three convolutions on a CPU. KMeans
# gets the pixels, and so does MiniClustering when it is passed an array of two dimensions: there,
# too, neighbours are the views, but nothing knows that the features are pixels of an image.

for name, model, X in (
    ("KMeans on the pixels", KMeans(10, n_init=10, random_state=0), pixels),
    (
        "MiniClustering on the pixels",
        MiniClustering(10, random_state=0),
        pixels,
    ),
    (
        "MiniClustering on the images",
        MiniClustering(10, random_state=0),
        digits,
    ),
):
    print(f"{name:30}{adjusted_rand_score(y, model.fit_predict(X)):.2f}")

# %%
# What to think of for images of your own
# ---------------------------------------
#
# The choice knows what makes images alike, not what you want to tell apart. If colours mean nothing
# in yours, name the views yourself: ``views=["neighbor", "slight crop", "colour", "grey"]``. The
# published views are ``["crop", "mirror", "light", "colour", "grey", "blur", "solarize"]``.
#
# * :doc:`/guide/features_or_images`: how views are chosen, and pretrained networks.
# * :ref:`sphx_glr_auto_examples_images_plot_images_byol.py`: another pretraining.
