import torch

from ranker.train_step import _seed


def test_seeding_draws_as_manual_seed_does_and_leaves_nothing_behind() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    waiting = len(torch.cuda._queued_calls)
    _seed(3, "cpu")
    assert torch.equal(torch.rand(4), expected)
    # torch.manual_seed keeps a call for each kind of device that is not there
    assert len(torch.cuda._queued_calls) == waiting
