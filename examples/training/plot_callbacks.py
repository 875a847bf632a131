"""
Watch a fit
===========

Does it move, has it converged, did it get better or worse? Every fit keeps a history, and
scikit-learn's callbacks work with every estimator of this package. This example shows a progress
bar, draws the history of a fit, scores a model after each epoch, and stops a fit early with a
callback of its own.
"""

# %%
# A progress bar
# --------------
#
# Callbacks came with scikit-learn 1.9. Any number of them can be set on an estimator before it is
# fitted. ``ProgressBar`` needs the package rich; it has a bar for the fit and one for each of its
# phases. In a terminal the bars move. Here you see how they ended.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score

from skdeepcluster import MiniClustering, StableClusterDiscrimination
from skdeepcluster.callbacks import EmbeddingMonitor

X, y = load_digits(return_X_y=True)
model = MiniClustering(n_clusters=10, random_state=0)
_ = model.set_callbacks(ProgressBar()).fit(X)

# %%
# Without rich, ``verbose=2`` prints a line for each epoch, ``verbose=1`` one for each phase.
#
# The history
# -----------
#
# ``history_`` is always there, with one record for each epoch of each phase. The clustering phase
# also has the share of selected samples, those of which the model is sure enough to learn from.

history = {}
for record in model.history_:
    history.setdefault(record["phase"], []).append(record)
for phase, records in history.items():
    recorded = ", ".join(list(records[-1])[4:])  # after numbers and sizes
    print(f"{phase:12}{len(records):3} epochs with {recorded}")

# %%
# The losses of different phases cannot be compared: they are different functions. What they have in
# common is that they should fall and level off. If the last epochs still fall steeply, more
# ``max_epochs`` may help; if a loss rises, lower ``learning_rate``. Here the clusters are all but
# found before the clustering phase begins: nearly all samples are selected from its first epoch on,
# and what is left in its loss is noise and little else. Most of the time goes into the pretraining.

figure, axes = plt.subplots(2, 3, figsize=(6.6, 4), layout="constrained")
panels = [
    (phase, "loss")
    for phase in ("pretraining", "start", "calibration", "clustering")
]
panels.append(("clustering", "selected"))
for axis, (phase, name) in zip(axes.flat, panels, strict=False):
    color = "tab:blue" if name == "loss" else "tab:orange"
    axis.plot([record[name] for record in history[phase]], color=color)
    axis.set(title=phase, xlabel="epoch", ylabel=name)
axes.flat[4].set_ylim(0, 1.02)
seconds = [
    sum(record["seconds"] for record in records)
    for records in history.values()
]
axes.flat[5].barh(list(history), seconds, color="0.6")
axes.flat[5].set(title="time", xlabel="seconds")
axes.flat[5].invert_yaxis()
plt.show()

# %%
# Scores after each epoch
# -----------------------
#
# ``ScoringMonitor`` is scikit-learn's: it takes the name of a score, and applies it to the model as
# it is after an epoch, on the training data. It needs classes, so ``y`` is passed to ``fit``, which
# hands it to the callbacks and to nothing else: labels are never used for training.
#
# :class:`~skdeepcluster.callbacks.EmbeddingMonitor` looks at the embedding. The silhouette, how
# well clusters of k-means are separated in it, needs no classes. The accuracy of nearest neighbours
# does.
#
# The model is :class:`~skdeepcluster.StableClusterDiscrimination`, in which the embedding and the
# clusters are learned at the same time, so that there is something to see. Its probabilities are
# not needed here, so ``calibrate=False`` leaves that phase out.

scores = ScoringMonitor(scoring="adjusted_rand_score")
embedding = EmbeddingMonitor(every=1, n_clusters=10)
model = StableClusterDiscrimination(
    n_clusters=10, calibrate=False, random_state=0
)
model.set_callbacks(scores, embedding).fit(X, y)

rows = [row for row in scores.get_logs().data if row["task_name"] == "epoch"]
ari = [row["adjusted_rand_score"] for row in rows]
print(
    f"adjusted Rand index after the first epoch: {ari[0]:.2f},"
    f" after the last: {ari[-1]:.2f}"
)
print(", ".join(embedding.log[-1]))

# %%
# A callback of your own
# ----------------------
#
# It has four methods. One that returns True at the end of an epoch stops the phase. This one stops
# when fewer than one label in two hundred has changed since the epoch before.


class StopWhenSettled:
    """Stop a phase when hardly any label changes."""

    def setup(self, estimator, context):
        """Begin a fit."""
        self.labels = None

    def teardown(self, estimator, context):
        """End a fit."""

    def on_fit_task_begin(self, estimator, context):
        """Do nothing before an epoch or a phase."""

    def on_fit_task_end(
        self, estimator, context, *, X=None, fitted_estimator=None
    ):
        """Compare the labels with those of the epoch before."""
        if context.task_name != "epoch" or fitted_estimator is None:
            return False
        before, self.labels = self.labels, fitted_estimator.predict(X)
        return before is not None and np.mean(self.labels != before) < 0.005


stopped = StableClusterDiscrimination(
    n_clusters=10, calibrate=False, random_state=0
)
stopped.set_callbacks(StopWhenSettled()).fit(X)
agreement = adjusted_rand_score(stopped.labels_, model.labels_)
print(f"stopped after {stopped.n_iter_} of {model.n_iter_} epochs")
print(f"agreement with the whole fit (adjusted Rand index): {agreement:.2f}")

# %%
# With classes and without
# ------------------------
#
# On the left is what only classes can tell: neighbours in the embedding belong together from the
# first epoch on, and more and more clusters become digits. On the right is what you have without
# classes: the separation of the embedding, and from ``history_`` the share of samples that change
# their cluster in an epoch, which settles, as it should. Both level off when the scores on the left
# do. They say that the fit is over. They do not say that it is right: a wrong partition can be
# stable and well separated, too.

changed = [
    record["changed"]
    for record in model.history_
    if record["phase"] == "clustering"
]
silhouette = [record["silhouette"] for record in embedding.log]
accuracy = [record["knn_accuracy"] for record in embedding.log]

figure, axes = plt.subplots(
    1, 2, figsize=(6.6, 3.2), sharey=True, layout="constrained"
)
axes[0].plot(
    accuracy, color="tab:blue", linestyle="--", label="accuracy of neighbours"
)
axes[0].plot(ari, color="tab:blue", label="adjusted Rand index")
axes[1].plot(
    silhouette, color="tab:orange", label="silhouette of the embedding"
)
axes[1].plot(
    changed,
    color="tab:orange",
    linestyle="--",
    label="samples that change cluster",
)
for axis, title in zip(axes, ("With classes", "Without"), strict=True):
    axis.axvline(
        stopped.n_iter_ - 1, color="0.6", linestyle=":", label="settled"
    )
    axis.set(title=title, xlabel="epoch", ylim=(0, 1.02))
    axis.grid(axis="y", color="0.9")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(
        loc="lower right",
        bbox_to_anchor=(1, 0.1),
        framealpha=1,
        edgecolor="none",
    )
plt.show()

# %%
# What to read next
# -----------------
#
# * :class:`~skdeepcluster.callbacks.EmbeddingMonitor` also watches a pretraining on its own.
# * :doc:`/guide/reproducibility`: more about history, callbacks and the random state.
# * :doc:`/guide/saving`: checkpoints, for fits that are long enough to be killed.
# * :ref:`sphx_glr_auto_examples_judging_plot_number_of_clusters.py`: more about scores without
#   classes.

# sphinx_gallery_thumbnail_number = 2
