import math

import pytest
from scipy import stats

from ranker.metrics.student_t import student_t_quantile, student_t_tail


@pytest.mark.parametrize("freedom", [1, 2, 2.7, 5, 30, 400, math.inf])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.96, 6.0])
def test_tail_equals_scipy(freedom: float, value: float) -> None:
    expected = stats.norm.sf(value) if math.isinf(freedom) else stats.t.sf(value, freedom)
    assert student_t_tail(value, freedom) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("freedom", [1, 2, 4.4, 40])
@pytest.mark.parametrize("probability", [0.6, 0.975, 0.995])
def test_quantile_equals_scipy(freedom: float, probability: float) -> None:
    expected = stats.t.ppf(probability, freedom)
    assert student_t_quantile(probability, freedom) == pytest.approx(expected, rel=1e-5)
