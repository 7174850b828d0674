"""Hierarchical clustering of many groups of vectors at once (TWIN-V2, 2407.16357).

    queue <- groups
    while the queue has a V:
        |V| <= max_size: V is a cluster
        else: the parts of k-means(V, |V|^0.3) join the queue

All V of one generation are split together, in a handful of array operations. What becomes of a
group depends on its own vectors and their order alone: on no random number, and not on the groups
beside it.
"""

import numpy as np
from numpy.typing import NDArray

from ranker_data.columns import IntArray

FloatArray = NDArray[np.float32]

# number of parts = size ^ this; the paper's adaptive rule
_PARTS_EXPONENT = 0.3


def cluster_groups(
    vectors: FloatArray, group: IntArray, *, max_size: int, max_iterations: int = 10
) -> IntArray:
    """Clusters the points of each group.

    Args:
        vectors: [P, D] of the points.
        group: [P] group of each point, not negative; points of different groups are never joined.
        max_size: largest cluster.
        max_iterations: of k-means.

    Returns:
        [P] number of each point's cluster, from 0 without gaps.
    """
    node = _compact(group)
    while True:
        sizes = np.bincount(node)
        points = np.flatnonzero(sizes[node] > max_size)
        if not len(points):
            return node
        # by node, and within it in the order of the points
        points = points[np.argsort(node[points], kind="stable")]
        part = np.zeros(len(node), np.int64)
        part[points] = _split(vectors[points], _compact(node[points]), max_size, max_iterations)
        node = _compact(node * (int(part.max()) + 1) + part)


def _split(vectors: FloatArray, node: IntArray, max_size: int, max_iterations: int) -> IntArray:
    """Returns the part of each point within its node; points are sorted by node."""
    sizes = np.bincount(node)
    starts = np.cumsum(sizes) - sizes
    num_parts = np.maximum(2, np.floor(sizes**_PARTS_EXPONENT)).astype(np.int64)
    part = _kmeans(vectors, node, starts, sizes, num_parts, max_iterations)
    # vectors that k-means cannot tell apart are cut into runs
    low = np.minimum.reduceat(part, starts)
    high = np.maximum.reduceat(part, starts)
    whole = (low == high)[node]
    run = (np.arange(len(node)) - starts[node]) // max_size
    return np.where(whole, run, part)


def _kmeans(
    vectors: FloatArray,
    node: IntArray,
    starts: IntArray,
    sizes: IntArray,
    num_parts: IntArray,
    max_iterations: int,
) -> IntArray:
    """Lloyd's iterations from members at even distances, in the order of the points."""
    most = int(num_parts.max())
    slot = np.arange(most)
    share = (2 * slot + 1) / (2 * num_parts[:, None])
    member = starts[:, None] + np.minimum(
        (share * sizes[:, None]).astype(np.int64), sizes[:, None] - 1
    )
    centers = vectors[member.ravel()]  # [nodes * most, D]
    part = np.full(len(node), -1, np.int64)
    for _ in range(max_iterations):
        nearest = _nearest(vectors, node, centers, num_parts, most)
        if np.array_equal(nearest, part):
            break
        part = nearest
        key = node * most + part
        counts = np.bincount(key, minlength=len(centers))
        kept = counts > 0
        means = sums_by(vectors, key, len(centers))[kept] / counts[kept, None]
        # a centre that lost all its points stays where it is
        centers[kept] = means.astype(np.float32)
    return part


def _nearest(
    vectors: FloatArray, node: IntArray, centers: FloatArray, num_parts: IntArray, most: int
) -> IntArray:
    """Returns the nearest centre of each point's node, the first of equally near ones."""
    lengths = np.einsum("pd,pd->p", centers, centers)
    best = np.full(len(node), np.inf, np.float32)
    part = np.zeros(len(node), np.int64)
    for slot in range(most):
        points = np.flatnonzero(num_parts[node] > slot)
        center = node[points] * most + slot
        products = np.einsum("pd,pd->p", vectors[points], centers[center])
        distance = lengths[center] - 2 * products
        nearer = distance < best[points]
        best[points[nearer]] = distance[nearer]
        part[points[nearer]] = slot
    return part


def sums_by(values: FloatArray, key: IntArray, num_keys: int) -> NDArray[np.float64]:
    """Returns the sum of the rows of each key, [num_keys, D], added up in the order of the rows."""
    columns = [np.bincount(key, column, num_keys) for column in values.T]
    return np.stack(columns, axis=1) if columns else np.zeros((num_keys, 0))


def _compact(labels: IntArray) -> IntArray:
    """Numbers the labels from 0 without gaps, in their order."""
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
