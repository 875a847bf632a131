"""What the promises run on: all estimators, those that must be right, methods, and images."""

import pytest
from sklearn.base import clone

from tests.instances import CRIPPLED, ESTIMATORS, IMAGE_METHODS, LOST_CLUSTERS, METHODS


def crippled_may_lose_clusters(names):
    return [pytest.param(n, marks=LOST_CLUSTERS if n in CRIPPLED else ()) for n in names]


@pytest.fixture(params=crippled_may_lose_clusters(ESTIMATORS))
def estimator(request):
    return clone(ESTIMATORS[request.param])


@pytest.fixture(params=[name for name in ESTIMATORS if name not in CRIPPLED])
def sound_estimator(request):
    return clone(ESTIMATORS[request.param])


@pytest.fixture(params=METHODS)
def method(request):
    return clone(METHODS[request.param])


@pytest.fixture(params=IMAGE_METHODS)
def image_method(request):
    return clone(IMAGE_METHODS[request.param])
