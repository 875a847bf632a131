"""Views: neighbours are neighbours, and all randomness comes from the generator."""

import pytest
import torch
from torch import nn

from skdeepcluster.data import (
    AugmentedViews,
    IndexedViews,
    NeighborViews,
    RandomImageViews,
    ResidentSource,
    TensorViews,
    unchanged,
)
from skdeepcluster.numerics import nearest_neighbors
from tests.helpers import seeded


class Double(nn.Module):
    def forward(self, x):
        return 2 * x


def numbered_source(n=30):
    """Row i holds the number i, so that a row tells where it came from."""
    return ResidentSource(torch.arange(float(n))[:, None].repeat(1, 3))


def neighbor_views(n=30, k=4, rows=None):
    source = numbered_source(n)
    rows = torch.arange(n) if rows is None else rows
    _, neighbors = nearest_neighbors(source.rows(rows), k)
    return NeighborViews(source, Double(), neighbors, rows)


def image_views():
    images = torch.rand(10, 3, 8, 8, generator=seeded(9))
    return AugmentedViews(ResidentSource(images), nn.Identity(), 2 * [RandomImageViews()])


def test_the_second_view_is_a_neighbour_of_the_first():
    views = neighbor_views()
    index = torch.randint(30, (500,), generator=seeded())
    first, second = views(index, seeded())
    numbers, partners = (first[:, 0] / 2).long(), (second[:, 0] / 2).long()
    assert torch.equal(numbers, index)
    assert (views.neighbors[index] == partners[:, None]).any(dim=1).all()
    assert (partners != index).all()


def test_every_neighbour_is_drawn_equally_often():
    views = neighbor_views(k=4)
    _, second = views(torch.full((4000,), 15), seeded())
    drawn, counts = (second[:, 0] / 2).long().unique(return_counts=True)
    assert drawn.tolist() == sorted(views.neighbors[15].tolist())
    assert counts.min() > 850


def test_nodes_may_be_a_part_of_the_rows():
    rows = torch.tensor([3, 8, 9, 20, 29])
    views = neighbor_views(k=2, rows=rows)
    assert len(views) == 5
    first, second = views(torch.tensor([0, 4, 2]), seeded())
    assert torch.equal(first[:, 0], 2 * rows[[0, 4, 2]].float())
    assert set((second[:, 0] / 2).long().tolist()) <= set(rows.tolist())


class Counted:
    """An augmentation that tells how many images it was given."""

    def __init__(self):
        self.seen = []

    def __call__(self, images, generator):
        self.seen.append(len(images))
        return images


@pytest.mark.parametrize("neighbors", [None, torch.arange(10).roll(1)[:, None]])
def test_views_that_are_alike_are_drawn_at_once_and_each_for_itself(neighbors, monkeypatch):
    drawn, call = [], RandomImageViews.__call__

    def watched(views, images, generator):
        drawn.append(images)
        return call(views, images, generator)

    monkeypatch.setattr(RandomImageViews, "__call__", watched)
    images = torch.rand(10, 3, 8, 8, generator=seeded(9))
    alike, other = RandomImageViews(), RandomImageViews(flip=0.0)
    augmentations = [alike, RandomImageViews(), unchanged, other]
    views = AugmentedViews(ResidentSource(images), Double(), augmentations, neighbors)
    index = torch.tensor([7, 2, 2, 0])
    found = views(index, seeded())
    partners = index if neighbors is None else neighbors[index, 0]
    assert [len(d) for d in drawn] == [8, 4]
    assert torch.equal(drawn[0], 2 * images[torch.cat([index, partners])])
    assert torch.equal(drawn[1], 2 * images[index])
    assert torch.equal(found[2], 2 * images[index])
    generator = seeded()
    if neighbors is not None:
        torch.randint(1, (4,), generator=generator)
    assert torch.equal(torch.cat(found[:2]), call(alike, drawn[0], generator))
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[3], call(other, drawn[1], generator))


def test_functions_are_given_one_view_at_a_time():
    # What torchvision draws is one number for a whole batch, the same for both views of it.
    counted = Counted()
    images = torch.rand(10, 3, 8, 8, generator=seeded(9))
    AugmentedViews(ResidentSource(images), nn.Identity(), [counted, counted])(
        torch.arange(4), seeded()
    )
    assert counted.seen == [4, 4]


def test_both_images_are_made_from_the_rows_asked_for():
    images = torch.arange(6.0)[:, None, None, None].expand(6, 1, 4, 4).contiguous()

    def shift(x, generator):
        return x + torch.rand(len(x), 1, 1, 1, generator=generator)

    views = AugmentedViews(ResidentSource(images), Double(), [shift, shift, unchanged])
    assert len(views) == 6
    index = torch.tensor([5, 2])
    first, second, clean = views(index, seeded())
    for view in (first, second, clean):
        assert torch.equal(view[:, 0, 0, 0].floor().long(), 2 * index)
    assert not torch.equal(first, second)
    assert torch.equal(clean, 2 * images[index])


def test_only_the_second_view_is_of_a_neighbour():
    images = torch.arange(6.0)[:, None, None, None].expand(6, 1, 4, 4).contiguous()
    neighbors = torch.tensor([[1, 2], [0, 2], [4, 5], [4, 5], [3, 5], [3, 4]])
    views = AugmentedViews(ResidentSource(images), nn.Identity(), 3 * [unchanged], neighbors)
    index = torch.arange(6).repeat(50)
    first, second, third = (view[:, 0, 0, 0].long() for view in views(index, seeded()))
    assert torch.equal(first, index)
    assert torch.equal(third, index)
    for image in range(6):
        assert second[index == image].unique().tolist() == neighbors[image].tolist()


@pytest.mark.parametrize("make", [neighbor_views, image_views])
def test_the_generator_decides(make):
    views = make()
    index = torch.tensor([0, 3, 7, 7, 1] * 4)
    state = torch.get_rng_state()
    first = torch.cat(views(index, seeded(1)))
    torch.testing.assert_close(first, torch.cat(views(index, seeded(1))), rtol=0, atol=0)
    assert not torch.equal(first, torch.cat(views(index, seeded(2))))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("make", [neighbor_views, image_views])
def test_indexed_views_come_with_the_numbers_of_their_samples(make):
    views, index = make(), torch.tensor([4, 0, 9, 4])
    numbers, *indexed = IndexedViews(views)(index, seeded())
    assert torch.equal(numbers, index)
    assert numbers.dtype == torch.long
    for ours, view in zip(indexed, views(index, seeded()), strict=True):
        assert torch.equal(ours, view)


def test_indexed_views_number_the_nodes_and_not_the_rows():
    views = neighbor_views(k=2, rows=torch.tensor([3, 8, 9, 20, 29]))
    numbers, first, _ = IndexedViews(views)(torch.tensor([4, 0]), seeded())
    assert numbers.tolist() == [4, 0]
    assert (first[:, 0] / 2).tolist() == [29, 3]


def test_the_numbers_are_where_the_views_are():
    def elsewhere(index, generator):
        return tuple(torch.empty(len(index), 3, device="meta") for _ in range(3))

    numbers, *views = IndexedViews(elsewhere)(torch.tensor([1, 2]), seeded())
    assert len(views) == 3
    assert numbers.device == views[0].device
    assert numbers.shape == (2,)


def test_preparation_leaves_no_gradient():
    views = NeighborViews(
        numbered_source(5),
        nn.Linear(3, 2),
        torch.tensor([[1], [0], [1], [2], [3]]),
        torch.arange(5),
    )
    first, second = views(torch.arange(5), seeded())
    assert not first.requires_grad
    assert not second.requires_grad


def test_tensor_views_are_the_same_rows_of_all():
    views = TensorViews(torch.arange(5), torch.eye(5))
    numbers, rows = views(torch.tensor([3, 1]), torch.Generator())
    assert numbers.tolist() == [3, 1]
    assert torch.equal(rows, torch.eye(5)[[3, 1]])
    assert views.resident
