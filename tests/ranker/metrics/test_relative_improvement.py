import pytest

from ranker.metrics.relative_improvement import relative_improvement


def test_counts_from_a_half() -> None:
    assert relative_improvement(0.62, 0.60) == pytest.approx(0.2)
    assert relative_improvement(0.60, 0.60) == 0.0
    assert relative_improvement(0.45, 0.60) == pytest.approx(-1.5)


def test_a_random_baseline_has_no_improvement() -> None:
    assert relative_improvement(0.6, 0.5) is None
    assert relative_improvement(0.6, 0.4) is None
