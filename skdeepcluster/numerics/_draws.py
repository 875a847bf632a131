"""Random numbers of one thread's own, for code that would take them from torch's global state."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_entered = threading.local()

# Functions and methods of torch that draw, or may draw further inside; "_" and "_like" may follow.
_NAMES = [
    "_sample_dirichlet", "_standard_gamma", "alpha_dropout", "bernoulli", "binomial", "cauchy",
    "dropout", "dropout1d", "dropout2d", "dropout3d", "exponential", "feature_alpha_dropout",
    "feature_dropout", "fractional_max_pool2d", "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d", "fractional_max_pool3d_with_indices", "geometric", "gru",
    "gumbel_softmax", "log_normal", "lstm", "multi_head_attention_forward", "multinomial",
    "native_dropout", "normal", "poisson", "rand", "randint", "randn", "random", "randperm",
    "rnn_relu", "rnn_tanh", "rrelu", "scaled_dot_product_attention", "uniform",
]  # fmt: skip
DRAWING = frozenset(
    [name + suffix for name in _NAMES for suffix in ("", "_", "_like")]
    + [name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")]
)


# How to fill a tensor like another.
LIKE = {"rand_like": "uniform_", "randn_like": "normal_", "randint_like": "random_"}
# Layers of these draw at the same rate in every step of a phase, or never.
LIBRARIES = {"skdeepcluster", "timm", "torch", "torchvision"}


class OwnDraws(TorchFunctionMode):
    """While it is entered, what this thread draws comes from generators of its own.

    Layers start from, and dropout in a user's backbone goes on with, torch's global generator. It
    belongs to the whole process: seeding it would give other threads our numbers, and let them take
    ours. So it is left alone, and each draw is handed a generator instead.

    Parameters
    ----------
    seed : int
        Of the generators, of which there is one for each device.

    Notes
    -----
    What draws inside a kernel without asking for a generator (the dropout of cuDNN's recurrent
    layers, of fused attention on CUDA) and what is compiled by TorchScript still draws from the
    global state. So does a layer of a library that begins to draw only after the first step of a
    phase, see :meth:`where_needed`. Draws in what ``torch.utils.checkpoint`` computes anew are
    refused.
    """

    _generators: dict[str, torch.Generator]

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        # One for each type of device: a fit computes on one of a type at most.
        self._generators = {}
        self._states: dict[str, Tensor] = {}  # to go on from, of generators not used yet
        self._outer: list[OwnDraws | None] = []
        self._n_seeded = 0
        self._n_watched = 0
        self._is_needed = True
        self._redirection = _Redirection(self._generator)

    def __enter__(self) -> Self:
        """Take over the draws of this thread."""
        super().__enter__()
        self._outer.append(entered_draws())
        _entered.draws = self
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Give them back."""
        _entered.draws = self._outer.pop()
        super().__exit__(exc_type, exc_val, exc_tb)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Let a function of torch that may draw do so from here."""
        if getattr(func, "__name__", "") not in DRAWING:
            return func(*args, **(kwargs or {}))
        # Without other function modes, one of which may be another instance of this.
        with self._redirection, torch._C.DisableTorchFunction():
            return func(*args, **(kwargs or {}))

    def seeds(self, n: int) -> list[int]:
        """Return seeds for threads that draw for this one; its own draws stay the same."""
        self._n_seeded += 1
        sequence = np.random.SeedSequence([self._seed, self._n_seeded])
        return [int(seed) for seed in sequence.generate_state(n)]

    def where_needed(self, module: nn.Module) -> AbstractContextManager[Any]:
        """Return this, or nothing if a module of known layers drew nothing the first time.

        Every call of torch is looked at here, which costs small networks a quarter of their time.
        """
        self._n_watched += 1
        if self._n_watched == 2:
            self._is_needed = bool(self._generators or self._states) or not _is_known(module)
        return self if self._is_needed else nullcontext()

    def none_expected(self) -> AbstractContextManager[Any]:
        """Return a context for a backward pass, which draws only to compute anew what was drawn.

        It would draw something else than before, and gradients would be wrong without a word. The
        first pass tells.
        """
        tells = self._n_watched == 1 and self._generators
        return _Redirection(_refuse) if tells else nullcontext()

    def state(self) -> dict[str, Tensor]:
        """Return the states of the generators used so far, for a checkpoint."""
        return self._states | {kind: g.get_state() for kind, g in self._generators.items()}

    def set_state(self, states: dict[str, Tensor]) -> None:
        """Go on from a checkpoint, maybe of another device of the same type."""
        self._generators = {}
        self._states = dict(states)

    def repeated(self) -> OwnDraws:
        """Return another instance that will draw what this one draws next."""
        other = OwnDraws(self._seed)
        other.set_state(self.state())
        return other

    def _generator(self, device: torch.device) -> torch.Generator:
        if device.type not in self._generators:
            generator = torch.Generator(device).manual_seed(self._seed)
            if device.type in self._states:
                generator.set_state(self._states.pop(device.type))
            self._generators[device.type] = generator
        return self._generators[device.type]


def _refuse(device: torch.device) -> torch.Generator:
    raise RuntimeError(
        "The backbone draws random numbers (dropout, stochastic depth) in what "
        "torch.utils.checkpoint computes anew for the gradients, where it would draw others than "
        "before. Set these rates to zero, or switch checkpointing off."
    )


def _is_known(module: nn.Module) -> bool:
    """Whether all layers come from libraries, and do nothing besides."""
    return all(
        type(layer).__module__.split(".")[0] in LIBRARIES
        and not layer._forward_hooks
        and not layer._forward_pre_hooks
        for layer in module.modules()
    )


def entered_draws() -> OwnDraws | None:
    """Return the :class:`OwnDraws` that this thread has entered last, if any."""
    draws: OwnDraws | None = getattr(_entered, "draws", None)
    return draws


class _Redirection(TorchDispatchMode):
    """Hands a generator to each operation that takes one: here all of them are seen."""

    def __init__(self, generator: Callable[[torch.device], torch.Generator]) -> None:
        super().__init__()
        self._generator = generator

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        device = _device_of(args, kwargs)
        if device.type == "meta" or not _draws(func, args, kwargs):
            return func(*args, **kwargs)
        if func is torch.ops.aten.native_dropout.default:  # it takes no generator
            return _dropout(*args, generator=self._generator(device))
        if kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        name, generator = func.overloadpacket.__name__, self._generator(device)
        seeded = _taking_a_generator(func)
        if seeded is not None:
            return seeded(*args, **{**kwargs, "generator": generator})
        if name in LIKE:  # torch before 2.10 had no such overload
            method, (like, *limits) = LIKE[name], args
            return getattr(torch.empty_like(like, **kwargs), method)(*limits, generator=generator)
        return func(*args, **kwargs)


def _draws(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operation draws here and now.

    torch says so of attention without dropout as well, and of gradients, which go by what was drawn
    before.
    """
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    if func.overloadpacket.__name__.endswith("_backward"):
        return False
    for number, argument in enumerate(func._schema.arguments):
        if argument.name in ("dropout_p", "dropout"):  # torch leaves out defaults, which are 0
            rate = args[number] if number < len(args) else kwargs.get(argument.name, 0.0)
            return bool(rate)
    return True


@functools.cache
def _taking_a_generator(func: Any) -> Any:
    """Return the overload of an operation with the same arguments and a generator."""
    wanted = [argument.name for argument in func._schema.arguments]
    for name in [func._overloadname, *func.overloadpacket.overloads()]:
        overload = getattr(func.overloadpacket, name)
        names = [argument.name for argument in overload._schema.arguments]
        if "generator" in names and [n for n in names if n != "generator"] == [
            n for n in wanted if n != "generator"
        ]:
            return overload
    return None


def _device_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
    for argument in args:
        if isinstance(argument, Tensor):
            return argument.device
    return torch.device(kwargs.get("device") or "cpu")


def _dropout(
    x: Tensor, p: float, train: bool | None, *, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    if train is False:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    kept = torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - p, generator=generator)
    return x * kept * (1 / (1 - p) if p < 1 else 0.0), kept
