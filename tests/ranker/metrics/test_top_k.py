from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import ndcg_score

from ranker.metrics.evaluation import EvaluationRows
from ranker.metrics.top_k import (
    HitRate,
    MeanReciprocalRank,
    Ndcg,
    hit_rate,
    mean_reciprocal_rank,
    ndcg,
)

Array = NDArray[Any]


def sample(seed: int, *, size: int = 600, levels: int = 4) -> tuple[Array, Array, Array]:
    """Requests of about 10 rows with scores on few levels, so that ties are common."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(-levels, levels, size=size).astype(np.float64)
    return scores, generator.random(size) < 0.2, generator.integers(-30, 30, size=size) * 10**9


def requests_with_a_positive(
    scores: Array, labels: Array, requests: Array
) -> list[tuple[Array, Array]]:
    masks = [requests == request for request in np.unique(requests)]
    return [(scores[mask], labels[mask]) for mask in masks if labels[mask].any()]


@pytest.mark.parametrize("k", [1, 3, 10, 100])
@pytest.mark.parametrize("levels", [1, 4, 1000])
def test_ndcg_equals_scikit_learn(k: int, levels: int) -> None:
    rows = sample(0, levels=levels)
    expected = [
        # scikit-learn refuses one document
        1.0 if len(score) == 1 else ndcg_score([label], [score], k=k)
        for score, label in requests_with_a_positive(*rows)
    ]
    assert ndcg(*rows, k=k).value == pytest.approx(np.mean(expected), abs=1e-12)


def brute_force(rows: tuple[Array, Array, Array], k: int) -> tuple[float, float]:
    """Hit rate and reciprocal rank over every order that breaks the ties."""
    hits, reciprocals = [], []
    for score, label in requests_with_a_positive(*rows):
        orders = [
            order
            for order in permutations(range(len(score)))
            if all(score[a] >= score[b] for a, b in pairwise(order))
        ]
        ranked = np.array([label[list(order)] for order in orders])
        hits.append(ranked[:, :k].any(axis=1).mean())
        reciprocals.append((1 / (ranked.argmax(axis=1) + 1)).mean())
    return float(np.mean(hits)), float(np.mean(reciprocals))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_ties_are_averaged_over_all_orders(seed: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    requests = np.repeat([1, 2, 3], [5, 4, 1])
    scores = generator.integers(0, 2, size=10).astype(np.float32)
    labels = generator.random(10) < 0.4
    if not labels.any():
        assert hit_rate(scores, labels, requests, k=k).value is None
        return
    hits, reciprocal = brute_force((scores, labels, requests), k)
    assert hit_rate(scores, labels, requests, k=k).value == pytest.approx(hits, abs=1e-12)
    found = mean_reciprocal_rank(scores, labels, requests).value
    assert found == pytest.approx(reciprocal, abs=1e-12)


def test_row_order_does_not_matter() -> None:
    scores, labels, requests = sample(1)
    order = np.random.default_rng(0).permutation(len(scores))
    shuffled = scores[order], labels[order], requests[order]
    for metric in (ndcg, hit_rate):
        expected = metric(scores, labels, requests, k=3).value
        assert metric(*shuffled, k=3).value == pytest.approx(expected, abs=1e-12)


def test_without_ties() -> None:
    scores, labels, requests = [0.9, 0.8, 0.1, 0.5, 0.4], [0, 1, 0, 0, 1], [7, 7, 7, 8, 8]
    assert mean_reciprocal_rank(scores, labels, requests).value == 0.5
    assert hit_rate(scores, labels, requests, k=1).value == 0.0
    assert hit_rate(scores, labels, requests, k=2).value == 1.0
    assert ndcg(scores, labels, requests, k=2).value == pytest.approx(1 / np.log2(3))


def test_metrics_of_an_evaluation() -> None:
    scores, labels, requests = sample(2)
    rows = EvaluationRows(
        labels=labels,
        logits=scores,
        probabilities=scores,
        weights=None,
        users=requests,
        groups=np.zeros_like(requests),
        requests=requests,
        truth=None,
    )
    assert Ndcg(k=5)(rows) == ndcg(scores, labels, requests, k=5)
    assert HitRate(k=5)(rows) == hit_rate(scores, labels, requests, k=5)
    assert MeanReciprocalRank()(rows) == mean_reciprocal_rank(scores, labels, requests)


def test_undefined_and_refused() -> None:
    none = np.empty(0, dtype=np.int64)
    assert ndcg([], [], none, k=3).reason == "no rows"
    assert hit_rate([0.1, 0.2], [0, 0], [1, 1], k=3).reason == "no positives in 2 rows"
    assert mean_reciprocal_rank([0.1], [0], [1]).reason == "no positives in 1 rows"
    for build in (Ndcg, HitRate):
        with pytest.raises(ValueError, match="k is 0"):
            build(k=0)
    with pytest.raises(ValueError, match="k is -1"):
        ndcg([0.1], [1], [1], k=-1)
