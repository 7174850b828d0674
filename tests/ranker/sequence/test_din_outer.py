from collections.abc import Callable

import pytest
import torch

from ranker.sequence.din_outer import DINOuter
from ranker.slots import SequenceInputs

WINDOWS = [[0, 5], [2, 3], [6, 6], [4, 14], [0, 5]]


def build(activation: str) -> DINOuter:
    torch.manual_seed(1)
    encoder = DINOuter(
        query_dim=4,
        cross_dim=3,
        hidden_units=[6, 5],
        activation=activation,  # type: ignore[arg-type]
        cross="none",
        max_length=8,
    ).double()
    torch.nn.init.normal_(encoder.bias)
    return encoder


@pytest.mark.parametrize("activation", ["prelu", "dice", "sigmoid"])
def test_scores_read_both_vectors_and_their_outer_product(
    make_inputs: Callable[..., SequenceInputs], activation: str
) -> None:
    inputs, encoder = make_inputs(WINDOWS), build(activation).train()
    found = encoder(inputs)
    weight = torch.cat(
        [encoder.of_query, encoder.of_behavior, encoder.of_product.flatten(1)], dim=1
    )
    pairs = [
        (c, j) for c, (begin, end) in enumerate(WINDOWS) for j in range(max(begin, end - 8), end)
    ]
    features = torch.stack(
        [
            torch.cat([q, k, torch.outer(q, k).flatten()])
            for q, k in ((inputs.query[c], inputs.behaviors[j]) for c, j in pairs)
        ]
    )
    # dice sees the valid pairs of the batch and no padding
    scores = encoder.rest(features @ weight.T + encoder.bias).squeeze(1)
    expected = torch.zeros(len(WINDOWS), 4, dtype=torch.float64)
    for (c, j), score in zip(pairs, scores, strict=True):
        expected[c] += score * inputs.behaviors[j].detach()
    torch.testing.assert_close(found, expected)


def test_without_any_history_all_parameters_have_gradients(
    make_inputs: Callable[..., SequenceInputs],
) -> None:
    encoder = build("dice").train()
    output = encoder(make_inputs([[0, 0], [3, 3]]))
    assert output.abs().max() == 0
    output.sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name


def test_the_unit_has_layers() -> None:
    with pytest.raises(ValueError, match="din_outer hidden_units is empty"):
        DINOuter(query_dim=4, cross_dim=0, hidden_units=[])
