"""Gradient-based weights of TorchJD, from the Gramian at the shared features."""

import warnings
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ranker.modules.gramian_balancer import GramianBalancer
from ranker.slots import WeightedObjective

Method = Literal["pcgrad", "cagrad", "mgda", "nash_mtl", "aligned_mtl", "imtl_g", "upgrad"]


class GramianWeights(GramianBalancer):
    """L = sum_t w_t L_t with weights that resolve conflicts between the tasks' gradients.

    pcgrad (Yu et al., NeurIPS 2020), cagrad (Liu et al., NeurIPS 2021), mgda (Desideri 2012),
    nash_mtl (Navon et al., ICML 2022), aligned_mtl (Senushkin et al., CVPR 2023), imtl_g (Liu et
    al., ICLR 2021), upgrad (Quinton and Rey 2024). The papers' gradients are those of all shared
    parameters; here they are those of the shared features, in units of the root of their mean
    square over the tasks.

    Args:
        base: objective whose parts are the tasks' losses.
        tasks: parts of it.
        method: as above.
        parts: for tasks whose loss is not the part of the same name, the parts it is made of.
        cagrad_c: radius of cagrad's search around the mean gradient, relative to its length.
        nash_max_norm: longest combined gradient of nash_mtl, in these units; 0 sets no bound.

    Raises:
        ValueError: the method is unknown, or TorchJD is not installed.
    """

    steps: Tensor

    def __init__(
        self,
        *,
        base: Callable[[], WeightedObjective],
        tasks: list[str],
        method: Method,
        parts: dict[str, list[str]] | None = None,
        cagrad_c: float = 0.4,
        nash_max_norm: float = 1.0,
    ) -> None:
        super().__init__(base=base, tasks=tasks, parts=parts)
        if method not in get_args(Method):
            raise ValueError(
                f"objective.method is {method!r}; must be one of {', '.join(get_args(Method))}"
            )
        self.method = method
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._weigh = _build(method, len(tasks), cagrad_c, nash_max_norm)

    def weights_of(self, gramian: Tensor, losses: Tensor) -> Tensor:
        """Returns the weights [T]."""
        # some solvers know the processor only
        gramian = gramian.double().cpu()
        # a batch on which a task has no rows has no gradient of it, and solvers would divide by 0
        if (gramian.diagonal() <= 0).any():
            return self.weights
        # TorchJD takes small gradients for none, and those of a mean over a large batch are small
        gramian = gramian / gramian.diagonal().mean()
        self.steps += 1
        if self.method == "nash_mtl":
            # its start is the last solution, which must survive a resume
            self._weigh.prvs_alpha = self.weights.double().cpu().numpy()
            values, vectors = torch.linalg.eigh(gramian)
            with warnings.catch_warnings():
                # cvxpy says that a later solve is not faster than the first
                warnings.filterwarnings("ignore", message="You are solving a parameterized")
                weights = self._weigh(vectors * values.clamp_min(0).sqrt())
        else:
            # pcgrad draws an order of the tasks; the same on all ranks and after a resume
            with torch.random.fork_rng(devices=[]):
                # torch.manual_seed would seed GPUs too
                torch.default_generator.manual_seed(int(self.steps))
                weights = self._weigh(gramian)
        return weights.to(self.weights)


def _build(method: Method, num_tasks: int, cagrad_c: float, nash_max_norm: float) -> Any:
    try:
        from torchjd import aggregation

        if method == "nash_mtl":
            return aggregation.NashMTL(num_tasks, nash_max_norm, 1, 20).weighting
        if method == "cagrad":
            return aggregation.CAGradWeighting(c=cagrad_c)
    except ImportError as error:
        raise ValueError(
            f"objective.method={method} needs TorchJD ({error}); pip install 'ctr-ranker[mtl]'"
        ) from error
    names = {
        "pcgrad": "PCGradWeighting",
        "mgda": "MGDAWeighting",
        "aligned_mtl": "AlignedMTLWeighting",
        "imtl_g": "IMTLGWeighting",
        "upgrad": "UPGradWeighting",
    }
    return getattr(aggregation, names[method])()
