from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ranker.sequence.sim_soft import SIMSoft
from ranker.slots import SearchInputs, SequenceInputs


def make_inputs() -> SequenceInputs:
    generator = torch.Generator().manual_seed(1)
    return SequenceInputs(
        query=torch.randn(3, 8, generator=generator),
        behaviors=torch.randn(50, 8, generator=generator, requires_grad=True),
        cross=torch.randn(50, 2, generator=generator),
        windows=torch.tensor([[0, 30], [30, 50], [50, 50]]),
        user_of=torch.arange(3),
        behavior_time=torch.arange(50),
        time=torch.full((3,), 99),
    )


def test_the_search_takes_the_largest_inner_products(
    search_inputs: Callable[..., SearchInputs],
) -> None:
    inputs = make_inputs()
    encoder = SIMSoft(query_dim=8, cross_dim=2, output_dim=4, k=6)
    index = encoder.search(search_inputs(inputs))
    products = inputs.behaviors @ inputs.query.T
    assert index[0].tolist() == sorted(products[:30, 0].topk(6).indices.tolist())
    assert index[1].tolist() == sorted((products[30:, 1].topk(6).indices + 30).tolist())
    assert index[2].tolist() == [-1] * 6


def test_it_attends_to_what_it_found(
    encode: Callable[..., Tensor], search_inputs: Callable[..., SearchInputs]
) -> None:
    inputs = make_inputs()
    encoder = SIMSoft(query_dim=8, cross_dim=2, output_dim=4, k=6)
    output = encode(encoder, inputs)
    assert output.shape == (3, 4)
    assert output[2].abs().max() == 0
    output.sum().backward()  # type: ignore[no-untyped-call]
    assert inputs.behaviors.grad is not None
    touched = inputs.behaviors.grad.abs().sum(1).nonzero()[:, 0].tolist()
    found = encoder.search(search_inputs(inputs))
    assert touched == sorted(found[found >= 0].tolist())


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="k is 0"):
        SIMSoft(query_dim=8, cross_dim=0, output_dim=4, k=0)
