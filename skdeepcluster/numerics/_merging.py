"""Merge many small clusters into fewer large ones."""

import numpy as np
import torch
from torch import Tensor


def merge_clusters(centers: Tensor, sizes: Tensor, n_clusters: int) -> Tensor:
    """Agglomerate clusters by the average cosine between their members' centres.

    The two clusters with the largest size-weighted average cosine between their parts are merged
    until ``n_clusters`` are left (average linkage that starts from clusters of unequal size). Unlike
    k-means this does not cut large clusters up to spend its centres evenly.

    Parameters
    ----------
    centers : Tensor of shape (n_parts, n_features)
        Centres of the small clusters.
    sizes : Tensor of shape (n_parts,)
        Their numbers of samples; empty ones are merged with the rest, wherever they are nearest.
    n_clusters : int
        How many to leave, at most ``n_parts``.

    Returns
    -------
    Tensor of shape (n_parts,), int64
        For each part the number of its cluster in ``[0, n_clusters)``.
    """
    unit = torch.nn.functional.normalize(centers, dim=1).cpu().double().numpy()
    weights = sizes.cpu().double().clamp(min=1e-3).numpy()
    n_parts = len(unit)
    owner = np.arange(n_parts)
    # The average cosine of two groups of unit vectors is the product of their mean vectors.
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    partner = similarity.argmax(axis=1)
    closeness = similarity.max(axis=1)
    for _ in range(n_parts - n_clusters):
        kept = int(closeness.argmax())
        absorbed = int(partner[kept])
        total = weights[kept] + weights[absorbed]
        unit[kept] = (weights[kept] * unit[kept] + weights[absorbed] * unit[absorbed]) / total
        weights[kept] = total
        owner[owner == absorbed] = kept

        alive = np.isfinite(closeness)
        alive[absorbed] = False
        row = np.where(alive, unit @ unit[kept], -np.inf)
        row[kept] = -np.inf
        similarity[kept] = similarity[:, kept] = row
        similarity[absorbed] = similarity[:, absorbed] = closeness[absorbed] = -np.inf
        closer = row > closeness
        partner[closer] = kept
        closeness[closer] = row[closer]
        # Whoever was nearest to one of the two has to look around again.
        lost = alive & ~closer & np.isin(partner, (kept, absorbed))
        lost[kept] = True
        partner[lost] = similarity[lost].argmax(axis=1)
        closeness[lost] = similarity[lost].max(axis=1)
    return torch.from_numpy(np.unique(owner, return_inverse=True)[1])
