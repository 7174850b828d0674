import torch

from ranker.modules.window_groups import group_windows


def test_every_window_is_there_once_with_little_padding() -> None:
    windows = torch.tensor([[0, 5], [9, 9], [4, 5], [0, 5], [2, 9], [3, 20], [20, 36], [5, 7]])
    groups = group_windows(windows)
    seen = {}
    for group in groups:
        assert (group.mask.sum(1) == group.lengths).all()
        assert group.rows.shape[1] < 2 * int(group.lengths.min())
        for candidate, slot in zip(group.candidates.tolist(), group.slot.tolist(), strict=True):
            seen[candidate] = group.rows[slot][group.mask[slot]].tolist()
    assert seen == {i: list(range(b, e)) for i, (b, e) in enumerate(windows.tolist()) if e > b}
    assert sum(len(group.rows) for group in groups) == 6
    weights = torch.arange(8.0)
    shared = next(group for group in groups if 0 in group.candidates)
    slot = int(shared.slot[shared.candidates.tolist().index(0)])
    assert shared.counts(None)[slot] == 2
    assert shared.counts(weights)[slot] == 0 + 3


def test_no_window_is_no_group() -> None:
    assert group_windows(torch.zeros(3, 2, dtype=torch.int64)) == []
