"""What a backward of the attention returns."""

from typing import NamedTuple

import torch
from torch import Tensor


class Gradients(NamedTuple):
    """Gradients of the inputs.

    Keys that are columns of the values have no gradient of their own: `keys` is a view of `values`.
    `bias` is None when there was none.
    """

    query: Tensor
    keys: Tensor
    values: Tensor
    bias: Tensor | None


def zero_gradients(
    query: Tensor, keys: Tensor | None, values: Tensor, bias: Tensor | None
) -> Gradients:
    """Returns zeros of the inputs' shapes, contiguous whatever their strides."""
    of_values = _zeros(values)
    return Gradients(
        _zeros(query),
        key_columns(query, of_values) if keys is None else _zeros(keys),
        of_values,
        None if bias is None else _zeros(bias),
    )


def key_columns(query: Tensor, values: Tensor) -> Tensor:
    """Returns the columns of values `[..., V]` that are the keys of a query `[C, H, D]`."""
    return values[..., : query.shape[2]]


def _zeros(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor, memory_format=torch.contiguous_format)
