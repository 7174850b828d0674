"""A sharding plan for people and for files: what lies where and how even it is."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torchrec.distributed.types import ShardingPlan
from torchrec.modules.embedding_configs import EmbeddingConfig

from ranker.embedding import EmbeddingTables
from ranker.optimizers.options import OptimizerOptions, TableOptimizer

_FLOAT_BYTES = torch.finfo(torch.float32).bits // 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class TablePlan:
    """Where one table lies.

    Attributes:
        name: of the table.
        rows: number of rows.
        dim: width.
        sharding: TorchRec's sharding type.
        kernel: TorchRec's compute kernel.
        optimizer: name of its optimizer.
        weight_bytes: by rank, of the weights.
        state_bytes: by rank, of the optimizer's state (and of the dense gradient of a replicated
            table).
    """

    name: str
    rows: int
    dim: int
    sharding: str
    kernel: str
    optimizer: str
    weight_bytes: list[int]
    state_bytes: list[int]


def summarize_plan(
    plan: ShardingPlan, tables: EmbeddingTables, optimizer: OptimizerOptions, world_size: int
) -> list[TablePlan]:
    """Returns where each table lies, the largest first."""
    summary = [
        _table_plan(tables.configs[name], placed, optimizer.of_table(name), world_size)
        for module in plan.plan.values()
        for name, placed in module.items()
    ]
    return sorted(summary, key=lambda table: (-sum(table.weight_bytes), table.name))


def _table_plan(
    config: EmbeddingConfig, placed: Any, optimizer: TableOptimizer, world_size: int
) -> TablePlan:
    replicated = placed.sharding_type == "data_parallel"
    sizes = (
        [(rank, config.num_embeddings, config.embedding_dim) for rank in range(world_size)]
        if replicated
        else [
            (shard.placement.rank(), shard.shard_sizes[0], shard.shard_sizes[1])
            for shard in placed.sharding_spec.shards
        ]
    )
    weights, states = [0] * world_size, [0] * world_size
    for rank, rows, dim in sizes:
        weights[rank] += rows * dim * _FLOAT_BYTES
        states[rank] += _state_floats(optimizer, rows, dim) * _FLOAT_BYTES
        if replicated:
            states[rank] += rows * dim * _FLOAT_BYTES
    return TablePlan(
        name=config.name,
        rows=config.num_embeddings,
        dim=config.embedding_dim,
        sharding=placed.sharding_type,
        kernel=placed.compute_kernel,
        optimizer=optimizer.name,
        weight_bytes=weights,
        state_bytes=states,
    )


def _state_floats(optimizer: TableOptimizer, rows: int, dim: int) -> int:
    match optimizer.name:
        case "sgd":
            return 0
        case "rowwise_adagrad":
            return rows
        case "adagrad":
            return rows * dim
        case "adam":
            return 2 * rows * dim
        case "partial_rowwise_adam":
            return rows * dim + rows


def rank_bytes(summary: list[TablePlan]) -> list[int]:
    """Returns the bytes of weights and states on each rank."""
    per_table = [
        [
            weight + state
            for weight, state in zip(table.weight_bytes, table.state_bytes, strict=True)
        ]
        for table in summary
    ]
    return [sum(column) for column in zip(*per_table, strict=True)]


def plan_to_json(summary: list[TablePlan]) -> dict[str, Any]:
    """Returns the plan as plain data."""
    totals = rank_bytes(summary)
    return {
        "world_size": len(totals),
        "rank_bytes": totals,
        "tables": [dataclasses.asdict(table) for table in summary],
    }


def describe_plan(summary: list[TablePlan]) -> str:
    """Returns the plan as a table of text: one line a table, then the ranks."""
    header = ("table", "rows", "dim", "sharding", "kernel", "optimizer", "MB", "ranks")
    lines = [header]
    for table in summary:
        size = sum(table.weight_bytes) + sum(table.state_bytes)
        holders = [rank for rank, amount in enumerate(table.weight_bytes) if amount]
        lines.append(
            (
                table.name,
                f"{table.rows:,}",
                str(table.dim),
                table.sharding,
                table.kernel,
                table.optimizer,
                f"{size / 1e6:,.2f}",
                _ranges(holders),
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = [
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    totals = rank_bytes(summary)
    mean = sum(totals) / len(totals)
    text.append(
        f"tables and their optimizers: {min(totals) / 1e6:,.2f} to {max(totals) / 1e6:,.2f} MB a "
        f"rank on {len(totals)} rank(s); the fullest has {max(totals) / max(mean, 1):.2f} times "
        "the mean"
    )
    return "\n".join(text)


def write_plan(folder: Path, summary: list[TablePlan]) -> None:
    """Writes plan.json and plan.txt."""
    (folder / "plan.json").write_text(json.dumps(plan_to_json(summary), indent=1))
    (folder / "plan.txt").write_text(describe_plan(summary) + "\n")


def _ranges(ranks: list[int]) -> str:
    """Returns 0-3,6 for [0, 1, 2, 3, 6]."""
    parts: list[list[int]] = []
    for rank in ranks:
        if parts and parts[-1][1] == rank - 1:
            parts[-1][1] = rank
        else:
            parts.append([rank, rank])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
