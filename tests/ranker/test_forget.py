"""The row of the unknown id, which one rank has and all need."""

from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.distributed._shard.metadata import ShardMetadata
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed._shard.sharded_tensor.shard import Shard

from ranker import forget


def test_all_ranks_add_the_row_up_on_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    # else those with a piece of the table would wait on NCCL, and those without on gloo
    devices = []

    def add_up(row: Tensor) -> Tensor:
        devices.append(row.device.type)
        return row

    monkeypatch.setattr(forget, "sum_over_ranks", add_up)
    place = ShardMetadata(shard_offsets=[4, 0], shard_sizes=[4, 2], placement="rank:1/meta")
    for shards in ([], [Shard(torch.empty(4, 2, device="meta"), place)]):
        weight = mock.create_autospec(ShardedTensor, instance=True)
        weight.size.return_value = torch.Size([8, 2])
        weight.local_shards.return_value = shards
        forget._row_of_unknown(weight)
    assert devices == ["cpu", "cpu"]
