import numpy as np
import pytest

from ranker.metrics.rows import check_rows


def test_keeps_float32_and_widens_the_rest() -> None:
    assert check_rows(np.zeros(2, dtype=np.float32), [0, 1]).scores.dtype == np.float32
    for dtype in (np.float16, np.float64, np.int32, np.bool_):
        assert check_rows(np.zeros(2, dtype=dtype), [0, 1]).scores.dtype == np.float64


def test_equal_weights_are_no_weights() -> None:
    assert check_rows([0.1, 0.2], [0, 1], [3.0, 3.0]).weights is None
    assert check_rows([0.1, 0.2, 0.3], [0, 1, 1], [3.0, 3.0, 0.0]).weights is None
    assert check_rows([0.1, 0.2], [0, 1], [3.0, 2.0]).weights is not None


def test_rows_of_weight_zero_leave_every_column() -> None:
    rows = check_rows([0.1, 0.2, 0.3], [0, 1, 1], [1.0, 0.0, 2.0], [7, 8, 9])
    assert rows.scores.tolist() == [0.1, 0.3]
    assert rows.labels.tolist() == [False, True]
    assert rows.weights is not None
    assert rows.groups is not None
    assert rows.weights.tolist() == [1.0, 2.0]
    assert rows.groups.tolist() == [7, 9]
    assert (rows.count, rows.positives) == (2, 1)


@pytest.mark.parametrize(
    ("scores", "labels", "weights", "groups", "message"),
    [
        ([0.1, np.nan], [0, 1], None, None, r"scores\[1\] is nan; every score must be finite"),
        ([np.inf, 0.2], [0, 1], None, None, r"scores\[0\] is inf"),
        ([0.1, 0.2], [0.0, np.nan], None, None, r"labels\[1\] is nan; a label must be 0 or 1"),
        ([0.1, 0.2], [2, 1], None, None, r"labels\[0\] is 2;"),
        ([0.1, 0.2], [0, 1], [1.0, -1.0], None, r"weights\[1\] is -1.0; .* not negative"),
        ([0.1, 0.2], [0, 1], [np.nan, 1.0], None, r"weights\[0\] is nan"),
        ([0.1, 0.2], [0, 1, 1], None, None, "labels has 3 rows but scores has 2"),
        ([0.1, 0.2], [0, 1], [1.0], None, "weights has 1 rows but scores has 2"),
        ([0.1, 0.2], [0, 1], None, [1.5, 2.5], "groups has dtype float64; ids must be integers"),
        ([[0.1], [0.2]], [0, 1], None, None, r"scores has shape \(2, 1\)"),
        (["a", "b"], [0, 1], None, None, "scores must be real numbers"),
    ],
)
def test_names_the_row_and_the_rule(
    scores: list[float],
    labels: list[float],
    weights: list[float] | None,
    groups: list[float] | None,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        check_rows(scores, labels, weights, groups)
