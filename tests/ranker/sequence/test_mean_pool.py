import pytest
import torch

from ranker.sequence.mean_pool import MeanPool
from ranker.slots import SequenceInputs


def inputs(windows: list[list[int]], cross_dim: int = 0) -> SequenceInputs:
    torch.manual_seed(1)
    count = len(windows)
    return SequenceInputs(
        query=torch.randn(count, 4),
        behaviors=torch.randn(10, 4, requires_grad=True),
        cross=torch.randn(10, cross_dim),
        windows=torch.tensor(windows, dtype=torch.int64).reshape(-1, 2),
        user_of=torch.arange(count),
        behavior_time=torch.arange(10),
        time=torch.full((count,), 99),
    )


def test_mean_pool_averages_overlapping_windows_and_gives_zeros_for_none() -> None:
    batch = inputs([[0, 3], [2, 7], [5, 5]])
    pooled = MeanPool(query_dim=4, cross_dim=0)(batch)
    torch.testing.assert_close(pooled[0], batch.behaviors[0:3].mean(0))
    torch.testing.assert_close(pooled[1], batch.behaviors[2:7].mean(0))
    assert pooled[2].abs().max() == 0
    pooled.sum().backward()
    assert batch.behaviors.grad is not None
    torch.testing.assert_close(batch.behaviors.grad[2], torch.full((4,), 1 / 3 + 1 / 5))


def test_a_batch_without_any_history_gives_zeros() -> None:
    batch = inputs([[0, 0], [4, 4]])
    pooled = MeanPool(query_dim=4, cross_dim=0)(batch)
    assert pooled.shape == (2, 4)
    assert pooled.abs().max() == 0
    pooled.sum().backward()


def test_cross_features_are_projected_and_added() -> None:
    batch = inputs([[1, 4]], cross_dim=3)
    encoder = MeanPool(query_dim=4, cross_dim=3, cross="add")
    assert encoder.behavior.projection is not None
    expected = (batch.behaviors + batch.cross @ encoder.behavior.projection.weight.T)[1:4].mean(0)
    torch.testing.assert_close(encoder(batch)[0], expected)


def test_cross_needs_cross_features() -> None:
    with pytest.raises(ValueError, match="behaviors have no cross fields; use none or auto"):
        MeanPool(query_dim=4, cross_dim=0, cross="add")
    with pytest.raises(ValueError, match="cross is 'sum'; must be one of auto, add, none"):
        MeanPool(query_dim=4, cross_dim=2, cross="sum")  # type: ignore[arg-type]
