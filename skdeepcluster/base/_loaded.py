"""Whether attributes that were read from a file suit the networks that were read with them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skdeepcluster.base._merging import check_neighbor_counts


def check_familiar(means: NDArray[np.float32], distances: NDArray[np.float32], width: int) -> None:
    """Raise ValueError if what outlier scores go by does not suit networks for this width."""
    suit = means.ndim == 2 and means.shape[1] == width and means.dtype == np.float32
    if not (suit and len(means) and distances.ndim == 1 and len(distances)):
        raise ValueError(
            f"outlier scores have means of shape {means.shape} and type {means.dtype}, and "
            f"distances of shape {distances.shape}; the networks say (n_means, {width}), "
            "float32 and (n_distances,)"
        )


def check_answer(answer: dict[str, Any], n_outputs: int, width: int) -> None:
    """Raise ValueError if attributes do not suit a head of these outputs on such an embedding."""
    groups = answer["_groups"]
    if groups is None:
        groups = np.arange(n_outputs)
    n_clusters = len(np.unique(groups))
    consecutive = groups.dtype == np.int64 and np.isin(groups, np.arange(n_clusters)).all()
    if groups.shape != (n_outputs,) or not consecutive:
        raise ValueError(
            f"_groups of shape {groups.shape} does not give each of {n_outputs} outputs the "
            "number of a cluster"
        )
    check_neighbor_counts(answer["_neighbor_counts"], n_clusters)
    for name, shape in {
        "labels_": (len(answer["labels_"]),),
        "cluster_sizes_": (n_clusters,),
        "cluster_centers_": (n_clusters, width),
        "class_weights_": (n_clusters,),
        "_output_sizes": (n_outputs,),
    }.items():
        if answer[name].shape != shape:
            raise ValueError(f"{name} has shape {answer[name].shape}; its networks say {shape}")
    if not np.isin(answer["labels_"], np.arange(n_clusters)).all():
        raise ValueError(f"labels_ are not all among the {n_clusters} clusters")
