"""Streams `RankingBatch`es of one split in an order that does not depend on the machine.

The position in the data is (epoch, step): `RankingLoader.batches(epoch, first_step)` continues
anywhere without reading what came before, on any world size that divides the number of streams and
with any number of workers.
"""

import logging
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

from ranker_data.arena import ArenaPool
from ranker_data.background import in_background
from ranker_data.batch import RankingBatch
from ranker_data.block import Block
from ranker_data.cache import CachedStore
from ranker_data.collate import Collator
from ranker_data.cut import BlockCutter
from ranker_data.gather import best_gather
from ranker_data.layout import behaviors_arrow_schema, samples_arrow_schema
from ranker_data.options import LoaderOptions as LoaderOptions
from ranker_data.reader import DataError, PartSize, check_footers, list_parts
from ranker_data.schema import Schema
from ranker_data.source import BatchSource
from ranker_data.store import MemoryStore, PackedStore
from ranker_data.streams import StreamPlan, default_num_streams, streams_of
from ranker_data.workers import Span, WorkerPool

# so many rows hide the cost of the calls that build a block
_BLOCK_ROWS = 32_768
# no more behaviours than these in a block, unless one batch alone has more
_BLOCK_BEHAVIORS = 4_000_000
# blocks that wait for whoever computes, while one more is built
_BLOCKS_AHEAD = 1
# pinned batches that wait for the GPU
_PINNED_AHEAD = 2

_log = logging.getLogger(__name__)


class RankingLoader:
    """Reads one split of a prepared data set.

    A thread, or worker processes, build blocks of batches ahead. Without a cache, memory holds one
    *generation* at a time (two around a border): the g-th part of each stream that this rank reads,
    with its share of the event log. More parts than streams means less memory. With a cache, the
    kernel keeps the pages that are in use.

    Args:
        root: the prepared data set.
        schema: of the data set.
        split: "train", "valid" or "test".
        options: how batches are cut.
        seed: of the shuffle.
        shuffle: shuffle and drop the rows that do not fill a batch (training), or read in file
            order and visit every row exactly once (evaluation).
        rank: of this process.
        world_size: number of processes.
        pin_memory: give batches in pinned memory, from which copies to a GPU run beside the
            computation; a thread builds and pins them.
    """

    def __init__(
        self,
        *,
        root: Path,
        schema: Schema,
        split: str,
        options: LoaderOptions,
        seed: int,
        shuffle: bool,
        rank: int,
        world_size: int,
        pin_memory: bool = False,
    ) -> None:
        self._pin_memory = pin_memory
        self._options, self._split, self._rank = options, split, rank
        samples, events = _read_sizes(root, schema, split)
        num_streams = options.num_streams or default_num_streams(len(samples))
        if num_streams > len(samples):
            raise ValueError(
                f"loader.num_streams ({num_streams}) must not exceed the number of parts "
                f"({len(samples)}) of {root}; lower loader.num_streams, leave it null, or prepare "
                "the data with more parts"
            )
        self.plan = StreamPlan(
            part_sizes=tuple(part.num_rows for part in samples),
            num_streams=num_streams,
            batch_size=options.batch_size,
            drop_last=shuffle,
        )
        if self.plan.num_steps == 0:
            raise DataError(
                f"split {split!r} of {root} has {self.plan.num_rows} rows, less than one "
                f"batch of {options.batch_size}; lower loader.batch_size or prepare more data"
            )
        streams = streams_of(num_streams, rank, world_size)
        store: PackedStore
        if options.cache_dir is None:
            store = MemoryStore(
                root=root,
                schema=schema,
                split=split,
                samples=samples,
                events=events,
                streams=[self.plan.parts_of(stream) for stream in streams],
            )
        else:
            store = CachedStore(
                root=root,
                schema=schema,
                split=split,
                samples=samples,
                events=events,
                cache_dir=Path(options.cache_dir),
            )
        self._source = BatchSource(
            store=store,
            collate=Collator(schema, max_length=options.max_length, gather=best_gather()),
            plan=self.plan,
            streams=streams,
            shuffle=shuffle,
            seed=seed,
            samples_per_user=options.samples_per_user,
        )
        self._cut = BlockCutter(schema)
        self._arenas = ArenaPool()
        # source and arenas are for one thread at a time; each iteration has one of its own
        self._building = threading.Lock()
        rows_of_block = min(_BLOCK_ROWS, _BLOCK_BEHAVIORS // options.max_length)
        if options.cache_dir is None:
            # a block that spans several generations would need memory for all of them
            generations = -(-len(samples) // num_streams)
            rows_of_block = min(rows_of_block, self.plan.num_rows // generations // world_size)
        rows = -(-options.batch_size // world_size)
        self._steps_per_block = max(1, rows_of_block // rows)

    @property
    def max_behaviors(self) -> int | None:
        """The budget of a batch, which whoever computes keeps by splitting; None for none."""
        return self._options.max_behaviors

    @property
    def num_steps(self) -> int:
        """Global batches in an epoch; the same on every rank."""
        return self.plan.num_steps

    def check(self) -> None:
        """Reads and checks every part that this rank owns, or packs it into the cache.

        Bad values show before training does. What is in the cache was checked when it was packed.
        How many ids `out_of_range` moved is logged.

        Raises:
            DataError: names the file, column, row and rule.
        """
        self._source.check()
        for field, count in sorted(self._source.store.moved_ids().items()):
            _log.warning(
                "split %r, rank %d: %d ids of field %r are outside their table and were moved into "
                "it (out_of_range of the table)",
                self._split,
                self._rank,
                count,
                field,
            )

    def batches(self, epoch: int = 0, first_step: int = 0) -> Iterator[RankingBatch]:
        """Iterates over this rank's share of the global batches of an epoch, from `first_step` on.

        Raises:
            DataError: a file breaks the contract of the schema.
            DataWorkerError: a worker died, failed or does not answer.
        """
        batches = self._cut_blocks(epoch, first_step)
        if self._pin_memory:
            return in_background(batches, RankingBatch.pin_memory, ahead=_PINNED_AHEAD)
        return batches

    def _cut_blocks(self, epoch: int, first_step: int) -> Generator[RankingBatch, None, None]:
        build = self._build_in_workers if self._options.num_workers else self._build_in_thread
        for block in build(epoch, first_step):
            yield from self._cut(block)

    def _build_in_thread(self, epoch: int, first_step: int) -> Iterator[Block]:
        spans = self._spans(epoch, first_step, self._steps_per_block)
        return in_background(spans, self._build, ahead=_BLOCKS_AHEAD)

    def _build(self, span: Span) -> Block:
        with self._building:
            return self._source.build(*span, self._arenas.borrow())

    def _build_in_workers(self, epoch: int, first_step: int) -> Iterator[Block]:
        options = self._options
        # one block is built while the one before it is waiting
        steps = max(1, min(self._steps_per_block, options.prefetch // 2))
        with WorkerPool(
            self._source,
            num_workers=options.num_workers,
            ahead=max(1, options.prefetch // steps),
            timeout_seconds=options.worker_timeout_seconds,
            name=f"split {self._split!r} on rank {self._rank}",
        ) as pool:
            yield from pool.blocks(self._spans(epoch, first_step, steps))

    def _spans(self, epoch: int, first_step: int, steps: int) -> Generator[Span, None, None]:
        for begin in range(first_step, self.num_steps, steps):
            yield epoch, begin, min(begin + steps, self.num_steps)


def _read_sizes(root: Path, schema: Schema, split: str) -> tuple[list[PartSize], list[PartSize]]:
    """Checks all footers and returns the sizes of the samples' and of the events' parts."""
    folder = root / "samples" / split
    sample_files = list_parts(folder)
    behavior_files = list_parts(root / "behaviors")
    if len(sample_files) != len(behavior_files):
        raise DataError(
            f"{folder} has {len(sample_files)} parts but {root / 'behaviors'} has "
            f"{len(behavior_files)}; samples and behaviors must be prepared together"
        )
    return (
        check_footers(sample_files, samples_arrow_schema(schema)),
        check_footers(behavior_files, behaviors_arrow_schema(schema)),
    )
