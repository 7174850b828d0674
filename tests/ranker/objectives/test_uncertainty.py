import math

import torch

from ranker.objectives.bce import BCE
from ranker.objectives.uncertainty import Uncertainty
from ranker.slots import TaskTargets


def test_variances_find_the_optimum_of_fixed_losses() -> None:
    objective = Uncertainty(base=BCE, tasks=["a", "b"])
    logits = {"a": torch.tensor([0.0]), "b": torch.tensor([-3.0])}
    targets = {task: TaskTargets(labels=torch.ones(1), weights=torch.ones(1)) for task in logits}
    losses = torch.tensor([math.log(2), math.log1p(math.exp(3))])
    loss, _ = objective(logits, targets)
    # exp(0) = 1 and no penalty to begin with
    torch.testing.assert_close(loss.detach(), losses.sum())
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        objective(logits, targets)[0].backward()
        optimizer.step()
        objective.after_step()
    # d/ds [exp(-s) L + s / 2] = 0 at exp(-s) = 1 / (2 L)
    weights = torch.exp(-objective.log_variances.detach())
    torch.testing.assert_close(weights, 1 / (2 * losses), rtol=1e-4, atol=0)
    assert list(objective.report()) == ["weight/a", "weight/b"]
    assert objective.report()["weight/b"] == float(weights[1])
