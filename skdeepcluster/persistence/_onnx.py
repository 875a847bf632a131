"""The networks of a fitted estimator as an ONNX file."""

from __future__ import annotations

import copy
import os
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from skdeepcluster.base import (
    DeepEstimator,
    PredictingEstimator,
    Predictions,
    consult,
)
from skdeepcluster.networks import ClusterModel
from skdeepcluster.persistence._checks import check_is_ours
from skdeepcluster.training import undisturbed

INPUT = "X"
OUTPUTS = ["embedding", "labels", "probabilities"]


class _Answers(nn.Module):
    """What transform, and if there are clusters predict and predict_proba, return for a batch."""

    def __init__(
        self,
        model: ClusterModel,
        second_opinion: nn.Module | None,
        frozen: nn.Module | None,
        has_clusters: bool,
    ) -> None:
        super().__init__()
        self.frozen = frozen
        self.model = model
        self.second_opinion = second_opinion
        self.has_clusters = has_clusters

    def forward(self, rows: Tensor) -> tuple[Tensor, ...]:
        said = consult(self.model, rows, self.second_opinion, self.frozen)
        predictions = Predictions(*(tensor.float() for tensor in said))
        if not self.has_clusters:
            return (predictions.embedding,)
        return predictions.embedding, predictions.labels, predictions.probabilities


@undisturbed()
def to_onnx(estimator: DeepEstimator, path: str | os.PathLike[str]) -> None:
    """Write the networks of a fitted estimator, from raw samples to probabilities, as an ONNX file.

    Its input ``X`` has shape (n_samples, n_features) or (n_samples, channels, height, width),
    for any number of samples, and is float32; images of uint8 are passed as float32 from 0 to
    255. Its outputs are ``embedding`` and, of clusterers, ``labels`` and ``probabilities``, as
    ``transform``, ``predict`` and ``predict_proba`` return them, calibration included.

    Needs the packages onnx and onnxscript: ``pip install 'skdeepcluster[onnx]'``.

    Parameters
    ----------
    estimator : estimator of this package
        Fitted: a clusterer or a pretraining.
    path : path
        The file; one of that name is replaced.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If it is no estimator of this package.
    ImportError
        If onnx or onnxscript is missing.
    ValueError
        If a `backbone` does what ONNX cannot express.

    Examples
    --------
    >>> import tempfile
    >>> import onnxruntime
    >>> import skdeepcluster
    >>> from sklearn.datasets import load_digits
    >>> X, _ = load_digits(n_class=3, return_X_y=True)
    >>> model = skdeepcluster.MiniClustering(3, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skdeepcluster.to_onnx(model, f"{folder}/model.onnx")
    ...     session = onnxruntime.InferenceSession(f"{folder}/model.onnx")
    >>> embedding, labels, probabilities = session.run(None, {"X": X.astype("float32")})
    >>> bool((labels == model.labels_).all())
    True
    """
    check_is_ours(estimator, "to_onnx")
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"to_onnx needs {' and '.join(missing)}: pip install 'skdeepcluster[onnx]'"
        )
    has_clusters = isinstance(estimator, PredictingEstimator)
    networks = _Answers(
        estimator._model, estimator._second_opinion(), estimator._frozen, has_clusters
    )
    networks = copy.deepcopy(networks).cpu().eval()
    # Of two rows, because the exporter takes a size of one for a constant.
    example = torch.zeros(2, *estimator._sample_shape)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # Exporters tell of deprecations inside themselves, a new one with every version.
            warnings.filterwarnings("ignore", module=r"(torch|onnx\w*|copyreg)\b")
            program = torch.onnx.export(
                networks,
                (example,),
                input_names=[INPUT],
                output_names=OUTPUTS if has_clusters else OUTPUTS[:1],
                dynamic_shapes=({0: torch.export.Dim("n_samples")},),
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ValueError(
            f"This {type(estimator).__name__} cannot be exported: {reason} Its backbone has to be "
            "one that torch.export can follow for any number of samples."
        ) from error
    assert program is not None  # for mypy: the older exporter returns none
    temporary = Path(f"{os.fspath(path)}.{os.getpid()}.tmp")
    try:
        program.save(temporary, external_data=False)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
