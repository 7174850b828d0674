"""Counts that grow with training: each rank keeps those of its ids, a checkpoint has them all."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._shard.metadata import ShardMetadata
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed._shard.sharded_tensor.metadata import ShardedTensorMetadata
from torch.distributed._shard.sharded_tensor.shard import Shard

from ranker.distributed import world_size
from ranker.modules.id_counts import own_ids


class StreamedCounts(nn.Module):
    """int64 counts of the ids of some tables, those that this rank owns.

    They are state, not buffers: DDP would give all ranks the buffers of rank 0. In the state of a
    model they are one sharded tensor a table, so a run goes on with any number of ranks.

    Args:
        sizes: number of ids by table.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.sizes = dict(sizes)
        self._own: dict[str, Tensor] = {}

    def own(self, table: str) -> Tensor:
        """Returns the counts of this rank's ids."""
        if table not in self._own:
            # not before they are needed: a model is also built to plan a cluster, or to be measured
            size = len(own_ids(self.sizes[table]))
            self._own[table] = torch.zeros(size, dtype=torch.int64, device="cpu")
        return self._own[table]

    def add(self, table: str, rows: Tensor, counts: Tensor) -> Tensor:
        """Adds to rows of this rank, each at most once, and returns what they have now."""
        self._own[table] = self.own(table).to(rows.device)
        total = self._own[table][rows] + counts
        self._own[table][rows] = total
        return total

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        for table, size in self.sizes.items():
            destination[prefix + table] = _as_sharded(self.own(table).cpu(), size)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        for table in self.sizes:
            saved = state_dict[prefix + table]
            pieces = (
                [shard.tensor for shard in saved.local_shards()]
                if isinstance(saved, ShardedTensor)
                else [saved]
            )
            # a rank may own no id of a small table
            for piece in pieces:
                self.own(table).copy_(piece)


def _as_sharded(local: Tensor, size: int) -> ShardedTensor | Tensor:
    if not dist.is_initialized():
        return local
    blocks = [own_ids(size, rank) for rank in range(world_size())]
    shards = [
        ShardMetadata(
            shard_offsets=[block.start], shard_sizes=[len(block)], placement=f"rank:{rank}/cpu"
        )
        for rank, block in enumerate(blocks)
        if block
    ]
    metadata = ShardedTensorMetadata(shards_metadata=shards, size=torch.Size([size]))
    metadata.tensor_properties.dtype = torch.int64
    own = [Shard(local, shard) for shard in shards if shard.placement.rank() == dist.get_rank()]  # type: ignore[union-attr]
    return ShardedTensor._init_from_local_shards_and_global_metadata(own, metadata)
