from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from ranker.sequence.dien import DIEN
from ranker.slots import SequenceInputs

WINDOWS = [[0, 5], [2, 3], [4, 14], [0, 5]]


def build() -> DIEN:
    torch.manual_seed(1)
    return DIEN(query_dim=4, cross_dim=3, cross="none", max_length=8).double()


def test_it_is_equations_8_and_14_to_16(make_inputs: Callable[..., SequenceInputs]) -> None:
    inputs, encoder = make_inputs(WINDOWS), build().eval()
    found = encoder(inputs)
    cell = encoder.evolution
    w = [m.chunk(3) for m in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)]
    for row, (begin, end) in enumerate(inputs.windows.tolist()):
        states, _ = encoder.extractor(inputs.behaviors[max(begin, end - 8) : end].unsqueeze(0))
        scores = torch.stack([h @ encoder.attention.weight @ inputs.query[row] for h in states[0]])
        h = torch.zeros(4, dtype=torch.float64)
        for i, a in zip(states[0], scores.softmax(0), strict=True):
            r = torch.sigmoid(w[0][0] @ i + w[2][0] + w[1][0] @ h + w[3][0])
            u = torch.sigmoid(w[0][1] @ i + w[2][1] + w[1][1] @ h + w[3][1])
            n = torch.tanh(w[0][2] @ i + w[2][2] + r * (w[1][2] @ h + w[3][2]))
            h = (1 - a * u) * h + a * u * n
        torch.testing.assert_close(found[row], h)
    assert not inputs.losses


def test_the_auxiliary_loss_is_equation_6(
    make_inputs: Callable[..., SequenceInputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, encoder = make_inputs(WINDOWS), build().train()

    def draw(high: int, shape: torch.Size, **_: object) -> torch.Tensor:
        return torch.full(shape, 11)

    monkeypatch.setattr(torch, "randint", draw)
    encoder(inputs)
    total, count = torch.zeros((), dtype=torch.float64), 0
    for begin, end in inputs.windows.tolist():
        window = inputs.behaviors[max(begin, end - 8) : end]
        states, _ = encoder.extractor(window.unsqueeze(0))
        for t in range(len(window) - 1):
            total = total - F.logsigmoid(states[0, t] @ window[t + 1])
            # the drawn behaviour is the following one: it does not count
            if not torch.equal(window[t + 1], inputs.behaviors[11]):
                total = total - F.logsigmoid(-states[0, t] @ inputs.behaviors[11])
            count += 1
    torch.testing.assert_close(inputs.losses["dien_auxiliary"], total / count)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="auxiliary_weight is -1"):
        DIEN(query_dim=4, cross_dim=0, auxiliary_weight=-1)
