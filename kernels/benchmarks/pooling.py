"""Workloads of `segment_sum`, `signature_sums` and `gated_scale` against plain PyTorch."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from benchmarks.workload import (
    Cost,
    Variant,
    Workload,
    compile_variant,
    draw_lengths,
    make_consecutive,
)
from ranker_kernels.din_attention.windows import expand_windows
from ranker_kernels.gated_scale import gated_scale
from ranker_kernels.gated_scale.reference import gated_scale_reference
from ranker_kernels.segment_sum import segment_sum
from ranker_kernels.signature_sums import signature_sums, signatures

SIGNATURES, BITS = 16, 3


def build_segment_sum(device: str) -> Iterator[Workload]:
    """Yields bags one behind the other, and histories that 8 candidates share."""
    lengths = draw_lengths(1024, mean_log=3.45, longest=200)
    yield _build_sum("1,024 bags, 1 to 200 rows", make_consecutive(lengths).to(device))
    shared = make_consecutive(lengths[:128]).repeat_interleave(8, dim=0)
    yield _build_sum("128 histories, 8 candidates each", shared.to(device))


def _build_sum(name: str, windows: Tensor) -> Workload:
    dim, rows = 64, int(windows.max())
    values = torch.randn(rows, dim, generator=torch.Generator().manual_seed(7)).to(windows.device)
    lengths = windows[:, 1] - windows[:, 0]
    pairs, longest = expand_windows(windows), int(lengths.max())

    def padded(leaves: Sequence[Tensor]) -> Tensor:
        position = windows[:, :1] + torch.arange(longest, device=windows.device)
        inside = position < windows[:, 1:]
        return (leaves[0][torch.where(inside, position, 0)] * inside.unsqueeze(2)).sum(dim=1)

    def jagged(leaves: Sequence[Tensor]) -> Tensor:
        pooled = leaves[0].new_zeros(len(windows), dim)
        return pooled.index_add(0, pairs.candidate, leaves[0][pairs.behavior])

    def bags(leaves: Sequence[Tensor]) -> Tensor:
        return embedding_bag(pairs.behavior, leaves[0], pairs.offsets, mode="sum")

    variants: dict[str, Variant] = {"padded": padded, "jagged": jagged, "embedding_bag": bags}
    if rows == int(lengths.sum()):
        variants["segment_reduce"] = lambda leaves: torch.segment_reduce(
            leaves[0], "sum", lengths=lengths, unsafe=True
        )
    variants["segment_sum"] = lambda leaves: segment_sum(leaves[0], windows)
    pooled = len(windows) * dim * 4
    return Workload(
        name=name,
        leaves=(values,),
        oracle=jagged,
        variants=variants,
        forward=Cost(values.nbytes + pooled, 0.0),
        both=Cost(2 * values.nbytes + 2 * pooled, 0.0),
    )


def build_signature_sums(device: str) -> Iterator[Workload]:
    """Yields long histories with one candidate and with many, and short ones."""
    for users, length, shared in ((32, 4000, 1), (8, 4000, 32), (1024, 50, 1)):
        name = f"{users} histories of {length}, {shared} candidate(s) each"
        yield _build_signatures(name, users, length, shared, device)


def _build_signatures(name: str, users: int, length: int, shared: int, device: str) -> Workload:
    generator, dim = torch.Generator().manual_seed(7), 64
    behaviors = torch.randn(users * length, dim, generator=generator).to(device)
    query = torch.randn(users * shared, dim, generator=generator).to(device)
    directions = torch.randn(dim, SIGNATURES * BITS, generator=generator).to(device)
    codes, wanted = (signatures(rows, directions, BITS) for rows in (behaviors, query))
    ends = torch.arange(1, users + 1, device=device) * length
    windows = torch.stack([ends - length, ends], dim=1)
    owner = torch.arange(users, device=device)
    of_behavior, of_candidate = owner.repeat_interleave(length), owner.repeat_interleave(shared)

    def buckets(leaves: Sequence[Tensor]) -> Tensor:
        total = leaves[0].new_zeros(len(query), dim)
        for place in range(SIGNATURES):
            bucket = of_behavior * 2**BITS + codes[:, place]
            sums = leaves[0].new_zeros(users * 2**BITS, dim).index_add(0, bucket, leaves[0])
            mine = sums[of_candidate * 2**BITS + wanted[:, place]]
            total = total + normalize(mine, dim=1)
        return total / SIGNATURES

    seen = windows.repeat_interleave(shared, dim=0)
    return Workload(
        name=name,
        leaves=(behaviors,),
        oracle=buckets,
        variants={
            "index_add by bucket": buckets,
            "signature_sums": lambda leaves: signature_sums(leaves[0], codes, wanted, seen),
        },
        forward=Cost(behaviors.nbytes + codes.nbytes, 0.0),
        both=Cost(3 * behaviors.nbytes + 2 * codes.nbytes, 0.0),
    )


def build_gated_scale(device: str) -> Iterator[Workload]:
    """Yields the gate of one tower out of three."""
    generator = torch.Generator().manual_seed(7)
    rows, width = 4096, 256
    logits = torch.randn(rows, 3 * width, generator=generator).to(device)
    hidden = torch.randn(rows, width, generator=generator).to(device)

    def plain(leaves: Sequence[Tensor]) -> Tensor:
        return gated_scale_reference(leaves[0][:, width : 2 * width], leaves[1], 2.0)

    yield Workload(
        name="4,096 candidates, 256 units",
        leaves=(logits, hidden),
        oracle=plain,
        variants={
            "sigmoid and products": plain,
            "sigmoid and products, torch.compile": compile_variant(plain),
            "gated_scale": lambda leaves: gated_scale(
                leaves[0][:, width : 2 * width], leaves[1], 2.0
            ),
        },
        forward=Cost(3 * hidden.nbytes, 0.0),
        both=Cost(8 * hidden.nbytes, 0.0),
    )
