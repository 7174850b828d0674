"""Beside cross entropy a ranking loss leaves probabilities calibrated; alone it does not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ranker.objectives.auprc import AUPRC
from ranker.objectives.partial_auc import PartialAUC
from ranker.objectives.square_auc import SquareAUC
from ranker.objectives.two_way_auc import TwoWayAUC
from ranker.slots import TaskTargets

OBJECTIVES: dict[str, Callable[..., Any]] = {
    "square": SquareAUC,
    "two_way": TwoWayAUC,
    "opauc": lambda **options: PartialAUC(beta=0.2, **options),
    "auprc": AUPRC,
}


def fit_pcoc(objective: Any) -> float:
    """Fits a logistic model of a rate of 8 % and returns predicted over true positives."""
    torch.manual_seed(0)
    features = torch.randn(1000, 3)
    truth = torch.sigmoid(features.sum(1) - 3.3)
    labels = (torch.rand(1000) < truth).float()
    target = TaskTargets(labels=labels, weights=torch.ones(1000))
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam([*model.parameters(), *objective.parameters()], lr=0.05)
    for _ in range(250):
        loss, _ = objective({"ctr": model(features)[:, 0]}, {"ctr": target})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return float(torch.sigmoid(model(features)).sum() / labels.sum())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_calibration_survives_beside_cross_entropy(name: str) -> None:
    together = fit_pcoc(OBJECTIVES[name](tasks=["ctr"], auc_weight=0.02))
    alone = fit_pcoc(OBJECTIVES[name](tasks=["ctr"], auc_weight=1.0, task_weights={"ctr": 0.0}))
    assert together == pytest.approx(1, abs=0.12)
    assert abs(alone - 1) > 1.7 * abs(together - 1)
