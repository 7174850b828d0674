"""Rows of users, brought to their candidates."""

from typing import Any

import torch
from torch import Tensor

from ranker_kernels.segment_sum import segment_sum


def repeat_for_candidates(users: Tensor, user_of: Tensor) -> Tensor:
    """Returns the row of each candidate's user: [U, D] to [C, D].

    The gradient of a user adds up over its candidates in their order, on every device; that of
    `users[user_of]` is a sort and a sum without an order on GPUs.

    Args:
        users: [U, D]; each has at least one candidate.
        user_of: [C] not decreasing.
    """
    # so many candidates as users: one for each, in order
    if len(users) == len(user_of):
        return users
    rows: Tensor = _Repeated.apply(users, user_of)  # type: ignore[no-untyped-call]
    return rows


class _Repeated(torch.autograd.Function):
    """[U, D] and [C] to [C, D]."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, user_of: Tensor) -> Tensor:
        ctx.save_for_backward(user_of)
        ctx.num_users = len(users)
        return users.index_select(0, user_of)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (user_of,) = ctx.saved_tensors
        edges = torch.arange(ctx.num_users + 1, dtype=user_of.dtype, device=user_of.device)
        starts = torch.searchsorted(user_of, edges)
        return segment_sum(gradient, torch.stack([starts[:-1], starts[1:]], dim=1)), None
