"""Partial AUC as an instance-wise minimax problem: PAUCI (Shao et al., NeurIPS 2022)."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ranker.modules.ranking_objective import RankingObjective, class_sums
from ranker.slots import TaskTargets


@dataclasses.dataclass(frozen=True)
class Scalar:
    """A scalar of the minimax problem: where it starts and the interval it is kept in."""

    start: float
    low: float
    high: float


# the authors' settings; multipliers of the constraints on gamma start at 0
_SCALARS = {
    "a": Scalar(0.5, 0.0, 1.0),
    "b": Scalar(0.5, 0.0, 1.0),
    "gamma": Scalar(1.0, -1.0, 1.0),
    "s_negative": Scalar(0.5, 0.0, 5.0),
    "s_positive": Scalar(0.5, -4.0, 1.0),
    "lambda_a": Scalar(0.0, 0.0, 1e9),
    "lambda_b": Scalar(0.0, 0.0, 1e9),
}


class PartialAUC(RankingObjective):
    """OPAUC or TPAUC of the square loss, beside cross entropy; f is a probability.

    OPAUC, false positive rates up to beta:

        min_{f, a, b, s_n, l_b >= 0} max_gamma  E+[(f - a)^2 - 2 (1 + gamma) f]
            + s_n + E-[ [(f - b)^2 + 2 (1 + gamma) f - s_n]_k ] / beta
            - gamma^2 - l_b (b - 1 - gamma)

    TPAUC, in which only the lowest share alpha of the positives counts, has for the first term

            s_p + E+[ [(f - a)^2 - 2 (1 + gamma) f - s_p]_k ] / alpha   and   + l_a (a + gamma)

    [x]_k = ln(1 + exp(k x)) / k. The thresholds s choose the rows, so there is no sorting and no
    pair; a, b and gamma stand for the means of the chosen scores. The scalars are parameters: one
    optimizer moves them with the network, gamma uphill (its gradient is reversed; in the authors'
    released optimizer that branch is commented out, and gamma goes downhill). With a sharp hinge
    (large k) they circle around the saddle point instead of settling; the authors' 2 damps them.
    The expectations are means over the global batch, in double. Up to the smoothing, the value is
    the mean square loss over the chosen pairs less 1. A batch without one of the classes adds
    nothing.

    Args:
        tasks: tasks whose partial AUC is optimised.
        auc_weight: weight of the partial AUC.
        beta: largest false positive rate.
        alpha: share of the positives, those with the lowest scores; null is OPAUC.
        kappa: sharpness k of the smoothed hinge.
        task_weights: weight of each task's cross entropy; 1 where not named.

    Raises:
        ValueError: a share is not in (0, 1] or kappa not positive.
    """

    def __init__(
        self,
        *,
        tasks: list[str],
        auc_weight: float,
        beta: float,
        alpha: float | None = None,
        kappa: float = 2.0,
        task_weights: dict[str, float] | None = None,
    ) -> None:
        super().__init__(tasks=tasks, auc_weight=auc_weight, task_weights=task_weights)
        for name, share in (("beta", beta), ("alpha", 1.0 if alpha is None else alpha)):
            if not 0 < share <= 1:
                raise ValueError(f"objective.{name} is {share}; it must be in (0, 1]")
        if kappa <= 0:
            raise ValueError(f"objective.kappa is {kappa}; it must be positive")
        self.alpha, self.beta, self.kappa = alpha, beta, kappa
        two_way = {"s_positive", "lambda_a"}
        self.scalars = nn.ModuleDict(
            {
                task: nn.ParameterDict(
                    {
                        name: nn.Parameter(torch.tensor(scalar.start))
                        for name, scalar in _SCALARS.items()
                        if alpha is not None or name not in two_way
                    }
                )
                for task in tasks
            }
        )

    def ranking_loss(self, task: str, logit: Tensor, target: TaskTargets) -> Tensor:
        """Returns the value of the minimax problem on the global batch."""
        scalars = self.scalars[task]
        assert isinstance(scalars, nn.ParameterDict)
        self._project(scalars)
        at = {name: value.double() for name, value in scalars.items()}
        gamma = _uphill(at["gamma"])
        score = torch.sigmoid(logit.double())
        positive = (score - at["a"]).square() - 2 * (1 + gamma) * score
        if self.alpha is not None:
            positive = self._hinge(positive - at["s_positive"]) / self.alpha
        negative = (score - at["b"]).square() + 2 * (1 + gamma) * score
        negative = self._hinge(negative - at["s_negative"]) / self.beta
        counts, means = class_sums(target, positive, negative)
        loss = means[0, 0] + means[1, 1] + at["s_negative"] - gamma.square()
        loss = loss - at["lambda_b"] * (at["b"] - 1 - gamma)
        if self.alpha is not None:
            loss = loss + at["s_positive"] + at["lambda_a"] * (at["a"] + gamma)
        return (loss * (counts > 0).all()).to(logit.dtype)

    def _hinge(self, values: Tensor) -> Tensor:
        return F.softplus(self.kappa * values) / self.kappa

    @torch.no_grad()
    def _project(self, scalars: nn.ParameterDict) -> None:
        """Brings the scalars back into their intervals, after the last step of the optimizer."""
        for name, value in scalars.items():
            value.clamp_(_SCALARS[name].low, _SCALARS[name].high)


class _Reversed(torch.autograd.Function):
    """The identity, with the gradient reversed: a minimiser then goes uphill."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        return -gradients[0]


def _uphill(value: Tensor) -> Tensor:
    reversed_value: Tensor = _Reversed.apply(value)  # type: ignore[no-untyped-call]
    return reversed_value
