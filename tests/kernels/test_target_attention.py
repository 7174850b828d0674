import pytest
import torch
from torch import Tensor

from ranker_kernels.target_attention import blocked, selected, target_attention
from ranker_kernels.target_attention.reference import target_attention_reference

NUM_BEHAVIORS = 60
WINDOWS = {
    "disjoint": [(0, 1), (1, 9), (9, 9), (9, 30), (30, 60)],
    "overlapping": [(0, 60), (3, 41), (40, 60), (60, 60), (4, 42), (0, 33)],
    "shared": [(5, 50)] * 4 + [(0, 0)] + [(5, 50)] * 2 + [(6, 51)],
    "all empty": [(0, 0), (60, 60)],
    "no candidate": [],
}


Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def make_inputs(num_candidates: int) -> Inputs:
    generator = torch.Generator().manual_seed(2026)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    query, keys = draw(num_candidates, 3, 8), draw(NUM_BEHAVIORS, 8)
    return query, keys, draw(NUM_BEHAVIORS, 5), draw(NUM_BEHAVIORS, 3)


def as_leaves(inputs: Inputs, dtype: torch.dtype = torch.float64) -> Inputs:
    query, keys, values, bias = (t.detach().to(dtype).requires_grad_() for t in inputs)
    return query, keys, values, bias


def differentiate(output: Tensor, leaves: Inputs) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    upstream = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    grads = torch.autograd.grad(output, leaves, upstream.to(output.dtype), allow_unused=True)
    return [
        torch.zeros_like(leaf) if grad is None else grad
        for grad, leaf in zip(grads, leaves, strict=True)
    ]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    size = expected.norm().item()
    return (actual.double() - expected).norm().item() / (size if size > 1e-9 else 1.0)


def rows_of(windows: list[tuple[int, int]]) -> list[list[int]]:
    return [list(range(begin, end)) for begin, end in windows]


@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("by", ["index", "windows", "short windows"])
@pytest.mark.parametrize("name", WINDOWS)
def test_values_and_gradients_match_the_reference(
    name: str, by: str, with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by == "windows":
        monkeypatch.setattr(blocked, "MIN_PAIRS", 0)
    windows = WINDOWS[name]
    exact = as_leaves(make_inputs(len(windows)))
    query, keys, values, bias = exact
    expected = target_attention_reference(
        query, keys, values, bias if with_bias else None, rows_of(windows)
    )
    wanted = differentiate(expected, exact)

    spans = torch.tensor(windows, dtype=torch.int64).reshape(-1, 2)
    position = spans[:, :1] + torch.arange(NUM_BEHAVIORS + 2)
    index = position.masked_fill(position >= spans[:, 1:], -1)
    for dtype, bound in ((torch.float64, 1e-13), (torch.float32, 5e-6)):
        leaves = as_leaves(exact, dtype)
        query, keys, values, bias = leaves
        output = target_attention(
            query,
            keys,
            values,
            bias if with_bias else None,
            index=index if by == "index" else None,
            windows=None if by == "index" else spans,
        )
        assert output.dtype == dtype
        assert relative_error(output, expected) < bound
        for grad, want in zip(differentiate(output, leaves), wanted, strict=True):
            assert relative_error(grad, want) < bound


def test_an_index_in_any_order_with_holes() -> None:
    leaves = make_inputs(2)
    index = torch.tensor([[7, -1, 3, 59], [-1, -1, -1, -1]])
    expected = target_attention_reference(*leaves, [[7, 3, 59], []])
    torch.testing.assert_close(target_attention(*leaves, index=index), expected)


def test_no_behaviour_in_the_whole_batch_gives_zeros() -> None:
    query = as_leaves(make_inputs(2))[0]
    keys, values = torch.zeros(0, 8, dtype=torch.float64), torch.zeros(0, 5, dtype=torch.float64)
    for output in (
        target_attention(query, keys, values, None, index=torch.full((2, 4), -1)),
        target_attention(query, keys, values, None, windows=torch.zeros(2, 2).long()),
    ):
        assert output.shape == (2, 3, 5)
        assert output.abs().max() == 0
        assert torch.autograd.grad(output.sum(), query)[0].abs().max() == 0


def test_log_size_counts_a_row_several_times() -> None:
    query, keys, values, bias = make_inputs(1)
    counts = torch.randint(1, 5, (NUM_BEHAVIORS,), generator=torch.Generator().manual_seed(2))
    expected = target_attention(
        query,
        keys.repeat_interleave(counts, dim=0),
        values.repeat_interleave(counts, dim=0),
        bias.repeat_interleave(counts, dim=0),
        windows=torch.tensor([[0, int(counts.sum())]]),
    )
    weighted = bias + counts.double().log().unsqueeze(1)
    actual = target_attention(
        query, keys, values, weighted, windows=torch.tensor([[0, NUM_BEHAVIORS]])
    )
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("by", ["index", "windows"])
def test_keys_may_be_the_first_columns_of_the_values(by: str) -> None:
    query, keys, rest, bias = as_leaves(make_inputs(len(WINDOWS["overlapping"])))
    values = torch.cat([keys, rest], dim=1)
    where = torch.tensor(WINDOWS["overlapping"])
    if by == "index":
        position = where[:, :1] + torch.arange(60)
        where = position.masked_fill(position >= where[:, 1:], -1)
    leaves = (query, keys, rest, bias)
    expected = target_attention(query, keys, values, bias, **{by: where})
    wanted = differentiate(expected, leaves)
    actual = target_attention(query, None, values, bias, **{by: where})
    torch.testing.assert_close(actual, expected)
    for grad, want in zip(differentiate(actual, leaves), wanted, strict=True):
        torch.testing.assert_close(grad, want)


def test_small_tiles_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = torch.tensor(WINDOWS["shared"])
    leaves = as_leaves(make_inputs(len(windows)))
    expected = target_attention(*leaves, windows=windows)
    wanted = differentiate(expected, leaves)
    monkeypatch.setattr(blocked, "MIN_PAIRS", 0)
    monkeypatch.setattr(blocked, "MAX_SCORES", 300)
    monkeypatch.setattr(selected, "MAX_GATHERED", 800)
    position = windows[:, :1] + torch.arange(50)
    index = position.masked_fill(position >= windows[:, 1:], -1)
    for output in (
        target_attention(*leaves, windows=windows),
        target_attention(*leaves, index=index),
    ):
        torch.testing.assert_close(output, expected)
        for grad, want in zip(differentiate(output, leaves), wanted, strict=True):
            torch.testing.assert_close(grad, want)


def test_bfloat16_stays_close() -> None:
    windows = torch.tensor([(0, 60), (10, 50)])
    exact = make_inputs(2)
    expected = target_attention(*exact, windows=windows)
    query, keys, values, bias = (t.bfloat16() for t in exact)
    low = target_attention(query, keys, values, bias, windows=windows)
    assert low.dtype == torch.bfloat16
    assert relative_error(low, expected) < 2e-2


def test_the_op_is_registered_well() -> None:
    windows = torch.tensor([(0, 60), (10, 50), (3, 3)])
    leaves = as_leaves(make_inputs(3))
    op = torch.ops.ranker_kernels.target_attention.default
    index = torch.tensor([[7, -1, 3, 59], [-1, -1, -1, -1], [0, 0, 1, 2]])
    for where in ((windows, None), (None, index)):
        torch.library.opcheck(op, (*leaves, *where))
        torch.library.opcheck(op, (leaves[0], None, leaves[1], None, *where))


@pytest.mark.parametrize("by", ["index", "windows"])
def test_it_compiles_without_a_graph_break(by: str) -> None:
    where = torch.tensor([(0, 59), (10, 50)])
    leaves = as_leaves(make_inputs(2))

    def attend(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        return target_attention(query * 2, keys, values, bias, **{by: where})

    expected = attend(*leaves)
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")(*leaves)
    torch.testing.assert_close(compiled, expected)
    for grad, want in zip(
        differentiate(compiled, leaves), differentiate(expected, leaves), strict=True
    ):
        torch.testing.assert_close(grad, want)


def test_shapes_are_checked() -> None:
    query, keys, values, bias = make_inputs(2)
    windows = torch.tensor([(0, 60), (10, 50)])
    with pytest.raises(ValueError, match="give either index or windows"):
        target_attention(query, keys, values, bias)
    with pytest.raises(ValueError, match="must have a head"):
        target_attention(query[:, :0], keys, values, None, windows=windows)
    with pytest.raises(ValueError, match="values has 59 rows; it must have 60"):
        target_attention(query, keys, values[1:], bias, windows=windows)
    with pytest.raises(ValueError, match=r"bias is \[60, 2\]"):
        target_attention(query, keys, values, bias[:, :2], windows=windows)
    with pytest.raises(ValueError, match=r"index is \[3, 4\]"):
        target_attention(query, keys, values, bias, index=torch.zeros(3, 4).long())
    with pytest.raises(ValueError, match="query has width 8 and the keys 3"):
        target_attention(query, keys[:, :3], values, bias, windows=windows)
