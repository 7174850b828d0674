import dataclasses

import pytest
import torch

from ranker.sequence.din import DIN
from ranker.slots import SequenceInputs


def test_din_attends_to_the_latest_behaviors_only() -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = SequenceInputs(
        query=torch.randn(3, 4, generator=generator),
        behaviors=torch.randn(20, 4, generator=generator),
        cross=torch.zeros(20, 0),
        windows=torch.tensor([[0, 12], [12, 14], [20, 20]]),
        user_of=torch.arange(3),
        behavior_time=torch.arange(20),
        time=torch.full((3,), 99),
    )
    cut = dataclasses.replace(inputs, windows=torch.tensor([[7, 12], [12, 14], [20, 20]]))
    encoder = DIN(query_dim=4, cross_dim=0, hidden_units=[6], max_length=5)
    expected = encoder(cut)
    torch.testing.assert_close(encoder(inputs), expected)
    encoder.max_length = None
    assert not torch.allclose(encoder(inputs)[0], expected[0])


def test_the_length_is_checked() -> None:
    with pytest.raises(ValueError, match="din max_length is 0"):
        DIN(query_dim=4, cross_dim=0, hidden_units=[6], max_length=0)
