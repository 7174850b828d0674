from collections.abc import Callable

import pytest
import torch

from ranker.optimizers.dense import build_dense_optimizer
from ranker.optimizers.options import DenseOptimizerName, OptimizerOptions


def draw() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(n, 3, generator=generator)) for n in (4, 1)]


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("adamw", lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.01, foreach=False)),
        ("adam", lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.01, foreach=False)),
        ("sgd", lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01, foreach=False)),
        ("adagrad", lambda p: torch.optim.Adagrad(p, lr=0.1, weight_decay=0.01, foreach=False)),
    ],
)
def test_steps_are_those_of_torch(
    name: DenseOptimizerName,
    reference: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer],
) -> None:
    ours, theirs = draw(), draw()
    options = OptimizerOptions(
        sparse="sgd",
        sparse_lr=1.0,
        sparse_eps=1e-8,
        dense=name,
        dense_lr=0.1,
        dense_weight_decay=0.01,
    )
    optimizers = (
        build_dense_optimizer({f"p{i}": p for i, p in enumerate(ours)}, options),
        reference(theirs),
    )
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs)
