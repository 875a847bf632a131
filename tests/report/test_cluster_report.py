"""The report of each cluster says what plain loops over the model's answers say."""

import json
import math
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from skdeepcluster import MiniClustering
from skdeepcluster.report import ClusterReport, cluster_report
from tests.instances import CLUSTERERS, METHODS, fitted
from tests.samples import X, Y

WITH_X = ["label", "size", "share", "confidence", "class_weight", "nearest"]
WITH_X += ["representatives", "least_certain"]
WITHOUT_X = ["label", "size", "share", "class_weight", "nearest"]

METHOD = pytest.mark.parametrize("method", METHODS)


@pytest.fixture
def model():
    return fitted(METHODS["default"])


def distance(a, b):
    return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)))


def mean_of(rows):
    return [sum(float(row[axis]) for row in rows) / len(rows) for axis in range(len(rows[0]))]


def column(report, key):
    return [record[key] for record in report.records]


@METHOD
def test_every_value_is_what_loops_give(method):
    model = fitted(METHODS[method])
    report = cluster_report(model, X, n_representatives=4)

    labels, embedding = model.predict(X), model.transform(X)
    confidence = model.predict_proba(X).max(axis=1)
    members = [[row for row in range(len(X)) if labels[row] == k] for k in range(3)]
    means = [mean_of([embedding[row] for row in rows]) for rows in members]
    for k, record in enumerate(report.records):
        rows, n_members = members[k], len(members[k])
        assert list(record) == WITH_X
        assert record["label"] == k
        assert record["size"] == n_members
        assert record["share"] == n_members / len(X)
        assert record["confidence"] == pytest.approx(sum(confidence[rows]) / n_members)
        assert record["class_weight"] == model.class_weights_[k]
        others = [other for other in range(3) if other != k]
        assert record["nearest"] == min(others, key=lambda o: distance(means[k], means[o]))
        far = {row: distance(embedding[row], means[k]) for row in rows}
        assert record["representatives"] == sorted(rows, key=far.get)[:4]
        assert record["least_certain"] == sorted(rows, key=lambda row: confidence[row])[:4]


@METHOD
def test_without_x_it_is_about_the_training_data(method):
    model = fitted(METHODS[method])
    known, asked = cluster_report(model), cluster_report(model, X)
    assert column(known, "size") == model.cluster_sizes_.tolist()
    for record, same in zip(known.records, asked.records, strict=True):
        assert record == {key: same[key] for key in WITHOUT_X}


def test_the_first_representative_is_the_medoid(model):
    embedding = model.transform(X).astype(float)
    for record in cluster_report(model, X).records:
        rows = np.flatnonzero(model.labels_ == record["label"])
        sums = [sum(distance(embedding[a], embedding[b]) ** 2 for b in rows) for a in rows]
        assert record["representatives"][0] == rows[np.argmin(sums)]


def test_x_may_be_whatever_the_estimator_takes(model):
    expected = cluster_report(model, X)
    assert cluster_report(model, X.tolist()) == expected
    table = pd.DataFrame(X)
    assert cluster_report(model, table) == expected
    assert cluster_report(model.set_output(transform="pandas"), X) == expected


def test_an_empty_cluster_is_there_with_nothing_in_it(model):
    rows = np.flatnonzero(model.labels_ != 1)
    report = cluster_report(model, X[rows], texts=["word"] * len(rows))
    empty = dict(report.records[1])
    assert empty.pop("class_weight") == model.class_weights_[1]
    assert empty == {"label": 1, "size": 0, "share": 0, "confidence": None, "nearest": None} | {
        "representatives": [],
        "least_certain": [],
        "terms": [],
    }
    assert [report.records[k]["nearest"] for k in (0, 2)] == [2, 0]
    assert "nan" not in str(report).lower() + report._repr_html_().lower()

    frame = cluster_report(model, X[rows]).to_frame()
    assert frame["nearest"].tolist() == [2, pd.NA, 0]
    assert frame["confidence"].isna().tolist() == [False, True, False]


def test_one_sample_is_a_report(model):
    report = cluster_report(model, X[:1])
    assert sorted(column(report, "size")) == [0, 0, 1]
    assert column(report, "nearest") == [None] * 3
    assert [0] in column(report, "representatives")


def test_one_cluster_has_no_other():
    model = MiniClustering(1, max_epochs=0, random_state=0, pretraining=None).fit(X[:20])
    [record] = cluster_report(model, X[:20]).records
    assert record["nearest"] is None
    assert record["size"] == 20
    assert str(cluster_report(model)).startswith("20 samples in 1 cluster\n")


WORDS = {0: "red apple", 1: "blue ocean wave", 2: "old stone house"}


def some_texts():
    """Return a text for each row: words of its kind, one that is everywhere, and one number."""
    return [f"The {WORDS[kind]} thing {row % 4}{row % 4}" for row, kind in enumerate(Y)]


def test_the_terms_are_those_of_the_formula(model):
    texts = some_texts()
    report = cluster_report(model, X, texts=texts)

    counted = [dict[str, int]() for _ in range(3)]
    for text, k in zip(texts, model.labels_, strict=True):
        for word in text.lower().split()[1:]:  # without "the"
            counted[k][word] = counted[k].get(word, 0) + 1
    everywhere = dict[str, int]()
    for words in counted:
        for word, count in words.items():
            everywhere[word] = everywhere.get(word, 0) + count
    mean_length = sum(everywhere.values()) / 3
    for k, words in enumerate(counted):
        weight = {
            word: count * math.log(1 + mean_length / everywhere[word])
            for word, count in words.items()
        }
        ranked = sorted(sorted(weight), key=lambda word: -weight[word])
        assert report.records[k]["terms"] == ranked[:10]
        kind = Y[np.flatnonzero(model.labels_ == k)[0]]
        assert set(ranked[: len(WORDS[kind].split())]) == set(WORDS[kind].split())


def test_terms_need_no_x_and_no_more_than_ten_are_named(model):
    texts = [" ".join(f"word{row}x{number}" for number in range(5)) for row in range(len(X))]
    assert [len(terms) for terms in column(cluster_report(model, texts=texts), "terms")] == [10] * 3


def test_a_cluster_without_words_has_no_terms(model):
    texts = ["" if label == 0 else "word" for label in model.labels_]
    assert column(cluster_report(model, texts=texts), "terms") == [[], ["word"], ["word"]]


def test_names_come_after_the_label(model):
    report = cluster_report(model, names=["a", "b", "c"])
    assert list(report.records[0])[:2] == ["label", "name"]
    assert column(report, "name") == ["a", "b", "c"]


@pytest.mark.parametrize("estimator", CLUSTERERS)
def test_a_model_that_is_not_fitted_is_refused(estimator):
    with pytest.raises(NotFittedError, match=estimator.__name__):
        cluster_report(estimator(3), X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"texts": ["one"]}, r"texts must hold one string per row of X; got 1 strings for 90 rows"),
        ({"texts": ["a"] * 89 + [None]}, r"texts must hold strings; got None at position 89"),
        ({"texts": ["the"] * 90}, "empty vocabulary"),
        ({"names": ["a"]}, r"names must hold one name for each of the 3 clusters; got 1"),
        ({"n_representatives": 0}, r"n_representatives == 0, must be >= 1"),
    ],
)
def test_what_does_not_suit_is_named(model, options, message):
    for data in (X, None):
        with pytest.raises(ValueError, match=message):
            cluster_report(model, data, **options)


@pytest.mark.parametrize("names", [{0: "a", 1: "b", 2: "c"}, {"a", "b", "c"}])
def test_names_without_an_order_are_refused(model, names):
    with pytest.raises(TypeError, match=f"names must be a sequence .*got a {type(names).__name__}"):
        cluster_report(model, X, names=names)


@pytest.mark.parametrize("other", [KMeans(3), GridSearchCV(KMeans(3), {"max_iter": [5, 9]}, cv=2)])
def test_other_estimators_are_named(other):
    with pytest.raises(TypeError, match=f"{type(other).__name__} is no clusterer of this package"):
        cluster_report(other.fit(X), X)


def test_numbers_of_representatives_are_whole(model):
    with pytest.raises(TypeError, match="n_representatives"):
        cluster_report(model, X, n_representatives=2.5)


def test_what_the_estimator_refuses_is_refused_in_its_words(model):
    with pytest.raises(ValueError, match="4 features"):
        cluster_report(model, X[:, :4])


def test_records_are_plain(model):
    report = cluster_report(model, X, names=["a", "b", "c"], texts=some_texts())
    assert json.loads(json.dumps(report.records)) == report.records


def test_the_frame_has_the_records(model):
    report = cluster_report(model, X, names=["a", "b", "c"])
    frame = report.to_frame()
    assert list(frame) == list(report.records[0])
    assert frame.to_dict("records") == report.records
    assert list(cluster_report(model).to_frame()) == WITHOUT_X


def test_a_missing_pandas_is_named_and_only_needed_for_frames(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    report = cluster_report(model, X)
    assert str(report)
    with pytest.raises(ImportError, match="pip install pandas"):
        report.to_frame()


RECORDS = [
    {"label": 0, "name": "cats\nand  dogs", "size": 1200, "share": 0.96, "confidence": 0.875}
    | {"class_weight": 1.5, "nearest": 1, "representatives": [1, 20, 3, 4, 5, 6]},
    {"label": 1, "name": "<b>&\"'</b>", "size": 0, "share": 0.0, "confidence": None}
    | {"class_weight": 13.0, "nearest": None, "representatives": []},
]


def test_the_text_is_an_aligned_table():
    assert repr(ClusterReport(RECORDS)) == "\n".join(
        [
            "1200 samples in 2 clusters",
            "cluster  name           size  share  confidence  weight  nearest  representatives",
            "      0  cats and dogs  1200  96.0%        0.88    1.50        1  1, 20, 3, 4, 5, ...",
            "      1  <b>&\"'</b>        0   0.0%           -   13.00        -",
        ]
    )


class Tables(HTMLParser):
    """What a browser makes of a piece of HTML: the texts of the cells, and all tags."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data


def test_the_html_has_the_same_cells_and_nothing_of_the_users_but_text():
    text = ClusterReport(RECORDS)._repr_html_()
    tables = Tables(text)
    assert tables.tags == {"div", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert tables.cells[:2] == ["cluster", "name"]
    assert tables.cells[9] == "cats and dogs"
    assert tables.cells[17] == "<b>&\"'</b>"
    assert "<b>" not in text
    assert "http" not in text  # nothing from elsewhere
    assert set(re.findall(r"color: (\w+)", text)) == {"inherit"}  # of dark pages, too


def test_words_of_texts_and_names_are_escaped(model):
    names = ["<script>alert(1)</script>"] * 3
    text = cluster_report(model, names=names, texts=some_texts())._repr_html_()
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_of_many_clusters_the_first_are_shown():
    records = [
        {"label": k, "size": 1, "share": 0.01, "class_weight": 1.0, "nearest": 0}
        for k in range(100)
    ]
    report = ClusterReport(records)
    lines = str(report).splitlines()
    assert len(lines) == 2 + 60 + 1
    assert lines[-1] == "... and 40 more clusters, which are in records"
    assert report._repr_html_().count("<tr>") == 61
    assert lines[-1] in report._repr_html_()
