"""Numerical building blocks on torch tensors, each tested against scikit-learn or SciPy."""

from skdeepcluster.numerics._breathing import breathing_kmeans
from skdeepcluster.numerics._conductance import conductances, mean_conductance
from skdeepcluster.numerics._contingency import contingency_table, label_counts, numbered_alike
from skdeepcluster.numerics._draws import OwnDraws, entered_draws
from skdeepcluster.numerics._kmeans import (
    KMeansResult,
    cluster_means,
    kmeans,
    lloyd,
    nearest_center,
)
from skdeepcluster.numerics._lengths import squared_lengths
from skdeepcluster.numerics._linear import aligned_linear
from skdeepcluster.numerics._linkage import (
    average_linkage,
    average_tree,
    cosine_affinity,
    cut_tree,
    cuts,
    in_order_of_leaves,
    neighbor_affinity,
)
from skdeepcluster.numerics._neighbors import nearest_neighbors
from skdeepcluster.numerics._partitions import best_separated, merged_partitions
from skdeepcluster.numerics._propagation import propagate_labels
from skdeepcluster.numerics._settings import SharedSetting, full_digits
from skdeepcluster.numerics._silhouette import centroid_silhouette
from skdeepcluster.numerics._spaced import evenly_spaced
from skdeepcluster.numerics._transfer import sent
from skdeepcluster.numerics._widest import widest_dtype

__all__ = [
    "KMeansResult",
    "OwnDraws",
    "SharedSetting",
    "aligned_linear",
    "average_linkage",
    "average_tree",
    "best_separated",
    "breathing_kmeans",
    "centroid_silhouette",
    "cluster_means",
    "conductances",
    "contingency_table",
    "cosine_affinity",
    "cut_tree",
    "cuts",
    "entered_draws",
    "evenly_spaced",
    "full_digits",
    "in_order_of_leaves",
    "kmeans",
    "label_counts",
    "lloyd",
    "mean_conductance",
    "merged_partitions",
    "nearest_center",
    "nearest_neighbors",
    "neighbor_affinity",
    "numbered_alike",
    "propagate_labels",
    "sent",
    "squared_lengths",
    "widest_dtype",
]
