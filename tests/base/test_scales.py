"""Numbers far from zero keep their differences; scales that hide the rest are named."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.pretraining import SimCLR
from tests.instances import CLUSTERERS, EVERYONE, LOST_CLUSTERS, brief
from tests.samples import IMAGES

# Clusters are lost by fits as short as these, which is announced, and not what is tested here.
pytestmark = LOST_CLUSTERS
X, _ = make_blobs(n_samples=80, centers=3, n_features=6, random_state=0)


# --- far from zero -------------------------------------------------------------------------------

VISITS = np.repeat([0, 1, 2], 40)
NOISE = np.random.default_rng(0).normal(size=120)
FAR = {
    "seconds since 1970": 1.7e9 + 60 * VISITS + 3 * NOISE,
    "Julian dates": 2460000.5 + 0.01 * VISITS + 0.0005 * NOISE,
    "nanoseconds in integers": 1_700_000_000_000_000_000
    + 3_600_000_000_000 * VISITS
    + (1e11 * NOISE).astype(np.int64),
    "far below zero": -4e11 + VISITS + 0.05 * NOISE,
}


@pytest.mark.parametrize("estimator", CLUSTERERS)
@pytest.mark.parametrize("kind", FAR)
def test_samples_far_from_zero_keep_their_differences(estimator, kind):
    far = FAR[kind][:, None]
    model = estimator(3, random_state=0).fit(far)
    assert adjusted_rand_score(VISITS, model.labels_) == 1.0
    np.testing.assert_array_equal(model.predict(far), model.labels_)


@pytest.mark.parametrize(
    "held",
    [
        lambda far: torch.from_numpy(far),
        lambda far: pd.DataFrame({"time": far[:, 0]}),
        lambda far: [torch.from_numpy(row) for row in far],
        lambda far: far.tolist(),
    ],
    ids=["a tensor", "a table", "a Dataset", "lists"],
)
@pytest.mark.parametrize("kind", FAR)
def test_whatever_holds_them(held, kind):
    far = FAR[kind][:, None]
    model = MiniClustering(3, random_state=0, calibrate=False).fit(held(far))
    assert adjusted_rand_score(VISITS, model.labels_) == 1.0
    np.testing.assert_array_equal(model.predict(held(far)), model.labels_)


def test_a_file_in_double_precision_is_read_so(tmp_path):
    far = FAR["Julian dates"][:, None]
    np.save(tmp_path / "far.npy", far)
    model = MiniClustering(3, random_state=0).fit(np.load(tmp_path / "far.npy", mmap_mode="r"))
    assert adjusted_rand_score(VISITS, model.labels_) == 1.0


def test_generated_samples_lie_where_the_data_do():
    far = FAR["seconds since 1970"][:, None]
    model = GenerativeCalibrationClustering(3, random_state=0).fit(far)
    samples = model.sample(30, random_state=0)
    assert samples.dtype == np.float64
    assert abs(samples - far.mean()).max() < 1000


# --- scales --------------------------------------------------------------------------------------


@EVERYONE
@pytest.mark.parametrize("scale", [1e20, 1e36])
def test_a_feature_that_hides_all_others_is_named(estimator, scale):
    table = pd.DataFrame(X, columns=list("abcdef"))
    table["c"] *= scale
    with pytest.warns(UserWarning, match=r"Feature 2 \('c'\) has a standard deviation of ") as log:
        brief(estimator).fit(table)
    (warning,) = [w for w in log if "Feature" in str(w.message)]
    assert warning.filename == __file__


def test_an_outlier_is_found_in_its_feature():
    outlier = X.copy()
    outlier[7, 3] = 1e20
    with pytest.warns(UserWarning, match="Feature 3 has a standard deviation .*an outlier"):
        MiniClustering(3, random_state=0).fit(outlier)


def test_a_pixel_beside_which_images_are_black_is_told():
    images = (IMAGES / 255).astype(np.float32)
    images[3, 0, 2, 2] = 1e20
    with pytest.warns(UserWarning, match=r"pixels from 0 to 1e\+20, but nearly all lie between"):
        SimCLR(backbone="test_resnet", max_epochs=1, random_state=0).fit(images)


def test_masks_of_few_pixels_are_not_complained_about():
    masks = np.zeros((20, 1, 8, 8), np.float32)
    masks[::2, 0, 3, 3] = 1.0
    SimCLR(backbone="test_resnet", max_epochs=1, random_state=0).fit(masks)


def test_features_of_usual_scales_and_constants_are_not_complained_about():
    table = X * np.array([1, 1e3, 1, 1, 1e-2, 1])
    MiniClustering(3, random_state=0).fit(np.hstack([table, np.full((80, 2), 0.1)]))
    MiniClustering(3, random_state=0).fit(np.hstack([1e5 * X[:, :1], np.full((80, 1), 0.1)]))


def test_a_number_beyond_single_precision_is_located():
    beyond = X.copy()
    beyond[5, 4] = -1e200
    with pytest.raises(ValueError, match=r"sample 5, feature 4\. Rescale X"):
        StableClusterDiscrimination(3).fit(beyond)
    with pytest.raises(ValueError, match=r"sample 5, feature 4\. Rescale X"):
        brief(CalibratedDeepClustering).fit(X).predict(beyond)
