import dataclasses
from collections.abc import Callable

import pytest
import torch

from ranker.sequence.sim_hard import SIMHard
from ranker.slots import SearchInputs, SequenceInputs

WINDOWS = [[0, 30], [3, 27], [30, 50], [50, 50], [0, 50]]


def make_inputs(convert: Callable[..., SearchInputs]) -> SearchInputs:
    generator = torch.Generator().manual_seed(1)
    count = len(WINDOWS)
    inputs = SequenceInputs(
        query=torch.randn(count, 8, generator=generator),
        behaviors=torch.randn(50, 8, generator=generator),
        cross=torch.zeros(50, 0),
        windows=torch.tensor(WINDOWS),
        user_of=torch.arange(count),
        behavior_time=torch.arange(50),
        time=torch.full((count,), 99),
    )
    return dataclasses.replace(
        convert(inputs),
        query_ids={"category": torch.tensor([2, 1, 3, 1, 0])},
        behavior_ids={"category": torch.randint(4, (50,), generator=generator)},
    )


@pytest.mark.parametrize("k", [1, 4, 40])
def test_the_search_takes_the_latest_of_the_candidates_category(
    k: int, search_inputs: Callable[..., SearchInputs]
) -> None:
    inputs = make_inputs(search_inputs)
    index = SIMHard(query_dim=8, cross_dim=0, output_dim=4, k=k).search(inputs)
    categories = inputs.behavior_ids["category"].tolist()
    wanted = inputs.query_ids["category"].tolist()
    for row, (begin, end), category in zip(index.tolist(), WINDOWS, wanted, strict=True):
        same = [j for j in range(begin, end) if category and categories[j] == category][-k:]
        assert row == same + [-1] * (k - len(same))


def test_no_behavior_at_all_selects_none(search_inputs: Callable[..., SearchInputs]) -> None:
    inputs = make_inputs(search_inputs)
    empty = dataclasses.replace(
        inputs,
        behavior_ids={"category": torch.zeros(0, dtype=torch.int64)},
        windows=torch.zeros(5, 2, dtype=torch.int64),
    )
    encoder = SIMHard(query_dim=8, cross_dim=0, output_dim=4, k=3)
    assert (encoder.search(empty) == -1).all()


def test_an_unknown_category_field_is_named(search_inputs: Callable[..., SearchInputs]) -> None:
    encoder = SIMHard(query_dim=8, cross_dim=0, output_dim=4, category="brand")
    with pytest.raises(
        ValueError, match=r"category is 'brand'; it must be an id field .*: category"
    ):
        encoder.search(make_inputs(search_inputs))
