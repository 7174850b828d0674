"""A training job: everything that a run is made of, and how its loaders and its model are built."""

import dataclasses
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from ranker.checkpoint import Trainable
from ranker.distributed import Process
from ranker.embedding import EmbeddingOptions
from ranker.model import RankingModel
from ranker.sharding import OptimizerOptions, ShardingOptions, shard
from ranker.slots import Gate, Head, Interaction, Objective, SequenceEncoder
from ranker.train_module import TrainModule
from ranker_data.loader import LoaderOptions, RankingLoader
from ranker_data.schema import Schema

Mode = Literal["max", "min"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """How long to train, and what to do on the way.

    Attributes:
        epochs: passes over the training split.
        max_steps: stop after this many steps; null trains all epochs.
        log_every_steps: steps between two training records.
        eval_every_steps: steps between two evaluations on the validation split; null evaluates
            after each epoch.
        checkpoint_every_steps: steps between two checkpoints; one is always written at an
            evaluation and at the end.
        keep_checkpoints: newest checkpoints to keep; the best one is kept besides.
        monitor: metric of the validation split that decides which checkpoint is best, as
            task.metric.
        mode: whether the metric should be "max" or "min".
        patience: stop after this many evaluations without improvement; null never stops early.
        device: "auto", "cpu" or "cuda".
        timeout_seconds: after this long without an answer from another rank the run fails instead
            of hanging.
    """

    epochs: int
    monitor: str
    mode: Mode = "max"
    patience: int | None = None
    max_steps: int | None = None
    log_every_steps: int = 50
    eval_every_steps: int | None = None
    checkpoint_every_steps: int = 1000
    keep_checkpoints: int = 2
    device: str = "auto"
    timeout_seconds: float = 600.0

    def __post_init__(self) -> None:
        for name in ("epochs", "log_every_steps", "checkpoint_every_steps", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_steps", "eval_every_steps", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 or null, got {value}")
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode must be max or min, got {self.mode!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainJob:
    """Everything that a training run needs; built by `ranker.config`."""

    config: Mapping[str, Any]
    run_dir: Path
    seed: int
    data_root: Path
    schema: Schema
    loader: LoaderOptions
    embedding: EmbeddingOptions
    optimizer: OptimizerOptions
    sharding: ShardingOptions
    trainer: TrainerOptions
    sequence: Mapping[str, Callable[..., SequenceEncoder]]
    gate: Callable[..., Gate] | None
    interaction: Callable[..., Interaction] | None
    head: Callable[..., Head]
    objective: Callable[..., Objective]

    def build_loader(self, split: str, process: Process, *, shuffle: bool) -> RankingLoader:
        """Returns the loader of one split: shuffled for training, every row once otherwise."""
        return RankingLoader(
            root=self.data_root,
            schema=self.schema,
            split=split,
            options=self.loader,
            seed=self.seed,
            shuffle=shuffle,
            rank=process.rank,
            world_size=process.world_size,
        )

    def build_module(self) -> TrainModule:
        """Builds model and objective, the tables on the meta device."""
        model = RankingModel(
            schema=self.schema,
            embedding=self.embedding,
            sequence=self.sequence,
            gate=self.gate,
            interaction=self.interaction,
            head=self.head,
        )
        return TrainModule(model=model, objective=self.objective(), schema=self.schema)

    def build_trainable(self, device: torch.device) -> Trainable:
        """Builds and shards model and optimizers; the same weights on any number of ranks."""
        seed_everything(self.seed)
        module = self.build_module()
        sharded, optimizer, dense = shard(
            module,
            tables=module.model.embedding,
            optimizer=self.optimizer,
            sharding=self.sharding,
            init_std=self.embedding.init_std,
            seed=self.seed,
            device=device,
        )
        return Trainable(model=sharded, optimizer=optimizer, dense=dense)


def seed_everything(seed: int) -> None:
    """Seeds the global generators, from which dense layers draw their initial weights."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
