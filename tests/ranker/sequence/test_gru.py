from collections.abc import Callable

import pytest
import torch

from ranker.sequence.gru import GRU
from ranker.slots import SequenceInputs


def test_it_is_a_gru_step_by_step(make_inputs: Callable[..., SequenceInputs]) -> None:
    inputs = make_inputs([[0, 5], [2, 3], [4, 14]])
    encoder = GRU(query_dim=4, cross_dim=3, hidden_dim=6, cross="none", max_length=None).double()
    found = encoder(inputs)
    w_i, w_h, b_i, b_h = encoder.gru.parameters()
    for row, (begin, end) in enumerate(inputs.windows.tolist()):
        h = torch.zeros(6, dtype=torch.float64)
        for e in inputs.behaviors[begin:end]:
            r_x, z_x, n_x = (w_i @ e + b_i).chunk(3)
            r_h, z_h, n_h = (w_h @ h + b_h).chunk(3)
            r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
            h = (1 - z) * torch.tanh(n_x + r * n_h) + z * h
        torch.testing.assert_close(found[row], h)


def test_the_state_has_a_width() -> None:
    with pytest.raises(ValueError, match="gru hidden_dim is 0"):
        GRU(query_dim=4, cross_dim=0, hidden_dim=0)
