"""Inputs of sequence encoders."""

from collections.abc import Callable

import pytest
import torch

from ranker.slots import SearchInputs, SequenceInputs
from ranker_kernels.search_topk import DistinctRows

MakeInputs = Callable[..., SequenceInputs]


@pytest.fixture
def make_inputs() -> MakeInputs:
    """Returns inputs in double, with D = 4, X = 3 and 14 behaviours."""

    def make(windows: list[list[int]]) -> SequenceInputs:
        generator = torch.Generator().manual_seed(3)
        count = len(windows)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        behaviors, cross = draw(14, 4).requires_grad_(), draw(14, 3)
        return SequenceInputs(
            query=draw(count, 4).requires_grad_(),
            behaviors=behaviors,
            cross=cross,
            windows=torch.tensor(windows, dtype=torch.int64).reshape(-1, 2),
            user_of=torch.arange(count),
            behavior_time=torch.arange(14) ** 3,
            time=3000 + 7 * torch.arange(count),
            weights=torch.ones(count),
        )

    return make


@pytest.fixture
def search_inputs() -> Callable[[SequenceInputs], SearchInputs]:
    """Returns what a search sees of the inputs of an attention."""

    def convert(inputs: SequenceInputs) -> SearchInputs:
        return SearchInputs(
            query=inputs.query.detach(),
            behaviors=DistinctRows((inputs.behaviors.detach(),), (None,)),
            cross=DistinctRows((inputs.cross.detach(),), (None,)),
            windows=inputs.windows,
            user_of=inputs.user_of,
            behavior_time=inputs.behavior_time,
            time=inputs.time,
            log_size=inputs.log_size,
        )

    return convert


@pytest.fixture
def encode(
    search_inputs: Callable[[SequenceInputs], SearchInputs],
) -> Callable[..., torch.Tensor]:
    """Returns the output of an encoder with a search, or without one."""

    def run(encoder: Callable[..., torch.Tensor], inputs: SequenceInputs) -> torch.Tensor:
        if not hasattr(encoder, "search"):
            return encoder(inputs)
        return encoder(inputs, encoder.search(search_inputs(inputs)))

    return run
