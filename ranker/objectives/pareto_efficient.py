"""Pareto-efficient weights (Lin et al., RecSys 2019): the shortest combined gradient."""

from collections.abc import Callable

import torch
from torch import Tensor

from ranker.modules.gramian_balancer import GramianBalancer
from ranker.slots import WeightedObjective

_MAX_SWEEPS = 200


class ParetoEfficient(GramianBalancer):
    """L = sum_t w_t L_t with w = argmin w^T G w subject to sum w = 1 and w_t >= floor_t.

    Without floors it is MGDA (Sener and Koltun, NeurIPS 2018). The paper relaxes the problem and
    projects; here it is solved, by moving weight between pairs of tasks until nothing is gained.

    Args:
        base: objective whose parts are the tasks' losses.
        tasks: parts of it.
        parts: for tasks whose loss is not the part of the same name, the parts it is made of.
        floors: least weight of tasks; 0 where not named.

    Raises:
        ValueError: a floor is negative or of no task, or the floors sum to 1 or more.
    """

    def __init__(
        self,
        *,
        base: Callable[[], WeightedObjective],
        tasks: list[str],
        parts: dict[str, list[str]] | None = None,
        floors: dict[str, float] | None = None,
    ) -> None:
        super().__init__(base=base, tasks=tasks, parts=parts)
        floors = dict(floors or {})
        unknown = sorted(set(floors) - set(tasks))
        if unknown or min([0.0, *floors.values()]) < 0 or sum(floors.values()) >= 1:
            raise ValueError(
                f"objective.floors is {floors}; it must give tasks of {', '.join(tasks)} weights "
                "that are not negative and sum to less than 1"
            )
        self.floors = [floors.get(task, 0.0) for task in tasks]

    def weights_of(self, gramian: Tensor, losses: Tensor) -> Tensor:
        """Returns the weights [T]; they sum to 1."""
        return torch.tensor(shortest_combination(gramian.tolist(), self.floors))


def shortest_combination(gramian: list[list[float]], floors: list[float]) -> list[float]:
    """Returns w that minimises w^T G w over the simplex with w_t >= floor_t.

    Args:
        gramian: G [T, T], positive semi-definite.
        floors: [T] least weights, with a sum below 1.
    """
    count = len(floors)
    spare = (1 - sum(floors)) / count
    weights = [floor + spare for floor in floors]
    for _ in range(_MAX_SWEEPS):
        moved = 0.0
        for i in range(count):
            for j in range(i):
                slope = sum((gramian[i][k] - gramian[j][k]) * weights[k] for k in range(count))
                curvature = gramian[i][i] + gramian[j][j] - 2 * gramian[i][j]
                if curvature <= 0:
                    continue
                # from j to i, and not below either floor
                step = -slope / curvature
                step = min(max(step, floors[i] - weights[i]), weights[j] - floors[j])
                weights[i] += step
                weights[j] -= step
                moved = max(moved, abs(step))
        if moved < 1e-10:
            break
    return weights
