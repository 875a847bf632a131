"""y is accepted everywhere, has to be as long as X, and is never used."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.cluster import KMeans

from skdeepcluster import MiniClustering
from skdeepcluster.calibration import RegionCalibrator
from skdeepcluster.datasets import ImageFiles
from tests.base.container_helpers import KIND, RGB, E, pixelwise, short, written
from tests.instances import EVERYONE, fitted
from tests.samples import X, Y


def test_labels_and_order_of_y_are_never_used(estimator):
    labels = fitted(estimator).labels_
    np.testing.assert_array_equal(clone(estimator).fit(X, Y).labels_, labels)
    np.testing.assert_array_equal(clone(estimator).fit(X, Y[::-1]).labels_, labels)


LENGTHS = r"Found input variables with inconsistent numbers of samples: \[24, 23\]"


@EVERYONE
def test_y_of_another_length_is_refused(estimator):
    with pytest.raises(ValueError, match=LENGTHS):
        short(estimator).fit(E, KIND[1:])


@pytest.mark.parametrize(
    "y", [KIND[1:], KIND[1:].tolist(), torch.tensor(KIND[1:]), pd.Series(KIND[1:])], ids=type
)
@pytest.mark.parametrize("call", ["fit", "fit_predict", "fit_transform"])
def test_y_of_another_length_is_refused_by(call, y):
    with pytest.raises(ValueError, match=LENGTHS):
        getattr(short(MiniClustering), call)(E, y)


def test_y_of_another_length_is_refused_by_the_calibrator():
    with pytest.raises(ValueError, match=LENGTHS):
        RegionCalibrator(KMeans(2)).fit(E, KIND[1:])


@pytest.mark.parametrize("y", [None, KIND, ["cat", "dog"] * 12, "labels", 3, np.float64(3), {}])
def test_y_is_ignored_otherwise(y):
    expected = short(MiniClustering).fit(E).labels_
    np.testing.assert_array_equal(short(MiniClustering).fit(E, y).labels_, expected)


def test_y_counts_damaged_files_too(tmp_path):
    paths = written(tmp_path / "images", RGB)
    content = paths[3].read_bytes()
    paths[3].write_bytes(content[: len(content) - 40])
    files = ImageFiles(tmp_path / "images", unreadable="skip")
    with pytest.warns(UserWarning, match="^1 unreadable"):
        model = pixelwise().fit(files, KIND)
    assert len(model.labels_) == 23
