"""Where tables may go: what a user allows, as the planner's constraints, and the plan.

TorchRec's planner chooses among what is allowed by its estimate of memory and time.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
from torch import nn
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import (
    CacheParams,
    HardwareConfig,
    KernelConfig,
    ParameterConstraints,
    PlannerError,
    TopologyFactory,
    TrainerConfig,
)
from torchrec.distributed.types import ShardingPlan

from ranker.embedding import EmbeddingTables
from ranker.table_names import check_patterns, option_of

Sharding = Literal["row_wise", "table_wise", "column_wise", "data_parallel", "auto"]
Kernel = Literal["fused", "fused_uvm", "fused_uvm_caching"]

# auto leaves data_parallel out, because it is another optimizer and another memory bill: a choice
_AUTO = ("row_wise", "table_wise", "column_wise")
_GIB = 1024**3


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardingOptions:
    """How tables are placed on ranks.

    Attributes:
        default: sharding type of every table that `tables` does not name; "auto" lets the planner
            choose between row_wise, table_wise and column_wise.
        tables: sharding type by table name or pattern.
        data_parallel_rows: tables of at most so many rows that `tables` does not name are
            replicated on every rank.
        kernel: of every table that `kernels` does not name. "fused" keeps a table in the memory of
            its device; "fused_uvm" in host memory, which the GPU reads; "fused_uvm_caching" there
            too, behind a cache on the GPU.
        kernels: kernel by table name or pattern.
        cache_fraction: share of a table's rows in the cache of fused_uvm_caching.
        hbm_gb: memory of each GPU in GiB that the planner may count on; null asks the GPU.
        host_gb: memory of each host in GiB that the planner may count on; null is 128.
        reserved_fraction: share of it that is kept for everything but tables.
        index_dedup: looks each id up once in a batch. Null is on with several GPUs, where fewer
            ids cross the network; CPUs have no kernel for it.
    """

    default: Sharding
    tables: Mapping[str, Sharding] = dataclasses.field(default_factory=dict)
    data_parallel_rows: int = 0
    kernel: Kernel = "fused"
    kernels: Mapping[str, Kernel] = dataclasses.field(default_factory=dict)
    cache_fraction: float = 0.2
    hbm_gb: float | None = None
    host_gb: float | None = None
    reserved_fraction: float = 0.15
    index_dedup: bool | None = None

    def __post_init__(self) -> None:
        for name, value in {"default": self.default, **self.tables}.items():
            if value not in get_args(Sharding):
                raise ValueError(
                    f"sharding of {name} is {value!r}; must be one of "
                    f"{', '.join(get_args(Sharding))}"
                )
        for name, kernel in {"kernel": self.kernel, **self.kernels}.items():
            if kernel not in get_args(Kernel):
                raise ValueError(
                    f"kernel of {name} is {kernel!r}; must be one of {', '.join(get_args(Kernel))}"
                )
        if not 0 < self.cache_fraction <= 1:
            raise ValueError(f"cache_fraction must be in (0, 1], got {self.cache_fraction}")
        if not 0 <= self.reserved_fraction < 1:
            raise ValueError(f"reserved_fraction must be in [0, 1), got {self.reserved_fraction}")
        for name in ("hbm_gb", "host_gb"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive or null, got {value}")

    def type_of(self, table: str, rows: int) -> Sharding:
        """Returns the sharding type of a table with so many rows."""
        own = option_of(self.tables, table)
        if own is not None:
            return own
        return "data_parallel" if rows <= self.data_parallel_rows else self.default

    def kernel_of(self, table: str) -> Kernel:
        """Returns the kernel of a table that is not replicated."""
        own = option_of(self.kernels, table)
        return self.kernel if own is None else own


class PlacementError(ValueError):
    """Tables that cannot be placed as asked."""


def table_rows(tables: EmbeddingTables) -> dict[str, int]:
    """Returns the number of rows of each table."""
    return {name: config.num_embeddings for name, config in tables.configs.items()}


def replicated_tables(tables: EmbeddingTables, options: ShardingOptions) -> set[str]:
    """Returns the names of the tables that every rank holds whole."""
    return {
        table
        for table, rows in table_rows(tables).items()
        if options.type_of(table, rows) == "data_parallel"
    }


def build_sharders(options: ShardingOptions, device: str, world_size: int) -> list[Any]:
    """Returns TorchRec's sharders.

    Raises:
        PlacementError: index_dedup is asked of a CPU.
    """
    if options.index_dedup and device == "cpu":
        raise PlacementError(
            "sharding.index_dedup is true, but its kernel exists on GPUs only; leave it null"
        )
    on = options.index_dedup
    if on is None:
        on = device == "cuda" and world_size > 1
    return [EmbeddingCollectionSharder(use_index_dedup=on)]


def build_planner(
    tables: EmbeddingTables,
    options: ShardingOptions,
    topology: Topology,
    *,
    batch_size: int,
    lengths: Mapping[str, Sequence[float]] | None = None,
) -> EmbeddingShardingPlanner:
    """Builds a planner that places tables as the options allow.

    Args:
        tables: of the model.
        options: of the user.
        topology: the ranks and their memory.
        batch_size: rows of a rank's batch.
        lengths: mean number of ids a row of each key that reads a table, by table.

    Raises:
        ValueError: an option names a table that is not there.
        PlacementError: a kernel needs a GPU.
    """
    rows = table_rows(tables)
    check_patterns("sharding.tables", options.tables, rows)
    check_patterns("sharding.kernels", options.kernels, rows)
    constraints = {
        table: _constraint(table, rows[table], options, topology, lengths) for table in rows
    }
    return EmbeddingShardingPlanner(
        topology=topology,
        batch_size=batch_size,
        constraints=constraints,
        storage_reservation=FixedPercentageStorageReservation(options.reserved_fraction),
    )


def _constraint(
    table: str,
    rows: int,
    options: ShardingOptions,
    topology: Topology,
    lengths: Mapping[str, Sequence[float]] | None,
) -> ParameterConstraints:
    kind, kernel = options.type_of(table, rows), options.kernel_of(table)
    if topology.world_size == 1 and kind == "row_wise":
        # all rows on one rank: the same, without sorting ids by rank and embeddings back
        kind = "table_wise"
    if topology.compute_device == "cpu" and kernel != "fused":
        raise PlacementError(
            f"sharding.kernel of table {table!r} is {kernel!r}, which keeps a GPU's table in host "
            "memory; without a GPU use fused"
        )
    arguments: dict[str, Any] = {}
    if lengths is not None:
        arguments["pooling_factors"] = list(lengths[table])
    if kind != "data_parallel" and kernel == "fused_uvm_caching":
        arguments["cache_params"] = CacheParams(load_factor=options.cache_fraction)
    # always constrained: left alone the planner picks data_parallel, which changes the optimizer
    return ParameterConstraints(
        sharding_types=list(_AUTO) if kind == "auto" else [kind],
        compute_kernels=["dense" if kind == "data_parallel" else kernel],
        **arguments,
    )


def build_topology(
    options: ShardingOptions, *, device: str, world_size: int, local_world_size: int
) -> Topology:
    """Describes the ranks to the planner.

    Args:
        options: memory of a GPU and of a host.
        device: "cpu" or "cuda".
        world_size: number of ranks.
        local_world_size: ranks of one host.
    """
    host = int((options.host_gb or 128) * _GIB)
    hbm = 0
    if device == "cuda":
        hbm = int((options.hbm_gb or 0) * _GIB) or torch.cuda.mem_get_info()[1]
    return TopologyFactory.create_topology(
        TrainerConfig(
            world_size=world_size,
            local_world_size=local_world_size,
            hbm_cap_bytes=hbm,
            ddr_cap_bytes=host // local_world_size,
        ),
        HardwareConfig(),
        KernelConfig(compute_device=device),
    )


def plan_tables(
    module: nn.Module,
    tables: EmbeddingTables,
    options: ShardingOptions,
    *,
    device: torch.device,
    batch_size: int,
) -> tuple[ShardingPlan, list[Any]]:
    """Places the tables on the ranks of the process group; every rank calls it.

    Args:
        module: holds the tables, their optimizers attached.
        tables: of the module.
        options: of the user.
        device: of this process.
        batch_size: rows of a rank's batch.

    Returns:
        The plan, the same on every rank, and the sharders that it is for.

    Raises:
        PlacementError: the tables do not fit.
    """
    world_size = dist.get_world_size()
    topology = build_topology(
        options,
        device=device.type,
        world_size=world_size,
        local_world_size=int(os.environ.get("LOCAL_WORLD_SIZE", str(world_size))),
    )
    planner = build_planner(tables, options, topology, batch_size=batch_size)
    sharders = build_sharders(options, device.type, world_size)
    try:
        plan = planner.collective_plan(module, sharders, dist.GroupMember.WORLD)
    except PlannerError as error:
        raise PlacementError(
            f"the tables cannot be placed: {error}\nscripts/plan.py shows what fits where"
        ) from error
    assert plan is not None
    return plan, sharders
