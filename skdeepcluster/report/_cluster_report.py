"""One record per cluster: how large, how sure, what is typical, what is near."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_scalar

from skdeepcluster.report._members import (
    Rows,
    least_certain,
    means_of,
    members_of,
    nearest_others,
    nearest_to_mean,
)
from skdeepcluster.report._names import list_of_names
from skdeepcluster.report._pipelines import last_step
from skdeepcluster.report._tables import Record, as_html, as_text
from skdeepcluster.report._terms import checked_texts, distinctive_terms

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class ClusterReport:
    """One record per cluster; printed, or shown in a notebook, it is a table.

    :func:`cluster_report` makes one and says what the records hold.

    Parameters
    ----------
    records : list of dict
        One for each cluster in the order of the labels, with the same keys in the same order, and
        nothing in them but Python's own numbers, strings and lists, so that they can be written as
        JSON.

    Examples
    --------
    >>> from skdeepcluster.report import ClusterReport
    >>> ClusterReport([
    ...     {"label": 0, "name": "cats", "size": 30, "share": 0.75, "nearest": 1},
    ...     {"label": 1, "name": "dogs", "size": 10, "share": 0.25, "nearest": 0},
    ... ])
    40 samples in 2 clusters
    cluster  name  size  share  nearest
          0  cats    30  75.0%        1
          1  dogs    10  25.0%        0
    """

    records: list[Record]

    def to_frame(self) -> pd.DataFrame:
        """Return the records as a table of pandas, a row for each cluster.

        Returns
        -------
        frame : pandas.DataFrame
            The keys of the records are its columns. What an empty cluster lacks is missing in
            pandas' own way (``pandas.NA``).

        Raises
        ------
        ImportError
            If pandas is not installed, which nothing else here needs.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "to_frame makes a DataFrame of pandas, which is not installed; install it with: "
                "pip install pandas. The attribute records holds the same without it."
            ) from error
        frame = pd.DataFrame(self.records)
        # With these types a missing value leaves numbers of clusters whole.
        types = {"nearest": "Int64", "confidence": "Float64"}
        return frame.astype({name: types[name] for name in types if name in frame})

    def __repr__(self) -> str:
        return as_text(self.records)

    def _repr_html_(self) -> str:
        """Return the table that notebooks show."""
        return as_html(self.records)


def cluster_report(
    model: Any,
    X: Any = None,
    *,
    names: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
    n_representatives: int = 5,
) -> ClusterReport:
    r"""Tell for each cluster how large and how sure it is, what is typical of it and what is near.

    Parameters
    ----------
    model : estimator
        A fitted clusterer of this package, or a Pipeline that ends in one.
    X : array-like or other source of samples, default=None
        Samples as the model takes them, from the fit or new ones. None stands for the training
        data, of which a model keeps the labels, the means and nothing else: the report then has no
        `confidence`, `representatives` and `least_certain`.
    names : sequence of str of length n_clusters, default=None
        What to call the clusters, in the order of their numbers. None leaves the column out.
    texts : sequence of str of length n_samples, default=None
        The text behind each row of X (or of the training data), for the `terms` of each cluster.
        None leaves the column out.
    n_representatives : int, default=5
        Most rows to name of each cluster, of the typical and of the least certain ones: as many
        as one looks at.

    Returns
    -------
    report : ClusterReport
        Its `records` have these entries:

        label : int
            The number of the cluster.
        name : str
            With `names` alone.
        size, share : int, float
            How many of the samples are in it, and which part of all.
        confidence : float
            Mean of the largest `predict_proba` of its members.
        class_weight : float
            Its entry of ``class_weights_``, which the fit has set: about the training data.
        nearest : int
            The other cluster whose mean in the embedding (`transform`) is nearest to its own: the
            first to look at where two clusters could be one. None if there is no other.
        representatives : list of int
            The rows of X that are nearest to that mean, the nearest first: its medoid, and what is
            like it.
        least_certain : list of int
            The members with the lowest confidence, the lowest first: where the cluster ends.
        terms : list of str
            With `texts` alone, up to ten words that tell it from the others.

        A cluster without a member among the samples has the size 0, the confidence and the nearest
        cluster None, and no rows and terms.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the model is not fitted.
    ValueError
        If `names` has not one entry for each cluster, `texts` not one string for each row, or
        `n_representatives` is below 1; if no text has a word in it; and as in `predict`.
    TypeError
        If `n_representatives` is no whole number, `names` no sequence, or there is no clusterer of
        this package.

    See Also
    --------
    skdeepcluster.display.ClusterMapDisplay : The clusters as a map.
    skdeepcluster.display.ImageGridDisplay : The representatives as pictures.

    Notes
    -----
    The terms are those with the largest class-based TF-IDF [1]_, which takes all texts of a cluster
    as one:

    .. math:: W_{t,c} = \mathrm{tf}_{t,c} \cdot \log\left(1 + \frac{A}{\mathrm{tf}_t}\right)

    Here :math:`\mathrm{tf}_{t,c}` says how often the term t comes in cluster c,
    :math:`\mathrm{tf}_t` how often in all clusters, and A is the mean number of words of a cluster
    that has any. Words are counted by scikit-learn's
    :class:`~sklearn.feature_extraction.text.CountVectorizer`, lower case and without the English
    words that stand in every text; those of other languages are not left out.

    References
    ----------
    .. [1] M. Grootendorst. "BERTopic: Neural topic modeling with a class-based TF-IDF procedure."
       arXiv:2203.05794, 2022.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> from skdeepcluster import MiniClustering
    >>> from skdeepcluster.report import cluster_report
    >>> X, _ = make_blobs([300, 40, 40], n_features=6, random_state=1)
    >>> model = MiniClustering(n_clusters=3, random_state=0).fit(X)
    >>> report = cluster_report(model, X, n_representatives=3)
    >>> sorted(record["size"] for record in report.records)
    [40, 40, 300]
    >>> ", ".join(report.records[0])
    'label, size, share, confidence, class_weight, nearest, representatives, least_certain'
    """
    model, X = last_step(model, X)
    check_scalar(n_representatives, "n_representatives", Integral, min_val=1)
    n_clusters = len(model.class_weights_)
    columns: dict[str, Sequence[Any]] = {"label": range(n_clusters)}
    if names is not None:
        columns["name"] = _checked_names(names, n_clusters)

    labels, confidence = _labels(model, X)
    members = members_of(labels, n_clusters)
    sizes = np.array([len(rows) for rows in members])
    columns |= {"size": sizes.tolist(), "share": (sizes / len(labels)).tolist()}
    if confidence is not None:
        columns["confidence"] = [_mean(confidence[rows]) for rows in members]
    columns["class_weight"] = np.asarray(model.class_weights_, dtype=np.float64).tolist()

    if confidence is None:
        columns["nearest"] = nearest_others(model.cluster_centers_, sizes)
    else:
        embedding = np.asarray(model.transform(X))  # set_output may have made a table of it
        columns["nearest"] = nearest_others(means_of(embedding, members), sizes)
        columns |= _named_rows(embedding, confidence, members, n_representatives)
    if texts is not None:
        columns["terms"] = distinctive_terms(checked_texts(texts, len(labels)), labels, n_clusters)
    rows_of_columns = zip(*columns.values(), strict=True)
    return ClusterReport([dict(zip(columns, row, strict=True)) for row in rows_of_columns])


def _labels(model: Any, X: Any) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """Return the cluster of each sample and, where there are samples to ask for, how sure it is."""
    if X is None:
        return model.labels_, None
    # Not predict_proba, which is a table of all samples and clusters.
    clusters, probabilities = model.predict_top(X, k=1)
    return clusters[:, 0], probabilities[:, 0]


def _named_rows(
    embedding: NDArray[Any],
    confidence: NDArray[np.float64],
    members: Sequence[Rows],
    n_rows: int,
) -> dict[str, list[list[int]]]:
    """Return the rows that are typical of each cluster, and those at its edge."""
    return {
        "representatives": [nearest_to_mean(embedding, rows, n_rows).tolist() for rows in members],
        "least_certain": [least_certain(confidence, rows, n_rows).tolist() for rows in members],
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


def _checked_names(names: Sequence[str], n_clusters: int) -> list[str]:
    checked = list_of_names(names)
    if len(checked) != n_clusters:
        raise ValueError(
            f"names must hold one name for each of the {n_clusters} clusters; got {len(checked)}. "
            "Pass them in the order of the clusters' numbers."
        )
    return checked
