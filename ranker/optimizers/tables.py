"""Optimizers of tables.

A sharded table's optimizer is fused into the backward of the lookup (FBGEMM): it moves the rows of
the batch and no others, and no gradient of the table ever exists. A data-parallel table is an
ordinary parameter: its gradient is dense, is averaged over the ranks, and a torch optimizer moves
it. For sgd, adagrad and rowwise_adagrad both are the same update. For adam they are not: the fused
one moves the rows of the batch only (and exists on GPUs only), torch's moves every row at every
step.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_training import WeightDecayMode
from torch import Tensor, nn
from torch.distributed.optim.apply_optimizer_in_backward import _apply_optimizer_in_backward
from torchrec.optim.keyed import KeyedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import PartialRowWiseAdam
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from ranker.optimizers.options import TableOptimizer
from ranker.table_names import table_of

_FUSED: dict[str, type[torch.optim.Optimizer]] = {
    "rowwise_adagrad": RowWiseAdagrad,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "partial_rowwise_adam": PartialRowWiseAdam,
}
# FBGEMM asserts these on CPUs
_FUSED_ON_CPU = ("rowwise_adagrad", "adagrad", "sgd")


def attach_fused_optimizer(
    table: str, weight: nn.Parameter, options: TableOptimizer, device: torch.device
) -> None:
    """Gives a table that will be sharded its optimizer; call it before sharding.

    Args:
        table: its name, for messages.
        weight: its parameter.
        options: its optimizer.
        device: that it will be on.

    Raises:
        ValueError: the device has no such fused optimizer.
    """
    if device.type == "cpu" and options.name not in _FUSED_ON_CPU:
        replicated = ", or sharding.default=data_parallel" if options.name == "adam" else ""
        raise ValueError(
            f"the optimizer of table {table!r} is {options.name!r}, whose fused kernel exists on "
            f"GPUs only; on CPUs use {', '.join(_FUSED_ON_CPU)}{replicated}"
        )
    if options.weight_decay and options.name != "rowwise_adagrad":
        raise ValueError(
            f"the optimizer of table {table!r} has weight decay {options.weight_decay}, which the "
            f"fused {options.name} does not apply as L2; use rowwise_adagrad, or "
            "sharding.default=data_parallel"
        )
    arguments: dict[str, Any] = {"lr": options.lr}
    if options.name != "sgd":
        arguments["eps"] = options.eps
    if options.weight_decay:
        # without a mode FBGEMM ignores the decay
        arguments["weight_decay"] = options.weight_decay
        arguments["weight_decay_mode"] = WeightDecayMode.L2
    _apply_optimizer_in_backward(_FUSED[options.name], [weight], arguments)


def build_replicated_optimizers(
    parameters: Mapping[str, Tensor], options: Callable[[str], TableOptimizer]
) -> list[tuple[str, KeyedOptimizer]]:
    """Builds the optimizers of data-parallel tables, one for each kind.

    Args:
        parameters: by name; the last part but one names the table.
        options: optimizer of a table.

    Raises:
        ValueError: torch has no such optimizer.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    for name, parameter in parameters.items():
        groups.setdefault(options(table_of(name)).name, {})[name] = parameter
    return [
        (f"tables_{kind}", _build_replicated(kind, members, options))
        for kind, members in sorted(groups.items())
    ]


def _build_replicated(
    kind: str, members: Mapping[str, Tensor], options: Callable[[str], TableOptimizer]
) -> KeyedOptimizer:
    if kind not in ("rowwise_adagrad", "adagrad", "sgd", "adam"):
        table = table_of(next(iter(members)))
        raise ValueError(
            f"the optimizer of the data-parallel table {table!r} is {kind!r}, which torch does "
            "not have; use rowwise_adagrad, adagrad, sgd or adam"
        )
    names = {id(parameter): table_of(name) for name, parameter in members.items()}

    def build(parameters: Iterable[Any]) -> torch.optim.Optimizer:
        groups = []
        for parameter in parameters:
            own = options(names[id(parameter)])
            group = {"params": [parameter], "lr": own.lr, "weight_decay": own.weight_decay}
            groups.append(group if kind == "sgd" else {**group, "eps": own.eps})
        return _FUSED[kind](groups)  # type: ignore[call-arg]

    return KeyedOptimizerWrapper(dict(members), build)
