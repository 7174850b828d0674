"""Makes tables forget rows: they become the row of the unknown id, as if never trained."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor

from ranker.checkpoint import Trainable
from ranker.distributed import sum_over_ranks
from ranker.table_names import is_table, table_of


@torch.no_grad()
def forget_rows(trainable: Trainable, chosen: Mapping[str, Tensor]) -> None:
    """Gives rows the vector of id 0, and clears what the optimizer remembers of them.

    Every rank calls it, with the same rows.

    Args:
        trainable: the sharded model and its optimizers.
        chosen: bool [rows] by table.
    """
    states = trainable.optimizer.state_dict()["state"]
    for name, weight in trainable.model.state_dict().items():
        if not is_table(name) or table_of(name) not in chosen:
            continue
        rows = chosen[table_of(name)]
        unknown = _row_of_unknown(weight)
        state = [value for key, value in states.items() if _belongs(key, name)]
        memory = [value for part in state for value in part.values() if _has_rows(value, weight)]
        for index, (piece, first_row, first_column) in enumerate(_pieces(weight)):
            own = rows[first_row : first_row + len(piece)].to(piece.device)
            piece[own] = unknown[first_column : first_column + piece.shape[1]].to(piece.device)
            for value in memory:
                _pieces(value)[index][0][own] = 0


def _belongs(key: str, weight: str) -> bool:
    # keys of the optimizer carry the name of the part of it that moves the table
    return key == weight or key.endswith(f".{weight}")


def _has_rows(value: Any, weight: Any) -> bool:
    """Whether an entry of the state has a value for each row of the table; step counts have not."""
    if not isinstance(value, ShardedTensor | Tensor) or not value.size():
        return False
    # row-wise state of a table in columns: the rows once for each of its shards
    rows: int = weight.size()[0]
    return value.size()[0] % rows == 0


def _pieces(value: Any) -> list[tuple[Tensor, int, int]]:
    """This rank's pieces of a table or of its state, with first row and first column."""
    if not isinstance(value, ShardedTensor):
        return [(value, 0, 0)]
    return [
        (shard.tensor, shard.metadata.shard_offsets[0], (*shard.metadata.shard_offsets, 0)[1])
        for shard in value.local_shards()
    ]


def _row_of_unknown(weight: Any) -> Tensor:
    """Row 0 of a table, on every rank."""
    if not isinstance(weight, ShardedTensor):
        return weight[0].clone()
    row = torch.zeros(weight.size()[1])
    for piece, first_row, first_column in _pieces(weight):
        if first_row == 0 and len(piece):
            row[first_column : first_column + piece.shape[1]] = piece[0].cpu()
    # on the host: a rank without a piece does not know the device, and all must take one transport
    return sum_over_ranks(row)
