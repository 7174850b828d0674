"""What autocast makes of the operands of attentions and searches.

On GPUs their products take tensor cores, which want 16 bits; sums, scores, the softmax and the
weights of an activation unit stay float32. On CPUs the ops register float32 for themselves, since
compiled code has nothing faster.
"""

from typing import TypeVar

import torch
from torch import Tensor

_Operand = TypeVar("_Operand", Tensor, Tensor | None)


def cast_operand(operand: _Operand) -> _Operand:
    """Returns an operand of products in the dtype of CUDA's autocast, where that is on.

    Integers and float64 stay what they are, as everywhere under autocast.
    """
    if (
        operand is None
        or not operand.is_cuda
        or not operand.is_floating_point()
        or operand.dtype == torch.float64
        or not torch.is_autocast_enabled("cuda")
    ):
        return operand
    return operand.to(torch.get_autocast_dtype("cuda"))
