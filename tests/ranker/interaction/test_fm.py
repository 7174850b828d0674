import torch

from ranker.interaction.fm import FM
from ranker.slots import FeatureLayout


def test_it_is_the_sum_over_pairs() -> None:
    layout = FeatureLayout(names=("a", "b", "c", "d"), widths=(3, 3, 3, 1))
    fm, embedded = FM(layout=layout, token_dim=3).double(), torch.randn(6, 10, dtype=torch.float64)
    tokens = fm.tokens(embedded)
    expected = sum(tokens[:, m] * tokens[:, n] for m in range(4) for n in range(m + 1, 4))
    found = fm(embedded)
    assert found.shape == (6, fm.output_dim)
    torch.testing.assert_close(found[:, :3], expected)
    torch.testing.assert_close(found[:, 3:], embedded)
