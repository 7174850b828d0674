"""Probabilities of chains of events as logits, exact where probabilities underflow."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from ranker.modules.precision import at_least_fp32


def product_logit(logits: Sequence[Tensor]) -> Tensor:
    """Returns the logit of a product of probabilities: logit(p_1 p_2 ... p_K).

    With p = sigmoid(a) and q = sigmoid(b) the odds of the product are
    1 / ((1 + e^-a)(1 + e^-b) - 1), so logit(p q) = -logsumexp(-a, -b, -a-b). Nothing saturates, and
    binary cross entropy on this logit is ESMM's loss on p q (Ma et al., SIGIR 2018) without a
    probability ever being formed. Low precision is widened to fp32.

    Args:
        logits: at least one tensor [C].
    """
    return functools.reduce(_pair, map(at_least_fp32, logits))


def _pair(a: Tensor, b: Tensor) -> Tensor:
    return -torch.stack([-a, -b, -a - b]).logsumexp(0)
