"""Whether attributes that were read from a file suit the networks that were read with them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skdeepcluster.base._adjacency import check_neighbor_counts
from skdeepcluster.base._merging import KNOWN


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
    groups, outputs = answer["_groups"], answer["_outputs"]
    if (groups is None) != (outputs is None):
        raise ValueError("_groups and _outputs are there together, or neither")
    if groups is None:
        _check_known(answer, n_outputs, width)
        return
    n_clusters = len(np.unique(groups))
    consecutive = groups.dtype == np.int64 and np.isin(groups, np.arange(n_clusters)).all()
    if groups.shape != (n_outputs,) or not consecutive:
        raise ValueError(
            f"_groups of shape {groups.shape} does not give each of {n_outputs} outputs the "
            "number of a cluster"
        )
    if set(outputs) != set(KNOWN):
        raise ValueError(f"_outputs has {sorted(outputs)}, not {sorted(KNOWN)}")
    _check_known(outputs, n_outputs, width)
    _check_known(answer, n_clusters, width)


def _check_known(known: dict[str, Any], n_clusters: int, width: int) -> None:
    """Raise ValueError if what is known is not of so many clusters in such an embedding."""
    check_neighbor_counts(known["_neighbor_counts"], n_clusters)
    for name, shape in {
        "labels_": (len(known["labels_"]),),
        "cluster_sizes_": (n_clusters,),
        "cluster_centers_": (n_clusters, width),
        "class_weights_": (n_clusters,),
    }.items():
        if known[name].shape != shape:
            raise ValueError(f"{name} has shape {known[name].shape}; its networks say {shape}")
    if not np.isin(known["labels_"], np.arange(n_clusters)).all():
        raise ValueError(f"labels_ are not all among the {n_clusters} clusters")
