"""Where training samples come from, and the random views made of them."""

from skdeepcluster.data._containers import check_targets, unpack
from skdeepcluster.data._dataset_source import DatasetSource
from skdeepcluster.data._image_views import LARGEST_UNBLURRED, RandomImageViews, contrastive_views
from skdeepcluster.data._layout import channels_last
from skdeepcluster.data._ranges import PixelRange, ScaledSource, pixel_range, scale_to
from skdeepcluster.data._sources import (
    RESIDENT_SHARE,
    ArraySource,
    ResidentSource,
    SelectedSource,
    Source,
    deliverable,
    free_memory,
    moments,
    open_array,
    ordered_batches,
    rows_in_block,
    value_range,
)
from skdeepcluster.data._strong_views import StrongImageViews
from skdeepcluster.data._views import (
    AugmentedViews,
    FunctionViews,
    IndexedViews,
    NeighborViews,
    TensorViews,
    name_of,
    unchanged,
)

__all__ = [
    "LARGEST_UNBLURRED",
    "RESIDENT_SHARE",
    "ArraySource",
    "AugmentedViews",
    "DatasetSource",
    "FunctionViews",
    "IndexedViews",
    "NeighborViews",
    "PixelRange",
    "RandomImageViews",
    "ResidentSource",
    "ScaledSource",
    "SelectedSource",
    "Source",
    "StrongImageViews",
    "TensorViews",
    "channels_last",
    "check_targets",
    "contrastive_views",
    "deliverable",
    "free_memory",
    "moments",
    "name_of",
    "open_array",
    "ordered_batches",
    "pixel_range",
    "rows_in_block",
    "scale_to",
    "unchanged",
    "unpack",
    "value_range",
]
