"""Heads that start as the nearest-centre rule, as prototypes of the data, or as directions."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from skdeepcluster.networks import (
    CosineHead,
    EmbeddingOpinion,
    MergedLabels,
    MergedOpinion,
    PrototypeHead,
    PrototypePerceptron,
    most_likely,
)


def random_rows(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_started_head_is_the_nearest_center_rule(scale):
    centers, z = random_rows(7, 5), normalize(random_rows(100, 5, seed=1), dim=1)
    head = PrototypeHead(5, 7)
    head.start_from(centers, scale)
    logits = head(z)
    torch.testing.assert_close(logits, scale * z @ normalize(centers, dim=1).T)
    nearest = torch.cdist(z, normalize(centers, dim=1)).argmin(dim=1)
    assert torch.equal(logits.argmax(dim=1), nearest)


def test_confidence_grows_with_the_scale():
    centers, z = random_rows(7, 5), normalize(random_rows(100, 5, seed=1), dim=1)
    head = PrototypeHead(5, 7)
    confidences = []
    for scale in (1, 10, 100):
        head.start_from(centers, scale)
        confidences.append(head(z).softmax(dim=1).max(dim=1).values.mean().item())
    assert confidences == sorted(confidences)
    assert confidences[0] < 0.5 < 0.95 < confidences[2]


def test_start_keeps_the_parameters_trainable_and_the_centers_as_they_are():
    centers = random_rows(3, 4).requires_grad_()
    before = centers.detach().clone()
    head = PrototypeHead(4, 3)
    weight = head.weight
    head.start_from(centers, 5.0)
    assert head.weight is weight
    assert weight.requires_grad
    assert weight.grad_fn is None
    assert not head.bias.any()
    assert torch.equal(centers.detach(), before)
    torch.testing.assert_close(weight.norm(dim=1), torch.full((3,), 5.0))


def test_a_center_of_zero_gets_neutral_logits():
    head = PrototypeHead(4, 2)
    head.start_from(torch.stack([torch.zeros(4), torch.ones(4)]), 10.0)
    assert not head(random_rows(5, 4))[:, 0].any()


def blobs(n_blobs, n=120, d=6, noise=0.05, seed=0):
    """Return samples around well separated centres, of unequal numbers, and their blobs."""
    generator = torch.Generator().manual_seed(seed)
    centers = 3 * torch.randn(n_blobs, d, generator=generator)
    labels = (torch.rand(n, generator=generator).square() * n_blobs).long()
    labels[:n_blobs] = torch.arange(n_blobs)
    return centers[labels] + noise * torch.randn(n, d, generator=generator), labels


def started(z, labels, n_hidden, n_clusters, seed=0):
    """Return a head in the precision of the samples, started from them."""
    # The constructor draws weights, which the start then overwrites.
    with torch.random.fork_rng():
        head = PrototypePerceptron(z.shape[1], n_hidden, n_clusters).to(z.dtype)
    head.start_from(z, labels, torch.Generator().manual_seed(seed))
    return head.eval()


def standardized_directions(z):
    """Return the rows of which the hidden centres are means, and the deviations."""
    z = z.double().numpy()
    deviation = z.std(axis=0)
    deviation[deviation == 0] = 1
    rows = (z - z.mean(axis=0)) / deviation
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1), deviation


def test_a_perceptron_is_linear_norm_relu_linear():
    z, labels = blobs(4)
    head = started(z, labels, 10, 4)
    with torch.no_grad():
        head.norm.weight.uniform_(0.5, 2)
        head.norm.bias.uniform_(-1, 1)
        head.output.bias.uniform_(-1, 1)
    hidden = z @ head.hidden.weight.T
    deviation = (head.norm.running_var + head.norm.eps).sqrt()
    scaled = (hidden - head.norm.running_mean) / deviation * head.norm.weight + head.norm.bias
    expected = scaled.clamp(min=0) @ head.output.weight.T + head.output.bias
    torch.testing.assert_close(head(z), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [10, 120, 1000])
def test_the_norm_starts_with_the_statistics_of_a_pass_over_all_data(n):
    # More than sixteen rows for each hidden unit, so k-means sees only some of the thousand.
    z = (4 * random_rows(n, 6) @ random_rows(6, 6, seed=1) + 2).double()
    head = started(z, torch.arange(n) % 3, 10, 3)
    hidden = head.hidden(z)
    torch.testing.assert_close(head.norm.running_mean, hidden.mean(dim=0))
    torch.testing.assert_close(head.norm.running_var, hidden.var(dim=0, correction=0))
    responses = head.norm(hidden)
    torch.testing.assert_close(responses.mean(dim=0), torch.zeros(10).double())


def test_a_pass_in_training_mode_starts_where_inference_does():
    z, labels = blobs(4, n=1000)
    head = started(z, labels, 10, 4)
    expected = head(z)
    torch.testing.assert_close(head.train()(z), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_hidden_rows_are_centers_of_k_means(scale, seed):
    # Few enough samples for all of them to be used, and for k-means to come to rest.
    z = scale * blobs(5, n=80, noise=0.3, seed=seed)[0].double() * torch.arange(1, 7) + scale
    head = started(z, torch.zeros(80, dtype=torch.long), 5, 1, seed=seed)
    directions, deviation = standardized_directions(z)
    centers = head.hidden.weight.detach().numpy() * deviation
    nearest = np.square(directions[:, None] - centers[None]).sum(axis=2).argmin(axis=1)
    assert set(nearest) == set(range(5))
    for j in range(5):
        np.testing.assert_allclose(centers[j], directions[nearest == j].mean(axis=0), atol=1e-9)


def test_hidden_rows_do_not_depend_on_the_scale_or_place_of_a_feature():
    z = blobs(5, n=80)[0].double()
    labels = torch.arange(80) % 2
    factors = torch.tensor([1e-3, 1.0, 2.0, 10.0, 1e3, 1.0]).double()
    head, other = started(z, labels, 5, 2), started(z * factors + 7, labels, 5, 2)
    torch.testing.assert_close(other.hidden.weight * factors, head.hidden.weight)
    torch.testing.assert_close(other(z * factors + 7), head(z))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("n_blobs", "n_hidden"), [(1, 4), (2, 8), (4, 16), (8, 64)])
def test_the_start_agrees_with_a_partition_of_separate_blobs(n_blobs, n_hidden, seed):
    z, labels = blobs(n_blobs, n=400, seed=seed)
    # One cluster more than there are blobs: without samples it gets none.
    head = started(z, labels, n_hidden, n_blobs + 1, seed=seed)
    assert torch.equal(head(z).argmax(dim=1), labels)


def test_output_rows_are_directions_of_mean_activations():
    z, labels = blobs(4)
    head = started(z, labels, 10, 5)
    activations = torch.relu(head.norm(head.hidden(z)))
    for k in range(4):
        expected = normalize(activations[labels == k].mean(dim=0), dim=0)
        torch.testing.assert_close(normalize(head.output.weight[k], dim=0), expected)
    assert not head.output.weight[4].any()  # no sample is in the fifth cluster
    assert not head.output.bias.any()


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_logits_of_a_typical_sample_have_the_length_promised(scale):
    z, labels = blobs(4)
    head = started(scale * z, labels, 10, 4)
    length = torch.relu(head.norm(head.hidden(scale * z))).norm(dim=1).mean()
    lengths = head.output.weight.norm(dim=1) * length
    torch.testing.assert_close(lengths, torch.full((4,), PrototypePerceptron.START_SCALE))


def test_the_start_is_the_same_in_one_chunk_or_many(monkeypatch):
    z, labels = blobs(4)
    expected = started(z, labels, 10, 4)(z)
    monkeypatch.setattr("skdeepcluster.networks._heads.CHUNK_ROWS", 7)
    torch.testing.assert_close(started(z, labels, 10, 4)(z), expected)


@pytest.mark.parametrize("n_clusters", [1, 3])
@pytest.mark.parametrize(
    "z",
    [
        random_rows(12, 4),
        random_rows(12, 4) * torch.tensor([1.0, 0.0, 1.0, 0.0]) + torch.tensor([0.0, 5.0, 0, 0]),
        random_rows(3, 4).repeat(4, 1),
        torch.ones(12, 4),
        torch.zeros(12, 4),
        random_rows(40, 1),
    ],
    ids=["as many units as samples", "constant features", "repeated", "ones", "zeros", "narrow"],
)
def test_odd_data_start_a_finite_head(z, n_clusters):
    labels = torch.arange(len(z)) % n_clusters
    head = started(z, labels, 12, n_clusters)
    assert all(torch.isfinite(tensor).all() for tensor in head.state_dict().values())
    for mode in (False, True):
        logits = head.train(mode)(z)
        assert logits.shape == (len(z), n_clusters)
        assert torch.isfinite(logits).all()
    logits.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


def test_a_constant_feature_does_not_matter():
    z, labels = blobs(4)
    wide = torch.cat([z, torch.full((len(z), 1), 0.3)], dim=1)
    head = started(wide, labels, 10, 4)
    assert not head.hidden.weight[:, -1].any()
    torch.testing.assert_close(head(wide), started(z, labels, 10, 4)(z))


def test_one_sample_for_one_unit():
    head = started(torch.ones(1, 3), torch.zeros(1, dtype=torch.long), 1, 1)
    assert torch.isfinite(head(torch.ones(2, 3))).all()


@pytest.mark.parametrize("n", [100, 1000])
def test_the_start_depends_on_its_generator_alone(n):
    # Of the thousand samples k-means sees some, drawn at random.
    z, labels = random_rows(n, 6), torch.arange(n) % 3
    before = torch.get_rng_state()
    head = PrototypePerceptron(6, 10, 3)
    drawn = torch.get_rng_state()
    head.start_from(z, labels, torch.Generator().manual_seed(5))
    assert torch.equal(torch.get_rng_state(), drawn)
    torch.set_rng_state(before)
    same, other = started(z, labels, 10, 3, seed=5), started(z, labels, 10, 3, seed=6)
    for name, tensor in head.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name]), name
    assert not torch.equal(head.hidden.weight, other.hidden.weight)


def test_a_start_changes_neither_samples_nor_what_is_trained():
    z, labels = blobs(4)
    z_before, labels_before = z.clone(), labels.clone()
    head = PrototypePerceptron(6, 10, 4)
    parameters, names = dict(head.named_parameters()), head.state_dict().keys()
    head.start_from(z, labels, torch.Generator())
    assert torch.equal(z, z_before)
    assert torch.equal(labels, labels_before)
    assert head.state_dict().keys() == names
    for name, parameter in head.named_parameters():
        assert parameter is parameters[name]
        assert parameter.requires_grad
        assert parameter.grad_fn is None
    head.train()(z).square().sum().backward()
    assert all(p.grad.any() for p in head.parameters())


def test_a_perceptron_is_renumbered():
    z, labels = blobs(4)
    head = started(z, labels, 10, 4)
    with torch.no_grad():
        head.output.bias.copy_(torch.tensor([0.0, 1.0, -1.0, 2.0]))
    before, order = head(z), torch.tensor([3, 0, 2, 1])
    head.reorder(order)
    assert torch.equal(head(z), before[:, order])


def cosine_head(n_clusters=7, width=5, temperature=0.05, seed=0):
    """Return a head whose weights have lengths other than one."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = CosineHead(width, n_clusters, temperature)
        with torch.no_grad():
            head.weight.mul_(torch.rand(n_clusters, 1) + 0.5)
    return head


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("n_clusters", [1, 2, 7])
def test_logits_are_cosines_over_the_temperature(n_clusters, temperature):
    head, z = cosine_head(n_clusters, temperature=temperature), random_rows(10, 5, seed=1)
    logits = head(normalize(z, dim=1))
    assert logits.shape == (10, n_clusters)
    for i in range(10):
        for k in range(n_clusters):
            w = head.weight[k].detach()
            cosine = (z[i] @ w) / (z[i].norm() * w.norm())
            assert logits[i, k].item() == pytest.approx(cosine.item() / temperature, rel=1e-4)


def test_a_new_cosine_head_has_unit_weights_from_the_global_generator():
    heads = []
    for seed in (3, 3, 4):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            heads.append(CosineHead(5, 7, 0.1))
    torch.testing.assert_close(heads[0].weight.norm(dim=1), torch.ones(7))
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert not torch.equal(heads[0].weight, heads[2].weight)
    assert heads[0].state_dict().keys() == {"weight"}


def test_only_the_directions_of_the_weights_count():
    head, z = cosine_head(), normalize(random_rows(10, 5, seed=1), dim=1)
    centers, logits = head.centers.detach(), head(z).detach()
    torch.testing.assert_close(centers.norm(dim=1), torch.ones(7))
    with torch.no_grad():
        head.weight.mul_(torch.logspace(-3, 3, 7)[:, None])
    torch.testing.assert_close(head.centers, centers)
    torch.testing.assert_close(head(z), logits)


def test_no_gradient_changes_the_lengths_of_the_weights():
    head = cosine_head()
    head(normalize(random_rows(10, 5, seed=1), dim=1)).square().sum().backward()
    assert (head.weight.grad.norm(dim=1) > 1).all()
    along = (head.weight.grad * head.centers).sum(dim=1)
    torch.testing.assert_close(along, torch.zeros(7), rtol=0, atol=1e-2)


def test_a_cosine_head_is_renumbered():
    head, z = cosine_head(4), normalize(random_rows(10, 5, seed=1), dim=1)
    weight, before, order = head.weight, head(z), torch.tensor([3, 0, 2, 1])
    head.reorder(order)
    assert torch.equal(head(z), before[:, order])
    assert head.weight is weight
    assert weight.requires_grad


def test_the_most_likely_output_is_found_in_parts(monkeypatch):
    head = CosineHead(4, 6, 0.5)
    embedding = random_rows(50, 4)
    sizes = []
    head.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    monkeypatch.setattr("skdeepcluster.networks._heads.CHUNK_ROWS", 20)
    found = most_likely(head, embedding)
    assert sizes == [20, 20, 10]
    assert torch.equal(found, head(embedding).argmax(dim=1))


# --- some clusters become one --------------------------------------------------------------------

GROUPS = torch.tensor([0, 1, 0, 2, 1, 0, 3])


def test_the_label_of_a_group_is_that_of_its_most_likely_member():
    head, z = PrototypeHead(5, 7), random_rows(100, 5)
    merged = MergedLabels(head, GROUPS)(z)
    assert merged.shape == (100, 4)
    assert torch.equal(merged.argmax(dim=1), GROUPS[head(z).argmax(dim=1)])
    assert torch.equal(merged[:, 1], head(z)[:, [1, 4]].amax(dim=1))


def test_probabilities_of_a_group_add_up():
    head, z = PrototypeHead(5, 7), random_rows(100, 5)
    single = head(z).softmax(dim=1)
    merged = MergedOpinion(EmbeddingOpinion(head), GROUPS)(random_rows(100, 2), z).softmax(dim=1)
    for group in range(4):
        torch.testing.assert_close(merged[:, group], single[:, group == GROUPS].sum(dim=1))


def test_what_no_member_can_be_is_no_error():
    opinion = torch.nn.Linear(2, 7)
    torch.nn.init.zeros_(opinion.weight)
    opinion.bias.data.zero_()[6] = -1e4
    merged = MergedOpinion(opinion, GROUPS)(torch.ones(3, 2)).softmax(dim=1)
    torch.testing.assert_close(merged, torch.tensor([[3, 2, 1, 0]]).expand(3, -1) / 6)
