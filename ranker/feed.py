"""Hands the training loop its batches: on the device, in micro-batches, or exchanged ahead.

Global batch t is the slice [t B, (t + 1) B) of an order that does not know the batch size, so the k
consecutive batches of B / k rows that a loader yields are exactly one batch of B.
"""

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.distributed.train_pipeline.utils import _override_input_dist_forwards
from torchrec.distributed.types import ShardedModule
from torchrec.optim.keyed import KeyedOptimizer

from ranker.budget import BehaviorBudget
from ranker_data.batch import RankingBatch
from ranker_data.loader import RankingLoader


class Feed:
    """Yields the micro-batches of each global batch, on the device.

    Args:
        loader: of the micro-batches.
        count: of them in a global batch.
        device: to copy them to.
        budget: splits those that have too many behaviours.
        lookahead: exchanges the ids of the next batch ahead; None does not. It cannot split.

    Attributes:
        wait_seconds: time that this process has waited for the loader.
    """

    def __init__(
        self,
        loader: RankingLoader,
        *,
        count: int,
        device: torch.device,
        budget: BehaviorBudget,
        lookahead: "Lookahead | None" = None,
    ) -> None:
        assert count == 1 or lookahead is None
        self.loader, self.count, self.device, self.lookahead = loader, count, device, lookahead
        self.budget = budget
        self.wait_seconds = 0.0

    def batches(self, epoch: int, first_step: int) -> Iterator[list[RankingBatch]]:
        """Yields the micro-batches of one global batch after the other, from `first_step` on."""
        last = self.loader.num_steps // self.count * self.count
        source = self._read(epoch, first_step * self.count, last)
        if self.lookahead is not None:
            for batch in self.lookahead(source):
                yield [batch]
            return
        while parts := list(itertools.islice(source, self.count)):
            within_budget = [small for part in parts for small in self.budget(part)]
            yield [part.to(self.device, non_blocking=True) for part in within_budget]

    def _read(self, epoch: int, first: int, last: int) -> Iterator[RankingBatch]:
        batches = itertools.islice(self.loader.batches(epoch, first), last - first)
        while True:
            begin = time.perf_counter()
            batch = next(batches, None)
            self.wait_seconds += time.perf_counter() - begin
            if batch is None:
                return
            yield batch

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While it is open, the model looks up the ids of the batch that it is given.

        An evaluation between two training steps needs that.
        """
        if self.lookahead is None:
            yield
            return
        with self.lookahead.paused():
            yield


class Lookahead:
    """Copies the next batches and exchanges their ids while the present one is computed.

    TorchRec's pipeline, without its idea of a step: the loop takes the step between two batches.
    The computation and its order are those without it, so the numbers are, to the last bit.

    Args:
        model: under `DistributedModelParallel`.
        optimizer: of it.
        device: of it.
    """

    def __init__(self, model: nn.Module, optimizer: KeyedOptimizer, device: torch.device) -> None:
        self.model = model
        self.pipeline = TrainPipelineSparseDist(model, optimizer, device, execute_all_batches=True)

    def __call__(self, source: Iterator[RankingBatch]) -> Iterator[RankingBatch]:
        """Yields the batches of `source`; the model must be called once with each."""
        pipeline = self.pipeline
        pipeline.reset()
        while True:
            pipeline.fill_pipeline(source)
            self._check_pipelined()
            if not pipeline.batches:
                return
            pipeline._set_module_context(pipeline.contexts[0])
            pipeline._wait_for_batch()
            following = len(pipeline.batches) >= 2
            if following:
                pipeline.start_sparse_data_dist(pipeline.batches[1], pipeline.contexts[1])
            pipeline.enqueue_batch(source)
            yield pipeline.batches[0]
            if following:
                pipeline.wait_sparse_data_dist(pipeline.contexts[1])
            pipeline.dequeue_batch()

    def _check_pipelined(self) -> None:
        """Checks that the ids of all tables are exchanged ahead.

        Raises:
            ValueError: the model looks up something else than the ids of the batch.
        """
        sharded = [module for module in self.model.modules() if isinstance(module, ShardedModule)]
        if self.pipeline.batches and len(self.pipeline._pipelined_modules) < len(sharded):
            raise ValueError(
                "trainer.pipeline is true, but this model looks up other ids than those of the "
                "batch (it hashes them, or it searches); set trainer.pipeline=false"
            )

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While it is open, the model looks up the ids of the batch that it is given."""
        pipeline = self.pipeline
        modules = pipeline._pipelined_modules
        forwards = [module.forward for module in modules]
        pipeline.detach()
        try:
            yield
        finally:
            for module, forward in zip(modules, forwards, strict=True):
                module.forward = forward
                module.is_pipelined = True
            pipeline._original_kjt_dist_forwards = _override_input_dist_forwards(modules)
            pipeline._model_attached = True
