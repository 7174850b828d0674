import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ranker.sequence.sim_soft import SIMSoft, spread_rows
from ranker.slots import SearchInputs, SequenceInputs, TaskTargets


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


def make_learner() -> SIMSoft:
    torch.manual_seed(0)
    return SIMSoft(
        query_dim=8, cross_dim=2, output_dim=4, k=6, auxiliary_weight=0.5, auxiliary_samples=12
    )


def test_the_auxiliary_loss_is_that_of_the_paper_on_what_was_drawn(
    search_inputs: Callable[..., SearchInputs],
) -> None:
    targets = TaskTargets(
        labels=torch.tensor([1.0, 0.0, torch.nan]), weights=torch.tensor([1.0, 3.0, 0.0])
    )
    inputs, encoder = dataclasses.replace(make_inputs(), labels={"click": targets}), make_learner()
    index = encoder.search(search_inputs(inputs))
    assert index.shape == (3, 18)
    drawn = index[:, 6:]
    assert (drawn[2] == -1).all()
    encoder(inputs, index)
    losses = []
    for c in range(2):
        e, e_a = inputs.behaviors[drawn[c][drawn[c] >= 0]], inputs.query[c]
        r = encoder.behavior_weight(e) @ encoder.target_weight(e_a)
        interest = (r.unsqueeze(1) * e).mean(0)
        p = torch.sigmoid(encoder.auxiliary(torch.cat([interest, e_a])))
        losses.append(-torch.log(p if c == 0 else 1 - p))
    expected = 0.5 * (losses[0] + 3 * losses[1]) / 4
    torch.testing.assert_close(inputs.losses["sim_auxiliary"], expected.squeeze())
    inputs.losses["sim_auxiliary"].backward()  # type: ignore[no-untyped-call]
    learned = ["target_weight", "behavior_weight", "auxiliary.0", "auxiliary.2"]
    for name in learned:
        gradient = encoder.get_parameter(f"{name}.weight").grad
        assert gradient is not None
        assert gradient.abs().max() > 0

    encoder.eval()
    products = encoder.behavior_weight(inputs.behaviors) @ encoder.target_weight(inputs.query[0])
    found = encoder.search(search_inputs(inputs))
    assert found.shape == (3, 6)
    assert found[0].tolist() == sorted(products[:30].topk(6).indices.tolist())

    other = dataclasses.replace(inputs, labels={"like": targets})
    with pytest.raises(ValueError, match="auxiliary_label is 'click'; must be one of like"):
        encoder.train()(other, index)


def test_behaviors_are_drawn_at_even_distances() -> None:
    windows = torch.tensor([[10, 110], [10, 110], [110, 113], [7, 7]])
    rows = spread_rows(windows, torch.tensor([1, 2, 3, 4]), 5)
    for row in rows[:2]:
        assert row.diff().tolist() == [20] * 4
        assert 10 <= row[0] < 30
    assert rows[0].tolist() != rows[1].tolist()
    assert rows[2].tolist() == [110, 111, 112, -1, -1]
    assert rows[3].tolist() == [-1] * 5


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"auxiliary_weight \(-1\) must be at least 0"):
        SIMSoft(query_dim=8, cross_dim=0, output_dim=4, auxiliary_weight=-1)
    with pytest.raises(ValueError, match="k is 0"):
        SIMSoft(query_dim=8, cross_dim=0, output_dim=4, k=0)
