"""What every encoder that walks over whole windows must keep."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

from ranker.sequence.bst import BST
from ranker.sequence.dien import DIEN
from ranker.sequence.gru import GRU
from ranker.sequence.hstu import HSTU
from ranker.sequence.pyramid_mixer import PyramidMixer
from ranker.slots import SequenceInputs

MakeInputs = Callable[[list[list[int]]], SequenceInputs]
WINDOWS = [[0, 5], [2, 3], [6, 6], [3, 14], [0, 5], [9, 14], [1, 9]]
ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "gru": lambda: GRU(query_dim=4, cross_dim=3, hidden_dim=5, max_length=7),
    "bst": lambda: BST(query_dim=4, cross_dim=3, max_positions=5, max_length=7),
    "hstu": lambda: HSTU(query_dim=4, cross_dim=3, max_positions=5, max_length=7),
    "mixer": lambda: PyramidMixer(query_dim=4, cross_dim=3, max_length=7),
    "dien": lambda: DIEN(query_dim=4, cross_dim=3, max_length=7),
}


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    built = ENCODERS[request.param]().double()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.5)
    return built


def rows(inputs: SequenceInputs, index: list[int]) -> SequenceInputs:
    chosen = {
        name: getattr(inputs, name)[index]
        for name in ("query", "windows", "user_of", "time", "weights")
    }
    return dataclasses.replace(inputs, **chosen)


def test_a_row_does_not_depend_on_its_batch(encoder: nn.Module, make_inputs: MakeInputs) -> None:
    inputs = make_inputs(WINDOWS)
    encoder.eval()
    together = encoder(inputs)
    assert together.shape == (len(WINDOWS), encoder.output_dim)
    assert together[3].abs().sum() > 0
    for index in ([3], [6, 0], [2, 5, 1, 4]):
        alone = encoder(rows(inputs, index))
        torch.testing.assert_close(alone, together[index], rtol=1e-10, atol=1e-12)


def test_it_sees_its_window_and_nothing_else(encoder: nn.Module, make_inputs: MakeInputs) -> None:
    inputs = make_inputs(WINDOWS)
    encoder.eval()
    before = encoder(inputs)
    # the latest 7 of [3, 14) begin at 7
    for row, first, last in ((3, 7, 14), (1, 2, 3), (6, 2, 9)):
        for behavior in range(14):
            moved = inputs.behaviors.detach().clone()
            # not the same for all columns: a layer norm would not notice
            moved[behavior] += torch.arange(4)
            after = encoder(dataclasses.replace(inputs, behaviors=moved))
            changed = bool((after[row] - before[row]).abs().max() > 1e-9)
            assert changed == (first <= behavior < last), (row, behavior)


def test_no_history_gives_zeros_and_gradients_everywhere(
    encoder: nn.Module, make_inputs: MakeInputs
) -> None:
    encoder.train()
    some = make_inputs(WINDOWS)
    assert encoder(some)[2].abs().max() == 0
    none = make_inputs([[0, 0], [14, 14]])
    output = encoder(none)
    assert output.shape == (2, encoder.output_dim)
    assert output.abs().max() == 0
    (output.sum() + sum(none.losses.values())).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("build", [BST, DIEN, GRU, HSTU, PyramidMixer])
def test_bad_lengths_are_refused(build: Callable[..., nn.Module]) -> None:
    more = {"hidden_dim": 4} if build is GRU else {}
    with pytest.raises(ValueError, match="max_length is 0; must be at least 1"):
        build(query_dim=4, cross_dim=0, max_length=0, **more)
