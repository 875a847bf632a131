"""What a fitted clusterer has found, cluster by cluster, for people to read."""

from skdeepcluster.report._cluster_report import ClusterReport, cluster_report
from skdeepcluster.report._members import members_of, nearest_to_mean
from skdeepcluster.report._names import list_of_names
from skdeepcluster.report._pipelines import last_step

__all__ = [
    "ClusterReport",
    "cluster_report",
    "last_step",
    "list_of_names",
    "members_of",
    "nearest_to_mean",
]


def __dir__() -> list[str]:
    return ["ClusterReport", "cluster_report"]  # the other names are for the rooms of this package
