"""Dice, the data adaptive activation of DIN (Zhou et al., KDD 2018, section 5.3)."""

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from ranker.distributed import world_size
from ranker.modules.precision import at_least_fp32


class Dice(nn.Module):
    """f(s) = p(s) * s + (1 - p(s)) * alpha * s.

    p(s) = sigmoid((s - E[s]) / sqrt(Var[s] + eps)). E and Var are per unit: of the mini-batch over
    all ranks in training, moving averages in evaluation. It is a BatchNorm without affine inside a
    gate. alpha is learned per unit and starts at 0.

    Args:
        num_units: width of the input's last dimension.
        eps: added to the variance.
        momentum: weight of the new batch in the moving averages.
    """

    def __init__(self, num_units: int, *, eps: float = 1e-8, momentum: float = 0.01) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.alpha = nn.Parameter(torch.zeros(num_units))
        self.register_buffer("mean", torch.zeros(num_units))
        self.register_buffer("var", torch.ones(num_units))

    mean: Tensor
    var: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [C, num_units] to the same shape and dtype."""
        values = at_least_fp32(inputs)
        if self.training:
            mean, var = global_moments(values)
            self.update(mean, var)
        else:
            mean, var = self.mean, self.var
        gate = torch.sigmoid((values - mean) * torch.rsqrt(var + self.eps))
        return (values * (gate + (1 - gate) * self.alpha)).to(inputs.dtype)

    def update(self, mean: Tensor, var: Tensor) -> None:
        """Moves the averages towards a batch's mean and variance, [num_units] each."""
        with torch.no_grad():
            self.mean.lerp_(mean.detach(), self.momentum)
            self.var.lerp_(var.detach(), self.momentum)


def global_moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and population variance over all ranks of [C, units], with gradient.

    In fp32 or better: bfloat16 could not even count the rows.
    """
    inputs = at_least_fp32(inputs)
    count = inputs.new_full((), inputs.shape[0])
    mean = inputs.sum(0) / count.clamp_min(1)
    variance = (inputs - mean).square().sum(0) / count.clamp_min(1)
    return merge_moments(mean, variance, count)


def merge_moments(mean: Tensor, variance: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and population variance over the rows of all ranks, with gradient.

    Args:
        mean: [units] of this rank's rows, 0 if it has none.
        variance: [units] population variance of them, likewise.
        count: [] rows of this rank.
    """
    if world_size() == 1:
        return mean, variance
    count = count.to(mean.dtype)
    sums = all_reduce(torch.cat([mean * count, count[None]]))  # type: ignore[no-untyped-call]
    total = sums[-1].detach().clamp_min(1)
    merged = sums[:-1] / total
    squares = count * (variance + (mean - merged).square())
    return merged, all_reduce(squares) / total  # type: ignore[no-untyped-call]
