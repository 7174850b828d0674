"""Places tables on ranks and attaches the optimizers of tables and of everything else."""

import dataclasses
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizer
from torchrec.optim.optimizers import in_backward_optimizer_filter

from ranker.compiled_lookup import use_compiled_lookup
from ranker.embedding import EmbeddingTables, init_tables
from ranker.local_lookup import look_up_locally
from ranker.optimizers.dense import build_dense_optimizer
from ranker.optimizers.options import OptimizerOptions
from ranker.optimizers.tables import attach_fused_optimizer, build_replicated_optimizers
from ranker.placement import ShardingOptions, plan_tables, replicated_tables
from ranker.plan_summary import TablePlan, summarize_plan
from ranker.replicated_lookup import mend_replicated_lookup
from ranker.table_names import is_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sharded:
    """A model on its ranks.

    Attributes:
        model: under `DistributedModelParallel`.
        optimizer: of everything; `zero_grad` and `step` move it all but the fused tables, which
            the backward moves.
        dense: the part of it that has no fused optimizer, data-parallel tables included.
        networks: the part of it that moves no table.
        table_groups: parameter groups of all tables, with their learning rates.
        dense_groups: those of everything else.
        plan: where the tables lie.
    """

    model: DistributedModelParallel
    optimizer: CombinedOptimizer
    dense: KeyedOptimizer
    networks: KeyedOptimizer
    table_groups: list[dict[str, Any]]
    dense_groups: list[dict[str, Any]]
    plan: list[TablePlan]


def shard(
    module: nn.Module,
    *,
    tables: EmbeddingTables,
    optimizer: OptimizerOptions,
    sharding: ShardingOptions,
    init_std: float,
    seed: int,
    device: torch.device,
    batch_size: int,
) -> Sharded:
    """Places the tables on the ranks, attaches the optimizers, and initialises the tables.

    Args:
        module: the whole training module, its tables on the meta device.
        tables: the part of it that is sharded.
        optimizer: of both halves.
        sharding: of the tables.
        init_std: standard deviation of the tables' initial values.
        seed: of the run.
        device: of this process.
        batch_size: rows of a rank's batch, for the planner's estimates.

    Raises:
        ValueError: an option does not fit the tables or the device.
    """
    # order matters: the fused optimizers must be attached before the tables are sharded
    replicated_names = replicated_tables(tables, sharding)
    _check_clipping(optimizer, set(tables.table_names) - replicated_names)
    attach_optimizers(tables, optimizer, replicated_names, device)
    plan, sharders = plan_tables(module, tables, sharding, device=device, batch_size=batch_size)
    mend_replicated_lookup()
    use_compiled_lookup()
    alone = dist.get_world_size() == 1
    # alone there are no gradients to average, and DDP's hooks are 2 % of a small step on CPUs
    model = DistributedModelParallel(
        module, device=device, plan=plan, sharders=sharders, init_data_parallel=not alone
    )
    if alone:
        # with several ranks DDP does it
        model.module.to(device)
    look_up_locally(model)
    init_tables(model, std=init_std, seed=seed)
    # data-parallel tables turn up here, because sharding drops their fused optimizer
    unfused = dict(in_backward_optimizer_filter(model.named_parameters()))
    replicated = {name: value for name, value in unfused.items() if is_table(name)}
    networks = build_dense_optimizer(
        {name: value for name, value in unfused.items() if name not in replicated}, optimizer
    )
    copies = build_replicated_optimizers(replicated, optimizer.of_table)
    dense = CombinedOptimizer([("", networks), *copies]) if copies else networks
    return Sharded(
        model=model,
        optimizer=CombinedOptimizer([("sparse", model.fused_optimizer), ("dense", dense)]),
        dense=dense,
        networks=networks,
        table_groups=[
            group
            for part in (model.fused_optimizer, *(part for _, part in copies))
            for group in part.param_groups
        ],
        dense_groups=list(networks.param_groups),
        plan=summarize_plan(plan, tables, optimizer, dist.get_world_size()),
    )


def attach_optimizers(
    tables: EmbeddingTables, options: OptimizerOptions, replicated: set[str], device: torch.device
) -> None:
    """Attaches the fused optimizer of each table that is not replicated.

    Raises:
        ValueError: an option names no table, or the device has no such optimizer.
    """
    options.check_tables(tables.table_names)
    for collection in tables.collections:
        embeddings: Any = collection.embeddings
        for name, embedding in embeddings.items():
            if name not in replicated:
                attach_fused_optimizer(name, embedding.weight, options.of_table(name), device)


def _check_clipping(options: OptimizerOptions, fused: set[str]) -> None:
    if options.clip_tables and fused:
        raise ValueError(
            f"optimizer.clip_tables is true, but table {min(fused)!r} is sharded: its gradient is "
            "applied in the backward and never exists as a whole. Use sharding=data_parallel, or "
            "optimizer.clip_tables=false"
        )
