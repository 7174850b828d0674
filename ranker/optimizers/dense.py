"""The optimizer of everything that is no table."""

from collections.abc import Mapping

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

    def build(params: list[Tensor]) -> torch.optim.Optimizer:
        match options.dense:
            case "adamw":
                return torch.optim.AdamW(params, lr=lr, weight_decay=decay, betas=betas, eps=eps)
            case "adam":
                return torch.optim.Adam(params, lr=lr, weight_decay=decay, betas=betas, eps=eps)
            case "adagrad":
                return torch.optim.Adagrad(params, lr=lr, weight_decay=decay, eps=eps)
            case "sgd":
                return torch.optim.SGD(
                    params, lr=lr, weight_decay=decay, momentum=options.dense_momentum
                )

    return KeyedOptimizerWrapper(dict(parameters), build)
