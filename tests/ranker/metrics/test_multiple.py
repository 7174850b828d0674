import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.metrics.multiple import holm


def test_steps_down() -> None:
    # by hand: 3 x 0.01, 2 x 0.02, and 0.9
    assert holm([0.9, 0.01, None, 0.02]) == [0.9, 0.03, None, 0.04]
    # a later one is never smaller than an earlier one
    assert holm([0.02, 0.021]) == pytest.approx([0.04, 0.04])
    assert holm([]) == []
    assert holm([0.3]) == [0.3]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_rejects_what_the_definition_rejects(values: list[float]) -> None:
    adjusted = np.array(holm(values), dtype=float)
    for alpha in (0.01, 0.05, 0.2):
        order, rejected = np.argsort(values, kind="stable"), np.zeros(len(values), dtype=bool)
        for rank, place in enumerate(order):
            if values[place] * (len(values) - rank) > alpha:
                break
            rejected[place] = True
        np.testing.assert_array_equal(adjusted <= alpha, rejected)


def test_false_claims_are_rare_among_many() -> None:
    generator = np.random.default_rng(0)
    drawn = generator.random((4000, 5))
    claims = np.mean([min(p for p in holm(row) if p is not None) < 0.05 for row in drawn.tolist()])
    assert 0.035 < claims < 0.055
    # what five uncorrected tests would claim
    assert np.mean(drawn.min(axis=1) < 0.05) > 0.2
