"""scikit-learn's checks, complete, on every estimator with its defaults, and some more."""

import pytest
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdeepcluster import MiniClustering
from skdeepcluster.pretraining import SimCLR
from tests.instances import CLUSTERERS, PRETRAINERS, brief

ESTIMATORS = [estimator() for estimator in CLUSTERERS + PRETRAINERS]

# check_estimator leaves these out; scikit-learn runs them on its own estimators.
FURTHER_CHECKS = [
    "check_dataframe_column_names_consistency",
    "check_estimators_partial_fit_n_features",
    "check_get_feature_names_out_error",
    "check_global_output_transform_pandas",
    "check_global_set_output_transform_polars",
    "check_inplace_ensure_writeable",
    "check_n_features_in_after_fitting",
    "check_param_validation",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
]

# Some checks ask for eight clusters of thirty samples in two tight blobs, and get fewer.
LOST_CLUSTERS = "ignore:.* clusters have no sample:sklearn.exceptions.ConvergenceWarning"


@pytest.mark.filterwarnings(LOST_CLUSTERS)
@parametrize_with_checks(ESTIMATORS)
def test_sklearn_compatible(estimator, check):
    # No expected failures; and a skip is a failure here, so that none can hide.
    try:
        check(estimator)
    except pytest.skip.Exception as skipped:
        pytest.fail(f"skipped: {skipped}")


# The set_output checks fit on a dataframe and transform an array, which warns in every estimator.
@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names:UserWarning")
@pytest.mark.filterwarnings(LOST_CLUSTERS)
@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(estimator, check, marks=pytest.mark.slow if known else ())
        for estimator in CLUSTERERS + PRETRAINERS
        for check in FURTHER_CHECKS
        # What is done with outputs is the same for all.
        for known in ["output" in check and estimator not in (MiniClustering, SimCLR)]
    ],
)
def test_further_checks(estimator, check):
    getattr(estimator_checks, check)(estimator.__name__, brief(estimator))
