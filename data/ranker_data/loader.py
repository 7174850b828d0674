"""Streams `RankingBatch`es of one split in an order that does not depend on the number of ranks.

The position in the data is (epoch, step): `RankingLoader.batches(epoch, first_step)` continues
anywhere without reading what came before, on any world size that divides the number of streams.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ranker_data.batch import RankingBatch
from ranker_data.collate import Collator
from ranker_data.columns import IntArray
from ranker_data.layout import behaviors_arrow_schema, samples_arrow_schema
from ranker_data.reader import DataError, check_footers, list_parts
from ranker_data.schema import Schema
from ranker_data.shard import Shard, read_shard
from ranker_data.streams import StreamPlan, shuffle_parts, shuffle_rows, streams_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """How batches are cut.

    Attributes:
        batch_size: rows of a global batch, over all ranks.
        max_length: a sample sees at most this many of its latest behaviours.
        num_streams: logical streams; a multiple of the world size. The sample order depends on it.
        samples_per_user: how many samples of one user stay together when rows are shuffled; 1 is
            the usual row shuffle.
    """

    batch_size: int
    max_length: int
    num_streams: int = 16
    samples_per_user: int = 1

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


class RankingLoader:
    """Reads one split of a prepared data set.

    Memory holds one *generation* at a time (two around a border): the g-th part of each stream that
    this rank reads, with its share of the event log. More parts than streams means less memory.

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
    ) -> None:
        self.root, self.schema, self.split = root, schema, split
        self.samples_per_user, self.seed, self.shuffle = options.samples_per_user, seed, shuffle
        batch_size, num_streams = options.batch_size, options.num_streams
        folder = root / "samples" / split
        sample_files = list_parts(folder)
        behavior_files = list_parts(root / "behaviors")
        if len(sample_files) != len(behavior_files):
            raise DataError(
                f"{folder} has {len(sample_files)} parts but {root / 'behaviors'} has "
                f"{len(behavior_files)}; "
                "samples and behaviors must be prepared together"
            )
        sizes = check_footers(sample_files, samples_arrow_schema(schema))
        check_footers(behavior_files, behaviors_arrow_schema(schema))
        if num_streams > len(sizes):
            raise ValueError(
                f"loader.num_streams ({num_streams}) must not exceed the number of parts "
                f"({len(sizes)}) of {root}; "
                "lower loader.num_streams or prepare the data with more parts"
            )
        self.plan = StreamPlan(
            part_sizes=tuple(sizes),
            num_streams=num_streams,
            batch_size=batch_size,
            drop_last=shuffle,
        )
        if self.plan.num_steps == 0:
            raise DataError(
                f"split {split!r} of {root} has {self.plan.num_rows} rows, less than one "
                f"batch of {batch_size}; "
                "lower loader.batch_size or prepare more data"
            )
        self.rank, self.world_size = rank, world_size
        self.streams = streams_of(num_streams, rank, world_size)
        self.collate = Collator(schema, max_length=options.max_length)
        # the last generation read, because one generation often is the whole split
        self._cached: tuple[tuple[int, ...], Shard] | None = None

    @property
    def num_steps(self) -> int:
        """Global batches in an epoch; the same on every rank."""
        return self.plan.num_steps

    def check(self) -> None:
        """Reads and checks every part that this rank owns: bad values show before training does.

        Raises:
            DataError: names the file, column, row and rule.
        """
        window = _Window(self, epoch=0)
        for generation in range(max(len(parts) for parts in window.parts)):
            window.load((generation,))

    def batches(self, epoch: int = 0, first_step: int = 0) -> Iterator[RankingBatch]:
        """Yields this rank's share of the global batches of an epoch, from `first_step` on."""
        window = _Window(self, epoch)
        position = self.plan.positions(first_step)[self.streams]
        for step in range(first_step, self.num_steps):
            following = self.plan.positions(step + 1)[self.streams]
            yield self._build(window, position, following)
            position = following

    def _build(self, window: "_Window", begin: IntArray, end: IntArray) -> RankingBatch:
        if (end > begin).any():
            return self.collate(*window.rows(begin, end))
        # a rank must not have an empty batch: one row of weight 0 keeps the collectives in step
        part = int(np.argmax(self.plan.part_sizes))
        return self.collate(self.read((part,)), np.zeros(1, np.int64), padding=1)

    def parts(self, stream: int, epoch: int) -> list[int]:
        """Returns the parts of a stream in the order of this epoch."""
        parts = self.plan.parts_of(stream)
        if not self.shuffle:
            return parts
        return shuffle_parts(parts, seed=self.seed, epoch=epoch, stream=stream)

    def order(self, shard: Shard, slot: int, part: int, epoch: int) -> IntArray:
        """Returns the rows of a part, the `slot`-th of the shard, in the order of this epoch."""
        low, high = shard.part_offsets[slot : slot + 2]
        if not self.shuffle:
            return np.arange(low, high)
        user = shard.plain("user")[low:high]
        return low + shuffle_rows(
            user, samples_per_user=self.samples_per_user, seed=self.seed, epoch=epoch, part=part
        )

    def read(self, parts: tuple[int, ...]) -> Shard:
        """Reads parts, or returns them if they are the last ones read."""
        if self._cached is None or self._cached[0] != parts:
            self._cached = None
            self._cached = (parts, read_shard(self.root, self.schema, self.split, parts))
        return self._cached[1]


class _Window:
    """The generations of an epoch that the current batch draws from.

    Streams advance in proportion to their sizes, so a batch touches one generation, or two around a
    border.
    """

    def __init__(self, loader: RankingLoader, epoch: int) -> None:
        self.loader, self.epoch = loader, epoch
        self.parts = [loader.parts(stream, epoch) for stream in loader.streams]
        sizes = loader.plan.part_sizes
        # [stream][generation] stream position at which the part begins, and the stream's end
        self.begins = [np.cumsum([0] + [sizes[p] for p in parts]) for parts in self.parts]
        self.generations: tuple[int, ...] = ()
        self.shard: Shard | None = None
        self.orders: dict[tuple[int, int], IntArray] = {}

    def rows(self, begin: IntArray, end: IntArray) -> tuple[Shard, IntArray]:
        """Returns a shard, and the rows of it that stand at [begin, end) of each stream."""
        pieces = []
        for stream, (low, high) in enumerate(zip(begin, end, strict=True)):
            begins = self.begins[stream]
            first = int(np.searchsorted(begins, low, side="right")) - 1
            for generation in range(first, len(begins) - 1):
                if begins[generation] >= high:
                    break
                start = max(low, begins[generation]) - begins[generation]
                stop = min(high, begins[generation + 1]) - begins[generation]
                if stop > start:
                    pieces.append((generation, stream, start, stop))
        self.load(tuple(sorted({piece[0] for piece in pieces})))
        assert self.shard is not None
        chosen = [self.orders[g, stream][start:stop] for g, stream, start, stop in pieces]
        return self.shard, np.concatenate(chosen)

    def load(self, generations: tuple[int, ...]) -> None:
        if set(generations) <= set(self.generations):
            return
        slots = [
            (generation, stream, parts[generation])
            for generation in generations
            for stream, parts in enumerate(self.parts)
            if generation < len(parts)
        ]
        # sorted, so that epochs with one generation find it in memory
        slots.sort(key=lambda slot: slot[2])
        self.shard = None
        self.shard = self.loader.read(tuple(part for _, _, part in slots))
        self.generations = generations
        self.orders = {
            (generation, stream): self.loader.order(self.shard, i, part, self.epoch)
            for i, (generation, stream, part) in enumerate(slots)
        }
