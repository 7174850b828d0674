"""Places a model's tables on a cluster that is not there, and adds up what a rank would hold.

Tables stay on the meta device, so a laptop plans tables of terabytes. What a batch costs is
measured: the networks run on a few rows of the prepared data, on random vectors in place of the
tables', and the bytes that autograd keeps are counted.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torchrec import JaggedTensor, KeyedJaggedTensor
from torchrec.distributed.planner.types import PlannerError

from ranker.distributed import Process
from ranker.embedding import EmbeddingTables
from ranker.job import TrainJob
from ranker.placement import build_planner, build_sharders, build_topology, replicated_tables
from ranker.plan_summary import TablePlan, describe_plan, rank_bytes, summarize_plan
from ranker.search_phase import SearchPhase
from ranker.sharding import attach_optimizers
from ranker.train_module import TrainModule
from ranker_data.batch import RankingBatch

Device = Literal["cuda", "cpu"]
# rows of the batch whose cost is measured
_SAMPLE_ROWS = 256
_GIB = 1024**3
_FLOAT_BYTES = 4
# weight, gradient and state, in floats a parameter
_DENSE_FLOATS = {"adamw": 4, "adam": 4, "adagrad": 3, "sgd": 3}
_MAX_NAMED_TABLES = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class DryRunOptions:
    """The cluster.

    Attributes:
        world_size: number of ranks.
        local_world_size: ranks of one host.
        device: "cuda" or "cpu".
        hbm_gb: memory of a GPU in GiB.
        host_gb: memory of a host in GiB.
        rows: rows of tables, by name, in place of the data set's: a plan for tables to come.
    """

    world_size: int
    local_world_size: int = 8
    device: Device = "cuda"
    hbm_gb: float = 80.0
    host_gb: float = 1024.0
    rows: dict[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.device not in get_args(Device):
            raise ValueError(f"device is {self.device!r}; must be cuda or cpu")
        for name in ("world_size", "local_world_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("hbm_gb", "host_gb"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.world_size > self.local_world_size and self.world_size % self.local_world_size:
            raise ValueError(
                f"world_size ({self.world_size}) must be a multiple of local_world_size "
                f"({self.local_world_size})"
            )


@dataclasses.dataclass(frozen=True)
class BatchCost:
    """What one candidate costs, measured.

    Attributes:
        batch_bytes: of the batch itself.
        embedding_bytes: of looked-up vectors and their gradients.
        activation_bytes: that autograd keeps for the backward.
        lengths: ids of each key.
    """

    batch_bytes: float
    embedding_bytes: float
    activation_bytes: float
    lengths: dict[str, float]


def dry_run(job: TrainJob, options: DryRunOptions) -> tuple[str, bool]:
    """Returns the plan as text, and whether it fits.

    Raises:
        ValueError: an option names a table that is not there.
    """
    job = _with_rows(job, options.rows)
    cost = measure_batch(job)
    module = job.build_module()
    tables = module.model.embedding
    sharding = dataclasses.replace(job.sharding, hbm_gb=options.hbm_gb, host_gb=options.host_gb)
    attach_optimizers(
        tables, job.optimizer, replicated_tables(tables, sharding), torch.device(options.device)
    )
    local = min(options.local_world_size, options.world_size)
    topology = build_topology(
        sharding, device=options.device, world_size=options.world_size, local_world_size=local
    )
    rows = job.loader.batch_size / options.world_size / job.trainer.accumulate_steps
    planner = build_planner(
        tables,
        sharding,
        topology,
        batch_size=max(1, round(rows)),
        lengths={
            name: [cost.lengths.get(key, 1.0) for key in config.feature_names]
            for name, config in tables.configs.items()
        },
    )
    networks = sum(p.numel() for p in module.parameters() if not p.is_meta)
    dense = networks * _DENSE_FLOATS[job.optimizer.dense] * _FLOAT_BYTES
    capacity = (options.hbm_gb if options.device == "cuda" else options.host_gb / local) * _GIB
    try:
        plan = planner.plan(module, build_sharders(sharding, options.device, options.world_size))
    except PlannerError as error:
        return _describe_failure(error, tables, job, options), False
    summary = summarize_plan(plan, tables, job.optimizer, options.world_size)
    on_host, on_device = _split_memory(summary, sharding.cache_fraction)
    return _describe(summary, cost, on_device, on_host, dense=dense, rows=rows, capacity=capacity)


def _with_rows(job: TrainJob, rows: dict[str, int]) -> TrainJob:
    known = {table.name for table in job.schema.tables}
    for name, size in rows.items():
        if name not in known:
            raise ValueError(f"rows names {name!r}; the data set has {', '.join(sorted(known))}")
        if size < 1:
            raise ValueError(f"rows.{name} must be at least 1, got {size}")
    tables = tuple(
        dataclasses.replace(table, num_embeddings=rows.get(table.name, table.num_embeddings))
        for table in job.schema.tables
    )
    return dataclasses.replace(job, schema=dataclasses.replace(job.schema, tables=tables))


def measure_batch(job: TrainJob) -> BatchCost:
    """Measures what a candidate costs on the first rows of the training split."""
    options = dataclasses.replace(
        job.loader, batch_size=min(job.loader.batch_size, _SAMPLE_ROWS), num_workers=0
    )
    loader = job.build_loader(
        "train", Process(0, 1, torch.device("cpu")), shuffle=True, options=options
    )
    batch = next(iter(loader.batches()))
    module = job.build_module()
    tables = RandomTables(module.model.embedding)
    model: Any = module.model
    model.embedding = tables
    model.search = SearchPhase(tables=cast(EmbeddingTables, tables), body=model.body)
    saved = _bytes_kept(module, batch)
    count = batch.num_candidates
    keys = batch.ids.keys()
    return BatchCost(
        batch_bytes=_batch_bytes(batch) / count,
        # vectors and their gradients
        embedding_bytes=2 * tables.num_bytes / count,
        activation_bytes=saved / count,
        lengths={key: len(batch.ids[key].values()) / count for key in keys},
    )


class RandomTables(nn.Module):
    """Stands in for tables: random vectors of the right shapes.

    Args:
        tables: on the meta device.

    Attributes:
        num_bytes: of the vectors of the last lookup with gradient.
    """

    def __init__(self, tables: EmbeddingTables) -> None:
        super().__init__()
        self.sources, self.hash = tables.sources, tables.hash
        self.collections = [
            [(config.embedding_dim, config.feature_names) for config in configs]
            for configs in (
                collection.embedding_configs()  # type: ignore[operator]
                for collection in tables.collections
            )
        ]
        self.num_bytes = 0

    def forward(self, ids: KeyedJaggedTensor) -> list[dict[str, JaggedTensor]]:
        """Returns one dictionary from key to jagged embeddings per width."""
        ids = ids if self.hash is None else self.hash(ids)
        found = set(ids.keys())
        embedded = [
            {
                key: JaggedTensor(
                    values=torch.randn(len(ids[key].values()), dim, requires_grad=True),
                    lengths=ids[key].lengths(),
                )
                for dim, keys in tables
                for key in keys
                if key in found
            }
            for tables in self.collections
        ]
        if torch.is_grad_enabled():
            self.num_bytes = sum(
                value.values().nbytes for part in embedded for value in part.values()
            )
        return embedded


def _bytes_kept(module: TrainModule, batch: RankingBatch) -> int:
    own = {p.untyped_storage().data_ptr() for p in module.parameters() if not p.is_meta}
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    module.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        # the loss is held, so that no storage is freed and its address used again
        loss, _, _ = module(batch)
    assert loss.requires_grad
    return sum(kept.values())


def _batch_bytes(batch: RankingBatch) -> int:
    total = batch.ids.values().nbytes + batch.ids.lengths().nbytes
    for field in dataclasses.fields(batch):
        value: Any = getattr(batch, field.name)
        values = value.values() if isinstance(value, dict) else [value]
        total += sum(item.nbytes for item in values if isinstance(item, Tensor))
    return total


def _split_memory(
    summary: list[TablePlan], cache_fraction: float
) -> tuple[list[float], list[float]]:
    """Returns the bytes of tables and states on each rank's host, and on its device."""
    cached = {"fused_uvm": 0.0, "fused_uvm_caching": cache_fraction}
    totals = [float(size) for size in rank_bytes(summary)]
    hosted = [table for table in summary if table.kernel in cached]
    on_host = [float(size) for size in rank_bytes(hosted)] if hosted else [0.0] * len(totals)
    on_device = [total - host for total, host in zip(totals, on_host, strict=True)]
    for table in hosted:
        for rank, size in enumerate(table.weight_bytes):
            on_device[rank] += cached[table.kernel] * size
    return on_host, on_device


def _describe(
    summary: list[TablePlan],
    cost: BatchCost,
    totals: list[float],
    on_host: list[float],
    *,
    dense: float,
    rows: float,
    capacity: float,
) -> tuple[str, bool]:
    # the fullest rank; with a pipeline two more batches wait
    parts = [
        ("tables and their optimizers", max(totals)),
        ("networks, gradients and optimizer", float(dense)),
        (f"vectors of {rows:,.0f} rows, and gradients", rows * cost.embedding_bytes),
        ("activations of the networks", rows * cost.activation_bytes),
        ("batches (three, with trainer.pipeline)", 3 * rows * cost.batch_bytes),
    ]
    used = sum(size for _, size in parts)
    lines = [describe_plan(summary), "", "the fullest rank holds"]
    lines += [f"  {name:<42} {size / _GIB:>10.3f} GiB" for name, size in parts]
    lines.append(f"  {'in all':<42} {used / _GIB:>10.3f} of {capacity / _GIB:,.1f} GiB")
    if any(on_host):
        lines.append(f"  {'beside it, in host memory':<42} {max(on_host) / _GIB:>10.3f} GiB")
    if used > capacity:
        lines.append(
            "this does not fit: lower loader.batch_size, raise trainer.accumulate_steps, or add "
            "ranks"
        )
    uneven = max(totals) / max(sum(totals) / len(totals), 1)
    if uneven > 1.5 and max(totals) > capacity / 100:
        lines.append(
            f"uneven: the fullest rank holds {uneven:.1f} times the mean; row_wise spreads a large "
            f"table (the largest is {summary[0].name!r}, {summary[0].sharding})"
        )
    return "\n".join(lines), used <= capacity


def _describe_failure(
    error: PlannerError, tables: EmbeddingTables, job: TrainJob, options: DryRunOptions
) -> str:
    sizes = sorted(
        (
            (config.num_embeddings * config.embedding_dim * _FLOAT_BYTES, name)
            for name, config in tables.configs.items()
        ),
        reverse=True,
    )
    lines = [f"the tables do not fit: {str(error).strip()}", "", "the largest tables"]
    for size, name in sizes[:_MAX_NAMED_TABLES]:
        config = tables.configs[name]
        lines.append(
            f"  {name:<24} {config.num_embeddings:>16,} x {config.embedding_dim:<5} "
            f"{size / _GIB:>10.1f} GiB, "
            f"{job.sharding.type_of(name, config.num_embeddings)}, "
            f"{job.optimizer.of_table(name).name}"
        )
    rows = tables.configs[sizes[0][1]].num_embeddings
    is_spread = job.sharding.type_of(sizes[0][1], rows) == "row_wise"
    remedies = _remedies(sizes, job, options, is_spread=is_spread)
    return "\n".join([*lines, "", "what helps", *remedies])


def _remedies(
    sizes: Sequence[tuple[int, str]], job: TrainJob, options: DryRunOptions, *, is_spread: bool
) -> list[str]:
    free = (options.hbm_gb if options.device == "cuda" else options.host_gb) * _GIB
    if options.device == "cpu":
        free /= min(options.local_world_size, options.world_size)
    free *= 1 - job.sharding.reserved_fraction
    needed = -(-sum(size for size, _ in sizes) // int(free))
    largest = sizes[0][1]
    lines = [f"  world_size of at least {needed}, for the weights alone"]
    if not is_spread:
        lines.append(f"  +sharding.tables.{largest}=row_wise, which spreads it over all ranks")
    lines.append(f"  +embedding.dims.{largest}=<fewer>, or +embedding.hashed.{largest}=<rows>")
    if job.optimizer.of_table(largest).name not in ("rowwise_adagrad", "sgd"):
        lines.append("  optimizer.sparse=rowwise_adagrad: one float of state a row")
    if options.device == "cuda":
        lines.append(
            f"  +sharding.kernels.{largest}=fused_uvm_caching: the table in host memory, the rows "
            "in use on the GPU"
        )
    return lines
