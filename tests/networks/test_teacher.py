"""The moving average: formula, buffers, and no gradient."""

import copy

import pytest
import torch
from torch import nn

from skdeepcluster.networks import EMATeacher


def make_student():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def change(network, seed):
    """Take a step, of parameters and of running statistics alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
        network(torch.randn(8, 3, generator=generator))


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_formula(momentum):
    student = make_student()
    teacher = EMATeacher(student, momentum)
    expected = {name: t.clone() for name, t in student.state_dict().items()}
    for seed in range(3):
        change(student, seed)
        teacher.update(student)
        for name, tensor in student.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = momentum * expected[name] + (1 - momentum) * tensor
            else:
                expected[name] = tensor.clone()
    for name, tensor in teacher.network.state_dict().items():
        torch.testing.assert_close(tensor, expected[name])
    assert teacher.network[1].num_batches_tracked == 3


def test_teacher_starts_equal_and_is_a_copy():
    student = make_student()
    teacher = EMATeacher(student, 0.9)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(teacher.eval()(x), student.eval()(x))
    before = copy.deepcopy(teacher.state_dict())
    change(student.train(), 0)
    assert all(torch.equal(before[name], t) for name, t in teacher.state_dict().items())


def test_no_gradient_reaches_the_teacher_and_the_student_keeps_its_own():
    student = make_student()
    teacher = EMATeacher(student, 0.9)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert not teacher(torch.zeros(4, 3)).requires_grad
    teacher.update(student)
    assert all(parameter.grad_fn is None for parameter in teacher.parameters())


def test_state_travels_in_the_state_dict():
    student = make_student()
    teacher = EMATeacher(student, 0.5)
    change(student, 1)
    teacher.update(student)
    other = EMATeacher(make_student(), 0.5)
    other.load_state_dict(teacher.state_dict())
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(other.eval()(x), teacher.eval()(x))


def test_a_student_in_lower_precision_is_followed():
    student = make_student()
    teacher = EMATeacher(student, 0.5)
    teacher.update(copy.deepcopy(student).bfloat16())
    assert all(parameter.dtype == torch.float32 for parameter in teacher.parameters())


class Mixed(nn.Module):
    """Parameters and buffers of many types."""

    def __init__(self):
        super().__init__()
        self.narrow = nn.Parameter(torch.ones(3))
        self.wide = nn.Parameter(torch.ones(2, dtype=torch.float64))
        self.short = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
        self.empty = nn.Parameter(torch.ones(0))
        self.register_buffer("statistic", torch.ones(2))
        self.register_buffer("counter", torch.tensor(1))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("small", torch.tensor([1, 255], dtype=torch.uint8))


def test_each_tensor_keeps_its_type_and_integers_are_copied():
    student = Mixed()
    teacher = EMATeacher(student, 0.75)
    with torch.no_grad():
        for tensor in (*student.parameters(), student.statistic):
            tensor.add_(2)
    student.counter.add_(6)
    student.flags.logical_not_()
    student.small.copy_(torch.tensor([255, 1]))
    teacher.update(student)
    for name in ("narrow", "wide", "short", "statistic"):
        average, current = getattr(teacher.network, name), getattr(student, name)
        torch.testing.assert_close(average, torch.full_like(current, 1.5))
    assert teacher.network.counter == 7
    assert teacher.network.flags.tolist() == [False, True]
    assert teacher.network.small.tolist() == [255, 1]
    # The student stays as it is.
    assert student.narrow.tolist() == [3, 3, 3]
    assert student.counter == 7


class Counter(nn.Module):
    """Nothing to average."""

    def __init__(self):
        super().__init__()
        self.register_buffer("value", torch.tensor(0))


@pytest.mark.parametrize("student", [nn.Identity(), Counter()])
def test_there_may_be_nothing_to_average(student):
    teacher = EMATeacher(student, 0.75)
    if isinstance(student, Counter):
        student.value.fill_(5)
    teacher.update(student)
    assert [buffer.item() for buffer in teacher.buffers()] == [5] * isinstance(student, Counter)


def test_tensors_are_averaged_where_they_lie():
    # An optimiser, a checkpoint or another module may hold on to them.
    student = make_student()
    teacher = EMATeacher(student, 0.5)
    places = [tensor.data_ptr() for tensor in teacher.state_dict().values()]
    change(student, 0)
    teacher.update(student)
    assert [tensor.data_ptr() for tensor in teacher.state_dict().values()] == places


def test_the_momentum_may_change_between_updates():
    student, x = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    teacher = EMATeacher(student, 0.5)
    with torch.no_grad():
        teacher.network.weight.fill_(0)
        x.weight.fill_(8)
    for momentum, expected in [(0.5, 4), (1.0, 4), (0.75, 5), (0.0, 8)]:
        teacher.momentum = momentum
        teacher.update(x)
        assert teacher.network.weight.item() == expected
