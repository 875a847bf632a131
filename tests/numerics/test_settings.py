"""Settings of the process that a call needs otherwise for a while."""

import sys
import threading

import pytest
import torch
from torch import nn

from skdeepcluster.base._view_choice import measure_views
from skdeepcluster.calibration import collect_votes
from skdeepcluster.data import ResidentSource
from skdeepcluster.numerics import (
    KMeansResult,
    SharedSetting,
    breathing_kmeans,
    centroid_silhouette,
    cluster_means,
    cosine_affinity,
    full_digits,
    kmeans,
    lloyd,
    nearest_center,
    nearest_neighbors,
)
from skdeepcluster.objectives import neighbor_medoids

SWITCHES = [torch.backends.mkldnn.matmul, torch.backends.cuda.matmul]


def precisions():
    return [switch.fp32_precision for switch in SWITCHES]


@pytest.fixture(params=["medium", "high", "for all backends"])
def lowered(request):
    """Products of float32 may lose digits."""
    if request.param == "for all backends":
        torch.backends.fp32_precision = "tf32"
    else:
        torch.set_float32_matmul_precision(request.param)
    assert "ieee" not in precisions()
    yield
    torch.backends.fp32_precision = "none"
    for switch in SWITCHES:
        switch.fp32_precision = "none"


class Setting:
    """Something that belongs to everybody."""

    def __init__(self, value):
        self.value, self.log = value, []
        self.shared = SharedSetting(
            lambda: self.value, self.set, lambda wanted: self.value == wanted
        )

    def set(self, value):
        self.value = value
        self.log.append(value)


def test_the_first_sets_and_the_last_puts_back():
    setting = Setting("user's")
    first, second = setting.shared("ours"), setting.shared("ours")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert setting.value == "ours"
    second.__exit__(None, None, None)
    assert setting.log == ["ours", "user's"]


def test_what_suits_is_left_alone():
    setting = Setting("ours")
    with setting.shared("ours"):
        setting.value = "of somebody else"
    assert setting.value == "of somebody else"
    assert setting.log == []


def test_it_is_put_back_after_an_error():
    setting = Setting(1)
    with pytest.raises(KeyError), setting.shared(2):
        raise KeyError
    assert setting.value == 1


def test_many_threads_all_have_it_and_none_keeps_it():
    setting, missing = Setting("user's"), []

    def enter():
        for _ in range(300):
            with setting.shared("ours"):
                if setting.value != "ours":
                    missing.append(1)

    threads = [threading.Thread(target=enter) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not missing
    assert setting.value == "user's"


def test_digits_are_kept_inside_and_the_user_s_choice_is_there_again(lowered):
    around = precisions()
    with full_digits():
        assert precisions() == ["ieee", "ieee"]
        with full_digits():
            pass
        assert precisions() == ["ieee", "ieee"]
    assert precisions() == around


def test_what_was_set_for_all_backends_is_not_fixed_for_each():
    torch.backends.fp32_precision = "tf32"
    try:
        with full_digits():
            pass
        torch.backends.fp32_precision = "ieee"
        assert precisions() == ["ieee", "ieee"]
    finally:
        torch.backends.fp32_precision = "none"


def test_without_a_lowered_precision_nothing_is_set():
    before = precisions()
    with full_digits():
        assert precisions() == before


def test_another_thread_waits_for_nobody(lowered):
    around, inside, leave = precisions(), threading.Event(), threading.Event()

    def stay():
        with full_digits():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=stay)
    with full_digits():
        thread.start()
        inside.wait(10)
    assert precisions() == ["ieee", "ieee"]
    leave.set()
    thread.join()
    assert precisions() == around


X = torch.arange(40.0).view(20, 2)
LABELS = torch.arange(20) % 3
MEANS = X[:3]
SIZES = torch.ones(3)
FUNCTIONS = {
    "kmeans": lambda: kmeans(X, 3, generator=torch.Generator().manual_seed(0), n_init=1),
    "breathing_kmeans": lambda: breathing_kmeans(X, 3, generator=torch.Generator().manual_seed(0)),
    "lloyd": lambda: lloyd(X, MEANS, max_iter=1),
    "nearest_center": lambda: nearest_center(X, MEANS),
    "cluster_means": lambda: cluster_means(X, LABELS, 3),
    "nearest_neighbors": lambda: nearest_neighbors(X, 3),
    "centroid_silhouette": lambda: centroid_silhouette(X, LABELS, 3),
    "cosine_affinity": lambda: cosine_affinity(MEANS, SIZES),
}


# Which compute more than distances.
CALLERS = {
    "votes": lambda: collect_votes(X, LABELS, 3, 2, torch.Generator().manual_seed(0), project=True),
    "medoids": lambda: neighbor_medoids(X, LABELS[:, None], LABELS[:, None] > 0),
    "choice of views": lambda: measure_views(
        ResidentSource(torch.rand(20, 1, 6, 6)), nn.Identity(), torch.Generator()
    ),
}
PRODUCTS = {torch.cdist, torch.matmul, torch.mm, torch.Tensor.__matmul__, torch.Tensor.matmul}


class Watching(torch.overrides.TorchFunctionMode):
    """Notes the precisions that are allowed whenever torch, or some of it, is called."""

    def __init__(self, functions=None):
        super().__init__()
        self.functions = functions
        self.seen = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if self.functions is None or func in self.functions:
            self.seen.add(tuple(precisions()))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_distances_keep_all_digits(function, lowered):
    with Watching() as watching:
        result = function()
    assert watching.seen == {("ieee", "ieee")}
    assert isinstance(result, KMeansResult | tuple | torch.Tensor | float)


@pytest.mark.parametrize("function", CALLERS.values(), ids=CALLERS)
def test_distances_elsewhere_keep_all_digits(function, lowered):
    with Watching(PRODUCTS) as watching:
        function()
    assert watching.seen == {("ieee", "ieee")}
