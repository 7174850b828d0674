import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker_data.clustering.hierarchy import cluster_groups


def draw(
    seed: int, groups: list[int], dim: int = 3, distinct: int = 40
) -> tuple[
    np.ndarray[tuple[int, int], np.dtype[np.float32]],
    np.ndarray[tuple[int], np.dtype[np.int64]],
]:
    generator = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(groups)), groups)
    table = generator.normal(size=(distinct, dim)).astype(np.float32)
    return table[generator.integers(distinct, size=len(group))], group


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 99),
    st.lists(st.integers(0, 70), min_size=1, max_size=5),
    st.integers(1, 9),
    st.sampled_from([1, 3, 40]),
)
def test_clusters_partition_each_group_and_are_small(
    seed: int, groups: list[int], max_size: int, distinct: int
) -> None:
    vectors, group = draw(seed, groups, distinct=distinct)
    cluster = cluster_groups(vectors, group, max_size=max_size)
    assert len(cluster) == len(group)
    sizes = np.bincount(cluster)
    assert (sizes > 0).all()
    assert not len(sizes) or sizes.max() <= max_size
    owners = {(int(c), int(g)) for c, g in zip(cluster, group, strict=True)}
    assert len(owners) == len(sizes)


def test_a_group_does_not_depend_on_the_others() -> None:
    vectors, group = draw(7, [120, 33, 200, 5])
    together = cluster_groups(vectors, group, max_size=6)
    for g in range(4):
        alone = cluster_groups(vectors[group == g], group[group == g], max_size=6)
        own = together[group == g]
        assert np.array_equal(alone, own - own.min())


def test_far_clumps_are_never_mixed() -> None:
    generator = np.random.default_rng(3)
    clump = np.tile(np.arange(4), 25)
    vectors = 100.0 * np.eye(4)[clump] + generator.normal(size=(100, 4))
    cluster = cluster_groups(vectors.astype(np.float32), np.zeros(100, np.int64), max_size=30)
    for c in range(cluster.max() + 1):
        assert len(set(clump[cluster == c])) == 1


def test_identical_vectors_are_cut_into_runs() -> None:
    cluster = cluster_groups(np.ones((50, 2), np.float32), np.zeros(50, np.int64), max_size=20)
    assert np.array_equal(cluster, np.arange(50) // 20)


@pytest.mark.parametrize("max_size", [1, 5])
def test_no_point_at_all(max_size: int) -> None:
    empty = cluster_groups(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), max_size=max_size)
    assert empty.shape == (0,)
