import tracemalloc
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ranker.metrics.auc import BLOCK, auc, auc_of_runs
from ranker.metrics.runs import score_runs

Array = NDArray[Any]


def brute_force(scores: Array, labels: Array, weights: Array | None = None) -> float:
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights)
    wins = pairs = 0.0
    for i in np.flatnonzero(labels):
        for j in np.flatnonzero(~np.asarray(labels, dtype=bool)):
            pair = weights[i] * weights[j]
            wins += pair * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
            pairs += pair
    return wins / pairs


ScoredRows = tuple[Array, Array]


@st.composite
def scored_rows(draw: st.DrawFn) -> ScoredRows:
    """Few distinct scores, so that ties are the rule; both signs and both zeros."""
    size = draw(st.integers(2, 40))
    value = st.sampled_from([-3.5, -1.0, -1e-30, -0.0, 0.0, 1e-30, 0.25, 1.0, 7.0])
    scores = draw(st.lists(value, min_size=size, max_size=size))
    labels = draw(
        st.lists(st.booleans(), min_size=size, max_size=size).filter(lambda y: 0 < sum(y) < len(y))
    )
    return np.array(scores), np.array(labels)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("decimals", [1, 3, 9])
@pytest.mark.parametrize("rate", [0.02, 0.5, 0.97])
@pytest.mark.parametrize("shift", [-3.0, 0.0, 30.0])
def test_equals_scikit_learn(
    dtype: type[np.generic], decimals: int, rate: float, shift: float
) -> None:
    generator = np.random.default_rng(0)
    labels = generator.random(3000) < rate
    noise = generator.normal(size=3000)
    scores = np.round(noise + labels + shift, decimals).astype(dtype)
    weights = generator.gamma(1.0, size=3000) * (generator.random(3000) < 0.9)
    assert auc(scores, labels).value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert auc(scores, labels, weights).value == pytest.approx(
        roc_auc_score(labels, scores, sample_weight=weights), abs=1e-12
    )


@given(scored_rows())
def test_equals_all_pairs(rows: ScoredRows) -> None:
    scores, labels = rows
    expected = brute_force(scores, labels)
    assert auc(scores, labels).value == pytest.approx(expected, abs=1e-14)
    assert auc(scores.astype(np.float32), labels).value == pytest.approx(expected, abs=1e-14)
    assert auc_of_runs(score_runs(scores, labels)) == pytest.approx(expected, abs=1e-14)


@given(scored_rows(), st.integers(1, 9))
def test_the_size_of_the_blocks_never_matters(rows: ScoredRows, block: int) -> None:
    scores, labels = rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ranker.metrics.auc.BLOCK", block)
        found = auc(scores.astype(np.float32), labels).value
    assert found == auc(scores.astype(np.float32), labels).value


def test_needs_little_memory_besides_its_rows() -> None:
    rows = 4_000_000
    generator = np.random.default_rng(0)
    scores, labels = generator.normal(size=rows).astype(np.float32), generator.random(rows) < 0.1
    tracemalloc.start()
    auc(scores, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # one key a row, and blocks of a size that does not grow
    assert peak < 4 * rows + 32 * BLOCK


@given(scored_rows(), st.randoms())
def test_row_order_never_matters(rows: ScoredRows, random: Random) -> None:
    scores, labels = rows
    order = list(range(len(scores)))
    random.shuffle(order)
    for dtype in (np.float32, np.float64):
        column = scores.astype(dtype)
        assert auc(column, labels).value == auc(column[order], labels[order]).value


@given(scored_rows())
def test_flipping_labels_or_scores_mirrors(rows: ScoredRows) -> None:
    scores, labels = rows
    value = float(auc(scores, labels))
    assert auc(scores, ~labels).value == pytest.approx(1 - value, abs=1e-15)
    assert auc(-scores, labels).value == pytest.approx(1 - value, abs=1e-15)


@given(scored_rows())
def test_monotone_transform_changes_nothing(rows: ScoredRows) -> None:
    scores, labels = rows
    # ranks keep order and ties whatever the scores are
    ranks = np.unique(scores, return_inverse=True)[1]
    assert auc(scores, labels).value == auc(ranks * 3 - 7, labels).value


@given(scored_rows(), st.data())
def test_integer_weights_are_copies(rows: ScoredRows, data: st.DataObject) -> None:
    scores, labels = rows
    size = len(scores)
    counts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)))
    copies = auc(np.repeat(scores, counts), np.repeat(labels, counts))
    weighted = auc(scores, labels, counts)
    if copies.value is None:
        assert weighted.value is None
    else:
        assert weighted.value == pytest.approx(copies.value, abs=1e-14)


def test_constant_scores_are_a_half_in_any_order() -> None:
    labels = np.arange(1000) < 300
    for column in (labels, labels[::-1]):
        assert auc(np.full(1000, 0.3, dtype=np.float32), column).value == 0.5
        assert auc(np.full(1000, -0.3), column).value == 0.5


def test_all_keys_of_float32_keep_their_order() -> None:
    extremes = np.array([-3.4e38, -1.0, -1e-45, 0.0, 1e-45, 1.0, 3.4e38], dtype=np.float32)
    for cut in range(1, len(extremes)):
        assert auc(extremes, np.arange(len(extremes)) >= cut).value == 1.0


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([], "no rows"),
        ([0, 0, 0], "no positives in 3 rows"),
        ([1, 1], "no negatives in 2 rows"),
    ],
)
def test_one_class_is_undefined(labels: list[int], reason: str) -> None:
    value = auc(np.arange(len(labels), dtype=np.float32), labels)
    assert (value.value, value.reason) == (None, reason)
    assert value.rows == len(labels)


def test_rows_of_weight_zero_are_not_there() -> None:
    value = auc([0.1, 0.9, 0.5], [0, 1, 1], [1.0, 1.0, 0.0])
    assert (value.value, value.rows, value.positives) == (1.0, 2, 1)
    undefined = auc([0.1, 0.9], [0, 1], [1.0, 0.0])
    assert undefined.reason == "no positives in 1 rows"
    assert auc([0.1, 0.9], [0, 1], [0.0, 0.0]).reason == "no rows"
