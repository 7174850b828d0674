"""Workloads of `target_attention` against the attention of PyTorch and FBGEMM."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.workload import (
    Cost,
    Goal,
    Variant,
    Workload,
    compile_variant,
    draw_lengths,
    make_consecutive,
)
from ranker_kernels.din_attention.windows import Pairs, expand_windows
from ranker_kernels.target_attention import target_attention

# it registers its operators; a GPU's kernels can be measured without it
with contextlib.suppress(ImportError):
    import fbgemm_gpu  # noqa: F401

HEADS = 4


class _Inputs(NamedTuple):
    """What the variants look up besides their leaves."""

    windows: Tensor
    pairs: Pairs
    longest: int


def build_workloads(device: str) -> Iterator[Workload]:
    """Yields windows of their own, windows that are shared, and selections."""
    lengths = draw_lengths(512, mean_log=3.45, longest=200)
    yield _build_windows("W1: lengths 1 to 200, mean 47", make_consecutive(lengths), device)
    shared = make_consecutive(torch.full((16,), 1000)).repeat_interleave(32, dim=0)
    yield _build_windows("W2: 16 histories of 1,000, 32 candidates each", shared, device)
    yield build_selection("S1: 512 candidates, 100 selected", 512, device, torch.float32)


def build_goals(device: str) -> Iterator[Workload]:
    """Yields ESU-1: 4,096 candidates with 100 selected behaviours each, bfloat16."""
    yield build_selection(
        "ESU-1: 4,096 candidates, 100 selected, bfloat16",
        4096,
        device,
        torch.bfloat16,
        goal=Goal(
            name="G4",
            variant="target_attention",
            forward=0.025,
            both=0.080,
            expected_forward=0.025,
            expected_both=0.105,
        ),
    )


def _build_windows(name: str, windows: Tensor, device: str) -> Workload:
    generator = torch.Generator().manual_seed(7)
    count, rows, dim = len(windows), int(windows.max()), 64
    query = torch.randn(count, HEADS, dim, generator=generator).to(device) * dim**-0.5
    values = torch.randn(rows, dim, generator=generator).to(device)
    windows = windows.to(device)
    longest = int((windows[:, 1] - windows[:, 0]).max())
    inputs = _Inputs(windows, expand_windows(windows), longest)
    variants: dict[str, Variant] = {
        "padded": lambda leaves: _padded(leaves[0], leaves[1], inputs),
        "padded, scaled_dot_product_attention": lambda leaves: _fused(leaves[0], leaves[1], inputs),
        "jagged": lambda leaves: _jagged(leaves[0], leaves[1], inputs),
        "jagged, torch.compile": compile_variant(
            lambda leaves: _jagged(leaves[0], leaves[1], inputs)
        ),
    }
    if hasattr(torch.ops.fbgemm, "jagged_dense_bmm"):
        variants["FBGEMM jagged"] = lambda leaves: _fbgemm(leaves[0], leaves[1], inputs)
    if device == "cuda":
        variants["FlexAttention"] = _build_flex(windows, rows)
    variants["target_attention"] = lambda leaves: target_attention(
        leaves[0], None, leaves[1], None, windows=windows
    )
    num_pairs, ends = len(inputs.pairs.candidate), 2 * query.nbytes
    return Workload(
        name=name,
        leaves=(query, values),
        oracle=lambda leaves: _jagged(leaves[0], leaves[1], inputs),
        variants=variants,
        forward=Cost(values.nbytes + ends, 4.0 * num_pairs * HEADS * dim),
        both=Cost(3 * values.nbytes + 2 * ends, 14.0 * num_pairs * HEADS * dim),
    )


def build_selection(
    name: str, count: int, device: str, dtype: torch.dtype, *, goal: Goal | None = None
) -> Workload:
    """Builds the attention to 100 selected rows of each candidate's own."""
    generator = torch.Generator().manual_seed(7)
    k, dim = 100, 64
    query = torch.randn(count, HEADS, dim, generator=generator).to(device, dtype) * dim**-0.5
    values = torch.randn(count * k, dim, generator=generator).to(device, dtype)
    index = torch.randperm(count * k, generator=generator).view(count, k).to(device)

    def gathered(leaves: Sequence[Tensor]) -> Tensor:
        rows = leaves[1][index]
        return (leaves[0] @ rows.mT).softmax(dim=2) @ rows

    def fused(leaves: Sequence[Tensor]) -> Tensor:
        rows = leaves[1][index].unsqueeze(1)
        return scaled_dot_product_attention(leaves[0].unsqueeze(1), rows, rows, scale=1.0)[:, 0]

    arithmetic = 4.0 * HEADS * values.numel()
    return Workload(
        name=name,
        leaves=(query, values),
        oracle=gathered,
        variants={
            "gathered": gathered,
            "gathered, torch.compile": compile_variant(gathered),
            "gathered, scaled_dot_product_attention": fused,
            "target_attention": lambda leaves: target_attention(
                leaves[0], None, leaves[1], None, index=index
            ),
        },
        forward=Cost(values.nbytes + 2 * query.nbytes, arithmetic),
        both=Cost(3 * values.nbytes + 4 * query.nbytes, 3.5 * arithmetic),
        goal=goal,
    )


def _pad(values: Tensor, inputs: _Inputs) -> tuple[Tensor, Tensor]:
    """Returns the windows' rows `[C, L, D]`, and which of them are there `[C, L]`."""
    position = inputs.windows[:, :1] + torch.arange(inputs.longest, device=values.device)
    inside = position < inputs.windows[:, 1:]
    return values[torch.where(inside, position, 0)], inside


def _padded(query: Tensor, values: Tensor, inputs: _Inputs) -> Tensor:
    rows, inside = _pad(values, inputs)
    scores = (query @ rows.mT).masked_fill(~inside.unsqueeze(1), -torch.inf)
    return scores.softmax(dim=2) @ rows


def _fused(query: Tensor, values: Tensor, inputs: _Inputs) -> Tensor:
    rows, inside = _pad(values, inputs)
    rows, mask = rows.unsqueeze(1), inside.unsqueeze(1).unsqueeze(1)
    # heads share keys: they are the queries of one head
    found = scaled_dot_product_attention(query.unsqueeze(1), rows, rows, attn_mask=mask, scale=1.0)
    return found[:, 0]


def _jagged(query: Tensor, values: Tensor, inputs: _Inputs) -> Tensor:
    candidate, behavior, _ = inputs.pairs
    rows, shape = values[behavior], query.shape[:2]
    scores = (query[candidate] @ rows.unsqueeze(2)).squeeze(2)
    owner = candidate.unsqueeze(1).expand_as(scores)
    maximum = scores.new_full(shape, -torch.inf).scatter_reduce(0, owner, scores.detach(), "amax")
    shares = torch.exp(scores - maximum[candidate])
    total = shares.new_zeros(shape).index_add(0, candidate, shares)
    weights = shares / total[candidate]
    pooled = torch.zeros_like(query)
    return pooled.index_add(0, candidate, weights.unsqueeze(2) * rows.unsqueeze(1))


def _fbgemm(query: Tensor, values: Tensor, inputs: _Inputs) -> Tensor:
    lengths = inputs.windows[:, 1] - inputs.windows[:, 0]
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    rows, ops = values[inputs.pairs.behavior], torch.ops.fbgemm
    scores = ops.jagged_dense_bmm(rows, offsets, query.mT.contiguous(), inputs.longest)[0]
    weights = ops.jagged_softmax(scores, offsets, inputs.longest)[0]
    pooled: Tensor = ops.jagged_jagged_bmm(weights, rows, offsets, inputs.longest)
    return pooled


def _build_flex(windows: Tensor, num_rows: int) -> Variant:
    """Returns FlexAttention of all candidates to all behaviours, with the windows as its mask."""
    begins, ends = windows[:, 0].contiguous(), windows[:, 1].contiguous()

    def sees(_batch: Tensor, _head: Tensor, row: Tensor, behavior: Tensor) -> Tensor:
        return (behavior >= begins[row]) & (behavior < ends[row])

    mask = create_block_mask(sees, None, None, len(windows), num_rows, device="cuda")

    def attend(leaves: Sequence[Tensor]) -> Tensor:
        query, values = leaves[0].transpose(0, 1).unsqueeze(0), leaves[1][None, None]
        found = flex_attention(query, values, values, block_mask=mask, scale=1.0, enable_gqa=True)
        assert isinstance(found, Tensor)
        return found[0].transpose(0, 1)

    return compile_variant(attend)
