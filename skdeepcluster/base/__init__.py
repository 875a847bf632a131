"""What estimators share: the story of a fit, parameters and input, predictions, recipes."""

from skdeepcluster.base._building import (
    GRAPH_EDGES,
    GRAPH_ROWS,
    MakeProjector,
    PairedViews,
    Recipe,
    Views,
    blank_frozen,
    blank_networks,
    given,
    n_fine_clusters,
)
from skdeepcluster.base._clusterer import DeepClusterer
from skdeepcluster.base._estimator import DeepEstimator, on_cpu
from skdeepcluster.base._inference import Predictions, consult, prepared_rows
from skdeepcluster.base._judging import Judgement, is_better, judge_heads, judged_rows
from skdeepcluster.base._prediction import PredictingEstimator
from skdeepcluster.base._pretrainer import (
    FEATURE_EMBEDDING,
    FEATURE_TEMPERATURE,
    IMAGE_TEMPERATURE,
    Pretrainer,
    remembered,
)
from skdeepcluster.base._report import CallbackReport
from skdeepcluster.base._start import (
    candidate_partitions,
    ground_of,
    teach_head,
    teach_together,
)
from skdeepcluster.base._two_stage import TwoStageClusterer
from skdeepcluster.base._validation import (
    TEMPERATURE,
    integer,
    one_of,
    positive_integers,
    real,
    validate_parameters,
)

__all__ = [
    "FEATURE_EMBEDDING",
    "FEATURE_TEMPERATURE",
    "GRAPH_EDGES",
    "GRAPH_ROWS",
    "IMAGE_TEMPERATURE",
    "TEMPERATURE",
    "CallbackReport",
    "DeepClusterer",
    "DeepEstimator",
    "Judgement",
    "MakeProjector",
    "PairedViews",
    "PredictingEstimator",
    "Predictions",
    "Pretrainer",
    "Recipe",
    "TwoStageClusterer",
    "Views",
    "blank_frozen",
    "blank_networks",
    "candidate_partitions",
    "consult",
    "given",
    "ground_of",
    "integer",
    "is_better",
    "judge_heads",
    "judged_rows",
    "n_fine_clusters",
    "on_cpu",
    "one_of",
    "positive_integers",
    "prepared_rows",
    "real",
    "remembered",
    "teach_head",
    "teach_together",
    "validate_parameters",
]
