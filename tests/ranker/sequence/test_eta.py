from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ranker.sequence.eta import ETA
from ranker.slots import SearchInputs, SequenceInputs


def make_inputs(behaviors: torch.Tensor, query: torch.Tensor) -> SequenceInputs:
    count = len(behaviors)
    return SequenceInputs(
        query=query,
        behaviors=behaviors,
        cross=torch.zeros(count, 0),
        windows=torch.tensor([[0, count]]).repeat(len(query), 1),
        user_of=torch.arange(len(query)),
        behavior_time=torch.arange(count),
        time=torch.full((len(query),), 99),
    )


def test_the_search_takes_the_smallest_hamming_distances_and_then_the_latest(
    search_inputs: Callable[..., SearchInputs],
) -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = make_inputs(
        torch.randn(60, 8, generator=generator), torch.randn(4, 8, generator=generator)
    )
    encoder = ETA(query_dim=8, cross_dim=0, output_dim=4, k=7, num_bits=10)
    index = encoder.search(search_inputs(inputs))
    bits = inputs.behaviors @ encoder.directions >= 0
    for candidate in range(4):
        own = inputs.query[candidate] @ encoder.directions >= 0
        distance = (bits != own).sum(1).tolist()
        nearest = sorted(range(60), key=lambda j: (distance[j], -j))[:7]
        assert index[candidate].tolist() == sorted(nearest)


def test_parallel_embeddings_are_nearest_and_opposite_ones_farthest(
    search_inputs: Callable[..., SearchInputs],
) -> None:
    query = torch.randn(1, 8, generator=torch.Generator().manual_seed(2))
    behaviors = torch.cat([-query, 3 * query, torch.zeros(1, 8)])
    encoder = ETA(query_dim=8, cross_dim=0, output_dim=4, k=1)
    assert encoder.search(search_inputs(make_inputs(behaviors, query))).tolist() == [[1]]


def test_directions_are_part_of_the_state_and_follow_the_seed() -> None:
    first, again, other = (
        ETA(query_dim=8, cross_dim=0, output_dim=4, hash_seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first.state_dict()["directions"], again.directions)
    assert not torch.equal(first.directions, other.directions)


def test_no_behavior_at_all_gives_zeros(encode: Callable[..., Tensor]) -> None:
    inputs = make_inputs(torch.zeros(0, 8), torch.randn(2, 8))
    output = encode(ETA(query_dim=8, cross_dim=0, output_dim=4), inputs)
    assert output.shape == (2, 4)
    assert output.abs().max() == 0


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="num_bits is 0"):
        ETA(query_dim=8, cross_dim=0, output_dim=4, num_bits=0)
