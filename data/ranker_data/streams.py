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


def prefix_counts(sizes: IntArray, num_rows: IntArray) -> IntArray:
    """Returns how many rows of each stream are among the first `num_rows` of the merged order.

    Args:
        sizes: [S] rows of each stream.
        num_rows: [P] lengths of prefixes, each at most the sum of the sizes.

    Returns:
        [P, S] counts whose rows sum to `num_rows`; each is non-decreasing in `num_rows`.
    """
    total = int(sizes.sum())
    assert ((num_rows >= 0) & (num_rows <= total)).all()
    if total == 0:
        return np.zeros((len(num_rows), len(sizes)), np.int64)
    counts = np.floor(num_rows[:, None] / total * sizes + 0.5).astype(np.int64)
    counts = np.minimum(counts, sizes)
    # rounding may miss by a few rows: those at the end of the prefix are added or taken back
    with np.errstate(divide="ignore", invalid="ignore"):
        while (excess := counts.sum(axis=1) - num_rows).any():
            short, long = np.flatnonzero(excess < 0), np.flatnonzero(excess > 0)
            following = np.where(counts[short] < sizes, (counts[short] + 0.5) / sizes, np.inf)
            counts[short, np.argmin(following, axis=1)] += 1
            last = np.where(counts[long] > 0, (counts[long] - 0.5) / sizes, -np.inf)
            # of equal positions the highest stream is the last one
            counts[long, len(sizes) - 1 - np.argmax(last[:, ::-1], axis=1)] -= 1
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
        streams = np.arange(len(self.part_sizes)) % self.num_streams
        sizes = np.zeros(self.num_streams, np.int64)
        np.add.at(sizes, streams, self.part_sizes)
        return sizes

    def positions(self, first_step: int, last_step: int) -> IntArray:
        """Returns where every stream stands at the beginning of each of some global batches.

        Args:
            first_step: first of the batches.
            last_step: last of the batches; `num_steps` is the end of the epoch.

        Returns:
            [last_step - first_step + 1, S] rows that come before.
        """
        steps = range(first_step, last_step + 1)
        if self.drop_last:
            boundaries = [step * self.batch_size for step in steps]
        else:
            boundaries = [round(step * self.num_rows / max(self.num_steps, 1)) for step in steps]
        return prefix_counts(self.stream_sizes(), np.array(boundaries, np.int64))


def default_num_streams(num_parts: int) -> int:
    """Returns the largest power of two that is at most the number of parts and at most 16."""
    return min(16, 1 << (num_parts.bit_length() - 1))


def streams_of(num_streams: int, rank: int, world_size: int) -> list[int]:
    """Returns the streams that `rank` reads.

    Raises:
        ValueError: the world size does not divide the number of streams.
    """
    if num_streams % world_size:
        raise ValueError(
            f"loader.num_streams ({num_streams}) must be a multiple of the number of ranks "
            f"({world_size}); set loader.num_streams to a multiple of it, or null, and prepare the "
            "data with at least as many parts"
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
