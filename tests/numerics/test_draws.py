"""Draws of one thread's own: no draw reaches torch's global generator."""

import threading

import pytest
import timm
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from skdeepcluster.numerics import OwnDraws, _draws, entered_draws

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
    "randint_like between": lambda: torch.randint_like(X, 5, 1000),
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


LIKE = [name for name in DRAWS if "_like" in name]


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


def test_a_state_can_be_taken_before_it_was_used_and_moved_to_another_number_of_a_device():
    with OwnDraws(5) as draws:
        torch.rand(7)
        state = draws.state()
        coming = torch.rand(3)
    again = OwnDraws(6)
    again.set_state(state)
    assert again.state() == state
    with again:
        assert torch.equal(torch.rand(3, device="cpu:0"), coming)
    assert list(again.state()) == ["cpu"]


def test_seeds_for_others_are_no_draws():
    with OwnDraws(3) as draws:
        seeds = draws.seeds(4), draws.seeds(4)
        drawn = torch.rand(3)
    assert len({*seeds[0], *seeds[1]}) == 8
    with OwnDraws(3) as draws:
        assert torch.equal(torch.rand(3), drawn)
        assert draws.seeds(4) == seeds[0]
    assert OwnDraws(4).seeds(4) != seeds[0]


def test_it_can_be_entered_again():
    with OwnDraws(0) as draws:
        with draws:
            torch.rand(1)
        assert entered_draws() is draws
    assert entered_draws() is None


@pytest.mark.parametrize(
    "name", ["rand_like", "randn_like", "randint_like", "randint_like between"]
)
def test_versions_of_torch_whose_like_functions_take_no_generator(monkeypatch, name):
    monkeypatch.setattr(_draws, "_taking_a_generator", lambda func: None)
    draw = DRAWS[name] if name in DRAWS else lambda: torch.randint_like(X, 5, 1000)
    state = torch.get_rng_state()
    with OwnDraws(3):
        first, second = draw(), draw()
    with OwnDraws(3):
        assert torch.equal(draw(), first)
    assert not torch.equal(first, second)
    assert first.shape == X.shape
    assert torch.equal(torch.get_rng_state(), state)


class Recomputed(nn.Module):
    """Layers whose activations are computed anew for the gradients."""

    def __init__(self, rate):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 4), nn.Dropout(rate))

    def forward(self, x):
        return checkpoint(self.layers, x, use_reentrant=False)


def test_what_would_be_drawn_anew_for_the_gradients_is_refused():
    draws, network = OwnDraws(0), Recomputed(0.5)
    with draws.where_needed(network):
        loss = network(X).sum()
    with pytest.raises(RuntimeError, match="Set these rates to zero"), draws.none_expected():
        loss.backward()
    network = Recomputed(0.0)
    with draws.where_needed(network):
        loss = network(X).sum()
    with draws.none_expected():
        loss.backward()
    assert network.layers[0].weight.grad.abs().sum() > 0


def attention_on_a_card(x, rate):
    """Attention as CUDA computes it in float32."""
    return torch.ops.aten._scaled_dot_product_efficient_attention(x, x, x, None, True, rate)


def gradients_of_attention(x, results, rate):
    """Its gradients, which take the dropout of before."""
    out, *kept = results
    torch.ops.aten._scaled_dot_product_efficient_attention_backward(
        out, x, x, x, None, out, *kept, rate, [True, True, True, False]
    )


def test_attention_draws_for_its_dropout_alone_on_a_card():
    refusing = _draws._Redirection(_draws._refuse)
    with FakeTensorMode():
        images = torch.empty(2, 3, 8, 8, device="cuda")
        with_dropout = attention_on_a_card(images, 0.5)
        with refusing:
            gradients_of_attention(images, attention_on_a_card(images, 0.0), 0.0)
            gradients_of_attention(images, with_dropout, 0.5)
            with pytest.raises(RuntimeError, match="draws random numbers"):
                attention_on_a_card(images, 0.5)


def test_attention_without_dropout_can_be_computed_anew_for_the_gradients():
    vit = timm.create_model("test_vit", num_classes=0)
    vit.set_grad_checkpointing(True)
    draws = OwnDraws(0)
    with draws.where_needed(vit):
        loss = vit(torch.ones(2, 3, 160, 160)).sum()
    with draws.none_expected():
        loss.backward()
    assert not draws.state()


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


def test_networks_without_memory_can_be_made(real_device):
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
