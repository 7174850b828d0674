"""The loss of one task on the global batch."""

from collections.abc import Iterable, Mapping

import torch.nn.functional as F
from torch import Tensor

from ranker.distributed import weighted_mean
from ranker.modules.precision import at_least_fp32
from ranker.slots import TaskTargets


def row_losses(logit: Tensor, labels: Tensor) -> Tensor:
    """Returns softplus(z) - y z for each row, [C], in fp32 or better."""
    logit = at_least_fp32(logit)
    return F.binary_cross_entropy_with_logits(logit, labels.to(logit.dtype), reduction="none")


def task_loss(logit: Tensor, target: TaskTargets) -> Tensor:
    """Returns the mean binary cross entropy over a task's rows of the global batch.

    It is this rank's share (`distributed.weighted_mean`).
    """
    losses = row_losses(logit, target.labels)
    return weighted_mean(losses, target.weights.to(losses.dtype))


def weighted_sum(parts: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Returns the sum of named losses; those without a weight weigh 1."""
    # nothing is multiplied by 1 or added to 0: each would be an op, and one more in the backward
    first, *rest = (
        weights[name] * part if weights.get(name, 1.0) != 1.0 else part
        for name, part in parts.items()
    )
    return sum(rest, first)


def check_known(option: str, names: Iterable[str], logits: Mapping[str, Tensor]) -> None:
    """Checks that the head predicts what an objective names.

    Args:
        option: key of the configuration that holds the names.
        names: tasks or auxiliary outputs.
        logits: of the head.

    Raises:
        ValueError: a name is none of the head's.
    """
    unknown = sorted(set(names) - set(logits))
    if unknown:
        raise ValueError(
            f"objective.{option} names {unknown[0]!r}; the head predicts {', '.join(logits)}"
        )


def check_used(logits: Mapping[str, Tensor], used: Iterable[str]) -> None:
    """Checks that an objective has a use for everything that the head predicts.

    Raises:
        ValueError: the head has an auxiliary output that the objective does not know.
    """
    unused = sorted(set(logits) - set(used))
    if unused:
        raise ValueError(
            f"head.towers.auxiliary names {unused[0]!r}, which the objective does not use; remove "
            "it or choose an objective that names it"
        )
