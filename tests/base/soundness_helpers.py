"""What holds for every fit that ends, however odd the data or the parameters."""

import copy
import re
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from skdeepcluster.calibration import confident_in
from skdeepcluster.exceptions import DivergenceError

# Numbers beside which all others vanish are announced, and often among odd data.
SCALES = re.compile("Feature .* has a standard deviation of|X has pixels from")


def flat_backbone(channels):
    """Return the smallest encoder of images of any size, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def heads_own(model, data):
    """Return the softmax of the head that knows best, without the votes."""
    objective = copy.deepcopy(model._objective).eval().cpu()
    with torch.no_grad():
        embedding = objective.model.embed(torch.from_numpy(data))
        logits = objective.model.head(embedding)
        labels = logits.argmax(dim=1)
        if getattr(objective, "calibration_head", None) is None:
            return logits.double().softmax(dim=1).numpy()
        opinion = objective.calibration_head(embedding).double().softmax(dim=1)
    return confident_in(labels, opinion).numpy()


def check_outputs(model, X):
    """Check all that a model says about the data it was fitted on; return it."""
    embedding = model.transform(X)
    assert embedding.dtype == np.float32
    assert np.isfinite(embedding).all()
    lengths = np.linalg.norm(embedding.astype(float), axis=1)
    # What lies in the middle of all has no direction.
    at_center = ~embedding.any(axis=1)
    np.testing.assert_allclose(lengths[~at_center], 1, rtol=1e-5)
    if not hasattr(model, "predict"):
        return [embedding]
    labels, sizes = model.labels_, model.cluster_sizes_
    n, k = len(X), len(sizes)
    assert labels.dtype == np.int64
    assert labels.shape == (n,)
    np.testing.assert_array_equal(np.unique(labels), np.arange(len(np.unique(labels))))
    np.testing.assert_array_equal(np.bincount(labels, minlength=k), sizes)
    assert np.isfinite(model.cluster_centers_).all()
    assert model.class_weights_.shape == (k,)
    assert np.isfinite(model.class_weights_).all()
    assert (model.class_weights_ > 0).all()
    probabilities = model.predict_proba(X)
    assert probabilities.shape == (n, k)
    assert np.isfinite(probabilities).all()
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), labels)
    np.testing.assert_array_equal(model.predict(X), labels)
    score = model.score(X)
    assert -1e-9 <= score <= np.log(k) + 1e-9
    assert all(np.isfinite(record["loss"]) for record in model.history_)
    return [embedding, labels, probabilities, model.class_weights_]


def check_strangers(model):
    """Check what a model says about samples unlike all that it was fitted on."""
    if max(p.abs().max() for p in model._model.parameters()) > 1e3:
        return  # large numbers times large parameters may overflow
    shape = getattr(model, "image_shape_", (model.n_features_in_,))
    values = np.array([-3.4e38, -1.0, -0.0, 0.0, 1e-45, 1.0, 1e20, 3.4e38], dtype=np.float32)
    X = np.broadcast_to(values.reshape(-1, *[1] * len(shape)), (len(values), *shape)).copy()
    X[-1].flat[::2] = values[0]
    assert np.isfinite(model.transform(X)).all()
    if hasattr(model, "predict"):
        probabilities = model.predict_proba(X)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
        np.testing.assert_array_equal(probabilities.argmax(axis=1), model.predict(X))


def check_warnings(model, messages):
    """Check that lost and dominant clusters are announced, once, and nothing else is."""
    expected = []
    if hasattr(model, "predict"):
        sizes = model.cluster_sizes_
        if (sizes == 0).any():
            expected.append(f"{(sizes == 0).sum()} of {len(sizes)} clusters have no sample")
        if len(sizes) > 1 and sizes.max() > 0.9 * sizes.sum():
            expected.append("One cluster holds ")
    assert len(messages) == len(expected), messages
    for message, beginning in zip(messages, expected, strict=True):
        assert message.startswith(beginning)


def fit(model, X):
    """Fit, and return all that the model then says, or a clear error.

    After a DivergenceError the model is sound, too.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        error = None
        try:
            model.fit(X)
        except (ValueError, TypeError, DivergenceError) as raised:
            error = raised
    scales = [warning for warning in caught if SCALES.match(str(warning.message))]
    assert len(scales) <= 1, scales
    caught = [warning for warning in caught if warning not in scales]
    assert all(issubclass(warning.category, ConvergenceWarning) for warning in caught), caught
    if error is not None:
        names = "|".join(["X", "n_samples", *model.get_params(deep=False)])
        text = "\n".join([str(error), *getattr(error, "__notes__", ())])
        assert re.search(rf"\b({names})\b", text), text
        if not isinstance(error, DivergenceError):
            return error
    check_warnings(model, [str(warning.message) for warning in caught])
    outputs = check_outputs(model, X)
    check_strangers(model)
    return error or outputs
