"""Embedding tables as TorchRec collections, initialised alike under any sharding plan."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torchrec import EmbeddingCollection, EmbeddingConfig, JaggedTensor, KeyedJaggedTensor

from ranker_data.batch import BEHAVIOR_PREFIX
from ranker_data.schema import Field, Schema

# rows that share one random generator: any shard can be filled without drawing the rows before it
_INIT_BLOCK_ROWS = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingOptions:
    """Widths and initialisation of the tables.

    Attributes:
        dim: width of every table that `dims` does not name.
        dims: width by table name.
        init_std: standard deviation of the normal initialisation.
    """

    dim: int
    dims: Mapping[str, int] = dataclasses.field(default_factory=dict)
    init_std: float = 0.01

    def __post_init__(self) -> None:
        for name, dim in {"dim": self.dim, **self.dims}.items():
            if dim < 1:
                raise ValueError(f"embedding width of {name} must be at least 1, got {dim}")

    def dim_of(self, table: str) -> int:
        """Returns the width of a table."""
        return self.dims.get(table, self.dim)


class EmbeddingTables(nn.Module):
    """All tables of a schema, created on the meta device.

    `DistributedModelParallel` allocates them.

    History and candidate share a table by name. TorchRec wants one width per collection, so there
    is one collection, and one id exchange, per width.

    Args:
        schema: names the tables and the fields that read them.
        options: widths.
    """

    def __init__(self, *, schema: Schema, options: EmbeddingOptions) -> None:
        super().__init__()
        unknown = sorted(set(options.dims) - {table.name for table in schema.tables})
        if unknown:
            names = ", ".join(table.name for table in schema.tables)
            raise ValueError(
                f"embedding.dims names the table {unknown[0]!r}; the data set has {names}"
            )
        keys = table_keys(schema)
        widths = sorted({options.dim_of(table) for table in keys})
        self.collections = nn.ModuleList(
            EmbeddingCollection(
                device=torch.device("meta"),
                tables=[
                    EmbeddingConfig(
                        name=table.name,
                        embedding_dim=width,
                        num_embeddings=table.num_embeddings,
                        feature_names=keys[table.name],
                    )
                    for table in schema.tables
                    if table.name in keys and options.dim_of(table.name) == width
                ],
            )
            for width in widths
        )
        self.table_names = sorted(keys)
        self.collection_of = {
            key: widths.index(options.dim_of(table)) for table in keys for key in keys[table]
        }

    def forward(self, ids: KeyedJaggedTensor) -> list[dict[str, JaggedTensor]]:
        """Returns one dictionary from key to jagged embeddings per width; traceable by torch.fx."""
        return [collection(ids) for collection in self.collections]


def table_keys(schema: Schema) -> dict[str, list[str]]:
    """Returns the keys of the id tensor that read each table.

    Tables that nothing reads are left out.
    """
    keys: dict[str, list[str]] = {}
    pairs: list[tuple[str, Field]] = [(field.name, field) for field in schema.fields]
    pairs += [(BEHAVIOR_PREFIX + field.name, field) for field in schema.behaviors]
    for key, field in pairs:
        if field.table is not None:
            keys.setdefault(field.table, []).append(key)
    return keys


def init_tables(module: nn.Module, *, std: float, seed: int) -> None:
    """Fills every table with values that depend on seed, table name, row and column only.

    So the same run starts from the same weights on any number of ranks and with any sharding plan.

    Args:
        module: a model under `DistributedModelParallel`.
        std: standard deviation.
        seed: of the run.
    """
    for name, value in module.state_dict().items():
        if not isinstance(value, ShardedTensor):
            continue
        columns = value.size()[1]
        for shard in value.local_shards():
            rows, first_column = shard.metadata.shard_offsets
            _fill(shard.tensor, rows, first_column, columns, std, _table_seed(name, seed))


def _table_seed(name: str, seed: int) -> int:
    table = name.removesuffix(".weight").rsplit(".", maxsplit=1)[-1]
    digest = hashlib.sha256(f"{seed}:{table}".encode()).digest()
    return int.from_bytes(digest[:6], "little")


def _fill(
    target: Tensor, first_row: int, first_column: int, columns: int, std: float, seed: int
) -> None:
    num_rows, width = target.shape
    generator = torch.Generator()
    for block in range(
        first_row // _INIT_BLOCK_ROWS, math.ceil((first_row + num_rows) / _INIT_BLOCK_ROWS)
    ):
        generator.manual_seed(seed + block)
        begin = block * _INIT_BLOCK_ROWS
        low, high = max(begin, first_row), min(begin + _INIT_BLOCK_ROWS, first_row + num_rows)
        values = torch.empty(_INIT_BLOCK_ROWS, columns).normal_(0, std, generator=generator)
        piece = values[low - begin : high - begin, first_column : first_column + width]
        target[low - first_row : high - first_row].copy_(piece)
