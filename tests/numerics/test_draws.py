"""Draws of one thread's own: no draw reaches torch's global generator."""

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skdeepcluster.numerics import OwnDraws, entered_draws

X = torch.ones(6, 8)
IMAGES = torch.ones(2, 3, 8, 8)

# Everything of torch that draws, by the way in which one comes to it.
DRAWS = {
    "rand": lambda: torch.rand(5),
    "randn": lambda: torch.randn(2, 3),
    "randn of a size": lambda: torch.randn(torch.Size([4])),
    "randint": lambda: torch.randint(1000, (5,)),
    "randint between": lambda: torch.randint(5, 1000, (5,)),
    "randperm": lambda: torch.randperm(50),
    "rand_like": lambda: torch.rand_like(X),
    "randn_like": lambda: torch.randn_like(X),
    "randint_like": lambda: torch.randint_like(X, 1000),
    "normal": lambda: torch.normal(torch.zeros(5), torch.ones(5)),
    "bernoulli": lambda: torch.bernoulli(X / 2),
    "multinomial": lambda: torch.multinomial(X, 3),
    "poisson": lambda: torch.poisson(9 * X),
    "uniform_": lambda: torch.empty(5).uniform_(),
    "normal_": lambda: torch.empty(5).normal_(),
    "exponential_": lambda: torch.empty(5).exponential_(),
    "cauchy_": lambda: torch.empty(5).cauchy_(),
    "geometric_": lambda: torch.empty(50).geometric_(0.1),
    "log_normal_": lambda: torch.empty(5).log_normal_(),
    "random_": lambda: torch.empty(5).random_(),
    "a linear layer": lambda: nn.Linear(4, 3).weight.detach(),
    "a convolution": lambda: nn.Conv2d(3, 4, 3).weight.detach(),
    "a recurrent layer": lambda: nn.LSTM(4, 3).weight_hh_l0.detach(),
    "an embedding": lambda: nn.Embedding(4, 3).weight.detach(),
    "nn.init.orthogonal_": lambda: nn.init.orthogonal_(torch.empty(4, 4)),
    "nn.init.trunc_normal_": lambda: nn.init.trunc_normal_(torch.empty(4, 4)),
    "dropout": lambda: F.dropout(torch.ones(50)),
    "dropout in place": lambda: F.dropout(torch.ones(50), inplace=True),
    "a dropout layer": lambda: nn.Dropout(0.5)(torch.ones(50)),
    "a dropout of channels": lambda: nn.Dropout2d(0.5)(torch.ones(4, 20, 2, 2)),
    "alpha dropout": lambda: nn.AlphaDropout(0.5)(torch.ones(50)),
    "the dropout of accelerators": lambda: torch.native_dropout(torch.ones(50), 0.5, True)[0],
    "rrelu": lambda: nn.RReLU()(-X),
    "fractional pooling": lambda: nn.FractionalMaxPool2d(2, 5)(
        torch.arange(384.0).view(2, 3, 8, 8)
    ),
    "gumbel softmax": lambda: F.gumbel_softmax(X),
    "dropout of a recurrent layer": lambda: fixed(nn.GRU(8, 8, 2, dropout=0.5))(X[None])[
        0
    ].detach(),
    "dropout of attention": lambda: F.scaled_dot_product_attention(*[IMAGES] * 3, dropout_p=0.5),
    "an attention layer": lambda: fixed(nn.MultiheadAttention(8, 2, dropout=0.5))(
        *[torch.eye(6, 8)[None]] * 3
    )[0].detach(),
    "a distribution": lambda: torch.distributions.Gamma(2.0, 1.0).sample((5,)),
}


def fixed(module):
    """Weights that are no draws, so that only the dropout is."""
    for parameter in module.parameters():
        parameter.data = torch.linspace(-1, 1, parameter.numel()).view_as(parameter)
    return module


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_draws_come_from_the_seed_and_leave_the_global_generator_alone(draw):
    state = torch.get_rng_state()
    with OwnDraws(3):
        first, second = draw(), draw()
    with OwnDraws(3):
        again = draw()
    with OwnDraws(4):
        other = draw()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


def test_what_does_not_draw_is_the_same():
    layer = nn.Linear(8, 4)
    with OwnDraws(0):
        inside = layer(X), torch.zeros(3), nn.Dropout(0.0)(X), nn.Dropout(0.5).eval()(X)
    outside = layer(X), torch.zeros(3), X, X
    for ours, theirs in zip(inside, outside, strict=True):
        assert torch.equal(ours, theirs)


def test_a_generator_that_is_passed_is_used():
    generator = torch.Generator().manual_seed(1)
    with OwnDraws(0):
        drawn = torch.rand(4, generator=generator), torch.empty(4).normal_(generator=generator)
    generator.manual_seed(1)
    assert torch.equal(drawn[0], torch.rand(4, generator=generator))
    assert torch.equal(drawn[1], torch.empty(4).normal_(generator=generator))


def test_dropout_keeps_its_share_and_its_gradient():
    x = torch.ones(20_000, requires_grad=True)
    with OwnDraws(0):
        for dropped in (F.dropout(x, 0.25), torch.native_dropout(x, 0.25, True)[0]):
            (gradient,) = torch.autograd.grad(dropped.sum(), x)
            assert (dropped > 0).float().mean().item() == pytest.approx(0.75, abs=0.02)
            torch.testing.assert_close(dropped[dropped > 0], torch.full_like(x, 4 / 3)[dropped > 0])
            torch.testing.assert_close(gradient, dropped.detach())


@pytest.mark.parametrize(("p", "expected"), [(0.0, 1.0), (1.0, 0.0)])
def test_dropout_of_none_and_of_all(p, expected):
    with OwnDraws(0):
        assert (torch.native_dropout(X, p, True)[0] == expected).all()
        assert (torch.native_dropout(X, 0.5, False)[0] == 1).all()


def test_the_innermost_one_gives_the_draws():
    with OwnDraws(1):
        alone = torch.rand(3), F.dropout(torch.ones(50))
    with OwnDraws(2) as outer:
        before = torch.rand(2)
        with OwnDraws(1) as inner:
            assert entered_draws() is inner
            nested = torch.rand(3), F.dropout(torch.ones(50))
        assert entered_draws() is outer
        after = torch.rand(2)
    assert entered_draws() is None
    assert all(map(torch.equal, nested, alone))
    with OwnDraws(2):
        assert torch.equal(torch.rand(4), torch.cat([before, after]))


def test_a_state_goes_on_where_it_was_taken():
    with OwnDraws(5) as draws:
        torch.rand(7)
        state = draws.state()
        coming = torch.rand(3)
    again = OwnDraws(6)
    again.set_state(state)
    with again:
        assert torch.equal(torch.rand(3), coming)


def test_other_threads_draw_from_the_global_generator_meanwhile():
    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    found = []
    with OwnDraws(0):
        ours = torch.rand(4)
        thread = threading.Thread(target=lambda: found.append(torch.rand(4)))
        thread.start()
        thread.join()
    assert torch.equal(found[0], expected)
    assert not torch.equal(ours, expected)


def test_networks_without_memory_can_be_made():
    with OwnDraws(0), torch.device("meta"):
        assert nn.Linear(4, 3).weight.is_meta


class Rarely(nn.Module):
    """A layer of nobody's library that draws when it is called for the third time."""

    def __init__(self):
        super().__init__()
        self.n_calls = 0

    def forward(self, x):
        self.n_calls += 1
        return x + torch.rand(1) if self.n_calls == 3 else x


@pytest.mark.parametrize(
    ("layer", "is_needed"),
    [
        (nn.Sequential(nn.Linear(8, 4), nn.ReLU()), False),
        (nn.Sequential(nn.Linear(8, 4), nn.Dropout(0.0)), False),
        (nn.Sequential(nn.Linear(8, 4), nn.Dropout(0.5)), True),
        (nn.Sequential(nn.Linear(8, 4), Rarely()), True),
    ],
    ids=["without draws", "dropout of nothing", "dropout", "a layer of the user's"],
)
def test_draws_are_looked_after_as_long_as_there_may_be_some(layer, is_needed):
    draws, state = OwnDraws(0), torch.get_rng_state()
    for call in range(4):
        with draws.where_needed(layer):
            assert (entered_draws() is draws) == (call == 0 or is_needed)
            layer(X)
    assert torch.equal(torch.get_rng_state(), state)
