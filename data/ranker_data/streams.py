"""The order of the samples, as a pure function that does not know the machine.

The parts of a split are dealt to a fixed number of *logical streams*. A stream's row order depends
on its parts, the seed and the epoch only. All streams are merged into one global order by relative
position: row i of a stream of n rows stands at (i + 1/2) / n, ties go to the lower stream. Global
batch t is the slice [t * B, (t + 1) * B) of that order, whatever number of ranks and workers reads
it; they only decide who reads which streams. A position in the data is therefore one number, the
step.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


def prefix_counts(sizes: IntArray, num_rows: int) -> IntArray:
    """Returns how many rows of each stream are among the first `num_rows` rows of the merged order.

    Args:
        sizes: [S] rows of each stream.
        num_rows: length of the prefix, at most the sum of the sizes.

    Returns:
        [S] counts that sum to `num_rows`; each is non-decreasing in `num_rows`.
    """
    total = int(sizes.sum())
    assert 0 <= num_rows <= total
    if total == 0:
        return np.zeros_like(sizes)
    counts = np.floor(num_rows / total * sizes + 0.5).astype(np.int64)
    counts = np.minimum(counts, sizes)
    while (excess := int(counts.sum()) - num_rows) != 0:
        with np.errstate(divide="ignore", invalid="ignore"):
            if excess < 0:
                following = np.where(counts < sizes, (counts + 0.5) / sizes, np.inf)
                counts[np.argmin(following)] += 1
            else:
                last = np.where(counts > 0, (counts - 0.5) / sizes, -np.inf)
                # of equal positions the highest stream is the last one
                counts[len(last) - 1 - np.argmax(last[::-1])] -= 1
    return counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """Who reads what in one epoch of one split.

    Attributes:
        part_sizes: rows of every part of the split.
        num_streams: number of logical streams; part i belongs to stream i % num_streams.
        batch_size: rows of a global batch.
        drop_last: drop the rows that do not fill the last batch (training); otherwise the rows are
            spread evenly over ceil(rows / batch_size) batches, so that no rank ends up with an
            empty one.
    """

    part_sizes: tuple[int, ...]
    num_streams: int
    batch_size: int
    drop_last: bool

    @property
    def num_rows(self) -> int:
        """Rows of the split."""
        return sum(self.part_sizes)

    @property
    def num_steps(self) -> int:
        """Global batches in an epoch."""
        if self.drop_last:
            return self.num_rows // self.batch_size
        return -(-self.num_rows // self.batch_size)

    @property
    def num_dropped_rows(self) -> int:
        """Rows that an epoch does not visit."""
        return self.num_rows - self.num_steps * self.batch_size if self.drop_last else 0

    def parts_of(self, stream: int) -> list[int]:
        """Returns the parts of a stream in file order."""
        return list(range(stream, len(self.part_sizes), self.num_streams))

    def stream_sizes(self) -> IntArray:
        """Returns the rows of every stream, [S]."""
        sizes = [sum(self.part_sizes[p] for p in self.parts_of(s)) for s in range(self.num_streams)]
        return np.array(sizes, dtype=np.int64)

    def positions(self, step: int) -> IntArray:
        """Returns the position of every stream at the beginning of global batch `step`, [S]."""
        boundary = step * self.batch_size
        if not self.drop_last:
            boundary = round(step * self.num_rows / self.num_steps) if self.num_steps else 0
        return prefix_counts(self.stream_sizes(), boundary)


def streams_of(num_streams: int, rank: int, world_size: int) -> list[int]:
    """Returns the streams that `rank` reads.

    Raises:
        ValueError: the world size does not divide the number of streams.
    """
    if num_streams % world_size:
        raise ValueError(
            f"loader.num_streams ({num_streams}) must be a multiple of the number of ranks "
            f"({world_size}); "
            "set loader.num_streams to a multiple of it"
        )
    return list(range(rank, num_streams, world_size))


def shuffle_parts(parts: Sequence[int], *, seed: int, epoch: int, stream: int) -> list[int]:
    """Returns the order in which a stream reads its parts in one epoch."""
    generator = np.random.default_rng([seed, epoch, stream])
    return [parts[i] for i in generator.permutation(len(parts))]


def shuffle_rows(
    user: IntArray, *, samples_per_user: int, seed: int, epoch: int, part: int
) -> IntArray:
    """Returns the row order of a part in one epoch.

    A user's samples are shuffled and cut into chunks of at most `samples_per_user` that stay
    together, and the chunks are shuffled: 1 is the usual row shuffle, larger values let more
    samples of a batch share a history.

    Args:
        user: [n] user of each row, sorted.
        samples_per_user: largest number of samples in a chunk.
        seed: of the run.
        epoch: number of the epoch.
        part: number of the part.

    Returns:
        [n] a permutation of the rows.
    """
    # the 1 keeps these draws apart from the part order's
    generator = np.random.default_rng([seed, epoch, part, 1])
    if samples_per_user == 1:
        return generator.permutation(len(user))
    order = np.lexsort((generator.random(len(user)), user))
    starts = np.flatnonzero(np.diff(user, prepend=user[:1] - 1)) if len(user) else user[:0]
    rank_in_user = np.arange(len(user)) - np.repeat(starts, np.diff(starts, append=len(user)))
    chunk = np.cumsum((rank_in_user % samples_per_user) == 0) - 1
    chunk_key = generator.permutation(int(chunk[-1]) + 1 if len(chunk) else 0)
    return order[np.argsort(chunk_key[chunk], kind="stable")]
