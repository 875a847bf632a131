"""Long-tailed benchmark sets, and images that lie on disk.

Importing this package imports neither torch nor PIL: both are needed by :class:`ImageFiles` alone,
and only once it is used.
"""

from skdeepcluster.datasets._image_files import IMAGE_EXTENSIONS, ImageFiles
from skdeepcluster.datasets._long_tailed import make_long_tailed

__all__ = ["IMAGE_EXTENSIONS", "ImageFiles", "make_long_tailed"]


def __dir__() -> list[str]:
    return __all__
