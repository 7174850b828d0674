import torch

from ranker.embedding import _fill


def test_a_shard_is_filled_as_its_part_of_the_whole() -> None:
    whole = torch.empty(10_000, 6)
    _fill(whole, 0, 0, 6, 0.01, seed=5)
    for first_row, rows, first_column, width in [
        (0, 3000, 0, 6),
        (3000, 7000, 0, 6),
        (4095, 2, 2, 3),
    ]:
        piece = torch.empty(rows, width)
        _fill(piece, first_row, first_column, 6, 0.01, seed=5)
        expected = whole[first_row : first_row + rows, first_column : first_column + width]
        torch.testing.assert_close(piece, expected, rtol=0, atol=0)
    assert abs(whole.std().item() - 0.01) < 1e-3
    assert not torch.equal(whole[:4096], whole[4096:8192])
