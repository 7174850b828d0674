"""Order-preserving integer keys, so that one SIMD integer sort orders rows and keeps ties exact."""

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ranker.metrics.rows import FloatArray, IntArray

UInt32Array = NDArray[np.uint32]
UInt64Array = NDArray[np.uint64]

# a (group, score, label) key has 64 bits: 32 for the score and 1 for the label leave 31
MAX_GROUPS = 1 << 31


def score_keys(scores: FloatArray) -> UInt32Array:
    """Keys [n] with the same order and the same ties as the finite scores [n].

    float32: the IEEE bits, the sign bit flipped for positive, all bits for negative numbers.
    float64 does not fit: its keys are the dense ranks.
    """
    if scores.dtype == np.float32:
        # adding zero turns -0.0 into 0.0, which it must tie with
        bits = (scores + np.float32(0.0)).view(np.uint32)
        flip = (bits.view(np.int32) >> 31).view(np.uint32) | np.uint32(1 << 31)
        return cast(UInt32Array, bits ^ flip)
    assert len(scores) < 1 << 32
    return np.unique(scores, return_inverse=True)[1].astype(np.uint32)


@dataclass(frozen=True, kw_only=True)
class GroupCodes:
    """Group ids as codes of at most 31 bits, in the order of the ids."""

    codes: UInt64Array  # [n]
    # the id of code 0 when ids were only shifted, the id of every code when they were ranked
    ids: IntArray
    ranked: bool

    def ids_of(self, codes: UInt64Array) -> IntArray:
        """The group ids behind the codes."""
        return self.ids[codes] if self.ranked else codes.astype(np.int64) + self.ids[0]


def group_codes(groups: IntArray) -> GroupCodes:
    """Codes for group ids [n], n > 0: shifted if they span less than 2^31, else (hashes) ranked."""
    lowest = int(groups.min())
    if int(groups.max()) - lowest < MAX_GROUPS:
        return GroupCodes(
            codes=(groups - lowest).view(np.uint64), ids=np.array([lowest]), ranked=False
        )
    ids, codes = np.unique(groups, return_inverse=True)
    assert len(ids) < MAX_GROUPS
    return GroupCodes(codes=codes.astype(np.uint64), ids=ids, ranked=True)
