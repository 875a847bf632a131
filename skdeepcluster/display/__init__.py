"""Pictures of clusters, and of how far their probabilities can be trusted.

The classes follow scikit-learn's displays: make one with ``from_estimator`` or
``from_predictions``, draw several on one axes by passing ``ax=display.ax_``, and change anything
afterwards through the matplotlib objects that a display keeps. They need matplotlib, which
``pip install 'skdeepcluster[display]'`` brings; it is imported when something is drawn.
"""

from skdeepcluster.display._choice import ChoiceDisplay
from skdeepcluster.display._cluster_map import ClusterMapDisplay
from skdeepcluster.display._image_grid import ImageGridDisplay
from skdeepcluster.display._merge_tree import MergeTreeDisplay
from skdeepcluster.display._rejection import RejectionDisplay
from skdeepcluster.display._reliability import ReliabilityDisplay

__all__ = [
    "ChoiceDisplay",
    "ClusterMapDisplay",
    "ImageGridDisplay",
    "MergeTreeDisplay",
    "RejectionDisplay",
    "ReliabilityDisplay",
]


def __dir__() -> list[str]:
    return __all__
