"""Embedding tables as TorchRec collections, initialised alike under any sharding plan."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torchrec import EmbeddingCollection, EmbeddingConfig, JaggedTensor, KeyedJaggedTensor

from ranker.modules.embedding_options import EmbeddingOptions
from ranker.modules.id_hash import (
    Hash,
    IdHash,
    count_collisions,
    expected_collisions,
    multiplexed_keys,
    salt_of,
)
from ranker.table_names import is_table, table_of
from ranker_data.batch import BEHAVIOR_PREFIX
from ranker_data.schema import Field, Schema

UNIFIED_TABLE = "unified"
# rows that share one random generator: any shard can be filled without drawing the rows before it
_INIT_BLOCK_ROWS = 4096
# ids whose collisions are counted at the start of a run (seconds), not estimated
_MAX_COUNTED_IDS = 1 << 26


@dataclasses.dataclass(frozen=True)
class KeySource:
    """Where the embedding of a key of the batch comes from.

    Attributes:
        collection: which one looks it up.
        keys: what is looked up there, side by side; the key itself unless it is multiplexed.
    """

    collection: int
    keys: tuple[str, ...]

    def take(self, embedded: Sequence[Mapping[str, JaggedTensor]]) -> Tensor:
        """Returns the embedded ids [rows, D] of the key."""
        looked_up = embedded[self.collection]
        values = [looked_up[key].values() for key in self.keys]
        return values[0] if len(values) == 1 else torch.cat(values, dim=1)


class EmbeddingTables(nn.Module):
    """All tables of a schema, created on the meta device.

    `DistributedModelParallel` allocates them.

    History and candidate share a table by name. TorchRec wants one width per collection, so there
    is one collection, and one id exchange, per width.

    Args:
        schema: names the tables and the fields that read them.
        options: widths and sizes.

    Raises:
        ValueError: an option names an unknown table, or a table without a vocabulary has no rows.
    """

    def __init__(self, *, schema: Schema, options: EmbeddingOptions) -> None:
        super().__init__()
        keys = table_keys(schema)
        _check_tables(schema, options, keys)
        plan = _plan_tables(schema, options, keys)
        widths = sorted({config.embedding_dim for config in plan})
        self.collections = nn.ModuleList(
            EmbeddingCollection(
                device=torch.device("meta"),
                tables=[config for config in plan if config.embedding_dim == width],
            )
            for width in widths
        )
        self.configs = {config.name: config for config in plan}
        self.table_names = sorted(self.configs)
        self.sources = {
            key: KeySource(
                widths.index(
                    options.unified.dim
                    if options.unified is not None and table in options.lookups
                    else options.dim_of(table)
                ),
                multiplexed_keys(key, options.lookups.get(table)),
            )
            for table in keys
            for key in keys[table]
        }
        hashes = plan_hashes(options, keys)
        self.hash = IdHash(hashes) if hashes else None

    def forward(self, ids: KeyedJaggedTensor) -> list[dict[str, JaggedTensor]]:
        """Returns one dictionary from key to jagged embeddings per width; traceable by torch.fx."""
        if self.hash is not None:
            ids = self.hash(ids)
        return [collection(ids) for collection in self.collections]


def hashed_tables(options: EmbeddingOptions) -> set[str]:
    """Returns the tables whose row for an id depends on their number of rows."""
    return {*options.hashed} | ({UNIFIED_TABLE} if options.unified is not None else set())


def plan_hashes(
    options: EmbeddingOptions, keys: Mapping[str, Sequence[str]]
) -> dict[str, list[Hash]]:
    """Returns the hashes of every key whose ids are hashed.

    A salt belongs to an id space and the number of the lookup, so that history and candidate agree.
    """
    hashes: dict[str, list[Hash]] = {}
    for table, rows in options.hashed.items():
        salt = salt_of(options.hash_seed, table)
        hashes |= {key: [Hash(key, salt, rows)] for key in keys.get(table, ())}
    for table, lookups in options.lookups.items():
        assert options.unified is not None
        for key in keys.get(table, ()):
            hashes[key] = [
                Hash(name, salt_of(options.hash_seed, table, i), options.unified.rows)
                for i, name in enumerate(multiplexed_keys(key, lookups))
            ]
    return hashes


def _check_tables(
    schema: Schema, options: EmbeddingOptions, keys: Mapping[str, Sequence[str]]
) -> None:
    names = [table.name for table in schema.tables]
    for option, chosen in (
        ("dims", options.dims),
        ("hashed", options.hashed),
        ("unified.lookups", options.lookups),
    ):
        for name in chosen:
            if name not in names:
                raise ValueError(
                    f"embedding.{option} names the table {name!r}; the data set has "
                    f"{', '.join(names)}"
                )
    for table in schema.tables:
        sized = table.num_embeddings is not None
        if table.name in keys and not (
            sized or table.name in options.hashed or table.name in options.lookups
        ):
            raise ValueError(
                f"table {table.name!r} has no vocabulary; give the number of rows that its ids are "
                f"hashed into: +embedding.hashed.{table.name}=<rows>, or put it into "
                "embedding.unified"
            )
    if options.unified is not None and UNIFIED_TABLE in names:
        raise ValueError(
            f"the data set has a table {UNIFIED_TABLE!r}, the name of embedding.unified's table; "
            "rename it to use feature multiplexing"
        )


def _plan_tables(
    schema: Schema, options: EmbeddingOptions, keys: Mapping[str, list[str]]
) -> list[EmbeddingConfig]:
    """Returns the tables to allocate; those that nothing reads are left out."""
    configs = [
        EmbeddingConfig(
            name=table.name,
            embedding_dim=options.dim_of(table.name),
            num_embeddings=options.hashed.get(table.name, table.num_embeddings),
            feature_names=keys[table.name],
        )
        for table in schema.tables
        if table.name in keys and table.name not in options.lookups
    ]
    shared = [
        name
        for table, lookups in options.lookups.items()
        for key in keys.get(table, ())
        for name in multiplexed_keys(key, lookups)
    ]
    if options.unified is not None and shared:
        configs.append(
            EmbeddingConfig(
                name=UNIFIED_TABLE,
                embedding_dim=options.unified.dim,
                num_embeddings=options.unified.rows,
                feature_names=shared,
            )
        )
    return configs


def describe_collisions(schema: Schema, options: EmbeddingOptions) -> list[str]:
    """Returns a line per hashed id space: how many of its ids share a row with another of them.

    Counted where there is a vocabulary, or expected where it is very large; without one the number
    of ids is not known here.
    """
    keys = table_keys(schema)
    rows = dict(options.hashed)
    if options.unified is not None:
        rows |= dict.fromkeys(options.lookups, options.unified.rows)
    lines = []
    for table in schema.tables:
        if table.name not in rows or table.name not in keys:
            continue
        num_rows, size = rows[table.name], table.num_embeddings
        if size is None:
            lines.append(
                f"table {table.name}: ids without a vocabulary in {num_rows:,} rows; "
                f"{num_rows:,} distinct ids would share a row with a chance of "
                f"{expected_collisions(num_rows, num_rows):.1%}"
            )
            continue
        hashed = plan_hashes(options, keys)[keys[table.name][0]]
        if size <= _MAX_COUNTED_IDS:
            share = count_collisions(size, salt=hashed[0].salt, num_rows=num_rows) / size
        else:
            share = expected_collisions(size, num_rows)
        lines.append(
            f"table {table.name}: {size:,} ids hashed into {num_rows:,} rows, {share:.1%} of them "
            "share one with another id of this table"
            + (f" in each of {len(hashed)} lookups" if len(hashed) > 1 else "")
        )
    return lines


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
        if not is_table(name):
            continue
        columns = value.size()[1]
        if not isinstance(value, ShardedTensor):  # every rank holds the whole table
            _fill(value, 0, 0, columns, std, _table_seed(name, seed))
            continue
        for shard in value.local_shards():
            rows, first_column = shard.metadata.shard_offsets
            _fill(shard.tensor, rows, first_column, columns, std, _table_seed(name, seed))


def _table_seed(name: str, seed: int) -> int:
    digest = hashlib.sha256(f"{seed}:{table_of(name)}".encode()).digest()
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
