import torch

from ranker.sequence.full_attention import FullAttention
from ranker.slots import SequenceInputs


def test_one_behavior_is_taken_as_it_is_and_none_gives_zeros() -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = SequenceInputs(
        query=torch.randn(2, 8, generator=generator),
        behaviors=torch.randn(5, 8, generator=generator),
        cross=torch.randn(5, 2, generator=generator),
        windows=torch.tensor([[3, 4], [2, 2]]),
        user_of=torch.arange(2),
        behavior_time=torch.arange(5),
        time=torch.full((2,), 99),
    )
    encoder = FullAttention(query_dim=8, cross_dim=2, output_dim=6, num_heads=2, head_dim=3)
    row = torch.cat([inputs.behaviors[3], inputs.cross[3]])
    heads = torch.cat([row @ weight for weight in encoder.attention.value_weight])
    output = encoder(inputs)
    torch.testing.assert_close(output[0], encoder.attention.output.weight @ heads)
    assert output[1].abs().max() == 0
