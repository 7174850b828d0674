"""The optimizer of everything that is no table."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchrec.optim.keyed import KeyedOptimizer, KeyedOptimizerWrapper

from ranker.optimizers.options import OptimizerOptions


def build_dense_optimizer(
    parameters: Mapping[str, Tensor], options: OptimizerOptions
) -> KeyedOptimizer:
    """Builds the dense optimizer.

    Args:
        parameters: by name; the state is keyed by it.
        options: of both halves.
    """
    lr, decay = options.dense_lr, options.dense_weight_decay
    # torch's defaults
    eps = options.dense_eps or (1e-10 if options.dense == "adagrad" else 1e-8)
    betas = (options.dense_betas[0], options.dense_betas[1])

    # one kernel for all parameters, where the default has several for each of them on CPUs
    fused = all(value.device.type in ("cpu", "cuda") for value in parameters.values())

    def build(params: list[Tensor]) -> torch.optim.Optimizer:
        common: dict[str, Any] = {"lr": lr, "weight_decay": decay, "fused": fused}
        match options.dense:
            case "adamw":
                return torch.optim.AdamW(params, betas=betas, eps=eps, **common)
            case "adam":
                return torch.optim.Adam(params, betas=betas, eps=eps, **common)
            case "adagrad":
                return torch.optim.Adagrad(params, lr=lr, weight_decay=decay, eps=eps)
            case "sgd":
                return torch.optim.SGD(params, momentum=options.dense_momentum, **common)

    return KeyedOptimizerWrapper(dict(parameters), build)
