"""Workloads of TWIN, search and attention, against a module that projects the whole history.

The baseline projects keys and values of every behaviour and scores them with gradient, as public
implementations do. All variants select by the paper's round robin, so that they compute the same.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding

from benchmarks.workload import Cost, Variant, Workload
from ranker_kernels.search_topk import DistinctRows, search_topk
from ranker_kernels.target_attention import target_attention

NUM_USERS, LENGTH, DIM, HEADS, HEAD_DIM, K = 32, 10_000, 64, 4, 16, 100
NUM_ITEMS = 100_000


def build_workloads(device: str) -> Iterator[Workload]:
    """Yields the workloads one after the other."""
    generator = torch.Generator().manual_seed(2026)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    # value, key and query projections, [H, D, d]
    weights = tuple(draw(HEADS, DIM, HEAD_DIM) * DIM**-0.5 for _ in range(3))
    targets = draw(NUM_USERS, DIM)
    windows = _windows(device)
    behaviors = draw(NUM_USERS * LENGTH, DIM)
    # every key once; only what is found needs more
    cost = Cost(behaviors.nbytes, 2.0 * HEADS * behaviors.numel())
    yield Workload(
        name="T1: 32 users, 10,000 rows each",
        leaves=(targets, behaviors, *weights),
        oracle=lambda leaves: _selected(leaves, _index(targets, behaviors, weights)),
        variants={
            "keys and values projected": _project_all,
            "search_topk, target_attention": lambda leaves: _search_and_attend(leaves, windows),
        },
        forward=cost,
        both=cost,
    )
    table = draw(NUM_ITEMS, DIM)
    ids = torch.randint(NUM_ITEMS, (NUM_USERS * LENGTH,), generator=generator).to(device)
    index = _index(targets, table[ids], weights)

    def looked_up(variant: Variant) -> Variant:
        return lambda leaves: variant((leaves[0], embedding(ids, leaves[1]), *leaves[2:]))

    yield Workload(
        name="T2: as T1, with the lookup in a table of 100,000 items",
        leaves=(targets, table, *weights),
        oracle=looked_up(lambda leaves: _selected(leaves, index)),
        variants={
            "keys and values projected": looked_up(_project_all),
            "search_topk, target_attention": looked_up(
                lambda leaves: _search_and_attend(leaves, windows)
            ),
            "gathered by the search, gradients for selected ids": lambda leaves: _look_up_selected(
                leaves, ids, windows
            ),
        },
        forward=cost,
        both=cost,
    )


def _absorb(leaves: Sequence[Tensor]) -> Tensor:
    targets, _, _, key, query = leaves
    return torch.einsum("cd,hde,hfe->chf", targets, query, key) * HEAD_DIM**-0.5


def _index(targets: Tensor, behaviors: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
    query = _absorb((targets, behaviors, *weights))
    return search_topk(query, behaviors, None, _windows(targets.device.type), k=K)


def _windows(device: str) -> Tensor:
    ends = torch.arange(1, NUM_USERS + 1, device=device) * LENGTH
    return torch.stack([ends - LENGTH, ends], dim=1)


def _selected(leaves: Sequence[Tensor], index: Tensor) -> Tensor:
    pooled = target_attention(_absorb(leaves), None, leaves[1], None, index=index)
    return torch.einsum("chd,hde->che", pooled, leaves[2])


def _search_and_attend(leaves: Sequence[Tensor], windows: Tensor) -> Tensor:
    index = search_topk(_absorb(leaves), leaves[1], None, windows, k=K)
    return _selected(leaves, index)


def _look_up_selected(leaves: Sequence[Tensor], ids: Tensor, windows: Tensor) -> Tensor:
    """What the model does: the search gathers rows as it scores them; found ones get gradients."""
    with torch.no_grad():
        index = search_topk(_absorb(leaves), DistinctRows((leaves[1],), (ids,)), None, windows, k=K)
    rows = embedding(ids[index.flatten()], leaves[1])
    local = torch.arange(index.numel(), device=ids.device).view_as(index)
    pooled = target_attention(_absorb(leaves), None, rows, None, index=local)
    return torch.einsum("chd,hde->che", pooled, leaves[2])


def _project_all(leaves: Sequence[Tensor]) -> Tensor:
    """TWIN in the obvious way: [U, L, D] histories, projected in full."""
    targets, rows, value, key, query = leaves
    histories = rows.view(NUM_USERS, LENGTH, DIM)
    keys = torch.einsum("uld,hde->uhle", histories, key)
    values = torch.einsum("uld,hde->uhle", histories, value)
    projected = torch.einsum("ud,hde->uhe", targets, query) * HEAD_DIM**-0.5
    scores = torch.einsum("uhle,uhe->uhl", keys, projected)
    ranked = scores.topk(K, dim=2).indices
    order = torch.arange(max(K, HEADS), device=rows.device)
    step = order[:K].view(1, 1, K) * HEADS + order[:HEADS].view(1, HEADS, 1)
    first = step.new_full((NUM_USERS, LENGTH), HEADS * K).scatter_reduce(
        1, ranked.flatten(1), step.expand_as(ranked).flatten(1), "amin"
    )
    chosen = first.topk(K, dim=1, largest=False).indices.unsqueeze(1).expand(-1, HEADS, -1)
    attention = scores.gather(2, chosen).softmax(dim=2)
    picked = values.gather(2, chosen.unsqueeze(3).expand(-1, -1, -1, HEAD_DIM))
    return torch.einsum("uhk,uhke->uhe", attention, picked)
