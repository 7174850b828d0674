from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ranker.objectives.partial_auc import PartialAUC
from ranker.slots import TaskTargets


def draw(rows: int = 200) -> tuple[torch.Tensor, TaskTargets]:
    torch.manual_seed(0)
    labels = (torch.arange(rows) % 4 == 0).double()
    logit = (torch.randn(rows, dtype=torch.float64) + labels).requires_grad_()
    return logit, TaskTargets(labels=labels, weights=torch.ones(rows, dtype=torch.float64))


def scalars_of(objective: PartialAUC) -> dict[str, nn.Parameter]:
    return {name.split(".")[-1]: value for name, value in objective.named_parameters()}


@pytest.mark.parametrize("alpha", [None, 0.4])
def test_its_value_is_the_formula(alpha: float | None) -> None:
    logit, target = draw()
    objective = PartialAUC(tasks=["ctr"], auc_weight=0.3, beta=0.2, alpha=alpha).double()
    values = {"a": 0.6, "b": 0.3, "gamma": -0.2, "s_negative": 0.7, "lambda_b": 0.5}
    if alpha is not None:
        values |= {"s_positive": -0.4, "lambda_a": 0.25}
    scalars = scalars_of(objective)
    assert set(scalars) == set(values)
    for name, value in values.items():
        nn.init.constant_(scalars[name], value)
    loss, parts = objective({"ctr": logit}, {"ctr": target})

    f = 1 / (1 + np.exp(-logit.detach().numpy()))
    positive = target.labels.numpy() == 1
    g, k = values["gamma"], 2.0

    def hinge(x: Any) -> Any:
        return np.log1p(np.exp(k * x)) / k

    left = (f[positive] - 0.6) ** 2 - 2 * (1 + g) * f[positive]
    right = (f[~positive] - 0.3) ** 2 + 2 * (1 + g) * f[~positive]
    expected = 0.7 + hinge(right - 0.7).mean() / 0.2 - g**2 - 0.5 * (0.3 - 1 - g)
    if alpha is None:
        expected += left.mean()
    else:
        expected += -0.4 + hinge(left + 0.4).mean() / 0.4 + 0.25 * (0.6 + g)
    assert parts["ctr_auc"].item() == pytest.approx(expected, abs=1e-9)
    torch.testing.assert_close(loss, parts["ctr"] + 0.3 * parts["ctr_auc"])
    # gamma goes uphill: a minimiser sees the slope with the other sign
    (slope,) = torch.autograd.grad(parts["ctr_auc"], scalars["gamma"])
    moved = objective({"ctr": logit}, {"ctr": target})[1]["ctr_auc"].item()
    nn.init.constant_(scalars["gamma"], g + 1e-4)
    moved = objective({"ctr": logit}, {"ctr": target})[1]["ctr_auc"].item() - moved
    assert slope.item() == pytest.approx(-moved / 1e-4, rel=1e-2)


@pytest.mark.parametrize("alpha", [None, 0.4])
def test_the_saddle_is_the_square_loss_of_the_chosen_pairs(alpha: float | None) -> None:
    logit, target = draw()
    objective = PartialAUC(
        tasks=["ctr"], auc_weight=0.3, beta=0.2, alpha=alpha, kappa=2000.0
    ).double()
    score = torch.sigmoid(logit.detach())
    positive = score[target.labels == 1].sort().values
    negative = score[target.labels == 0].sort(descending=True).values
    low, high = positive[: round((alpha or 1) * len(positive))], negative[: round(0.2 * 150)]
    a, b = low.mean(), high.mean()
    gamma = b - a
    between = (negative[29] + negative[30]) / 2
    scalars = scalars_of(objective)
    saddle: dict[str, Any] = {
        "a": a,
        "b": b,
        "gamma": gamma,
        "lambda_b": 0.0,
        "s_negative": (between - b) ** 2 + 2 * (1 + gamma) * between,
    }
    if alpha is not None:
        between = (positive[19] + positive[20]) / 2
        saddle |= {
            "lambda_a": 0.0,
            "s_positive": (between - a) ** 2 - 2 * (1 + gamma) * between,
        }
    for name, value in saddle.items():
        nn.init.constant_(scalars[name], float(value))
    value = objective({"ctr": logit}, {"ctr": target})[1]["ctr_auc"]
    pairs = (1 - (low.unsqueeze(1) - high)).square().mean()
    assert value.item() + 1 == pytest.approx(pairs.item(), abs=1e-3)
    slopes = dict(zip(scalars, torch.autograd.grad(value, list(scalars.values())), strict=True))
    for name in scalars:
        if name.startswith("lambda"):
            # at the border of its interval: downhill is outside
            assert slopes[name].item() > 0, name
        else:
            assert slopes[name].item() == pytest.approx(0, abs=0.02), name


def test_the_scalars_settle() -> None:
    logit, target = draw()
    objective = PartialAUC(tasks=["ctr"], auc_weight=0.3, beta=0.2).double()
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.03)
    for _ in range(1500):
        value = objective({"ctr": logit.detach()}, {"ctr": target})[1]["ctr_auc"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    scalars = scalars_of(objective)
    del scalars["lambda_b"]
    assert all(
        abs(value.grad.item()) < 1e-6 for value in scalars.values() if value.grad is not None
    )


def test_scalars_are_brought_back_into_their_intervals() -> None:
    logit, target = draw()
    objective = PartialAUC(tasks=["ctr"], auc_weight=0.3, beta=0.2)
    for parameter in objective.parameters():
        nn.init.constant_(parameter, -7)
    objective({"ctr": logit}, {"ctr": target})
    found = {name: value.item() for name, value in scalars_of(objective).items()}
    assert found == {"a": 0, "b": 0, "gamma": -1, "s_negative": 0, "lambda_b": 0}


def test_one_class_alone_adds_nothing() -> None:
    logit, target = draw()
    target = TaskTargets(labels=torch.zeros_like(target.labels), weights=target.weights)
    objective = PartialAUC(tasks=["ctr"], auc_weight=0.3, beta=0.2)
    _, parts = objective({"ctr": logit}, {"ctr": target})
    parts["ctr_auc"].backward()
    assert parts["ctr_auc"].item() == 0
    assert all(p.grad is not None and p.grad.item() == 0 for p in objective.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, r"objective\.beta is 0.0; it must be in \(0, 1\]"),
        ({"beta": 0.1, "alpha": 1.5}, r"objective\.alpha is 1.5"),
        ({"beta": 0.1, "kappa": 0.0}, r"objective\.kappa is 0.0"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PartialAUC(tasks=["ctr"], auc_weight=0.3, **options)
