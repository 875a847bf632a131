import numpy as np
import pytest
import torch

from skdeepcluster.calibration import ConfidenceHead
from skdeepcluster.networks import CosineHead, PrototypeHead, PrototypePerceptron
from skdeepcluster.numerics import aligned_linear


@pytest.mark.parametrize("width", [1, 3, 16, 67])
@pytest.mark.parametrize("biased", [True, False])
def test_it_is_a_linear_layer(width, biased):
    layer = torch.nn.Linear(width, 5, bias=biased)
    X = torch.randn(11, width)
    found = aligned_linear(X, layer.weight, layer.bias)
    np.testing.assert_allclose(found.detach(), layer(X).detach(), atol=1e-5)


@pytest.mark.parametrize("width", [2, 3, 13, 30, 65, 66, 67])
def test_a_row_has_the_same_result_wherever_it_stands(width):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(512, width, generator=generator)
    heads = {
        "prototypes": PrototypeHead(width, 3),
        "cosines": CosineHead(width, 3, temperature=0.1),
        "perceptron": PrototypePerceptron(width, 10, 3).eval(),
        "confidence": ConfidenceHead.from_tensors(
            torch.ones(1),
            torch.randn(3, width, generator=generator),
            torch.zeros(3),
            torch.tensor(0.5),
        ),
    }
    for name, head in heads.items():
        with torch.no_grad():
            expected = head(X)
            for _ in range(5):
                order = torch.randperm(512, generator=generator)
                assert torch.equal(head(X[order]), expected[order]), name
