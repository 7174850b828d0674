import itertools

import pytest
import torch

from ranker.objectives.bce import BCE
from ranker.objectives.pareto_efficient import ParetoEfficient, shortest_combination


def length(gramian: torch.Tensor, weights: list[float]) -> float:
    vector = torch.tensor(weights, dtype=torch.float64)
    return float(vector @ gramian @ vector)


@pytest.mark.parametrize("floors", [[0.0, 0.0, 0.0], [0.3, 0.0, 0.1]])
@pytest.mark.parametrize("seed", range(4))
def test_no_point_of_a_fine_grid_is_shorter(seed: int, floors: list[float]) -> None:
    torch.manual_seed(seed)
    jacobian = torch.randn(3, 4, dtype=torch.float64) * torch.tensor([[1.0], [0.2], [5.0]])
    gramian = jacobian @ jacobian.T
    found = shortest_combination(gramian.tolist(), floors)
    assert sum(found) == pytest.approx(1)
    assert all(weight >= floor - 1e-12 for weight, floor in zip(found, floors, strict=True))
    spare, grid = 1 - sum(floors), range(41)
    best = min(
        length(
            gramian,
            [f + spare * share / 40 for f, share in zip(floors, (i, j, 40 - i - j), strict=True)],
        )
        for i, j in itertools.product(grid, grid)
        if i + j <= 40
    )
    assert length(gramian, found) <= best + 1e-12


def test_two_tasks_have_the_closed_form() -> None:
    # w = (G22 - G12) / (G11 + G22 - 2 G12), here with opposite gradients of lengths 1 and 3
    assert shortest_combination([[1.0, -3.0], [-3.0, 9.0]], [0.0, 0.0]) == pytest.approx(
        [0.75, 0.25]
    )
    # nothing to choose without gradients
    assert shortest_combination([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0]) == [0.5, 0.5]


def test_floors_must_fit() -> None:
    for floors in ({"a": 0.6, "b": 0.4}, {"a": -0.1}, {"c": 0.1}):
        with pytest.raises(ValueError, match=r"objective\.floors is"):
            ParetoEfficient(base=BCE, tasks=["a", "b"], floors=floors)
