import numpy as np
import pytest

from ranker.report.pareto import pareto_front


@pytest.mark.parametrize("more", [(True, True), (True, False), (False, False)])
def test_equals_brute_force(more: tuple[bool, bool]) -> None:
    generator = np.random.default_rng(0)
    points = [tuple(pair) for pair in generator.integers(0, 8, size=(40, 2)).tolist()]
    signs = [1 if better else -1 for better in more]

    def beats(one: tuple[int, int], other: tuple[int, int]) -> bool:
        gains = [s * (a - b) for s, a, b in zip(signs, one, other, strict=True)]
        return min(gains) >= 0 and max(gains) > 0

    expected = {i for i, p in enumerate(points) if not any(beats(q, p) for q in points)}
    assert set(pareto_front(points, more)) == expected


def test_ordered_by_the_first_metric() -> None:
    assert pareto_front([(1, 3), (3, 1), (2, 2), (1, 1)], (True, True)) == [1, 2, 0]
    assert pareto_front([], (True, True)) == []
