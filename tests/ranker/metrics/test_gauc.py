from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ranker.metrics.auc import auc
from ranker.metrics.gauc import gauc, group_aucs

Array = NDArray[Any]


def by_loop(
    scores: Array, labels: Array, groups: Array, weights: Array
) -> tuple[float, float, float]:
    """The definition, one scikit-learn call per group."""
    found = []
    for group in np.unique(groups):
        rows = (groups == group) & (weights > 0)
        label = labels[rows]
        if rows.any() and 0 < label.sum() < len(label):
            value = roc_auc_score(label, scores[rows], sample_weight=weights[rows])
            found.append((value, weights[rows].sum(), (weights[rows] * label).sum()))
    values, impressions, positives = np.array(found).T
    return (
        np.average(values, weights=impressions),
        values.mean(),
        np.average(values, weights=positives),
    )


def sample(
    seed: int, *, size: int = 4000, num_groups: int = 300, decimals: int = 1
) -> tuple[Array, Array, Array, Array]:
    generator = np.random.default_rng(seed)
    labels = generator.random(size) < 0.1
    scores = np.round(generator.normal(size=size) + labels - 2, decimals)
    groups = (num_groups * generator.random(size) ** 3).astype(np.int64)
    return scores, labels, groups, generator.gamma(1.0, size=size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_equals_a_loop_over_scikit_learn(
    dtype: type[np.generic], weighted: bool, decimals: int
) -> None:
    scores, labels, groups, weights = sample(1, decimals=decimals)
    scores = scores.astype(dtype)
    if not weighted:
        weights = np.ones(len(scores))
    found = gauc(scores, labels, groups, weights)
    expected = by_loop(scores, labels, groups, weights)
    assert [found.impressions.value, found.uniform.value, found.positive.value] == pytest.approx(
        expected, abs=1e-12
    )


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 5, 60]))
def test_small_samples_equal_the_auc_of_each_group(seed: int, num_groups: int) -> None:
    scores, labels, groups, _ = sample(seed, size=60, num_groups=num_groups, decimals=0)
    parts = group_aucs(scores, labels, groups)
    for group, value in zip(parts.groups, parts.aucs(), strict=True):
        expected = auc(scores[groups == group], labels[groups == group]).value
        assert value == pytest.approx(np.nan if expected is None else expected, nan_ok=True)


def test_one_group_is_plain_auc() -> None:
    scores, labels, _, weights = sample(2)
    one = np.full(len(scores), 12)
    assert gauc(scores, labels, one).impressions.value == auc(scores, labels).value
    assert gauc(scores, labels, one, weights).impressions.value == pytest.approx(
        auc(scores, labels, weights).value, abs=1e-12
    )


def test_row_order_and_group_names_do_not_matter() -> None:
    scores, labels, groups, _ = sample(3)
    order = np.random.default_rng(0).permutation(len(scores))
    # hashes far apart take the ranked path of the group codes
    names = np.random.default_rng(1).integers(-(2**62), 2**62, size=300)
    found = gauc(scores[order], labels[order], names[groups][order])
    expected = gauc(scores, labels, groups)
    assert found.impressions.value == pytest.approx(expected.impressions.value, abs=1e-14)
    assert found.num_groups == expected.num_groups
    assert found.skipped_groups_fraction == expected.skipped_groups_fraction


def test_a_perfect_ranker_scores_one_and_skips_one_class_groups() -> None:
    # torchrec counts the second and the third group as 0.5
    found = gauc([0.1, 0.9, 0.3, 0.4, 0.7], [0, 1, 0, 0, 1], [1, 1, 2, 2, 3])
    assert found.impressions.value == 1.0
    assert found.num_groups == 3
    assert found.skipped_groups_fraction == pytest.approx(2 / 3)
    assert found.skipped_rows_fraction == pytest.approx(3 / 5)


def test_constant_scores_are_a_half() -> None:
    _, labels, groups, _ = sample(4)
    assert gauc(np.zeros(len(labels)), labels, groups).impressions.value == 0.5


def test_no_usable_group_is_undefined() -> None:
    found = gauc([0.1, 0.2, 0.3], [0, 0, 1], [1, 1, 2])
    assert found.impressions.value is None
    assert found.impressions.reason == "none of 2 groups has both classes"
    assert found.skipped_rows_fraction == 1.0
    assert (
        gauc([], [], np.empty(0, dtype=int)).uniform.reason == "none of 0 groups has both classes"
    )


def test_a_huge_group_does_not_blur_a_small_one() -> None:
    # the weighted path takes differences of a running sum over all groups
    generator = np.random.default_rng(5)
    scores = np.append(generator.normal(size=10_000), [0.1, 0.2, 0.15, 0.3])
    labels = np.append(generator.random(10_000) < 0.5, [False, True, True, False])
    groups = np.append(np.zeros(10_000, dtype=int), np.ones(4, dtype=int))
    weights = np.append(generator.gamma(1.0, size=10_000) * 1e9, [0.3, 0.7, 0.9, 0.2])
    small = group_aucs(scores, labels, groups, weights).aucs()[1]
    assert small == pytest.approx(0.3 / 0.5, abs=1e-6)
