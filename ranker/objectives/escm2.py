"""ESCM2: ESMM with a debiased conversion loss (Wang et al., SIGIR 2022)."""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ranker.distributed import weighted_mean
from ranker.modules.precision import at_least_fp32
from ranker.modules.task_loss import (
    check_known,
    check_used,
    row_losses,
    task_loss,
    weighted_sum,
)
from ranker.slots import TaskTargets

Estimator = Literal["ipw", "dr"]


class ESCM2(nn.Module):
    """L = L_ctr + w_ctcvr L_ctcvr + w_cvr R_cvr, with an estimate R_cvr over all impressions.

    With o = 1 on clicked rows, the loss e of the cvr logit there, and the propensity q = p_ctr:

    ipw:  R = mean [o e / q]                                   (equation 8)
    dr:   R = mean [e^ + o (e - e^) / q] + mean [o (e - e^)^2 / q]   (equations 11 and 12)

    Means are over all impressions. q is a constant of the gradient and not below
    `propensity_floor`. The imputed loss e^ is the cross entropy of the cvr logit against a pseudo
    label r = sigmoid(imputation); the first term of dr trains cvr with r fixed, the second trains r
    with cvr fixed (doubly robust joint learning, Wang et al., ICML 2019). An e^ that did not
    depend on the cvr logit would leave cvr the gradient of ipw.

    Args:
        estimator: "ipw" or "dr".
        ctr: task whose probability is the propensity.
        cvr: conditional task.
        ctcvr: product of both.
        cvr_weight: weight w_cvr of the estimate.
        ctcvr_weight: weight w_ctcvr.
        propensity_floor: smallest propensity that is believed.
        imputation: auxiliary tower of the head that gives r; null for ipw.
        task_weights: weight of each other task; 1 where not named.
    """

    def __init__(
        self,
        *,
        estimator: Estimator,
        cvr_weight: float,
        ctcvr_weight: float = 1.0,
        propensity_floor: float = 0.01,
        imputation: str | None = None,
        ctr: str = "ctr",
        cvr: str = "cvr",
        ctcvr: str = "ctcvr",
        task_weights: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        if estimator not in get_args(Estimator):
            raise ValueError(f"objective.estimator is {estimator!r}; must be ipw or dr")
        if cvr_weight <= 0:
            raise ValueError(
                f"objective.cvr_weight is {cvr_weight}; it must be positive, use objective=esmm "
                "for none"
            )
        if not 0 < propensity_floor <= 1:
            raise ValueError(
                f"objective.propensity_floor is {propensity_floor}; it must be in (0, 1]"
            )
        if (estimator == "dr") != (imputation is not None):
            raise ValueError(
                f"objective.imputation is {imputation!r}; the estimator dr needs the name of an "
                "auxiliary tower (head.towers.auxiliary), ipw has none"
            )
        self.ctr, self.cvr, self.ctcvr, self.imputation = ctr, cvr, ctcvr, imputation
        self.propensity_floor = propensity_floor
        self.task_weights = dict(task_weights or {})
        self.weights = {
            **self.task_weights,
            ctcvr: ctcvr_weight,
            cvr: 0.0,
            f"{cvr}_debiased": cvr_weight,
        }

    def forward(
        self, logits: Mapping[str, Tensor], targets: Mapping[str, TaskTargets]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the loss and its parts; `cvr` is the biased mean over clicks, of weight 0.

        Raises:
            ValueError: an option names a task or tower that the head does not have.
        """
        named = [self.ctr, self.cvr, self.ctcvr, *self.task_weights]
        check_known("ctr, cvr, ctcvr and task_weights", named, logits)
        auxiliary = [] if self.imputation is None else [self.imputation]
        check_known("imputation", auxiliary, logits)
        check_used(logits, [*targets, *auxiliary])
        parts = {
            task: task_loss(logit, targets[task])
            for task, logit in logits.items()
            if task in targets
        }
        parts[f"{self.cvr}_debiased"] = self._estimate(logits, targets)
        return weighted_sum(parts, self.weights), parts

    def _estimate(self, logits: Mapping[str, Tensor], targets: Mapping[str, TaskTargets]) -> Tensor:
        clicked, everywhere = targets[self.cvr], targets[self.ctcvr].weights
        propensity = torch.sigmoid(at_least_fp32(logits[self.ctr].detach()))
        inverse = (clicked.weights > 0) / propensity.clamp_min(self.propensity_floor)
        logit = logits[self.cvr]
        losses = row_losses(logit, clicked.labels)
        if self.imputation is None:
            return weighted_mean(inverse * losses, everywhere)
        pseudo = torch.sigmoid(at_least_fp32(logits[self.imputation]))
        imputed = row_losses(logit, pseudo.detach())
        robust = imputed + inverse * (losses - imputed)
        misfit = losses.detach() - row_losses(logit.detach(), pseudo)
        return weighted_mean(robust + inverse * misfit.square(), everywhere)
