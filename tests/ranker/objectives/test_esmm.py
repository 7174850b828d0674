from typing import Any

import numpy as np
import pytest
import torch

from ranker.modules.product_logit import product_logit
from ranker.objectives.esmm import ESMM
from ranker.slots import TaskTargets


def batch() -> tuple[dict[str, torch.Tensor], dict[str, TaskTargets]]:
    torch.manual_seed(0)
    ctr, cvr = torch.randn(2, 200, dtype=torch.float64) * 3 - 1
    click = (torch.rand(200) < 0.4).double()
    buy = click * (torch.rand(200) < 0.3).double()
    weights = torch.rand(200).double()
    logits = {
        "ctr": ctr.requires_grad_(),
        "cvr": cvr.requires_grad_(),
        "ctcvr": product_logit([ctr, cvr]),
    }
    targets = {
        "ctr": TaskTargets(labels=click, weights=weights),
        "cvr": TaskTargets(labels=buy, weights=weights * click),
        "ctcvr": TaskTargets(labels=buy, weights=weights),
    }
    return logits, targets


def naive(logits: dict[str, torch.Tensor], targets: dict[str, TaskTargets]) -> Any:
    """The paper's loss from probabilities."""
    p_ctr, p_cvr = (1 / (1 + np.exp(-logits[task].detach().numpy())) for task in ("ctr", "cvr"))
    weights = targets["ctr"].weights.numpy()
    loss = 0
    for p, task in ((p_ctr, "ctr"), (p_ctr * p_cvr, "ctcvr")):
        y = targets[task].labels.numpy()
        loss -= np.average(y * np.log(p) + (1 - y) * np.log(1 - p), weights=weights)
    return loss


def test_it_is_the_papers_loss() -> None:
    logits, targets = batch()
    loss, parts = ESMM(conditional=["cvr"])(logits, targets)
    assert loss.item() == pytest.approx(naive(logits, targets), rel=1e-12)
    assert list(parts) == ["ctr", "cvr", "ctcvr"]


def test_a_longer_chain_is_the_sum_of_its_products() -> None:
    # impression, click, cart, purchase
    torch.manual_seed(1)
    names = ("ctr", "cart_rate", "buy_rate")
    steps = dict(zip(names, torch.randn(3, 300, dtype=torch.float64) * 3 - 1, strict=True))
    happened = torch.rand(3, 300) < torch.tensor([[0.5], [0.6], [0.4]])
    click, cart, buy = happened.double().cumprod(0)
    weights = torch.rand(300).double()
    ctcart = product_logit([steps["ctr"], steps["cart_rate"]])
    logits = {**steps, "ctcart": ctcart, "ctbuy": product_logit([ctcart, steps["buy_rate"]])}
    targets = {
        "ctr": TaskTargets(labels=click, weights=weights),
        "cart_rate": TaskTargets(labels=cart, weights=weights * click),
        "buy_rate": TaskTargets(labels=buy, weights=weights * cart),
        "ctcart": TaskTargets(labels=cart, weights=weights),
        "ctbuy": TaskTargets(labels=buy, weights=weights),
    }
    loss, _ = ESMM(conditional=["cart_rate", "buy_rate"])(logits, targets)
    probability = np.ones(300)
    expected = 0.0
    for name, label in zip(names, (click, cart, buy), strict=True):
        probability = probability / (1 + np.exp(-steps[name].numpy()))
        y = label.numpy()
        entropy = y * np.log(probability) + (1 - y) * np.log(1 - probability)
        expected -= float(np.average(entropy, weights=weights.numpy()))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_unclicked_rows_teach_cvr() -> None:
    logits, targets = batch()
    loss, _ = ESMM(conditional=["cvr"])(logits, targets)
    loss.backward()
    p_ctr, p_cvr = torch.sigmoid(logits["ctr"].detach()), torch.sigmoid(logits["cvr"].detach())
    no_sale = targets["ctcvr"].labels == 0
    expected = p_ctr * p_cvr * (1 - p_cvr) / (1 - p_ctr * p_cvr)
    weights = targets["ctr"].weights / targets["ctr"].weights.sum()
    assert logits["cvr"].grad is not None
    torch.testing.assert_close(logits["cvr"].grad[no_sale], (weights * expected)[no_sale])


def test_the_conditional_loss_is_the_mean_over_clicks() -> None:
    logits, targets = batch()
    plain, parts = ESMM(conditional=["cvr"])(logits, targets)
    both, _ = ESMM(conditional=["cvr"], conditional_weight=0.5)(logits, targets)
    click = targets["ctr"].labels.bool()
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        logits["cvr"][click], targets["cvr"].labels[click], weight=targets["cvr"].weights[click]
    )
    expected = losses * click.sum() / targets["cvr"].weights.sum()
    torch.testing.assert_close(parts["cvr"], expected)
    torch.testing.assert_close(both - plain, 0.5 * expected)


def test_wrong_names_are_told() -> None:
    logits, targets = batch()
    with pytest.raises(ValueError, match=r"objective\.conditional names 'cart'; the head predicts"):
        ESMM(conditional=["cart"])(logits, targets)
    with pytest.raises(ValueError, match=r"task_weights names the conditional task 'cvr'"):
        ESMM(conditional=["cvr"], task_weights={"cvr": 1.0})
    with pytest.raises(ValueError, match=r"objective\.conditional is empty"):
        ESMM(conditional=[])
    with pytest.raises(ValueError, match=r"auxiliary names 'extra', which the objective does not"):
        ESMM(conditional=["cvr"])({**logits, "extra": logits["ctr"]}, targets)
