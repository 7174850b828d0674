"""Triton kernel of the Hamming distances; the selection is that of `search_topk`."""

# jit functions are compiled from their source and know no annotations but tl.constexpr
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


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
    those of `search_topk`.
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
