"""Triton kernels of the Hamming search: distances of a window, and its exact top k.

`closeness` walks over tiles of codes; candidates with the same window are compared together, so
that they share the reads. `select` finds the k-th highest number of a row digit by digit, eight
bits at a time from the top, and writes the positions above it and the first ones at it: exact,
deterministic, for any length. The numbers of a candidate lie side by side, the candidates one
behind the other.
"""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from ranker_kernels.search_topk.triton_choice import ordered

BINS = tl.constexpr(256)


@triton.jit
def _popcount(word):
    """Returns the number of bits that are set in an int64, by halves."""
    # an arithmetic shift brings copies of the sign bit, which the masks take away again
    word = (word & 0x5555555555555555) + ((word >> 1) & 0x5555555555555555)
    word = (word & 0x3333333333333333) + ((word >> 2) & 0x3333333333333333)
    word = (word & 0x0F0F0F0F0F0F0F0F) + ((word >> 4) & 0x0F0F0F0F0F0F0F0F)
    word = word + (word >> 8)
    word = word + (word >> 16)
    word = word + (word >> 32)
    return (word & 0x7F).to(tl.int32)


@triton.jit
def closeness(
    query, keys, windows, score_starts, group_begins, group_ends, tile_groups, tile_places, scores,
    WORDS: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Writes minus the distances of a group of candidates to a tile of their window.

    The latest behaviour of a window comes first, so that it wins among equals. Groups and tiles are
    those of `launch.group_candidates`.
    """
    program = tl.program_id(0)
    group = tl.load(tile_groups + program)
    first, last = tl.load(group_begins + group), tl.load(group_ends + group)
    begin, end = tl.load(windows + 2 * first), tl.load(windows + 2 * first + 1)
    start = begin + tl.load(tile_places + program) * TILE
    row, step = tl.arange(0, ROWS), tl.arange(0, TILE)
    present, valid = row < last - first, step < end - start
    distance = tl.zeros([ROWS, TILE], tl.int32)
    for word in tl.static_range(WORDS):
        code = tl.load(query + first * WORDS + row * WORDS + word, mask=present, other=0)
        key = tl.load(keys + start * WORDS + step * WORDS + word, mask=valid, other=0)
        distance += _popcount(code[:, None] ^ key[None, :])
    place = tl.load(score_starts + first) + row * (end - begin) + (end - 1 - start)
    tl.store(
        scores + place[:, None] - step[None, :],
        -distance.to(tl.float32),
        mask=present[:, None] & valid[None, :],
    )


@triton.jit
def _place_of(value):
    """Returns numbers in [0, 2^32) whose order is that of the floats; minus zero equals zero."""
    return ordered(value).to(tl.int64) + 0x80000000


@triton.jit
def select(
    scores, row_starts, lengths, positions, values, k,
    TILE: tl.constexpr,
):  # fmt: skip
    """Writes the positions `[R, k]` of the k highest of each row, ascending, and their scores.

    Of equal scores the first count. A row of at most k scores is written whole; what is behind it
    stays as it was.
    """
    row = tl.program_id(0).to(tl.int64)
    begin, length = tl.load(row_starts + row), tl.load(lengths + row)
    bins, steps = tl.arange(0, BINS), tl.arange(0, TILE)
    # the k-th highest number, from its highest digit to its lowest
    prefix = tl.zeros([], tl.int64)
    missing = tl.minimum(k, length)
    for digit in tl.static_range(4):
        shift = 24 - 8 * digit
        counts = tl.zeros([BINS], tl.int64)
        for start in range(0, length, TILE):
            valid = start + steps < length
            number = _place_of(tl.load(scores + begin + start + steps, mask=valid, other=0.0))
            match = valid & ((number >> (shift + 8)) == prefix)
            # what does not match is counted as 0, and taken away again
            bin_of = tl.where(match, (number >> shift) & 255, 0).to(tl.int32)
            others = TILE - tl.sum(match.to(tl.int64), 0)
            counts += tl.histogram(bin_of, BINS) - tl.where(bins == 0, others, 0)
        reached = tl.sum(counts, 0) - tl.cumsum(counts, 0) + counts  # this digit or a higher one
        found = tl.sum((reached >= missing).to(tl.int64), 0) - 1
        above = tl.sum(tl.where(bins > found, counts, 0), 0)
        missing -= above
        prefix = (prefix << 8) | found
    written = tl.zeros([], tl.int64)
    equals = tl.zeros([], tl.int64)
    for start in range(0, length, TILE):
        valid = start + steps < length
        value = tl.load(scores + begin + start + steps, mask=valid, other=0.0)
        number = _place_of(value)
        equal = (valid & (number == prefix)).to(tl.int64)
        early = equals + tl.cumsum(equal, 0) <= missing
        keep = valid & ((number > prefix) | ((equal > 0) & early))
        place = written + tl.cumsum(keep.to(tl.int64), 0) - 1
        tl.store(positions + row * k + place, (start + steps).to(tl.int64), mask=keep)
        tl.store(values + row * k + place, value, mask=keep)
        written += tl.sum(keep.to(tl.int64), 0)
        equals += tl.sum(equal, 0)
