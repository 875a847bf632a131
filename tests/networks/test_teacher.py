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
