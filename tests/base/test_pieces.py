"""Batches that do not fit into memory, as the users of an estimator meet them."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.base._inference import embed_once, infer, rows_per_pass
from skdeepcluster.data import ResidentSource
from skdeepcluster.networks import ClusterModel, EmbeddingNetwork, FrozenBackbone
from skdeepcluster.pretraining import BYOL, MoCo, SimCLR

IMAGES = np.random.default_rng(0).random((36, 1, 8, 8)).astype(np.float32)


class Roomy(nn.Module):
    """Has room for so many images, as long as gradients are to be computed."""

    def __init__(self, room):
        super().__init__()
        self.room = room
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.LayerNorm(16))

    def forward(self, x):
        if torch.is_grad_enabled() and len(x) > self.room:
            raise torch.OutOfMemoryError(f"no room for {len(x)} images")
        return self.layers(x)


SHORT = {"max_epochs": 2, "batch_size": 18, "random_state": 0}
ESTIMATORS = [
    MiniClustering(2, fine_tune=True, pretraining=SimCLR(max_epochs=1, batch_size=18), **SHORT),
    CalibratedDeepClustering(2, pretraining=MoCo(max_epochs=1, batch_size=18), **SHORT),
    StableClusterDiscrimination(2, **SHORT),
    ProximityDeepClustering(2, pretraining_epochs=1, **SHORT),
    GenerativeCalibrationClustering(
        2, pretraining=BYOL(max_epochs=1, batch_size=18), generation_epochs=1, **SHORT
    ),
    SimCLR(**SHORT),
    MoCo(**SHORT),
    BYOL(**SHORT),
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda one: type(one).__name__)
def test_what_does_not_fit_is_embedded_in_pieces(estimator):
    torch.manual_seed(0)
    backbone = Roomy(1000)
    whole = clone(estimator).set_params(backbone=backbone).fit(IMAGES)
    small = Roomy(10)
    small.load_state_dict(backbone.state_dict())
    with pytest.warns(UserWarning, match=r"does not fit into the memory of .* in \d+ pieces"):
        pieces = clone(estimator).set_params(backbone=small).fit(IMAGES)
    assert [r["phase"] for r in pieces.history_] == [r["phase"] for r in whole.history_]
    # The projectors normalise by the batch, of which they see a piece only.
    assert pieces.history_[0]["loss"] == pytest.approx(whole.history_[0]["loss"], rel=0.2)
    assert pieces._model.embedding.n_pieces == 1
    if hasattr(pieces, "labels_"):
        assert np.array_equal(pieces.predict(IMAGES), pieces.labels_)


@pytest.mark.parametrize(
    ("shape", "n_rows"),
    [
        ((64,), 512),
        ((3, 32, 32), 512),
        ((3, 96, 96), 224),
        ((3, 224, 224), 32),
        ((1, 900, 900), 16),
    ],
)
def test_large_images_go_through_a_network_a_few_at_a_time(shape, n_rows, cuda):
    assert rows_per_pass(ResidentSource(torch.empty(0, *shape, device=cuda))) == n_rows


def test_images_count_as_large_as_a_network_sees_them(cuda):
    frozen = FrozenBackbone(nn.Identity(), nn.Flatten(), 3 * 96 * 96, least_side=96)
    source = ResidentSource(torch.zeros(230, 3, 32, 32, device=cuda))
    assert rows_per_pass(source, frozen) == 224
    done = []
    embed_once(source, frozen, done.append)
    assert done == [224, 230]


def test_behind_a_frozen_backbone_a_network_sees_as_many_rows_as_in_the_fit():
    seen = []

    class Watching(nn.Identity):
        def forward(self, x):
            seen.append(len(x))
            return x

    frozen = FrozenBackbone(nn.Identity(), nn.Flatten(), 64)
    embedding = EmbeddingNetwork(Watching(), nn.Identity(), 64)
    model = ClusterModel(nn.Identity(), embedding, nn.Linear(64, 3))
    images = torch.rand(600, 1, 8, 8)
    behind = list(infer(model, ResidentSource(images), frozen=frozen))
    features = ResidentSource(
        torch.from_numpy(embed_once(ResidentSource(images), frozen, lambda _: None))
    )
    alone = list(infer(model, features))
    assert seen == 4 * [512]
    assert [len(batch.labels) for batch in behind] == [512, 88]
    for one, other in zip(behind, alone, strict=True):
        assert torch.equal(one.logits, other.logits)
