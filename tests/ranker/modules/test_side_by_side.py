import pytest
import torch
from torch import Tensor

from ranker.modules.side_by_side import join_columns


def shares_memory(left: Tensor, right: Tensor) -> bool:
    return left.untyped_storage().data_ptr() == right.untyped_storage().data_ptr()


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_columns_of_one_tensor_become_a_view_of_it(rows: int) -> None:
    whole = torch.randn(rows, 9)
    _, left, middle, right = torch.split(whole, [1, 2, 3, 3], dim=1)
    joined = join_columns([left, middle, right])
    assert torch.equal(joined, whole[:, 1:])
    assert shares_memory(joined, whole)


@pytest.mark.parametrize(
    "columns",
    [
        lambda whole: [whole[:, 3:5], whole[:, :3]],
        lambda whole: [whole[:, :2], whole[:, 3:5]],
        lambda whole: [whole[:, :2], whole[:, :2]],
        lambda whole: [whole[:, :2], whole[:, 2:].clone()],
        lambda whole: [whole[:, 0:4:2], whole[:, 2:5:2]],
        lambda whole: [whole[::2, :2], whole[1::2, 2:5]],
        lambda whole: [whole[:2, :2], whole.view(torch.int32)[:2, 2:5].view(torch.float32).clone()],
    ],
)
def test_other_columns_are_copied(columns: object) -> None:
    whole = torch.randn(4, 5)
    assert callable(columns)
    given = columns(whole)
    joined = join_columns(given)
    assert torch.equal(joined, torch.cat(given, dim=1))
    assert not shares_memory(joined, whole)


def test_columns_of_other_memory_behind_them_are_copied() -> None:
    # rows that lie where a column of the first would, by chance of the allocator
    memory = torch.randn(4)
    left = memory[:2].view(1, 2)
    right = torch.from_numpy(memory.numpy()[2:]).view(1, 2)
    joined = join_columns([left, right])
    assert torch.equal(joined, memory.view(1, 4))
    assert joined.data_ptr() != left.data_ptr()


def test_gradients_are_those_of_a_copy() -> None:
    whole = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    left, right = torch.split(whole, [2, 3], dim=1)
    factor = torch.randn(6, 5, dtype=torch.float64)
    (found,) = torch.autograd.grad((join_columns([left, right]) ** 2 * factor).sum(), whole)
    torch.testing.assert_close(found, 2 * whole.detach() * factor, rtol=0, atol=0)
    # and once more, for penalties on gradients
    parts = [part.detach().requires_grad_() for part in (left, right)]
    assert torch.autograd.gradgradcheck(lambda a, b: join_columns([a, b]) ** 3, parts)
    sides = whole.detach().clone().requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda x: join_columns(list(torch.split(x, [2, 3], dim=1))) ** 3, [sides]
    )


def test_one_column_is_itself() -> None:
    column = torch.randn(3, 2)
    assert join_columns([column]) is column


def test_compiles_without_a_break() -> None:
    def function(whole: Tensor) -> Tensor:
        return join_columns(list(torch.split(whole, [2, 3], dim=1))) * 2

    whole = torch.randn(4, 5)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(whole), whole * 2)
