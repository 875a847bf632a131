"""Every method, alone and with what it is to be fitted on."""

import pytest
from sklearn.base import clone

from tests.pretraining.pretraining_helpers import METHODS, image_backbone
from tests.samples import IMAGES, NOISE


@pytest.fixture(params=METHODS)
def method(request):
    return clone(METHODS[request.param])


@pytest.fixture(params=["features", "images"])
def case(request, method):
    """A method, and what it is to be fitted on."""
    if request.param == "features":
        return method, NOISE
    return method.set_params(backbone=image_backbone(), batch_size=12), IMAGES
