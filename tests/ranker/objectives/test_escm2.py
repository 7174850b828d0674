from typing import Any

import numpy as np
import pytest
import torch

from ranker.modules.product_logit import product_logit
from ranker.objectives.escm2 import ESCM2
from ranker.slots import TaskTargets


def batch() -> tuple[dict[str, torch.Tensor], dict[str, TaskTargets]]:
    torch.manual_seed(0)
    ctr, cvr, imputation = torch.randn(3, 300, dtype=torch.float64) * 2
    click = (torch.rand(300) < torch.sigmoid(ctr)).double()
    buy = click * (torch.rand(300) < 0.3).double()
    ones = torch.ones(300).double()
    logits = {
        "ctr": ctr.requires_grad_(),
        "cvr": cvr.requires_grad_(),
        "imputed": imputation.requires_grad_(),
        "ctcvr": product_logit([ctr, cvr]),
    }
    targets = {
        "ctr": TaskTargets(labels=click, weights=ones),
        "cvr": TaskTargets(labels=buy, weights=click),
        "ctcvr": TaskTargets(labels=buy, weights=ones),
    }
    return logits, targets


def entropy(logit: torch.Tensor, label: Any) -> Any:
    p = 1 / (1 + np.exp(-logit.detach().numpy()))
    return -(label * np.log(p) + (1 - label) * np.log(1 - p))


def test_ipw_weighs_clicked_rows_by_their_propensity() -> None:
    logits, targets = batch()
    del logits["imputed"]
    loss, parts = ESCM2(estimator="ipw", cvr_weight=0.2, propensity_floor=0.1)(logits, targets)
    click = targets["ctr"].labels.numpy()
    propensity = np.maximum(1 / (1 + np.exp(-logits["ctr"].detach().numpy())), 0.1)
    errors = entropy(logits["cvr"], targets["cvr"].labels.numpy())
    expected = np.mean(click * errors / propensity)
    assert parts["cvr_debiased"].item() == pytest.approx(expected, rel=1e-10)
    total = parts["ctr"] + parts["ctcvr"] + 0.2 * parts["cvr_debiased"]
    torch.testing.assert_close(loss, total)


def test_the_propensity_is_a_constant() -> None:
    logits, targets = batch()
    del logits["imputed"]
    _, parts = ESCM2(estimator="ipw", cvr_weight=0.2)(logits, targets)
    parts["cvr_debiased"].backward()
    assert logits["ctr"].grad is None
    assert logits["cvr"].grad is not None


def test_dr_is_both_equations() -> None:
    logits, targets = batch()
    _, parts = ESCM2(estimator="dr", cvr_weight=0.2, imputation="imputed")(logits, targets)
    click = targets["ctr"].labels.numpy()
    inverse = click * (1 + np.exp(-logits["ctr"].detach().numpy()))
    errors = entropy(logits["cvr"], targets["cvr"].labels.numpy())
    pseudo = 1 / (1 + np.exp(-logits["imputed"].detach().numpy()))
    imputed = entropy(logits["cvr"], pseudo)
    expected = np.mean(imputed + inverse * (errors - imputed) + inverse * (errors - imputed) ** 2)
    assert parts["cvr_debiased"].item() == pytest.approx(expected, rel=1e-6)


def test_dr_teaches_cvr_on_unclicked_rows_by_the_pseudo_label() -> None:
    logits, targets = batch()
    _, parts = ESCM2(estimator="dr", cvr_weight=0.2, imputation="imputed")(logits, targets)
    parts["cvr_debiased"].backward()
    unclicked = targets["ctr"].labels == 0
    assert logits["cvr"].grad is not None
    assert logits["imputed"].grad is not None
    with torch.no_grad():
        gap = torch.sigmoid(logits["cvr"]) - torch.sigmoid(logits["imputed"])
    torch.testing.assert_close(logits["cvr"].grad[unclicked], gap[unclicked] / 300)
    # the imputation learns where the truth is known
    assert logits["imputed"].grad[unclicked].abs().max() == 0
    assert logits["imputed"].grad[~unclicked].abs().max() > 0


def test_ipw_is_unbiased_where_clicks_follow_the_propensity() -> None:
    """Over draws of the clicks the estimate is the mean loss over all impressions."""
    torch.manual_seed(1)
    ctr, cvr = torch.randn(2, 2000, dtype=torch.float64)
    would_buy = (torch.rand(2000) < 0.3).double()
    estimates = []
    for _ in range(40):
        click = (torch.rand(2000) < torch.sigmoid(ctr)).double()
        targets = {
            "ctr": TaskTargets(labels=click, weights=torch.ones(2000)),
            "cvr": TaskTargets(labels=click * would_buy, weights=click),
            "ctcvr": TaskTargets(labels=click * would_buy, weights=torch.ones(2000)),
        }
        logits = {"ctr": ctr, "cvr": cvr, "ctcvr": product_logit([ctr, cvr])}
        _, parts = ESCM2(estimator="ipw", cvr_weight=1.0)(logits, targets)
        estimates.append(parts["cvr_debiased"].item())
    truth = entropy(cvr, would_buy.numpy()).mean()
    error = np.std(estimates) / np.sqrt(40)
    assert abs(np.mean(estimates) - truth) < 4 * error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "snips"}, r"objective\.estimator is 'snips'; must be ipw or dr"),
        ({"cvr_weight": 0.0}, r"objective\.cvr_weight is 0\.0; it must be positive"),
        ({"propensity_floor": 0.0}, r"objective\.propensity_floor is 0\.0"),
        ({"imputation": "x"}, r"objective\.imputation is 'x'; the estimator dr needs"),
        ({"estimator": "dr"}, r"objective\.imputation is None; the estimator dr needs"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ESCM2(**{"estimator": "ipw", "cvr_weight": 0.1, **options})


def test_a_missing_tower_is_named() -> None:
    logits, targets = batch()
    with pytest.raises(ValueError, match=r"objective\.imputation names 'other'; the head predicts"):
        ESCM2(estimator="dr", cvr_weight=0.1, imputation="other")(logits, targets)
