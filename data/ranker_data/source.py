"""Which samples are in which batch, and blocks of batches made of them.

Knows nothing of torch, so that a worker process is cheap. Everything here is a function of (epoch,
step): a block can be built anywhere, in any order.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate, chain

import numpy as np

from ranker_data.arena import Arena
from ranker_data.block import Block
from ranker_data.collate import Collator
from ranker_data.columns import Array, IntArray
from ranker_data.store import PackedStore
from ranker_data.streams import StreamPlan, shuffle_parts, shuffle_rows

# a sample's number in the split takes the lower bits, its batch's number in the block the upper
_SAMPLE_BITS = 44


class BatchSource:
    """Builds the share of one rank of the global batches of a split.

    Args:
        store: packed arrays of the split.
        collate: builds blocks.
        plan: of the streams.
        streams: that the rank reads.
        shuffle: rows in an order that the seed and the epoch give; otherwise in file order.
        seed: of the shuffle.
        samples_per_user: see `LoaderOptions`.
    """

    def __init__(
        self,
        *,
        store: PackedStore,
        collate: Collator,
        plan: StreamPlan,
        streams: list[int],
        shuffle: bool,
        seed: int,
        samples_per_user: int,
    ) -> None:
        self.store, self.plan, self.streams = store, plan, streams
        self._collate = collate
        self._shuffle, self._seed, self._samples_per_user = shuffle, seed, samples_per_user
        # number of each part's first sample
        self._first_sample = np.cumsum([0, *plan.part_sizes], dtype=np.int64)
        self._start_epoch(0)

    def check(self) -> None:
        """Reads and checks every part of the rank's streams.

        Raises:
            DataError: names the file, column, row and rule.
        """
        self._start_epoch(0)
        for generation in range(max(len(parts) for parts in self._parts)):
            self.store.check({self._generation(generation)})

    def build(self, epoch: int, first_step: int, last_step: int, arena: Arena) -> Block:
        """Builds the batches of the steps from `first_step` on, before `last_step`, in an arena."""
        if epoch != self._epoch:
            self._start_epoch(epoch)
        positions = self.plan.positions(first_step, last_step)[:, self.streams]
        # [S, 2] what each stream gives to all of the batches
        spans = positions[[0, -1]].T.tolist()
        self._require(spans)
        pieces = [self._samples(stream, *span) for stream, span in enumerate(spans)]
        order = np.concatenate([np.zeros(0, np.int64), *chain.from_iterable(pieces)])
        batches = np.arange(last_step - first_step) << _SAMPLE_BITS
        counts = np.diff(positions, axis=0).T.ravel()
        order |= np.tile(batches, len(self.streams)).repeat(counts)
        # within a batch by number: parts are sorted by user and time
        order.sort()
        order &= (1 << _SAMPLE_BITS) - 1
        arrays, rows = self.store.arrays, self.store.locate(order)
        samples, sizes = arrays["samples"], np.diff(positions.sum(axis=1))
        if not sizes.all():
            samples, sizes = _fill_empty(samples.take(rows), sizes)
            rows = np.arange(len(samples))
        return self._collate(arrays, samples, rows, sizes, arena)

    def _start_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._parts = [self.plan.parts_of(stream) for stream in self.streams]
        if self._shuffle:
            self._parts = [
                shuffle_parts(parts, seed=self._seed, epoch=epoch, stream=stream)
                for parts, stream in zip(self._parts, self.streams, strict=True)
            ]
        sizes = self.plan.part_sizes
        # [stream][generation] stream position at which the part begins, and the stream's end
        self._begins = [
            list(accumulate((sizes[part] for part in parts), initial=0)) for parts in self._parts
        ]
        self._orders: dict[int, IntArray] = {}

    def _generation(self, number: int) -> tuple[int, ...]:
        """Returns the number-th part of every stream that has one, sorted."""
        return tuple(sorted(parts[number] for parts in self._parts if number < len(parts)))

    def _touched(self, stream: int, begin: int, end: int) -> range:
        """Returns the generations of a stream that have samples in [begin, end)."""
        if begin == end:
            return range(0)
        begins = self._begins[stream]
        return range(bisect_right(begins, begin) - 1, bisect_left(begins, end))

    def _require(self, spans: list[list[int]]) -> None:
        """Makes the generations available that give samples, and those between them.

        A stream that gives none stays where it is: what it stands in is needed later.
        """
        first, last = max(map(len, self._begins)), -1
        for (begin, end), begins in zip(spans, self._begins, strict=True):
            if begin < begins[-1]:
                first = min(first, bisect_right(begins, begin) - 1)
                last = max(last, bisect_left(begins, max(end, begin + 1)) - 1)
        needed = range(first, last + 1)
        self.store.require({self._generation(number) for number in needed})
        parts = {part for number in needed for part in self._generation(number)}
        self._orders = {part: order for part, order in self._orders.items() if part in parts}

    def _samples(self, stream: int, begin: int, end: int) -> Iterator[IntArray]:
        """Yields the samples at the positions [begin, end) of a stream, part by part."""
        for generation in self._touched(stream, begin, end):
            part, base = self._parts[stream][generation], self._begins[stream][generation]
            yield self._order(part)[max(begin - base, 0) : end - base]

    def _order(self, part: int) -> IntArray:
        """Returns the samples of a part in the order of the epoch."""
        if part not in self._orders:
            first = self._first_sample[part]
            if self._shuffle:
                self._orders[part] = first + shuffle_rows(
                    self.store.users(part),
                    samples_per_user=self._samples_per_user,
                    seed=self._seed,
                    epoch=self._epoch,
                    part=part,
                )
            else:
                self._orders[part] = np.arange(first, self._first_sample[part + 1])
        return self._orders[part]


def _fill_empty(records: Array, sizes: IntArray) -> tuple[Array, IntArray]:
    """Gives batches without rows one row of weight 0, which keeps the collectives in step."""
    empty = np.flatnonzero(sizes == 0)
    padding = np.zeros(len(empty), records.dtype)
    padding["sample_id"] = -1
    padding["labels"] = padding["truths"] = np.nan
    begins = np.cumsum(sizes)[empty]
    return np.insert(records, begins, padding), np.maximum(sizes, 1)
