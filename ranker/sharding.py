"""Places tables on ranks and attaches the optimizers of tables and of everything else."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.optim.apply_optimizer_in_backward import _apply_optimizer_in_backward
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import EmbeddingShardingPlanner
from torchrec.distributed.planner.types import (
    HardwareConfig,
    KernelConfig,
    ParameterConstraints,
    TopologyFactory,
    TrainerConfig,
)
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from ranker.embedding import EmbeddingTables, init_tables

SparseOptimizer = Literal["rowwise_adagrad", "adagrad", "sgd"]
DenseOptimizer = Literal["adamw", "adam"]
Sharding = Literal["row_wise", "table_wise", "column_wise"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """Optimizers of the two halves.

    Attributes:
        sparse: of the tables, fused into the backward of the lookup.
        sparse_lr: its learning rate.
        sparse_eps: added to the root of the accumulator; unused by sgd.
        dense: of everything else.
        dense_lr: its learning rate.
        dense_weight_decay: decoupled for adamw, L2 for adam.
    """

    sparse: SparseOptimizer
    sparse_lr: float
    sparse_eps: float
    dense: DenseOptimizer
    dense_lr: float
    dense_weight_decay: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardingOptions:
    """How tables are placed on ranks.

    Attributes:
        default: sharding type of every table that `tables` does not name.
        tables: sharding type by table name.
    """

    default: Sharding
    tables: Mapping[str, Sharding] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in {"default": self.default, **self.tables}.items():
            if value not in get_args(Sharding):
                raise ValueError(
                    f"sharding of {name} is {value!r}; must be one of "
                    f"{', '.join(get_args(Sharding))}"
                )


def shard(
    module: nn.Module,
    *,
    tables: EmbeddingTables,
    optimizer: OptimizerOptions,
    sharding: ShardingOptions,
    init_std: float,
    seed: int,
    device: torch.device,
) -> tuple[DistributedModelParallel, CombinedOptimizer, KeyedOptimizerWrapper]:
    """Places the tables on the ranks, attaches both optimizers, and initialises the tables.

    Args:
        module: the whole training module, its tables on the meta device.
        tables: the part of it that is sharded.
        optimizer: of both halves.
        sharding: of the tables.
        init_std: standard deviation of the tables' initial values.
        seed: of the run.
        device: of this process.

    Returns:
        The module under `DistributedModelParallel`; the optimizer of both halves; its dense half.
    """
    # order matters: the fused optimizer must be attached before the tables are sharded
    optimizer_class, arguments = _sparse_optimizer(optimizer)
    _apply_optimizer_in_backward(optimizer_class, tables.parameters(), arguments)
    sharders: list[Any] = [EmbeddingCollectionSharder()]
    plan = _planner(tables, sharding, device).collective_plan(
        module, sharders, dist.GroupMember.WORLD
    )
    model = DistributedModelParallel(module, device=device, plan=plan, sharders=sharders)
    init_tables(model, std=init_std, seed=seed)
    dense_class = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[optimizer.dense]
    dense = KeyedOptimizerWrapper(
        dict(in_backward_optimizer_filter(model.named_parameters())),
        lambda params: dense_class(
            params, lr=optimizer.dense_lr, weight_decay=optimizer.dense_weight_decay
        ),
    )
    combined = CombinedOptimizer([("sparse", model.fused_optimizer), ("dense", dense)])
    return model, combined, dense


def _sparse_optimizer(options: OptimizerOptions) -> tuple[type, dict[str, float]]:
    match options.sparse:
        case "rowwise_adagrad":
            return RowWiseAdagrad, {"lr": options.sparse_lr, "eps": options.sparse_eps}
        case "adagrad":
            return torch.optim.Adagrad, {"lr": options.sparse_lr, "eps": options.sparse_eps}
        case "sgd":
            return torch.optim.SGD, {"lr": options.sparse_lr}
        case _:
            names = ", ".join(get_args(SparseOptimizer))
            raise ValueError(f"optimizer.sparse is {options.sparse!r}; must be one of {names}")


def _planner(
    tables: EmbeddingTables, sharding: ShardingOptions, device: torch.device
) -> EmbeddingShardingPlanner:
    names = tables.table_names
    unknown = sorted(set(sharding.tables) - set(names))
    if unknown:
        raise ValueError(
            f"sharding.tables names {unknown[0]!r}; the model has the tables {', '.join(names)}"
        )
    # constrained, because an unconstrained planner picks data_parallel, which silently drops the
    # fused optimizer
    constraints = {
        table: ParameterConstraints(
            sharding_types=[sharding.tables.get(table, sharding.default)], compute_kernels=["fused"]
        )
        for table in names
    }
    size = dist.get_world_size()
    topology = TopologyFactory.create_topology(
        TrainerConfig(world_size=size, local_world_size=size),
        HardwareConfig(),
        KernelConfig(compute_device=device.type),
    )
    return EmbeddingShardingPlanner(topology=topology, constraints=constraints)
