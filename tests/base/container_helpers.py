"""Samples, and the containers in which people hold them.

Nothing here needs the package datasets: `Column` and `Table` behave as its classes do.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from sklearn.base import clone
from torch import nn

from skdeepcluster import MiniClustering
from tests.base.soundness_helpers import flat_backbone
from tests.instances import brief

RNG = np.random.default_rng(0)
KIND = np.arange(24) % 2
E = (RNG.normal(size=(24, 4)) + 8 * KIND[:, None]).astype(np.float32)
# Two kinds of images, bright above or bright below, of any number of channels.
PIXELS = RNG.integers(0, 90, size=(24, 8, 8, 13), dtype=np.uint8)
PIXELS[KIND == 0, :4] += 150
PIXELS[KIND == 1, 4:] += 150
RGB, GREY = PIXELS[..., :3], PIXELS[..., 0]
RGB_FIRST, GREY_FIRST = RGB.transpose(0, 3, 1, 2), GREY[:, None]
COUNTS = (GREY // 5 + 120).astype(np.uint16)  # what a camera of 12 bits gives


class Column(Sequence):
    """A column as datasets.Dataset["name"] is: rows are made when they are asked for."""

    def __init__(self, rows, make=lambda row: row):
        self.rows, self.make = rows, make

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, key):
        if isinstance(key, slice):
            return [self.make(row) for row in self.rows[key]]
        return self.make(self.rows[key])


class Table:
    """A table as datasets.Dataset is: rows are dicts, and there is a shape, but no array."""

    def __init__(self, **columns):
        self.columns = columns
        self.shape = len(self), len(columns)

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key):
        if isinstance(key, str):
            return Column(self.columns[key])
        return {name: rows[key] for name, rows in self.columns.items()}


class Listed(torch.utils.data.Dataset):
    """A map-style Dataset of given items; an error among them is raised when its turn comes."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        item = self.items[number]
        if isinstance(item, Exception):
            raise item
        return item


def boxed(rows):
    """An object array of one axis, whatever the rows are."""
    box = np.empty(len(rows), dtype=object)
    box[:] = list(rows)
    return box


def pictures(pixels, mode=None):
    return [Image.fromarray(np.ascontiguousarray(x)).convert(mode) for x in pixels]


def written(folder, images, ending="png"):
    """Write images to files; return their paths."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:02}.{ending}" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def short(estimator, channels=None, **parameters):
    """An estimator whose fit takes a fraction of a second."""
    model = brief(estimator, 1, n_clusters=2, pretraining=None, calibrate=False)
    model.set_params(**parameters)
    return model if channels is None else model.set_params(backbone=flat_backbone(channels))


def pixelwise(**parameters):
    """The fastest clusterer of images: the network hands the pixels on."""
    return MiniClustering(
        2, random_state=0, backbone=nn.Flatten(), pretraining=None, max_epochs=0, calibrate=False
    ).set_params(**parameters)


def check_same(model, X, array):
    """Check that a model says of X what it says of the array, fitted on either."""
    ours, theirs = clone(model).fit(X), clone(model).fit(array)
    expected = theirs.transform(array)
    for fitted in (ours, theirs):
        np.testing.assert_array_equal(fitted.transform(X), expected)
        np.testing.assert_array_equal(fitted.transform(array), expected)
    if hasattr(ours, "labels_"):
        np.testing.assert_array_equal(ours.labels_, theirs.labels_)
        np.testing.assert_array_equal(ours.predict(X), ours.labels_)
    return ours
