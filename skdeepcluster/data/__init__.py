"""Where training samples come from, and the random views made of them."""

from skdeepcluster.data._image_views import RandomImageViews, contrastive_views
from skdeepcluster.data._sources import (
    RESIDENT_SHARE,
    ArraySource,
    DatasetSource,
    ResidentSource,
    SelectedSource,
    Source,
    free_memory,
    moments,
    open_array,
    ordered_batches,
    value_range,
)
from skdeepcluster.data._strong_views import StrongImageViews
from skdeepcluster.data._views import (
    AugmentedViews,
    EmbeddedViews,
    IndexedViews,
    NeighborViews,
    unchanged,
)

__all__ = [
    "RESIDENT_SHARE",
    "ArraySource",
    "AugmentedViews",
    "DatasetSource",
    "EmbeddedViews",
    "IndexedViews",
    "NeighborViews",
    "RandomImageViews",
    "ResidentSource",
    "SelectedSource",
    "Source",
    "StrongImageViews",
    "contrastive_views",
    "free_memory",
    "moments",
    "open_array",
    "ordered_batches",
    "unchanged",
    "value_range",
]
