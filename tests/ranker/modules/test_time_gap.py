import math

import pytest
import torch

from ranker.modules.time_gap import TimeGapBias
from ranker_kernels.search_topk import DistinctRows


def make_bias() -> TimeGapBias:
    bias = TimeGapBias(num_heads=2, num_frequencies=3, periods=(3600.0, 86_400.0 * 365))
    torch.nn.init.normal_(bias.weight, generator=torch.Generator().manual_seed(0))
    return bias


def test_the_inner_product_is_a_function_of_the_gap() -> None:
    bias = make_bias()
    start = 1_700_000_000
    gaps = torch.tensor([1, 60, 3600, 86_400, 10_000_000])
    time = torch.tensor([start, start + 5_000_000])
    (first, second) = (
        torch.einsum("hr,jr->jh", query, bias.keys(moment - gaps))
        for query, moment in zip(bias.query(time), time, strict=True)
    )
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)
    periods = torch.tensor([math.log(86_400.0 * 365), math.log(3600.0)], dtype=torch.float64)
    middle = periods.mean()
    frequencies = 2 * math.pi / torch.stack([periods[0], middle, periods[1]]).exp()
    angle = gaps.double().unsqueeze(1) * frequencies
    weight, other = bias.weight.detach().double()
    expected = angle.cos() @ weight.T + angle.sin() @ other.T
    torch.testing.assert_close(first.double(), expected, atol=1e-4, rtol=0)


def test_it_starts_without_an_effect() -> None:
    bias = TimeGapBias(num_heads=2, num_frequencies=3, periods=(1.0, 9.0))
    assert bias.num_columns == 6
    assert bias.query(torch.tensor([5])).abs().max() == 0


def test_keys_of_a_search_get_more_columns() -> None:
    keys = DistinctRows((torch.tensor([[1.0], [2.0]]),), (torch.tensor([0, 1, 1]),))
    bias = make_bias()
    time = torch.tensor([10, 20, 30])
    extended = bias.extend(keys, time)
    assert extended.width == 7
    assert torch.equal(
        extended.between(0, 3), torch.cat([torch.tensor([[1.0], [2.0], [2.0]]), bias.keys(time)], 1)
    )


@pytest.mark.parametrize("periods", [(0.0, 5.0), (5.0, 5.0), (1.0, math.inf)])
def test_periods_are_checked(periods: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="time_periods is"):
        TimeGapBias(num_heads=1, num_frequencies=1, periods=periods)
    with pytest.raises(ValueError, match="time_frequencies is -1"):
        TimeGapBias(num_heads=1, num_frequencies=-1, periods=(1.0, 2.0))
