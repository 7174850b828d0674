import pytest
import torch
from torch import Tensor

from ranker_kernels.native import SWITCH
from ranker_kernels.search_topk import DistinctRows, blocked, compiled, search_topk
from ranker_kernels.search_topk.merge import rank, round_robin
from ranker_kernels.search_topk.reference import search_topk_reference, walk


@pytest.fixture(autouse=True, params=["compiled", "torch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs every test with a compiler and as if there were none."""
    if request.param == "torch":
        monkeypatch.setenv(SWITCH, "0")
    assert (compiled.find_library() is None) == (request.param == "torch"), "needs a C++ compiler"
    return str(request.param)


# begin and end; 200 behaviours
WINDOWS = {
    "disjoint": [(0, 1), (1, 9), (9, 9), (9, 60), (60, 200)],
    "overlapping": [(0, 200), (3, 141), (40, 60), (59, 60), (200, 200), (10, 150), (0, 33)],
    "shared": [(5, 150)] * 6 + [(0, 0)] + [(5, 150)] * 3 + [(6, 151), (10, 150)],
    "all empty": [(0, 0), (200, 200)],
    "no candidate": [],
}


def make_inputs(
    windows: list[tuple[int, int]], *, heads: int = 3, integral: bool, seed: int = 2026
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(len(windows), heads, 8, generator=generator, dtype=torch.float64)
    keys = torch.randn(200, 8, generator=generator, dtype=torch.float64)
    bias = torch.randn(200, heads, generator=generator, dtype=torch.float64)
    if integral:
        # few different scores, so that there are ties everywhere
        query, keys, bias = query.round().clamp(-1, 1), keys.round().clamp(-1, 1), bias.round()
    return query, keys, bias, torch.tensor(windows, dtype=torch.int64).reshape(-1, 2)


@pytest.mark.parametrize("integral", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("k", [1, 7, 50, 300])
@pytest.mark.parametrize("name", WINDOWS)
def test_selection_matches_the_sequential_walk(name: str, k: int, integral: bool) -> None:
    query, keys, bias, windows = make_inputs(WINDOWS[name], integral=integral)
    for given in (bias, None):
        expected = search_topk_reference(query, keys, given, windows, k)
        assert torch.equal(search_topk(query, keys, given, windows, k=k), expected)


def test_round_robin_equals_the_walk_on_random_rankings() -> None:
    generator = torch.Generator().manual_seed(1)
    for trial in range(200):
        heads, k = 1 + trial % 5, 1 + trial % 13
        # few positions: the heads often meet
        length = k + trial % 9
        scores = torch.rand(4, heads, length, generator=generator)
        ranked = scores.argsort(dim=2, descending=True)
        expected = [sorted(walk(row.tolist(), k)) for row in ranked]
        assert round_robin(ranked[:, :, :k]).tolist() == expected


def test_rank_orders_ties_by_position() -> None:
    scores = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0, 5.0, 5.0]])
    assert rank(scores, 4).tolist() == [[1, 2, 4, 3], [0, 1, 2, 3]]
    generator = torch.Generator().manual_seed(3)
    scores = torch.randint(0, 4, (50, 90), generator=generator).float()
    expected = scores.argsort(dim=1, descending=True, stable=True)
    for k in (1, 10, 89):
        assert torch.equal(rank(scores, k), expected[:, :k])


def test_small_blocks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "0")
    query, keys, bias, windows = make_inputs(WINDOWS["shared"], integral=True)
    expected = search_topk(query, keys, bias, windows, k=20)
    for size in (1, 600, 2000):
        monkeypatch.setattr(blocked, "MAX_SCORES", size)
        assert torch.equal(search_topk(query, keys, bias, windows, k=20), expected)


def test_a_candidate_does_not_depend_on_its_batch_mates() -> None:
    query, keys, bias, windows = make_inputs(WINDOWS["overlapping"], integral=True)
    together = search_topk(query, keys, bias, windows, k=9)
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(5))
    assert torch.equal(search_topk(query[order], keys, bias, windows[order], k=9), together[order])
    for c in range(len(windows)):
        alone = search_topk(query[c : c + 1], keys, bias, windows[c : c + 1], k=9)
        assert torch.equal(alone[0], together[c])


def test_bfloat16_operands_are_summed_in_float32() -> None:
    query, keys, bias, windows = make_inputs([(0, 200)], integral=False)
    low_query, low_keys, low_bias = (t.bfloat16() for t in (query, keys, bias))
    expected = search_topk(low_query.float(), low_keys.float(), low_bias.float(), windows, k=40)
    assert torch.equal(search_topk(low_query, low_keys, low_bias, windows, k=40), expected)
    exact = search_topk(query, keys, bias, windows, k=40)
    shared = len(set(exact[0].tolist()) & set(expected[0].tolist()))
    assert 36 <= shared <= 40


def test_no_gradient_and_a_fake_for_tracing() -> None:
    query, keys, bias, windows = make_inputs([(0, 100)], integral=False)
    index = search_topk(query.requires_grad_(), keys.requires_grad_(), bias, windows, k=5)
    assert not index.requires_grad
    op = torch.ops.ranker_kernels.search_topk.default
    query, keys = query.detach(), keys.detach()
    torch.library.opcheck(op, (query, [keys], [None], bias, windows, 5))
    rows = torch.arange(200)
    torch.library.opcheck(op, (query, [keys[:, :5], keys[:, 5:]], [rows, None], None, windows, 300))


def test_keys_that_repeat_may_be_given_once() -> None:
    query, _, bias, windows = make_inputs(WINDOWS["overlapping"], integral=False)
    generator = torch.Generator().manual_seed(8)
    values = tuple(torch.randn(n, d, generator=generator).double() for n, d in ((30, 5), (200, 3)))
    keys = DistinctRows(values, (torch.randint(30, (200,), generator=generator), None))
    matrix = keys.between(0, 200)
    assert matrix.shape == (len(keys), keys.width) == (200, 8)
    expected = search_topk(query, matrix, bias, windows, k=9)
    assert torch.equal(search_topk(query, keys, bias, windows, k=9), expected)
    weight = torch.randn(8, 4, generator=generator).double()
    torch.testing.assert_close(keys.project(weight), matrix @ weight)


def test_it_compiles_without_a_graph_break() -> None:
    query, keys, bias, windows = make_inputs(WINDOWS["overlapping"], integral=False)
    search = torch.compile(
        lambda q: search_topk(q * 2, keys, bias, windows, k=9) + 1,
        fullgraph=True,
        backend="aot_eager",
    )
    assert torch.equal(search(query), search_topk(query * 2, keys, bias, windows, k=9) + 1)


def test_shapes_are_checked() -> None:
    query, keys, bias, windows = make_inputs([(0, 9), (1, 5)], integral=False)
    with pytest.raises(ValueError, match=r"must be \[C, H, D\] and \[N, D\]"):
        search_topk(query[..., :4], keys, bias, windows, k=2)
    with pytest.raises(ValueError, match="must have a head"):
        search_topk(query[:, :0], keys, None, windows, k=2)
    with pytest.raises(ValueError, match=r"bias is \[200, 2\]"):
        search_topk(query, keys, bias[:, :2], windows, k=2)
    with pytest.raises(ValueError, match=r"windows is torch\.int32"):
        search_topk(query, keys, bias, windows.int(), k=2)
    with pytest.raises(ValueError, match="k is 0"):
        search_topk(query, keys, bias, windows, k=0)
