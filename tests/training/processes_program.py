"""A program for torchrun: the same work by one process and by several.

Each case returns arrays. ``test_processes.py`` compares those of every process with those that it
gets itself, alone.
"""

import os
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import make_blobs
from torch import distributed, nn
from torch.nn.functional import cross_entropy

from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.exceptions import DivergenceError
from skdeepcluster.networks import EmbeddingNetwork
from skdeepcluster.pretraining import BYOL, MoCo, SimCLR
from skdeepcluster.training._processes import average_gradients, shared_batches

X, _ = make_blobs(300, centers=6, n_features=10, cluster_std=3.0, random_state=0)
IMAGES = np.random.default_rng(0).integers(0, 256, (64, 3, 8, 8), dtype=np.uint8)
SHORT = {"max_epochs": 5, "pretraining": SimCLR(max_epochs=10)}
# Who is a neighbour is all or nothing, and so are votes: with larger steps, and as long as
# clusters are not apart, rounding decides.
CAREFUL = {
    "max_epochs": 5,
    "pretraining_epochs": 10,
    "learning_rate": 1e-4,
    "calibrate": False,
}
# Which neighbours agree surely enough, and what a round calls a sample, is all or nothing, too.
GENERATING = {
    "max_epochs": 5,
    "pretraining": SimCLR(max_epochs=20),
    "generation_epochs": 10,
    "learning_rate": 1e-4,
    "calibrate": False,
}
TWO_KINDS = IMAGES // 2
TWO_KINDS[::2, :, :4] += 127
with torch.random.fork_rng():
    torch.manual_seed(0)
    TUNED = {"backbone": nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten())}
SMALL = {"backbone": "test_resnet", "batch_size": 32, "max_epochs": 2}


def rank():
    return int(os.environ.get("RANK", 0))


class StopAfter:
    """Ask for an early end in the last process alone."""

    def __init__(self, n_epochs):
        self.n_epochs = n_epochs

    def setup(self, estimator, context):
        self.seen = 0

    def teardown(self, estimator, context): ...
    def on_fit_task_begin(self, estimator, context): ...

    def on_fit_task_end(self, estimator, context):
        self.seen += context.task_name == "epoch"
        return self.seen == self.n_epochs and rank() == int(os.environ.get("WORLD_SIZE", 1)) - 1


def embed(n_processes):
    """Two views of a batch through convolutions and batch normalisation, and back."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)]
    network = EmbeddingNetwork(nn.Sequential(*layers), nn.BatchNorm1d(5, affine=False), 5).double()
    head = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3)).double()  # has whole batches anyway
    x = 100 + 3 * torch.randn(2 * 6, 3, 8, 8, dtype=torch.double)  # far from zero
    with shared_batches() if n_processes > 1 else nullcontext():
        z = network(x).double()
    loss = cross_entropy(head(z), torch.arange(12) % 3) + (z[:6] @ z[6:].T).logsumexp(1).mean()
    loss.backward()
    parameters = [*network.parameters(), *head.parameters()]
    if n_processes > 1:
        average_gradients(parameters)
    network.eval()
    buffers = [*network.buffers(), *head.buffers()]
    return {
        "embedding": z.detach(),
        "gradient": torch.cat([p.grad.flatten() for p in parameters]),
        "statistics": torch.cat([b.double().flatten() for b in buffers]),
        "evaluated": network(x).detach(),
    }


def embed_in_half_precision(n_processes):
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(5).bfloat16()
    network = EmbeddingNetwork(norm, nn.Identity(), 5)
    with shared_batches() if n_processes > 1 else nullcontext():
        z = network(torch.randn(16, 5, dtype=torch.bfloat16))
    return {"embedding": z.detach(), "variance": norm.running_var.float()}


def fit_different_samples(n_processes):
    model = MiniClustering(3, random_state=0, learning_rate=1 + rank())
    try:
        model.fit(X + rank())
    except ValueError as error:
        return {"error": [str(error)]}
    return {"error": ["one process gets the same as itself"]}


def fitted(model, data):
    environment = dict(os.environ)
    model.fit(data)
    assert dict(os.environ) == environment
    found = {
        "losses": [record["loss"] for record in model.history_],
        "embedding": model.transform(data),
    }
    if hasattr(model, "labels_"):
        assert np.array_equal(model.predict(data), model.labels_)
        found |= {"labels": model.labels_, "confidence": model.predict_proba(data).max(axis=1)}
    return found


def diverge(n_processes):
    model = MiniClustering(6, **SHORT, random_state=0, learning_rate=1e38)
    try:
        model.fit(X)
    except DivergenceError:
        return {"labels": model.labels_}
    raise AssertionError("it did not diverge")


def fit_with_checkpoints(n_processes):
    """Without a seed, which is in the checkpoint."""
    model = MiniClustering(6, **SHORT, checkpoint_dir="checkpoints")
    return fitted(model, X)


FITS = {
    "mini": (MiniClustering(6, **SHORT), X),
    "number": (MiniClustering("auto", **SHORT, calibrate=False), X),
    "calibrated": (CalibratedDeepClustering(6, **SHORT, calibrate=False), X),
    "one stage": (StableClusterDiscrimination(6, max_epochs=20, refine=True), X),
    "stopped": (MiniClustering(6, **SHORT).set_callbacks(StopAfter(3)), X),
    "indivisible": (
        MiniClustering(6, max_epochs=5, batch_size=33, pretraining=None, calibrate=False),
        X,
    ),
    "pretraining": (SimCLR(max_epochs=5, batch_size=60), X),
    "proximity": (ProximityDeepClustering(6, **CAREFUL), X),
    "generative": (GenerativeCalibrationClustering(6, **GENERATING), X),
    "mini images": (
        MiniClustering(3, **SMALL, fine_tune=True, pretraining=SimCLR(max_epochs=2)),
        IMAGES,
    ),
    "calibrated images": (
        CalibratedDeepClustering(3, **SMALL, pretraining=MoCo(max_epochs=2), calibrate=False),
        IMAGES,
    ),
    "fine-tuned images": (
        MiniClustering(2, **TUNED, fine_tune=True, pretraining=None, calibrate=False),
        TWO_KINDS,
    ),
    "one stage images": (StableClusterDiscrimination(3, **SMALL), IMAGES),
    "byol images": (BYOL(**SMALL), IMAGES),
}


def fit(name):
    def run(n_processes):
        model, data = FITS[name]
        return fitted(model.set_params(random_state=0), data)

    return run


CASES = {
    "embed": embed,
    "half": embed_in_half_precision,
    "different": fit_different_samples,
    "diverge": diverge,
    "checkpoints": fit_with_checkpoints,
    **{name: fit(name) for name in FITS},
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    os.chdir(folder)
    for name, case in CASES.items():
        if name == "embed":
            distributed.init_process_group("gloo")
        np.savez(folder / f"{name} {rank()}.npz", **case(int(os.environ["WORLD_SIZE"])))
