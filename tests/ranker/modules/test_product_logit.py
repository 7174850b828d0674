import math

import numpy as np
import pytest
import torch

from ranker.modules.product_logit import product_logit


@pytest.mark.parametrize("num_factors", [2, 3, 4])
def test_it_is_the_naive_product_in_float64(num_factors: int) -> None:
    torch.manual_seed(0)
    logits = [torch.randn(500, dtype=torch.float64) * 4 - 1 for _ in range(num_factors)]
    product = np.prod([1 / (1 + np.exp(-a.numpy())) for a in logits], axis=0)
    found = product_logit(logits).numpy()
    np.testing.assert_allclose(found, np.log(product) - np.log1p(-product), rtol=1e-9, atol=1e-12)


def test_the_loss_on_it_is_the_log_space_formula() -> None:
    torch.manual_seed(1)
    a, b = torch.randn(2, 300, dtype=torch.float64) * 5
    label = (torch.rand(300) < 0.3).double()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        product_logit([a, b]), label, reduction="none"
    )
    either = torch.logsumexp(torch.stack([-a, -b, -a - b]), 0)
    softplus = torch.nn.functional.softplus
    torch.testing.assert_close(loss, softplus(-a) + softplus(-b) - (1 - label) * either)


def test_nothing_saturates_where_probabilities_underflow() -> None:
    a = torch.tensor([-60.0, -60.0, 90.0, 40.0], requires_grad=True)
    b = torch.tensor([-60.0, 60.0, 90.0, -40.0])
    product = product_logit([a, b])
    torch.testing.assert_close(
        product.detach(), torch.tensor([-120.0, -60.0, 90.0 - math.log(2), -40.0])
    )
    (gradient,) = torch.autograd.grad(product.sum(), a)
    torch.testing.assert_close(gradient, torch.tensor([1.0, 1.0, 0.5, 0.0]))


def test_bf16_logits_are_widened_even_under_autocast() -> None:
    a, b = torch.tensor([-7.03, 2.0]).bfloat16(), torch.tensor([-5.01, 1.0]).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        product = product_logit([a, b])
    assert product.dtype == torch.float32
    torch.testing.assert_close(product.double(), product_logit([a.double(), b.double()]))


def test_one_factor_is_itself() -> None:
    assert product_logit([torch.tensor([0.3])]).item() == pytest.approx(0.3)
