"""DIN with the place of a behaviour and the time since it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ranker.sequence.din import DIN
from ranker.slots import SequenceInputs

MakeInputs = Callable[[list[list[int]]], SequenceInputs]
# two candidates of one request, another request on the same window, an empty history
WINDOWS = [[0, 9], [0, 9], [0, 9], [4, 14], [14, 14]]


def build(*, max_positions: int, time_buckets: int) -> DIN:
    torch.manual_seed(0)
    encoder = DIN(
        query_dim=4,
        cross_dim=3,
        hidden_units=[6],
        cross="none",
        max_length=7,
        max_positions=max_positions,
        time_buckets=time_buckets,
    ).double()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.5)
    return encoder.eval()


def see(encoder: DIN, inputs: SequenceInputs, row: int) -> Tensor:
    """Returns the behaviours [L, D] as one impression sees them, by the definition."""
    state = encoder.state_dict()
    begin, end = inputs.windows[row].tolist()
    seen = []
    for j in range(max(begin, end - 7), end):
        vector = inputs.behaviors[j].detach()
        if encoder.recent is not None and encoder.recent.recency.positions is not None:
            vector = vector + state["recent.recency.positions.weight"][min(end - 1 - j, 2)]
        if encoder.recent is not None and encoder.recent.recency.gaps is not None:
            gap = int(inputs.time[row] - inputs.behavior_time[j])
            # bucket k holds gaps in [2^k - 1, 2^(k+1) - 1)
            bucket = max(k for k in range(9) if 2**k - 1 <= gap)
            vector = vector + state["recent.recency.gaps.weight"][bucket]
        seen.append(vector)
    return torch.stack(seen) if seen else inputs.behaviors[:0].detach()


def activate(encoder: DIN, query: Tensor, seen: Tensor) -> Tensor:
    """Returns sum_j a(e_j, v_A) e_j."""
    pairs = [torch.cat([query, e, query - e, query * e]) for e in seen]
    total = torch.zeros(4, dtype=torch.float64)
    (first, second), (bias, last) = encoder.weights, encoder.biases
    for e, pair in zip(seen, pairs, strict=True):
        hidden = first @ pair + bias
        hidden = torch.where(hidden > 0, hidden, encoder.alphas[0] * hidden)
        total = total + (second @ hidden + last) * e
    return total


@pytest.mark.parametrize(("max_positions", "time_buckets"), [(3, 0), (0, 9), (3, 9)])
def test_each_impression_sees_places_and_ages_of_its_own(
    max_positions: int, time_buckets: int, make_inputs: MakeInputs
) -> None:
    inputs = make_inputs(WINDOWS)
    inputs.time[1] = inputs.time[0]
    encoder = build(max_positions=max_positions, time_buckets=time_buckets)
    found = encoder(inputs)
    for row in range(len(WINDOWS)):
        expected = activate(encoder, inputs.query[row], see(encoder, inputs, row))
        torch.testing.assert_close(found[row], expected)


def test_without_any_history_all_parameters_have_gradients(make_inputs: MakeInputs) -> None:
    inputs = make_inputs([[0, 0], [14, 14]])
    encoder = build(max_positions=3, time_buckets=9).train()
    output = encoder(inputs)
    assert output.abs().max() == 0
    output.sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
