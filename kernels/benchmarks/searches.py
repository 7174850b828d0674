"""Workloads of the searches; what is compared are the scores of what is found."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from benchmarks.workload import Cost, Goal, Variant, Workload, compile_variant
from ranker_kernels.hamming_topk import hamming_topk, pack_bits
from ranker_kernels.search_topk import search_topk

K, DIM = 100, 64
BASELINE, OURS = "matrix product and topk", "search_topk"


def build_workloads(device: str) -> Iterator[Workload]:
    """Yields one candidate a history, many of them, and codes instead of keys."""
    yield build_search("32 histories of 10,000, 1 candidate each", 32, 1, 10_000, device)
    yield build_search("4 histories of 10,000, 32 candidates each", 4, 32, 10_000, device)
    yield _build_hamming("32 histories of 10,000, 64 bits", 32, 10_000, device)


def build_goals(device: str) -> Iterator[Workload]:
    """Yields GSU-S and GSU-M in bfloat16, and GSU-S with int8 keys."""
    half, quick = torch.bfloat16, {BASELINE: 5.0}
    goal = _goal("G2", 0.200, 0.240, quick)
    yield build_search("GSU-S: 512 x 10,000, bfloat16", 512, 1, 10_000, device, half, goal)
    goal = _goal("G2", 1.85, 2.0, quick)
    yield build_search("GSU-S: 512 x 100,000, bfloat16", 512, 1, 100_000, device, half, goal)
    goal = _goal("G2", 0.115, 0.180, {})
    yield build_search("GSU-S: 512 x 10,000, int8", 512, 1, 10_000, device, torch.int8, goal)
    # three times what no unfused search is faster than: it moves the scores, 6.25 ms
    goal = _goal("G3", 2.0, 2.7, {})
    yield build_search("GSU-M: 512 x 512 x 10,000, bfloat16", 512, 512, 10_000, device, half, goal)


def _goal(name: str, forward: float, expected: float, ratios: dict[str, float]) -> Goal:
    return Goal(name=name, variant=OURS, forward=forward, expected_forward=expected, ratios=ratios)


def build_search(
    name: str,
    users: int,
    shared: int,
    length: int,
    device: str,
    dtype: torch.dtype = torch.float32,
    goal: Goal | None = None,
) -> Workload:
    """Builds a search by one head for `shared` candidates of each user."""
    # drawn where it is needed: gigabytes
    generator = torch.Generator(device).manual_seed(7)

    def draw(rows: int) -> Tensor:
        return torch.randn(rows, DIM, generator=generator, device=device)

    if dtype == torch.int8:
        keys = (draw(users * length) * 30).round_().clamp_(-127, 127).to(dtype)
        query = (draw(users * shared) / 30).bfloat16()
    else:
        keys, query = draw(users * length).to(dtype), draw(users * shared).to(dtype)
    ends = torch.arange(1, users + 1, device=device) * length
    windows = torch.stack([ends - length, ends], dim=1).repeat_interleave(shared, dim=0)

    def padded(leaves: Sequence[Tensor]) -> Tensor:
        histories = leaves[1].view(users, length, DIM)
        scores = leaves[0].view(users, shared, DIM) @ histories.to(leaves[0].dtype).mT
        index = scores.topk(K, dim=2).indices + torch.arange(users, device=device).view(
            -1, 1, 1
        ).mul(length)
        return index.view(-1, K)

    def search(leaves: Sequence[Tensor]) -> Tensor:
        return search_topk(leaves[0].unsqueeze(1), leaves[1], None, windows, k=K)

    return Workload(
        name=name,
        leaves=(query, keys),
        oracle=padded,
        variants={
            BASELINE: padded,
            f"{BASELINE}, torch.compile": compile_variant(padded),
            OURS: search,
        },
        judge=score_found,
        forward=Cost(keys.nbytes + query.nbytes, 2.0 * shared * keys.numel()),
        goal=goal,
    )


def score_found(leaves: Sequence[Tensor], index: Tensor) -> Tensor:
    """Returns the scores `[C, K]` of what was found, highest first."""
    found = leaves[1][index].double() @ leaves[0].double().unsqueeze(2)
    return found.squeeze(2).sort(dim=1, descending=True).values


def _build_hamming(name: str, users: int, length: int, device: str) -> Workload:
    generator = torch.Generator().manual_seed(7)
    bits = torch.rand(users * length, 64, generator=generator).to(device) < 0.5
    wanted = torch.rand(users, 64, generator=generator).to(device) < 0.5
    keys, query = pack_bits(bits), pack_bits(wanted)
    ends = torch.arange(1, users + 1, device=device) * length
    windows = torch.stack([ends - length, ends], dim=1)
    signs, sought = bits.float() * 2 - 1, wanted.float() * 2 - 1

    def product(_: Sequence[Tensor]) -> Tensor:
        agreement = signs.view(users, length, 64) @ sought.unsqueeze(2)
        return agreement.squeeze(2).topk(K, dim=1).indices + windows[:, :1]

    def search(_: Sequence[Tensor]) -> Tensor:
        return hamming_topk(query, keys, windows, k=K)

    def judge(_: Sequence[Tensor], found: Tensor) -> Tensor:
        agreement = (signs[found] * sought.unsqueeze(1)).sum(dim=2)
        return agreement.sort(dim=1, descending=True).values.double()

    variants: dict[str, Variant] = {"signs, matrix product and topk": product}
    variants["hamming_topk"] = search
    return Workload(
        name=name,
        leaves=(),
        oracle=product,
        variants=variants,
        judge=judge,
        forward=Cost(keys.nbytes + query.nbytes, 0.0),
    )
