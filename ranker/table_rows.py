"""Rows of embedding tables, wherever the sharding plan has put them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.distributed._shard.sharded_tensor.api import ShardedTensor

from ranker.distributed import gather_to_main
from ranker.table_names import check_patterns, is_table, table_of

IntArray = NDArray[np.int64]
Float32Array = NDArray[np.float32]


def sample_rows(
    module: nn.Module, table: str, *, max_rows: int, seed: int = 0
) -> tuple[IntArray, Float32Array] | None:
    """Draws rows of a table without replacement; every rank calls it.

    Args:
        module: under `DistributedModelParallel`.
        table: its name.
        max_rows: at most so many; row 0, the unknown id, is left out.
        seed: of the draw, which the number of ranks does not change.

    Returns:
        Ids [n] ascending and their vectors [n, D] on rank 0, None elsewhere.

    Raises:
        ValueError: the model has no such table.
    """
    state = module.state_dict()
    tables = {table_of(name): value for name, value in state.items() if is_table(name)}
    check_patterns("projector_tables", [table], tables)
    weight = tables[table]
    num_rows, width = weight.size()
    size = min(max_rows, num_rows - 1)
    ids = np.sort(1 + np.random.default_rng(seed).choice(num_rows - 1, size, replace=False))
    gathered = gather_to_main(_pieces(weight, ids))
    if gathered is None:
        return None
    vectors = np.zeros((size, width), dtype=np.float32)
    for places, column, values in (piece for rank in gathered for piece in rank):
        vectors[places, column : column + values.shape[1]] = values
    return ids, vectors


def _pieces(weight: torch.Tensor, ids: IntArray) -> list[tuple[IntArray, int, Float32Array]]:
    """What this rank holds of the rows: places among the ids, first column, values."""
    if not isinstance(weight, ShardedTensor):
        return [(np.arange(len(ids)), 0, _take(weight, ids))]
    pieces = []
    for shard in weight.local_shards():
        first_row, first_column = shard.metadata.shard_offsets
        places = np.flatnonzero((ids >= first_row) & (ids < first_row + len(shard.tensor)))
        pieces.append((places, first_column, _take(shard.tensor, ids[places] - first_row)))
    return pieces


def _take(tensor: torch.Tensor, rows: IntArray) -> Float32Array:
    picked = tensor.detach()[torch.from_numpy(rows).to(tensor.device)]
    taken: Float32Array = picked.float().cpu().numpy()
    return taken
