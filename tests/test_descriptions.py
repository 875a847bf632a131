"""What several estimators have in common is described in the same words, and as the code has it."""

import inspect
import re
from collections import defaultdict

import pytest

from skdeepcluster import (
    CalibratedDeepClustering,
    GenerativeCalibrationClustering,
    MiniClustering,
    ProximityDeepClustering,
    StableClusterDiscrimination,
)
from skdeepcluster.pretraining import BYOL, MoCo, SimCLR

CLUSTERERS = [
    MiniClustering,
    CalibratedDeepClustering,
    StableClusterDiscrimination,
    ProximityDeepClustering,
    GenerativeCalibrationClustering,
]
PRETRAININGS = [SimCLR, MoCo, BYOL]
ESTIMATORS = [*CLUSTERERS, *PRETRAININGS]

# What is described in words of one's own, by whom, and why.
OWN_WORDS = {
    # Each method has its own: the name is the role that it has there.
    "init": CLUSTERERS,
    "confidence_threshold": CLUSTERERS,
    "entropy_weight": CLUSTERERS,
    "temperature": ESTIMATORS,
    "momentum": PRETRAININGS,
    # Recipes differ.
    "max_epochs": ESTIMATORS,
    "batch_size": [cls for cls in CLUSTERERS if cls is not ProximityDeepClustering],
    "learning_rate": ESTIMATORS,
    # It takes several numbers of clusters, and needs no pretraining.
    "n_clusters": [StableClusterDiscrimination],
    "pretraining": [StableClusterDiscrimination],
    # It has more stages.
    "selected_stage_": [StableClusterDiscrimination],
    # What learns where nothing arrives trained differs.
    "fine_tune": CLUSTERERS,
    # It has another head to fall back on.
    "calibrate": [CalibratedDeepClustering],
    # Weights come from the fine partition that the method has, records hold its own scalars, and
    # batches are skipped for a reason of its own.
    "class_weights_": CLUSTERERS,
    "history_": ESTIMATORS,
    "n_skipped_steps_": [MiniClustering, CalibratedDeepClustering, StableClusterDiscrimination],
    # A pretraining has one phase and need not name it.
    "n_iter_": PRETRAININGS,
    "max_epochs_": PRETRAININGS,
    "batch_size_": PRETRAININGS,
    "learning_rate_": PRETRAININGS,
}


def described(estimator, section):
    """Return type and description of each entry of a section of a docstring."""
    doc = inspect.getdoc(estimator)
    [text] = re.findall(rf"^{section}\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)", doc, re.M | re.S)
    entries = {}
    for entry in re.split(r"^(?=\S)", text, flags=re.M):
        if entry.strip():
            head, _, body = entry.partition("\n")
            name, kind = head.split(" : ")
            entries[name] = (kind, " ".join(body.split()))
    return entries


def descriptions():
    """Return for each name who describes it how."""
    found = defaultdict(dict)
    for estimator in ESTIMATORS:
        for section in ("Parameters", "Attributes"):
            for name, words in described(estimator, section).items():
                found[name][estimator] = words
    return found


DESCRIPTIONS = descriptions()
SHARED = sorted(name for name, found in DESCRIPTIONS.items() if len(found) > 1)


@pytest.mark.parametrize("name", SHARED)
def test_what_is_shared_is_described_in_the_same_words(name):
    own = OWN_WORDS.get(name, [])
    shared = {words for who, words in DESCRIPTIONS[name].items() if who not in own}
    assert len(shared) <= 1


@pytest.mark.parametrize("name", OWN_WORDS)
def test_no_exception_is_out_of_date(name):
    assert name in SHARED
    assert len(set(DESCRIPTIONS[name].values())) > 1


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_parameters_are_described_in_their_order_and_with_their_defaults(estimator):
    parameters = inspect.signature(estimator).parameters
    entries = described(estimator, "Parameters")
    assert list(entries) == list(parameters)
    for name, (kind, _) in entries.items():
        default = parameters[name].default
        shown = f'"{default}"' if isinstance(default, str) else repr(default)
        assert kind.endswith(f", default={shown}"), name


def test_the_parser_sees_what_differs():
    def one():
        """Do.

        Parameters
        ----------
        a : int, default=1
            One,
            two.

        Attributes
        ----------
        b_ : int
            Three.
        """

    assert described(one, "Parameters") == {"a": ("int, default=1", "One, two.")}
    assert described(one, "Attributes") == {"b_": ("int", "Three.")}
