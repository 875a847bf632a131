"""Regions: the nearest of their centres, how these follow, and the class weights they give."""

import numpy as np
import pytest
import torch

from skdeepcluster.objectives._regions import Regions


def test_of_fewer_centers_the_first_takes_the_places_left():
    regions = Regions(5, 2)
    centers = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    regions.place(centers)
    assert torch.equal(regions.centers, centers[[0, 1, 2, 0, 0]])
    assert len(regions) == 5


def test_centers_follow_the_samples_that_are_nearest_to_them():
    rng = np.random.default_rng(0)
    centers, z = rng.normal(size=(6, 3)), rng.normal(size=(80, 3))
    centers[4] = 100.0  # nothing is near this one
    regions = Regions(6, 3)
    regions.place(torch.tensor(centers).float())
    samples = torch.tensor(z).float().requires_grad_()
    found = regions.find(samples)
    assert found.tolist() == [int(np.square(centers - row).sum(axis=1).argmin()) for row in z]
    regions.follow(samples, found)
    for j in range(6):
        members = [z[i] for i in range(80) if found[i] == j]
        expected = (centers[j] + sum(members) / len(members)) / 2 if members else centers[j]
        np.testing.assert_allclose(regions.centers[j], expected, rtol=1e-5)
    assert not regions.centers.requires_grad


def test_class_weights_equal_a_loop():
    rng = np.random.default_rng(0)
    centers, z, labels = rng.normal(size=(6, 3)), rng.normal(size=(80, 3)), rng.integers(4, size=80)
    regions = Regions(6, 3)
    regions.place(torch.tensor(centers).float())
    nearest = [int(np.square(centers - row).sum(axis=1).argmin()) for row in z]
    found = regions.weigh_classes(torch.tensor(z).float(), torch.tensor(labels), 4)
    some = 0
    for k in range(4):
        shares = [np.mean([labels[i] == k for i in range(80) if nearest[i] == j]) for j in range(6)]
        occupied = sum(share > 0.3 for share in shares)
        some += occupied < sum(share > 0 for share in shares)
        assert found[k].item() == pytest.approx(6 / max(occupied, 0.5))
    assert some  # to hold a little of a region is not to occupy it
