"""Lookups without an exchange, on CPUs where one process holds all tables.

TorchRec sorts ids by table, exchanges them, and brings embeddings back to the order of the keys,
also where there is nobody to exchange them with: a tenth of a small training step. Here the rows of
each key are looked up where they lie, and its gradients are applied from where they arise. What
this does not cover goes the usual way, and so do ids that no table has, of which FBGEMM warns.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType, SparseType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor, nn
from torchrec import JaggedTensor, KeyedJaggedTensor
from torchrec.distributed.embedding import ShardedEmbeddingCollection
from torchrec.distributed.types import ShardingType

from ranker.compiled_lookup import AdagradTable, has_plain_update, look_up
from ranker_kernels import embedding_rows
from ranker_kernels.embedding_rows import Keys


def look_up_locally(model: nn.Module) -> None:
    """Lets the collections of a sharded model look their rows up without an exchange.

    Those on other devices, or that several processes share, or that compiled code does not cover,
    stay as they are.
    """
    if dist.get_world_size() > 1:
        return
    for module in model.modules():
        if isinstance(module, ShardedEmbeddingCollection) and _is_covered(module):
            module.forward = LocalLookup(module)


class LocalLookup:
    """Stands in for the forward of a collection whose tables are all in this process.

    Args:
        collection: sharded, with its own forward.
    """

    def __init__(self, collection: ShardedEmbeddingCollection) -> None:
        self.exchange: Callable[[KeyedJaggedTensor], Any] = collection.forward
        self.groups = [_Group.of(kernel) for kernel in _kernels(collection)]

    def __call__(self, ids: KeyedJaggedTensor) -> Any:
        """Returns the jagged embeddings of each key, as the forward of a collection does."""
        library = embedding_rows.find_library()
        if library is None or ids.variable_stride_per_key() or ids.weights_or_none() is not None:
            return self.exchange(ids)
        # as the compiled code reads them
        values, starts = ids.values().long().contiguous(), ids.offset_per_key()
        place = {key: i for i, key in enumerate(ids.keys())}
        embedded: dict[str, Tensor] = {}
        for group in self.groups:
            keys = group.locate(place, starts)
            if not embedding_rows.are_in_bounds(library, values, keys):
                return self.exchange(ids)
            found = look_up(library, AdagradTable.of(group.module), values, keys)
            embedded |= zip(group.names, found, strict=True)
        lengths = ids.lengths().view(len(place), -1).unbind()
        return {
            key: JaggedTensor(values=vectors, lengths=lengths[place[key]])
            for key, vectors in embedded.items()
        }


@dataclasses.dataclass(frozen=True)
class _Group:
    """Tables that one FBGEMM module holds.

    Attributes:
        names: of the keys that read them.
        module: that holds them.
        first_rows: of the table of each key, in the rows of all of them.
        sizes: rows of the table of each key.
    """

    names: list[str]
    module: SplitTableBatchedEmbeddingBagsCodegen
    first_rows: list[int]
    sizes: list[int]

    @classmethod
    def of(cls, kernel: Any) -> "_Group":
        module = kernel.emb_module
        first_rows = (module.weights_offsets // module.max_D).tolist()
        return cls(
            kernel.config.feature_names(), module, first_rows, module.rows_per_table.tolist()
        )

    def locate(self, place: dict[str, int], starts: list[int]) -> Keys:
        places = [place[name] for name in self.names]
        return Keys(
            begins=[starts[i] for i in places],
            ends=[starts[i + 1] for i in places],
            first_rows=self.first_rows,
            sizes=self.sizes,
        )


def _kernels(collection: ShardedEmbeddingCollection) -> list[Any]:
    """Returns the modules that each look up the tables of one optimizer."""
    return [kernel for lookup in collection._lookups for kernel in lookup._emb_modules]


def _is_covered(collection: ShardedEmbeddingCollection) -> bool:
    if [*collection._sharding_type_to_sharding] != [ShardingType.TABLE_WISE.value]:
        return False
    return all(_is_plain(kernel.emb_module) for kernel in _kernels(collection))


def _is_plain(module: nn.Module) -> bool:
    """Whether a module looks up fp32 rows of one width that plain row-wise Adagrad moves."""
    return (
        isinstance(module, SplitTableBatchedEmbeddingBagsCodegen)
        and module.use_cpu
        and module.weights_host.numel() > 0
        and module.weights_precision == SparseType.FP32
        and module.output_dtype == SparseType.FP32.as_int()
        and module.pooling_mode == PoolingMode.NONE
        and not module.mixed_D
        and module.optimizer == EmbOptimType.EXACT_ROWWISE_ADAGRAD
        and has_plain_update(module.optimizer_args)
    )
