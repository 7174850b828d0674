"""The gradients of task losses where the tasks still share everything, and how they agree."""

import torch
from torch import Tensor

from ranker.distributed import sum_over_ranks, world_size


def feature_gramian(losses: Tensor, features: Tensor) -> Tensor:
    """Returns G [T, T] = J J^T with J_t = dL_t / d features, over the rows of all ranks, in fp32.

    One backward through the head per task; what lies below the features is not entered, so tables
    whose optimizer is fused into the backward are not touched. Every rank calls it.

    Args:
        losses: [T] this rank's shares of global means, with their graph, which is kept.
        features: [C, F] of this rank's rows.
    """
    rows = [
        torch.autograd.grad(loss, features, retain_graph=True, allow_unused=True)[0]
        for loss in losses
    ]
    jacobian = torch.stack(
        [torch.zeros_like(features) if row is None else row for row in rows]
    ).flatten(1)
    # a share is the world size times what this rank adds to the global mean
    jacobian = jacobian.detach().float() / world_size()
    with torch.autocast(jacobian.device.type, enabled=False):
        return sum_over_ranks(jacobian @ jacobian.T)
