import pytest
import torch

from ranker.modules.user_rows import repeat_for_candidates


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("counts", [[1], [3], [1, 1, 1], [1, 4, 2, 1]])
def test_equals_an_index_and_its_gradient(counts: list[int], dtype: torch.dtype) -> None:
    user_of = torch.repeat_interleave(torch.tensor(counts))
    users = torch.randn(len(counts), 3).to(dtype).requires_grad_()
    rows = repeat_for_candidates(users, user_of)
    assert torch.equal(rows, users[user_of])
    factor = torch.randint(-4, 5, rows.shape).to(dtype)
    (found,) = torch.autograd.grad((rows * factor).sum(), users)
    (expected,) = torch.autograd.grad((users[user_of] * factor).sum(), users)
    # small integers: exact in every order
    assert torch.equal(found, expected)


def test_one_candidate_for_each_user_copies_nothing() -> None:
    users = torch.randn(4, 3)
    assert repeat_for_candidates(users, torch.arange(4)) is users


def test_a_batch_without_candidates() -> None:
    users = torch.randn(0, 3, requires_grad=True)
    rows = repeat_for_candidates(users, torch.zeros(0, dtype=torch.int64))
    assert rows.shape == (0, 3)
