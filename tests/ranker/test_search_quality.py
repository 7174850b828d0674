import numpy as np
import pytest
import torch

from ranker.search_quality import clustered_interval, count_common


def test_common_positions_are_counted_row_by_row() -> None:
    first = torch.tensor([[1, 4, 7], [0, 2, -1], [-1, -1, -1], [3, 5, 6]])
    second = torch.tensor([[4, 7, 9], [2, 3, -1], [-1, -1, -1], [0, 1, 2]])
    assert count_common(first, second).tolist() == [2, 1, 0, 0]
    assert count_common(first[:0], second[:0]).tolist() == []


def test_the_interval_follows_the_users_and_not_their_rows() -> None:
    values = np.array([0.2, 0.4, 0.9, 0.8])
    single = clustered_interval(values, np.arange(4))
    mean, error = values.mean(), values.std(ddof=1) / 2
    assert single == pytest.approx([mean - 1.959964 * error, min(1.0, mean + 1.959964 * error)])
    copies = clustered_interval(values.repeat(50), np.arange(4).repeat(50))
    assert copies == pytest.approx(single)
    assert clustered_interval(values, np.zeros(4, np.int64)) is None
