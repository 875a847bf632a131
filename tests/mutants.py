"""Plant one fault at a time in a copy of the package: the tests have to notice each.

``make mutants`` runs this; words on the command line choose faults by their names. A fault is a
term left out, a sign turned, a gradient stopped or let through, a switch without effect, or an
argument whose default is handed over in its place. One that no test notices is named, and the run
fails: a test is missing then.

The table holds pieces of source that occur exactly once, so that it cannot grow stale unseen. What
changes nothing that anybody could observe has no place in it.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import io
import multiprocessing
import os
import runpy
import shlex
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "skdeepcluster"
N_PROCESSES = 2
# Imported once for all processes, which are forked from there.
IMPORTED_ONCE = ["hypothesis", "lightning_fabric", "pytest", "scipy.stats", "sklearn", "timm"]
PYTEST = [
    *("-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-m", "not slow"),
    *("-o", "addopts=--strict-markers --import-mode=importlib"),
]


class Mutant(NamedTuple):
    """One fault.

    Attributes
    ----------
    file : str
        Where, below the package.
    before, after : str
        A piece of source, and what takes its place.
    tests : str
        Arguments of pytest, below ``tests``: those that should notice.
    position : (line, column), optional
        Where the piece begins, if it need not occur exactly once; lines count from one.
    """

    file: str
    before: str
    after: str
    tests: str
    position: tuple[int, int] | None = None

    def planted(self, source: str) -> str:
        """Return the source with the fault.

        Raises
        ------
        LookupError
            If the piece is not there, or not exactly once.
        """
        if self.position is None:
            if source.count(self.before) != 1:
                raise LookupError(f"{self} occurs {source.count(self.before)} times, not once")
            start = source.index(self.before)
        else:
            line, column = self.position
            start = sum(map(len, source.splitlines(keepends=True)[: line - 1])) + column
            if not source.startswith(self.before, start):
                raise LookupError(f"{self} does not stand there")
        return source[:start] + self.after + source[start + len(self.before) :]

    def __str__(self) -> str:
        """Name the fault."""
        line = "" if self.position is None else f":{self.position[0]}"
        return f"{self.file}{line}: {self.before!r} -> {self.after!r}"


# A file, the tests that should notice, and the faults.
TERMS: list[tuple[str, str, list[tuple[str, str]]]] = [
    (
        "objectives/_mini.py",
        "objectives/test_mini_objective.py",
        [
            ("confidence > threshold", "confidence >= 0"),
            ("learned = labels.where(selected, IGNORED)", "learned = labels"),
            ("selected * weights[labels]", "selected"),
            ("cross_entropy(logits, learned, weights, ", "cross_entropy(logits, learned, "),
            ("    return loss / torch.where", "    return -loss / torch.where"),
            ("/ torch.where(total > 0, total, 1.0)", "/ len(logits)"),
            ("share > occupancy_threshold", "share > 0"),
            ("occupied.clamp(min=0.5)", "occupied.clamp(min=1)"),
            ("share = table / torch.where(totals > 0, totals, 1.0)", "share = table"),
            ("p_target, p_mini = normalize(p_target, dim=1), normalize(p_mini, dim=1)", "pass"),
            ("(p_target @ p_target.T - p_mini", "(p_target @ p_target.T + p_mini"),
            ("signs[p_target.shape[1] :] = -1", "pass"),
            ("(running.log() - prior.log())", "running.log()"),
            ("self.table.copy_(counts / len(labels))", "self.table.copy_(counts)"),
            ("smoothed = counts.sum(dim=1) + 1.0", "smoothed = counts.sum(dim=1) + 0.0"),
            ("self.marginal.copy_(self.prior)", "pass"),
            ("head.start_from(centers, self.logit_scale)", "head.start_from(centers, 1.0)"),
            ("parameters += self.model.embedding.parameters()", "pass"),
            ("self.table.shape, self.occupancy_threshold)", "self.table.shape, 0.0)"),
            (
                "pseudo_labels(target_weak, self.confidence",
                "pseudo_labels(target_weak, 0 * self.confidence",
            ),
            (
                "pseudo_labels(mini_weak, self.confidence",
                "pseudo_labels(mini_weak, 0 * self.confidence",
            ),
            ("if self.neighbor_views:", "if False:"),
            ("if self.reweight:", "if True:"),
            ("self._update_table(labels, mini_labels)", "pass"),
            ("class_weights(self.table, self.occ", "class_weights(self.table, 0 * self.occ"),
            ("loss = self_training_loss(target_strong", "loss = self_training_loss(target_weak"),
            ("target_strong, labels, selected, weights)", "target_strong, labels, selected, None)"),
            ("mini_strong, mini_labels, mini_selected", "mini_weak, mini_labels, mini_selected"),
            ("self.mini_weight * self_training_loss(", "self_training_loss("),
            ("self.alignment_weight * alignment_loss(", "alignment_loss("),
            ("self.marginal_weight * marginal_loss(", "marginal_loss("),
            ("marginal = probabilities.mean", "marginal = probabilities.chunk(2)[1].mean"),
            ("probabilities.chunk(2)[0], mini_weak", "probabilities.chunk(2)[1], mini_weak"),
            ("self.marginal.lerp_(marginal.detach(), self.MARGINAL_RATE)", "pass"),
            ("self.table.lerp_(counts / len(labels), self.TABLE_RATE)", "self.table.copy_(counts)"),
        ],
    ),
    (
        "objectives/_calibrated.py",
        "objectives/test_calibrated_losses.py",
        [
            ("return means[regions]", "return probabilities"),
            ("return -(targets * log_softmax", "return (targets * log_softmax"),
            ("(logarithm - prior.log())", "logarithm"),
            ("marginal = probabilities.mean", "marginal = probabilities.detach().mean"),
        ],
    ),
    (
        "objectives/_calibrated.py",
        "objectives/test_calibrated_selection.py",
        [
            ("(prior * batch_size).round()", "(prior * batch_size).floor()"),
            ("expected.to(owed.dtype) + owed", "expected.to(owed.dtype)"),
            ("(due * (1 + 1e-6)).floor()", "due.floor()"),
            ("kept = within & (probabilities", "kept = within | (probabilities"),
            ("(due - kept.sum(dim=0)).clamp(0, 1)", "(due - kept.sum(dim=0)).clamp(min=0)"),
        ],
    ),
    (
        "objectives/_calibrated.py",
        "objectives/test_calibrated_objective.py objectives/test_calibrated_regions.py -k '"
        "sum_of_its or reaches or carry or follow or stay or start or copied or groups or "
        "weak_view'",
        [
            ("if self.proportional:", "if True:"),
            ("load_state_dict(self.clustering_head.state_dict())", "state_dict()"),
            ("self.ENCODER_RATE * learning_rate", "learning_rate"),
            ("is not None and not self.stop_gradient", "is not None"),
            ("self.calibration_head is not None and not self.stop", "False and self.stop"),
            ("z_weak = z_clean if weak is None", "z_weak = z_clean if True"),
            ("loss = loss + self._calibration_terms", "loss = 0 * self._calibration_terms"),
            ("judge = self.calibration_head or", "judge = self.clustering_head or"),
            ("self.clustering_head(z_strong), labels", "self.clustering_head(z_weak), labels"),
            (
                "with torch.no_grad():\n            regions",
                "with torch.enable_grad():\n            regions",
            ),
            ("loss = calibration_loss(logits, targets)", "loss = 0 * logits.sum()"),
            ("self.entropy_weight * size_divergence", "size_divergence"),
            ("self.regions.follow(z, regions)", "pass"),
            ("if self.fine_tune:\n            self.regions", "if True:\n            self.regions"),
            (
                "pseudo_labels(logits, self.confidence_threshold or 0.0)",
                "pseudo_labels(logits, 0.0)",
            ),
            ("self.owed.copy_(owed)", "pass"),
        ],
    ),
    (
        "objectives/_contrastive.py",
        "objectives/test_contrastive.py",
        [
            ("similarities = first @ second.T / temperature", "similarities = first @ second.T"),
            (
                "(cross_entropy(similarities, partners) +",
                "(cross_entropy(similarities, partners) -",
            ),
            (".fill_diagonal_(-torch.inf)", ""),
            (".roll(len(first))", ""),
            ("keys, queue = keys.detach(), queue.detach()", "pass"),
            (
                "torch.cat([positive, queries @ queue.T], dim=1)",
                "torch.cat([positive, positive], dim=1)",
            ),
            ("self.loss = nt_xent if both_kinds else", "self.loss = nt_xent if False else"),
            ("return self.loss(z1, z2, self.temperature)", "return self.loss(z1, z2, 1.0)"),
            ("progress * (self.final_momentum", "0 * (self.final_momentum"),
            ("self.teacher.update(self.embedding)", "pass"),
            ("keys = self.teacher(second)", "keys = self.embedding(second)"),
            ("self.queue.clone(), self.temperature)", "self.queue.clone(), 1.0)"),
            ("self._enqueue(keys)", "pass"),
            ("self.position.add_(len(keys)).remainder_(size)", "pass"),
        ],
    ),
    (
        "objectives/_byol.py",
        "objectives/test_byol.py",
        [
            ("normalize(predictions.float(), dim=1)", "predictions.float()"),
            ("* targets.detach())", "* targets)"),
            ("return 2 - 2 * cosines.mean()", "return 2 + 2 * cosines.mean()"),
            ('"lr": self.PREDICTOR_RATE * learning_rate', '"lr": learning_rate'),
            ("self.teacher.momentum = 1 - moving", "pass"),
            ("self.teacher.update(self.embedding)", "pass"),
            (".roll(len(first), dims=0)", ""),
            ("self.predictor(self.embedding(both))", "self.embedding(both)"),
        ],
    ),
    (
        "objectives/_discrimination.py",
        "objectives/test_discrimination_losses.py",
        [
            ("others = logits.detach().scatter", "others = logits.scatter"),
            ("own = logits.gather(-1, columns)", "own = logits.detach().gather(-1, columns)"),
            ("return -(label_share * by_label", "return -(by_label"),
            ("other_logits.detach().softmax", "other_logits.softmax"),
            ("(1 - label_share) * by_other", "by_other"),
            ("duals + rate * missing", "duals - rate * missing"),
            ("(duals + rate * missing).clamp(min=0)", "(duals + rate * missing)"),
            ("missing = lower_bound / n_clusters", "missing = 1 / n_clusters"),
            ("counts * torch.log1p(1 / counts.clamp(min=1)) +", "0 * counts +"),
        ],
    ),
    (
        "objectives/_discrimination.py",
        "objectives/test_discrimination_head.py objectives/test_discrimination_objective.py "
        "objectives/test_discrimination_refinement.py -k 'head_equals or epochs_of or beginning or "
        "last_visit or itself or side_by_side or mean_of_its_heads or decay or refinement or "
        "class_weights or finished'",
        [
            ("self.previous.copy_(self.head.weight)", "pass"),
            ("return (counts - own)[:, 1:]", "return (counts + 0 * own)[:, 1:]"),
            ("beside.logits(both.detach(), centers)", "beside.logits(both, centers)"),
            ("torch.where(last >= 0, last, labels)", "labels"),
            ("beside.logits(both, previous)", "beside.logits(both, centers)"),
            ("swapped = encoded.roll(len(index), dims=1)", "swapped = encoded"),
            ("losses = losses + encoder_loss", "losses = losses + 0 * encoder_loss"),
            ("cosines = (first + second) *", "cosines = (first + first) *"),
            ("cosines = cosines + duals[:, None]", "pass"),
            ("cosines - one.entropy_weight * entropy_cost", "cosines - entropy_cost"),
            ("cosines - one.entropy_weight *", "cosines + one.entropy_weight *"),
            ("one.DUAL_RATE_PER_CLUSTER * beside.n_clusters", "one.DUAL_RATE_PER_CLUSTER"),
            ("torch._foreach_copy_([head.duals for head in heads], own_duals)", "pass"),
            ("logits.masked_fill(self.absent, ", "logits.masked_fill(0 * self.absent > 0, "),
            ("column.minimum(sizes - 1)", "column.minimum(0 * sizes)"),
            ("lower_bound, rate, beside.n_clusters)", "lower_bound, rate)"),
            ("head.assignments[index] = own_labels", "pass"),
            ("self.assignments[:0].clone()", "self.assignments"),
            ('"weight_decay": 0.0}', "}"),
            ("loss = losses.mean()", "loss = losses.sum()"),
            (
                "contrast = info_nce(z1, z2, self.neighbor_temperature)",
                "contrast = info_nce(z1, z2, 1.0)",
            ),
            ("loss + self.neighbor_weight * contrast", "loss + contrast"),
            ("self_training_loss(head(z2), labels", "self_training_loss(head(z1), labels"),
            ("over_labels, shape)", "over_labels, shape, 0.0)"),
        ],
    ),
    (
        "objectives/_proximity.py",
        "objectives/test_proximity.py",
        [
            ("return (x - decoded).square().mean()", "return (x - decoded).abs().mean()"),
            (
                "return normalize(torch.lerp(codes, codes.flip(0), shares[:, None]), dim=1)",
                "return torch.lerp(codes, codes.flip(0), shares[:, None])",
            ),
            ("codes.flip(0)", "codes.roll(1, 0)"),
            ("(on_mixed - shares).square()", "on_mixed.square()"),
            (" + on_real.square().mean()", ""),
            ("torch.lerp(decoded, x, share)", "decoded"),
            ("return mutual & (distances", "return (distances"),
            ("return mutual & (distances <=", "return mutual | (distances <="),
            ("(1 - quantile) * edges.shape[1] / 2)", "0)"),
            ("* passed[:, None]", ""),
            ("(lengths * present[:, None])", "lengths"),
            ("* moved).mean()", ").mean()"),
            (
                "shares = torch.rand(len(x), device=x.device) / 2",
                "shares = torch.rand(len(x), device=x.device)",
            ),
            ("torch.cat([mixed, real]).detach()", "torch.cat([mixed, real])"),
            (
                "frozen = frozen_parameters(self.critic)",
                "frozen = dict(self.critic.named_parameters())",
            ),
            ("loss + self.weight * realism + criticism", "loss + realism + criticism"),
            ("loss + self.weight * realism + criticism", "loss + self.weight * realism"),
            ("self.target_decoder.load_state_dict(self.decoder.state_dict())", "pass"),
            ("target = self.target_decoder(centroids)", "target = self.decoder(centroids)"),
            ("torch.where(moved.view(-1, *[1] * (x.ndim - 1)), target, x)", "target"),
            ("self.code_weight * proximity, {", "proximity, {"),
            ("if share - self.share < self.GROWTH:", "if True:"),
            ("if self.filters is not None:", "if True:"),
            ('if self.filters == "both":', "if True:"),
            ("neighbor_medoids if self.medoids else", "neighbor_medoids if False else"),
            ("-self.SHARPNESS * centers.square().sum(dim=1)", "0 * centers.square().sum(dim=1)"),
            ("self.centroids[:0].clone()", "self.centroids"),
            ("self.moved[:0].clone()", "self.moved"),
            ("self.target_decoder = nn.Identity()\n        self.quantile", "self.quantile"),
            ("self.quantile.fill_(self.FIRST_QUANTILE)", "pass"),
            ("self.share.zero_()", "pass"),
            ("dtype=torch.bool))\n        self.forget_clusters()", "dtype=torch.bool))"),
            ("parameter.zero_()", "pass"),
        ],
    ),
    (
        "objectives/_generative.py",
        "objectives/test_generative.py",
        [
            ("kernel = kernel.square()", "pass"),
            ("return total / len(KERNEL_EXPONENTS)", "return total"),
            ("width = squared_distances.detach().mean()", "width = squared_distances.mean()"),
            ("own_made - 2 * across", "own_made - across"),
            (" - _mean_where(discrepancy, there & ~same)", ""),
            ("(real_means - made_means)", "(real_means + made_means)"),
            ("made_labels + n_classes])", "made_labels])"),
            (".masked_fill(itself, -1e9)", ""),
            ("== labels) & ~itself) * weights", "== labels) & ~itself) * torch.ones_like(weights)"),
            ("embedding @ embedding.T / temperature", "embedding @ embedding.T"),
            ("return -(weights * losses).sum()", "return -losses.sum()"),
            ("return logits.detach().softmax", "return logits.softmax"),
            ("self.prior.copy_((sizes + 1) / (sizes + 1).sum())", "pass"),
            ("self.ENCODER_RATE * learning_rate", "learning_rate"),
            ("numbers % self.n_clusters)", "0 * numbers)"),
            ("round(self.ratio * n)", "n"),
            ("selected = selected & (second.argmax(dim=1) == labels)", "pass"),
            ("pseudo_labels(first, self.confidence_threshold)", "pseudo_labels(first, 0.99)"),
            ("self_training_loss(second, labels, selected) +", "0 * second.sum() +"),
            ("self_training_loss(second, labels", "self_training_loss(first, labels"),
            ("self.size_weight * sizes", "sizes"),
            ("self.generated_weight * cross_entropy", "cross_entropy"),
            ("loss + weight * compare", "loss + compare"),
            ("trust if self.reliable else", "trust if True else"),
            ("loss + self.metric_weight * metric", "loss + metric"),
            ("2 * prepared - 1, labels)", "prepared, labels)"),
            ("loss, scalars = loss + denoising,", "loss, scalars = loss,"),
            ("remember(round(progress * self.n_steps))", "remember(self.n_steps)"),
            ("self.labels[:0].clone()", "self.labels"),
            ("self.generated[:0].clone()", "self.generated"),
        ],
    ),
    (
        "objectives/_diffusion.py",
        "objectives/test_diffusion.py",
        [
            ("(signal / start).clamp(1e-5, 0.9999)", "(signal / start)"),
            ("(1 - signal).sqrt() * noise", "noise"),
            ("(noisy - signal.sqrt() * clean)", "(noisy - clean)"),
            ("(errors * (most * (1 - signal) / signal).clamp(max=1))", "errors"),
            (
                "implied_noise(noisy, clean, signal), next_signal)",
                "implied_noise(noisy, clean, signal), signal)",
            ),
            ("min(self.MOMENTUM, 1 - 1 / (1 + n_steps))", "self.MOMENTUM"),
            ("self.average.update(self.denoiser)", "pass"),
            ("labels.masked_fill(dropped, self.n_classes)", "labels"),
            ("self.guidance * (own - common)", "(own - common)"),
            ("common + self.guidance", "own + self.guidance"),
        ],
    ),
    (
        "objectives/_regions.py",
        "objectives/test_regions.py",
        [
            ("self.centers[: len(centers)] = centers", "pass"),
            ("self.FOLLOWING_RATE * (counts > 0)", "self.FOLLOWING_RATE * (counts >= 0)"),
            ("self.FOLLOWING_RATE * (counts > 0)", "(counts > 0)"),
            ("self.centers.lerp_(means, rate[:, None])", "pass"),
            ("(n_clusters, len(self)))", "(n_clusters, len(self)), 0.0)"),
        ],
    ),
    (
        "numerics/_kmeans.py",
        "numerics/test_kmeans.py",
        [
            ("_repair_empty(X, means, counts, distances, norms)", "pass"),
            ("farthest = (distances + norms).topk", "farthest = distances.topk"),
            (
                "sums = torch.zeros(n_clusters, X.shape[1], dtype=torch.float64)",
                "return torch.zeros(n_clusters, X.shape[1]).to(X).index_add_(0, labels, X)",
            ),
            ("min(BLOCK_ENTRIES // X.shape[1], BLOCK_ROWS)", "BLOCK_ROWS"),
            ("X.shape[1], dtype=widest_dtype(X.device))", "X.shape[1])"),
            ("    runs = (", "    X, mean = X + mean, 0 * mean\n    runs = ("),
            ("run.inertia < (1 - ALIKE) * best", "run.inertia < best"),
            ("run.inertia < (1 - ALIKE) * best", "run.inertia > best"),
            ("right=True", "right=False"),
            ("distances = torch.minimum(distances, closest[:, None], out=distances)", "pass"),
            ("centers.T, alpha=-2)", "centers.T, alpha=-1)"),
            ("if length <= threshold or not n_moved", "if not n_moved"),
            ("previous[moved], n_clusters)", "labels[moved], n_clusters)"),
            ("sums + gained", "sums - gained"),
            ("inertia = (distances + norms)", "inertia = distances"),
        ],
    ),
    (
        "numerics/_breathing.py",
        "numerics/test_breathing.py numerics/test_kmeans.py",
        [
            ("max(ROWS_PER_CLUSTER * n_clusters, FEWEST_ROWS)", "FEWEST_ROWS"),
            ("max(ROWS_PER_CLUSTER * n_clusters, FEWEST_ROWS)", "len(X)"),
            ("    X = X - mean\n", "    X, mean = X + 99 * mean, -99 * mean\n"),
            ("centers=run.centers + mean)", "centers=run.centers)"),
            ("generator=own)[:n_rows]", "generator=generator)[:n_rows]"),
            ("_breathe(X[part], n_clusters, own)", "_breathe(X[part], n_clusters, generator)"),
            ("run = _breathe(X, n_clusters, own)", "run = _breathe(X, n_clusters, generator)"),
            ("run = _reach_out(X, lloyd(X,", "run = (lloyd(X,"),
            ("squared_lengths(X)).argmax", "squared_lengths(X)).argmin"),
            ("if moved.inertia < (1 - WORTHWHILE) * run.inertia:", "if False:"),
            ("len(X) - n_clusters)", "len(X))"),
            ("descending=True, stable=True", "stable=True"),
            ("cluster_sums(distances[:, None]", "cluster_sums(distances[:, None].sign()"),
            ("NEXT_TO * deviation[:, None]", "deviation[:, None]"),
            ("NEXT_TO * deviation[:, None]", "0 * deviation[:, None]"),
            ("missed.argsort(stable=True)", "(-missed).argsort(stable=True)"),
            ("staying.add(known[1][center])", "pass"),
            ("farther - nearest.values", "farther"),
            ("scores.scatter_(1, nearest.indices[:, None], torch.inf)", "scores"),
        ],
    ),
    (
        "numerics/_lengths.py",
        "numerics/test_lengths.py",
        [
            ("max(BLOCK_ENTRIES // X.shape[1], FEWEST_ROWS)", "BLOCK_ENTRIES"),
            ("rows.square()", "rows.abs()"),
        ],
    ),
    (
        "numerics/_spaced.py",
        "numerics/test_spaced.py",
        [
            (", dtype=torch.float64", ""),
            ("n_rows - 1", "n_rows"),
            ("min(n_rows, most), dtype", "most, dtype"),
        ],
    ),
    (
        "base/_estimator.py",
        "base/test_accelerators.py",
        [("or lies_elsewhere(value)", "")],
    ),
    (
        "networks/_backbones.py",
        "base/test_accelerators.py",
        [("state[name].cpu(), weights[name].cpu()", "state[name], weights[name]")],
    ),
    (
        "calibration/_confidence.py",
        "base/test_accelerators.py",
        [
            (
                "ConfidenceHead(views, n_clusters).to(votes.device)",
                "ConfidenceHead(views, n_clusters)",
            )
        ],
    ),
    (
        "estimators/_generative.py",
        "base/test_accelerators.py",
        [("self._objective.to(device)", "self._objective")],
    ),
    (
        "numerics/_neighbors.py",
        "numerics/test_neighbors.py",
        [
            (".fill_diagonal_(torch.inf)", ""),
            ("torch.split(X, BLOCK), X.mean(dim=0)", "torch.split(X, BLOCK), 0 * X[0]"),
            ("found.indices + offset", "found.indices"),
            ("where[theirs], scores, start)", "where[theirs], scores, other)"),
            ("products.T.contiguous()", "products"),
            (".clamp_(min=0).sqrt_()", ".clamp_(min=0)"),
        ],
    ),
    (
        "numerics/_linkage.py",
        "numerics/test_linkage.py",
        [
            ("total / np.outer(size, size)", "total.copy()"),
            ("total[kept] / (size[kept] * size)", "total[kept] / size[kept]"),
            ("size[kept] += size[absorbed]", "pass"),
            ("total[kept] += total[absorbed]", "pass"),
            ("((partner == kept) | (partner == absorbed))", "(partner == absorbed)"),
            ("((partner == kept) | (partner == absorbed))", "(partner == kept)"),
            ("normalize(centers, dim=1) * sizes[:, None]", "normalize(centers, dim=1)"),
            ("normalize(centers, dim=1) * sizes[:, None]", "centers * sizes[:, None]"),
            ("(edges + edges.T)", "edges"),
        ],
    ),
    (
        "numerics/_contingency.py",
        "numerics/test_contingency.py",
        [
            ("rows.long() * n_columns", "rows.long() * n_rows"),
            ("maximize=True", "maximize=False"),
            (".to(labels)[labels]", ".to(labels)[like]"),
        ],
    ),
    (
        "numerics/_propagation.py",
        "numerics/test_propagation.py",
        [
            ("OWN_VOTE = 1.5", "OWN_VOTE = 0.5"),
            ("OWN_VOTE = 1.5", "OWN_VOTE = 2.5"),
            ("MAX_ROUNDS = 10", "MAX_ROUNDS = 1"),
            ("bool(emptied.any())", "False"),
            ("emptied = used & ", "emptied = "),
        ],
    ),
    (
        "numerics/_settings.py",
        "numerics/test_settings.py",
        [
            ("self._n_users > 0 or not", "not"),
            ("not self._suits(value)", "True"),
            (
                "if self._n_users == 0:\n                    self._found",
                "if True:\n                    self._found",
            ),
            (
                "if self._n_users == 0:\n                        self._set",
                "if True:\n                        self._set",
            ),
            ("with _precisions(EXACT):", "if True:"),
            ('"none" if precision == general else precision', "precision"),
            ('in (EXACT, "none") for', 'in (EXACT, "none", "bf16", "tf32") for'),
        ],
    ),
    (
        "numerics/_draws.py",
        "numerics/test_draws.py",
        [
            ("manual_seed(self._seed)", "manual_seed(0)"),
            ("if func is torch.ops.aten.native_dropout.default:", "if False:"),
            ("(1 / (1 - p) if p < 1 else 0.0)", "1.0"),
            (".bernoulli_(1 - p, ", ".bernoulli_(p, "),
            ("if seeded is not None:", "if False:"),
            ('if kwargs.get("generator") is not None:', "if False:"),
            ("if name in LIKE:", "if False:"),
            ("_entered.draws = self._outer.pop()", "_entered.draws = None"),
            ("with self._redirection, torch._C.DisableTorchFunction():", "with self._redirection:"),
            ("generator.set_state(self._states.pop(device.type))", "pass"),
            ("return self._states | {", "return {"),
            ('device.type == "meta" or ', ""),
            ('.endswith("_backward")', '.endswith("no_backward")'),
            ("return bool(rate)", "return True"),
            ("if number < len(args) else kwargs", "if False else kwargs"),
            ("return self if self._is_needed else nullcontext()", "return nullcontext()"),
            ("or not _is_known(module)", ""),
            ("_Redirection(_refuse) if tells", "nullcontext() if tells"),
        ],
    ),
    (
        "training/_surroundings.py",
        "training/test_surroundings.py",
        [
            ("stack.enter_context(torch.inference_mode(False))", "pass"),
            ("if torch.is_autocast_enabled(device):", "if False:"),
            ('if torch.empty(0).device.type != "cpu":', "if False:"),
            ("stack.enter_context(_default_dtype(torch.float32))", "pass"),
            ('np.errstate(all="warn", under="ignore")', "np.errstate()"),
        ],
    ),
    (
        "training/_threads.py",
        "training/test_threads.py",
        [
            ("self._set(n_threads)\n        try:", "pass\n        try:"),
            ("self._set(previous)", "pass"),
            ("args=(self._for_new_threads,)", "args=(n_threads,)"),
            ("if self._n_users == 0:", "if True:"),
            ("with _blas_threads(n_threads), ", "with "),
            (', _pools("openmp").limit(limits=n_threads):', ":"),
            ("min(found, wanted)", "wanted"),
        ],
    ),
    (
        "networks/_embedding.py",
        "networks/test_embedding.py",
        [
            ("centered.sub_(self.remainder)", "centered"),
            ("(x - self.mean).to(self.mean.dtype)", "x.float() - self.mean"),
            ("torch.where(visible, remainder, 0.0)", "remainder"),
            ("+ self.remainder + self.mean", "+ self.mean"),
        ],
    ),
    (
        "networks/_pieces.py",
        "training/test_batches.py",
        [
            ("[torch.cat(pieces).argsort()]", ""),
            ("else draws.repeated()", "else draws"),
            ("buffer.copy_(before)", "pass"),
        ],
    ),
    (
        "training/_counters.py",
        "training/test_counters.py",
        [
            ("torch.stack(counters).cpu()", "torch.stack(counters)"),
            ("torch._foreach_copy_(counters, sent(counted, counters[0].device).unbind())", "pass"),
        ],
    ),
    (
        "data/_views.py",
        "data/test_views.py",
        [
            ("isinstance(augment, RandomImageViews)", "True"),
            ("seen = [own, others, *[own]", "seen = [own, own, *[own]"),
        ],
    ),
    (
        "data/_strong_views.py",
        "data/test_strong_views.py",
        [
            ("torch.cat([own, order.argsort(dim=1)])", "torch.cat([own, order])"),
            ("return images[rows[-1]]", "return images"),
        ],
    ),
    (
        "training/_steps.py",
        "training/test_batches.py",
        [
            ("self.load_state(copy.deepcopy(begin))", "pass"),
            ("self.optimizer.zero_grad()", "pass"),
            ("            self.tried = True", "            pass"),
            ("self.tried = False", "self.tried = True"),
        ],
    ),
    (
        "training/_recovery.py",
        "training/test_batches.py",
        [("self._set(1)", "pass"), ("self.batch_size < 4 * self.count", "False")],
    ),
    (
        "numerics/_conductance.py",
        "numerics/test_conductance.py",
        [
            ("others.clamp(1, n_neighbors)", "torch.full_like(others, n_neighbors)"),
            ("torch.minimum(volumes, volumes.sum() - volumes)", "volumes"),
        ],
    ),
    (
        "base/_start.py",
        "base/test_start.py",
        [
            ("SILHOUETTE_WEIGHT * silhouette", "0.0"),
            ("- math.log(LEAST_CONDUCTANCE + conductance)", ""),
            ("+ margin >= scores[best]", ">= scores[best]"),
            ("affordable = ROWS_TIMES_CLUSTERS // (n_samples * n_clusters)", "affordable = 0"),
            ("if n_clusters > FEW_CLUSTERS:", "if n_clusters >= FEW_CLUSTERS:"),
        ],
    ),
    (
        "base/_two_stage.py",
        "base/test_start.py",
        [
            ("torch.mean, margin=0.0)", "margin=0.0)"),
            ("torch.mean, margin=0.0)", "torch.mean)"),
        ],
    ),
    (
        "base/_two_stage.py",
        "base/test_clusters.py -k contradicts",
        [
            ('return labels, better == "merger"', "return labels, False"),
            ("views.graph, k, TAUGHT_MARGIN)", "views.graph, k)"),
            ('"plain": nearest_mean(embedding, labels, k), "merger": labels', '"merger": labels'),
        ],
    ),
    (
        "base/_tuning.py",
        "base/test_fine_tuning.py",
        [
            ("super().train(False)", "super().train(mode)"),
            ("tuned.backbone.get_parameter(name).requires_grad_(True)", "pass"),
            ("tuned.requires_grad_(False)", "tuned"),
            ('graph, n_clusters) == "tuned"', 'graph, n_clusters) == "plain"'),
        ],
    ),
    (
        "base/_two_stage.py",
        "base/test_fine_tuning.py -k taken_back",
        [("if self._frozen is not None:", "if False:")],
    ),
    (
        "base/_encoder_origin.py",
        "base/test_fine_tuning.py",
        [
            ("self.__dict__.clear()", "pass"),
            ('self._become({"selected_stage_": "clustering", **first.attributes})', "pass"),
            ("self._become(before)", "pass"),
        ],
    ),
    (
        "base/_clusterer.py",
        "base/test_fine_tuning.py",
        [('self.__dict__.pop("selected_stage_", None)', "pass")],
    ),
    (
        "base/_merging.py",
        "base/test_number_of_clusters.py",
        [('other.__dict__.pop("_merged_confidence", None)', "pass")],
    ),
    (
        "base/_protection.py",
        "base/test_clusters.py -k 'keeps_a_merger or rings or tells_apart'",
        [
            ('"features" if name in TOLD else "embedding"', '"features"'),
            ("mini = kmeans(embedding, n_parts", "mini = kmeans(ground.features, n_parts"),
            ("embedding, mini, nearest, k,", "ground.features, mini, nearest, k,"),
            ("embedding, mini, nearest, k,", "embedding, mini, None, k,"),
            ("if self._starts_from_mergers or self._sees_images():", "if True:"),
            ("numbered_alike(candidates[name], labels, n_clusters)", "candidates['plain']"),
        ],
    ),
    (
        "base/_clusterer.py",
        "base/test_number_of_clusters.py",
        [
            ("self._n_sized // FEWEST_SAMPLES", "MOST_CLUSTERS"),
            ("self._group(self._best_cut())", "pass"),
            ("            self._keep_best_number()\n            raise", "            raise"),
            ("(merged, views, groups[labels])", "(self._confidence, views, labels)"),
            ("if self._seeks_number() and not self._goes_on():", "if self._seeks_number():"),
            ('("cut_scores_", "_merged_confidence")', "()"),
        ],
    ),
    (
        "numerics/_silhouette.py",
        "numerics/test_silhouette.py",
        [
            ("(b - a) / torch.maximum(a, b).clamp(min=1e-12)", "b - a"),
            ("distances[:, counts == 0] = torch.inf", "pass"),
            ("float(average(values))", "float(values.mean())"),
            ("max(n_clusters, X.shape[1]), FEWEST_ROWS)", "n_clusters, FEWEST_ROWS)"),
        ],
    ),
    (
        "numerics/_partitions.py",
        "numerics/test_partitions.py",
        [
            ('scores["kmeans"] += margin * abs(scores["kmeans"])', "pass"),
            ("+= margin * abs", "+= KMEANS_MARGIN * abs"),
            ("labels, n_clusters, average)", "labels, n_clusters)"),
            ("scores[name])", "-scores[name])"),
        ],
    ),
    (
        "calibration/_confidence.py",
        "calibration/test_confidence.py",
        [
            ("return -log_softmax", "return log_softmax"),
            ("return ((1 - confidence) * shares)", "return shares"),
            (".clamp(min=(1 + LEAST_LEAD) / n_clusters)", ""),
            ("shares = shares + surplus", "shares = shares + 0 * surplus"),
            ("limit = (1 - LEAST_ADVANCE) * confidence", "limit = confidence"),
            ("ROW_LENGTH / torch.where(lengths > 0, lengths, ROW_LENGTH)", "lengths**0"),
            ("head.start_from(views, labels, votes)", "pass"),
            ("spread.clamp(min=LEAST_SPREAD)", "spread"),
            ("(counts.clamp(min=0.5) / len(labels)).log()", "0.0"),
            ("means / (len(views) * spread", "means / (spread"),
            ("_confidences(labels[rows].cpu(), said).sum()", "said.amax(dim=1).sum()"),
            ("[torch.stack(losses).argmin()]", "[-1]"),
        ],
    ),
    (
        "numerics/_transfer.py",
        "numerics/test_transfer.py",
        [
            ("SENT_ALONG = 2**16", "SENT_ALONG = 2**40"),
            ("> SENT_ALONG", ">= SENT_ALONG"),
            ('device.type != "cuda"', 'device.type == "cpu"'),
            ("non_blocking=True", "non_blocking=False"),
        ],
    ),
    (
        "training/_prefetch.py",
        "training/test_batches.py",
        [("nullcontext() if stream is None else torch.cuda.stream(stream)", "nullcontext()")],
    ),
    (
        "training/_device.py",
        "training/test_device.py",
        [
            ("torch.cuda.device(device)", "torch.cuda.device(0)"),
            ("torch.__version__ >= MPS_SINCE", "True"),
        ],
    ),
    (
        "data/_sources.py",
        "data/test_sources.py",
        [
            ("[0]) + kept", "[0])"),
            ("torch.arange(len(array)), n_rows", "torch.arange(len(array)), len(array)"),
            ("STATISTICS_ROWS), n_rows", "STATISTICS_ROWS), STATISTICS_BATCH"),
            ("rows_in_block(source.sample_shape, READ_ROWS)", "READ_ROWS"),
            ("// max(n_bytes, 1)), 1)", "// max(n_bytes, 1)), 0)"),
        ],
    ),
    (
        "base/_inference.py",
        "base/test_pieces.py",
        [
            ("max(n_images // 16 * 16, FEWEST_IMAGES)", "n_images // 16 * 16"),
            ("frozen.least_side**2 if frozen else 0", "0"),
            ("rows_per_pass(source, frozen)):", "512):"),
            ("yield pad(features, (0, 0, 0, INFERENCE_BATCH - len(index)))", "yield features"),
            ("INFERENCE_BATCH * 64 * 64", "2**40"),
        ],
    ),
    (
        "training/_steps.py",
        "training/test_loop.py",
        [("fused=not scaled", "fused=True")],
    ),
    (
        "numerics/_widest.py",
        "base/test_accelerators.py",
        [("torch.float32 if", "torch.float64 if")],
    ),
    (
        "calibration/_outliers.py",
        "calibration/test_outliers.py",
        [
            ("distances + view.square().sum(dim=1)", "distances"),
            ("own * sizes / (sizes - 1)", "own * sizes / sizes"),
            ("torch.minimum(without, others)", "without"),
            ("torch.minimum(without, others)", "others"),
            (".nan_to_num(posinf=0.0)", ""),
            ("(nearer + not_farther) / 2", "nearer"),
            ("n + 1 - ratio, inside", "n, inside"),
            ("len(X) // ROWS_PER_MEAN", "len(X)"),
            ("view = views[0]", "view = views[-1]"),
        ],
    ),
    (
        "base/_merging.py",
        "base/test_merging.py",
        [
            ("groups if self._groups is None else groups[self._groups]", "groups"),
            ("merge_tree(self._outputs, members)", "merge_tree(self._outputs, members)[::-1]"),
            ("self._groups = self._outputs = None", "pass"),
            ("np.where(sizes > 0, sizes, 1e-9)", "np.ones(len(sizes))"),
            ("counted / weights", "1 / weights"),
            ("occupied.clip(max=1)", "occupied"),
            ("silhouette + MODULARITY_WEIGHT * separation", "silhouette"),
            ("MergedOpinion(opinion, torch.from_numpy(self._groups))", "opinion"),
            ('np.maximum(self._outputs["cluster_sizes_"][members], 1e-9)', "np.ones(len(members))"),
            ("elif isinstance(value, np.ndarray | list | dict):", "elif False:"),
            ("setattr(other, name, clone(value))", "pass"),
        ],
    ),
    (
        "base/_adjacency.py",
        "base/test_merging.py",
        [
            ("counts / (2 * n_pairs)", "counts / n_pairs"),
            ("affinity += (np.outer(shares, shares)", "_ = (np.outer(shares, shares)"),
            ("affinity[0, shares == 0] = affinity[shares == 0, 0] = 1.0", "pass"),
            ("inside - np.square(ends).sum()", "inside"),
            ("drawn - 1 + elsewhere", "10 + 0 * drawn"),
            ("one_way.triu() + one_way.tril(diagonal=-1).T", "one_way.triu()"),
        ],
    ),
    (
        "networks/_heads.py",
        "networks/test_heads.py",
        [
            ('logits, "amax")', 'logits, "sum")'),
            (
                "aligned_linear(probabilities, self.indicator).log()",
                "aligned_linear(probabilities, self.indicator)",
            ),
        ],
    ),
    (
        "base/_clusterer.py",
        "base/test_outliers.py",
        [
            ("agreed(embedding[rows].to(source.device))", "agreed(rows[:, None].float())"),
            (
                "agreed(prepared_rows(self._model.prepare, source, rows))",
                "agreed(embedding[rows].to(source.device))",
            ),
        ],
    ),
    (
        "calibration/_votes.py",
        "calibration/test_votes.py",
        [
            (
                "numbered_alike(_partition(seen, n_clusters, generator), labels, n_clusters)",
                "_partition(seen, n_clusters, generator)",
            ),
            ("_project(X, generator) if project", "X if project"),
            ("max(min(n // 2, most)", "max(min(n, most)"),
            ("KMeansResult(mini.centers - X.mean(dim=0)", "KMeansResult(mini.centers"),
            ('if mini is None or name == "kmeans":', "if True:"),
            ("TORN_CONDUCTANCE + TORN_RATIO * apart", "TORN_CONDUCTANCE"),
            ("used * is_one * torch.exp", "is_one * torch.exp"),
            ("used * is_one * torch.exp", "used * torch.exp"),
            ("* torch.exp(-(apart / APART_CONDUCTANCE).square())", ""),
            ("torch.where(divided, shares.view(-1, 2).amax(dim=1), 1.0)", "shares[::2]"),
        ],
    ),
    (
        "calibration/_calibrator.py",
        "calibration/test_calibrator.py -k as_asked",
        [("n_classes, self.n_voters, generator", "n_classes, 16, generator")],
    ),
]
# Files in which estimators hand their arguments over, and who should notice if one does not.
WIRED = {
    "estimators/_mini.py": "-k MiniClustering",
    "estimators/_calibrated.py": "-k CalibratedDeepClustering",
    "estimators/_discrimination.py": "-k StableClusterDiscrimination",
    "estimators/_proximity.py": "-k ProximityDeepClustering",
    "estimators/_generative.py": (
        "estimators/test_generative.py -k 'GenerativeCalibration or too_large'"
    ),
    "pretraining/_simclr.py": "-k SimCLR",
    "pretraining/_moco.py": "-k MoCo",
    "pretraining/_byol.py": "-k BYOL",
    "base/_two_stage.py": "-k 'MiniClustering or CalibratedDeepClustering'",
    "base/_pretrainer.py": "-k 'SimCLR or BYOL'",
    "base/_clusterer.py": "",
    "base/_encoder_origin.py": "",
    "base/_estimator.py": "",
}
# Arguments for the machine, the networks and the course of a fit, which have tests of their own: no
# objective and no phase hears of them.
NOT_WIRED = {
    "backbone",
    "pretrained",
    "views",
    "device",
    "precision",
    "num_workers",
    "checkpoint_dir",
    "warm_start",
    "random_state",
    "verbose",
}


def terms() -> Iterator[Mutant]:
    """Yield the faults of the table."""
    for file, tests, faults in TERMS:
        for before, after in faults:
            yield Mutant(file, before, after, tests)


def wires() -> Iterator[Mutant]:
    """Yield a fault for every place where an argument is read: its default takes its place."""
    shared = _defaults(_parse("estimators/_mini.py"))
    for file, tests in WIRED.items():
        tree = _parse(file)
        defaults = _defaults(tree) or shared
        for node in _reads(tree):
            if node.attr in defaults.keys() - NOT_WIRED:
                yield Mutant(
                    file,
                    f"self.{node.attr}",
                    defaults[node.attr],
                    f"estimators/test_wiring.py {tests}",
                    (node.lineno, node.col_offset),
                )


def _parse(file: str) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text())


def _defaults(tree: ast.Module) -> dict[str, str]:
    """Return the source of the default of each argument of the estimator in a file, if any."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__" and node.args.kwonlyargs:
            positional = node.args.args[1:]  # n_clusters, after self
            arguments = [*positional, *node.args.kwonlyargs]
            defaults = [*node.args.defaults, *node.args.kw_defaults]
            return {
                argument.arg: ast.unparse(default)
                for argument, default in zip(arguments, defaults, strict=True)
                if default is not None
            }
    return {}


def _reads(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Yield where methods read an attribute of self, other than for a message."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.JoinedStr):
            continue
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Load)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        ):
            yield node
        yield from _reads(node)


MUTANTS = [*terms(), *wires()]


def passes(tests: str, mutant: Mutant | None = None) -> bool:
    """Return whether tests pass in a copy of the package, with a fault in it if one is given.

    The process is to be a new one, into which the package was not imported yet.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for part in ("skdeepcluster", "tests"):
            shutil.copytree(ROOT / part, folder / part)
        shutil.copy(ROOT / "pyproject.toml", folder)
        if mutant is not None:
            file = folder / "skdeepcluster" / mutant.file
            file.write_text(mutant.planted(file.read_text()))
        os.chdir(folder)
        sys.path[0] = str(folder)
        warnings.simplefilter("ignore", SyntaxWarning)  # a literal stands where a name stood
        # What cannot be imported is a mistake in the table, which no test should get to notice.
        import hypothesis
        import pytest

        import skdeepcluster.estimators

        assert Path(skdeepcluster.__file__).is_relative_to(folder), "another copy was imported"
        # What is here already stays: collecting garbage, as pytest often does, need not look at it.
        gc.freeze()
        # The first example that fails will do; looking for a smaller one takes most of the time.
        phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
        hypothesis.settings.register_profile("mutants", phases=phases)
        hypothesis.settings.load_profile("mutants")
        files = shlex.split(tests)
        arguments = [f"tests/{word}" if word.endswith(".py") else word for word in files]
        with contextlib.redirect_stdout(io.StringIO()) as output:
            code = pytest.main([*PYTEST, *arguments])
        os.chdir(ROOT)
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"{mutant}: {tests} ended with {code!r}\n{output.getvalue()}")
    return code == pytest.ExitCode.OK


def main() -> int:
    """Plant all faults, one at a time, and name those that nothing notices."""
    begin = time.perf_counter()
    # The environment of the tests, before anything is imported.
    runpy.run_path(str(ROOT / "tests" / "conftest.py"))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED_ONCE)
    words = sys.argv[1:]
    mutants = [mutant for mutant in MUTANTS if all(word in str(mutant) for word in words)]
    every = sorted({mutant.tests for mutant in mutants})
    with ProcessPoolExecutor(N_PROCESSES, context, max_tasks_per_child=1) as pool:
        sound = [pool.submit(passes, tests) for tests in every]
        runs = [pool.submit(passes, mutant.tests, mutant) for mutant in mutants]
        failing = [tests for tests, run in zip(every, sound, strict=True) if not run.result()]
        if failing:
            pool.shutdown(cancel_futures=True)
            print("These tests fail without any fault:", *failing, sep="\n  ")
            return 1
        survivors = []
        for number, (mutant, run) in enumerate(zip(mutants, runs, strict=True), 1):
            if run.result():
                survivors.append(mutant)
                print(f"{number}/{len(mutants)} survives: {mutant}", flush=True)
    seconds = time.perf_counter() - begin
    print(f"{len(mutants)} faults, {len(survivors)} unnoticed, {seconds:.0f} seconds")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
