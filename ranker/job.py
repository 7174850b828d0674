"""A training job: everything that a run is made of, and how its loaders and its model are built."""

import dataclasses
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from ranker.budget import BehaviorBudget
from ranker.checkpoint import Trainable
from ranker.distributed import Process, gather_to_all, world_size
from ranker.embedding import describe_collisions
from ranker.feed import Feed, Lookahead
from ranker.model import RankingModel
from ranker.modules.embedding_options import EmbeddingOptions
from ranker.optimizers.look_ahead import MetaOptions
from ranker.optimizers.options import OptimizerOptions
from ranker.optimizers.schedule import ScheduledRates
from ranker.placement import ShardingOptions
from ranker.sharding import Sharded, shard
from ranker.slots import Gate, Head, Interaction, Objective, Regularizer, SequenceEncoder
from ranker.train_module import TrainModule
from ranker.train_step import Precision, StepOptions, TrainStep
from ranker.warm_start import WarmStartOptions
from ranker_data.doctor.examine import check_at_start
from ranker_data.doctor.fingerprint import (
    check_run_files,
    check_same_files,
    fingerprint_files,
)
from ranker_data.loader import LoaderOptions, RankingLoader
from ranker_data.schema import Schema

Mode = Literal["max", "min"]
# in the run's directory: the files that it began with
DATA_FILES = "data_files.json"


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
        async_checkpoint: copy the state to host memory and write it behind the training; needs
            room for one more copy of the state there.
        max_failed_saves: saves that may fail in a row, on a full disk for example, before the run
            ends.
        preemption_seconds: time that a save may take after SIGTERM or SIGUSR1; if the last one took
            longer, none is begun.
        deterministic: use deterministic algorithms on a GPU, and refuse operations without one.
        precision: "bf16" runs matrix products in bfloat16; weights, tables and losses stay fp32.
        accumulate_steps: micro-batches that a global batch is computed in; fewer activations in
            memory for one more forward pass.
        pipeline: overlap the copy and the id exchange of the next batch with the computation.
        profile: record steps 10 to 14 of this launch: a trace, and a summary of what took how long.
        meta: first-order Meta-Wrapper on halves of each batch; needs accumulate_steps=2.
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
    async_checkpoint: bool = False
    max_failed_saves: int = 2
    preemption_seconds: float = 25.0
    deterministic: bool = False
    precision: Precision = "fp32"
    accumulate_steps: int = 1
    pipeline: bool = False
    profile: bool = False
    meta: MetaOptions | None = None

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "log_every_steps",
            "checkpoint_every_steps",
            "keep_checkpoints",
            "accumulate_steps",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_steps", "eval_every_steps", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 or null, got {value}")
        if self.max_failed_saves < 0:
            raise ValueError(f"max_failed_saves must not be negative, got {self.max_failed_saves}")
        for name in ("timeout_seconds", "preemption_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be fp32 or bf16, got {self.precision!r}")
        if self.pipeline and self.accumulate_steps > 1:
            raise ValueError(
                f"pipeline is true and accumulate_steps is {self.accumulate_steps}; a pipeline "
                "looks each batch up once, accumulation twice. Use one of the two"
            )
        if self.meta is not None and self.accumulate_steps != 2:
            raise ValueError(
                f"accumulate_steps is {self.accumulate_steps}; meta trains on halves of each "
                "batch, set accumulate_steps to 2"
            )
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
    warm_start: WarmStartOptions | None = None
    regularizers: Mapping[str, Callable[..., Regularizer]] = dataclasses.field(default_factory=dict)
    where: Mapping[str, Mapping[str, list[int]]] = dataclasses.field(default_factory=dict)
    data_severities: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # other splits of the data set in place of train, valid and test
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def build_loader(
        self,
        split: str,
        process: Process,
        *,
        shuffle: bool,
        options: LoaderOptions | None = None,
    ) -> RankingLoader:
        """Returns the loader of one split: shuffled for training, every row once otherwise.

        `options` are the job's where they are not given.
        """
        return RankingLoader(
            root=self.data_root,
            schema=self.schema,
            split=self.splits.get(split, split),
            options=options or self.loader,
            seed=self.seed,
            shuffle=shuffle,
            rank=process.rank,
            world_size=process.world_size,
            pin_memory=process.device.type == "cuda",
        )

    def check_data(self, process: Process) -> list[str]:
        """Examines the data as far as it takes seconds; returns warnings, a line each.

        Raises:
            DataError: lists every file that cannot be used, and every other error; or the files are
                not the same on all ranks, or not those that the run began with.
        """
        found = check_at_start(self.data_root, self.schema, self.data_severities)
        files = fingerprint_files(self.data_root)
        everywhere = gather_to_all(files)
        for rank, others in enumerate(everywhere):
            check_same_files(others, everywhere[0], f"on rank 0, seen from rank {rank}")
        check_run_files(self.run_dir / DATA_FILES, files, write=process.is_main)
        return [f"warning: data: {message}" for message in found]

    def notices(self) -> list[str]:
        """Returns what a person should know about the job before it trains, a line each."""
        return describe_collisions(self.schema, self.embedding)

    def build_module(self) -> TrainModule:
        """Builds model and objective, the tables on the meta device."""
        model = RankingModel(
            schema=self.schema,
            embedding=self.embedding,
            sequence=self.sequence,
            gate=self.gate,
            interaction=self.interaction,
            head=self.head,
            regularizers=self.regularizers,
            where=self.where,
        )
        return TrainModule(model=model, objective=self.objective(), schema=self.schema)

    def build_sharded(self, device: torch.device) -> Sharded:
        """Builds and shards model and optimizers; the same weights on any number of ranks."""
        seed_everything(self.seed)
        module = self.build_module()
        ranks = world_size() * self.trainer.accumulate_steps
        return shard(
            module,
            tables=module.model.embedding,
            optimizer=self.optimizer,
            sharding=self.sharding,
            init_std=self.embedding.init_std,
            seed=self.seed,
            device=device,
            batch_size=max(1, self.loader.batch_size // ranks),
        )

    def build_trainable(self, device: torch.device) -> Trainable:
        """Builds and shards model and optimizers, as a checkpoint knows them."""
        return trainable_of(self.build_sharded(device))

    def build_train_step(
        self, sharded: Sharded, trainable: Trainable, *, rank: int, total_steps: int
    ) -> TrainStep:
        """Builds the training step.

        Args:
            sharded: of `build_sharded`.
            trainable: made of it.
            rank: of this process.
            total_steps: of all epochs, for the schedules.
        """
        optimizer = self.optimizer
        rates = ScheduledRates(
            [
                ("dense", optimizer.schedule, sharded.dense_groups),
                ("sparse", optimizer.sparse_schedule, sharded.table_groups),
            ],
            total_steps=total_steps,
        )
        clipped = sharded.dense if optimizer.clip_tables else sharded.networks
        return TrainStep(
            trainable,
            rates=rates,
            clipped=list(clipped.params.values()),
            options=StepOptions(
                precision=self.trainer.precision,
                max_grad_norm=optimizer.max_grad_norm,
                meta=self.trainer.meta,
            ),
            seed=self.seed,
            rank=rank,
        )

    def build_feed(self, process: Process, loader: RankingLoader, sharded: Sharded) -> Feed:
        """Returns what hands the training loop its batches.

        Args:
            process: this process.
            loader: of the training split, in global batches.
            sharded: the model.
        """
        count = self.trainer.accumulate_steps
        if count > 1:
            options = dataclasses.replace(self.loader, batch_size=self.loader.batch_size // count)
            loader = self.build_loader("train", process, shuffle=True, options=options)
        lookahead = None
        if self.trainer.pipeline and self.loader.max_behaviors is not None:
            raise ValueError(
                "trainer.pipeline is true and loader.max_behaviors is "
                f"{self.loader.max_behaviors}; a pipeline cannot split a batch. Set one of the two"
            )
        if self.trainer.pipeline:
            lookahead = Lookahead(sharded.model, sharded.optimizer, process.device)
        budget = BehaviorBudget(self.schema, self.loader.max_behaviors)
        return Feed(loader, count=count, device=process.device, budget=budget, lookahead=lookahead)


def trainable_of(sharded: Sharded) -> Trainable:
    """Returns what a checkpoint holds of a sharded model."""
    return Trainable(model=sharded.model, optimizer=sharded.optimizer, dense=sharded.dense)


def seed_everything(seed: int) -> None:
    """Seeds the global generators, from which dense layers draw their initial weights."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
