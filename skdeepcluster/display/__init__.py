"""Pictures of how far cluster probabilities can be trusted.

The classes follow scikit-learn's displays: make one with ``from_estimator`` or
``from_predictions``, draw several on one axes by passing ``ax=display.ax_``, and change anything
afterwards through the matplotlib objects that a display keeps. They need matplotlib, which
``pip install 'skdeepcluster[display]'`` brings; it is imported when something is drawn.
"""

from skdeepcluster.display._rejection import RejectionDisplay
from skdeepcluster.display._reliability import ReliabilityDisplay

__all__ = ["RejectionDisplay", "ReliabilityDisplay"]


def __dir__() -> list[str]:
    return __all__
