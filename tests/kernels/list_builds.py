"""Prints which builds of its kernels each op asks Triton for, for batches of several sizes.

    python tests/kernels/list_builds.py

Runs without TRITON_INTERPRET and without a GPU: the launch code up to Triton's cache of compiled
kernels, which it asks with a key. Nothing is compiled or launched, so results are of no worth.
"""

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from ranker_kernels.din_attention import Moments
from ranker_kernels.din_attention import launch as din
from ranker_kernels.din_attention import launch_moments as moments
from ranker_kernels.din_attention.unit import ActivationUnit, Layers
from ranker_kernels.gated_scale import launch as gate
from ranker_kernels.hamming_topk import launch as hamming
from ranker_kernels.search_topk import launch as search
from ranker_kernels.segment_sum import launch as segments
from ranker_kernels.signature_sums import launch as signatures
from ranker_kernels.target_attention import launch as target

# candidates: one, a multiple of 16, and odd ones; the rows of a window, and the width
SIZES, LENGTH, DIM, HEADS, K = (1, 48, 33, 7), 24, 16, 2, 5
MAX_GRID = 65535


class Hopper:
    """A driver of a GPU that is not there."""

    multi_processor_count = 132
    shared_memory_per_block_optin = 227 * 1024

    def __init__(self, _device: object = None) -> None:
        pass

    def get_current_target(self) -> GPUTarget:
        """Returns what is compiled for."""
        return GPUTarget("cuda", 90, 32)


def find_builds() -> list[dict[str, list[str]]]:
    """Returns for each size the keys of the builds, by op and kernel."""
    ops: dict[str, Callable[[int], object]] = {
        "din_attention": run_din,
        "target_attention": run_target,
        "search_topk": run_search,
        "hamming_topk": run_hamming,
        "segment_sum": run_segments,
        "signature_sums": run_signatures,
        "gated_scale": run_gate,
    }
    asked: list[tuple[Any, str]] = []

    def ask(kernel: Any, *args: Any, grid: tuple[int, ...], warmup: bool, **kwargs: Any) -> None:
        assert all(side > 0 for side in grid), (kernel, grid)
        assert all(side <= MAX_GRID for side in grid[1:]), (kernel, grid)
        _, _, _, backend, binder = kernel.device_caches[0]
        bound, specialization, options = binder(*args, **kwargs, debug=False)
        # it refuses what the kernel does not know
        kernel._pack_args(backend, {**kwargs, "debug": False}, bound, specialization, options)
        asked.append((kernel, f"{specialization} {options}"))

    driver.set_active(Hopper())
    JITFunction.run = ask
    torch.cuda.get_device_properties = Hopper  # type: ignore[assignment]
    builds = []
    for count in SIZES:
        found: dict[str, set[str]] = {}
        for name, run in ops.items():
            asked.clear()
            run(count)
            for kernel, key in asked:
                found.setdefault(f"{name} {kernel.__name__}", set()).add(key)
        builds.append({kernel: sorted(keys) for kernel, keys in found.items()})
    return builds


def make_windows(count: int) -> Tensor:
    """Returns windows one behind the other."""
    ends = torch.arange(1, count + 1) * LENGTH
    return torch.stack([ends - LENGTH, ends], dim=1)


def run_din(count: int) -> None:
    """Runs the attention, and the moments of both layers."""
    query, behaviors = torch.zeros(count, DIM), torch.zeros(count * LENGTH, DIM)
    windows, widths = make_windows(count), (4 * DIM, 20, 9, 1)
    weights = [torch.zeros(widths[i + 1], widths[i]) for i in range(3)]
    biases, alphas = [torch.zeros(n) for n in widths[1:]], [torch.zeros(n) for n in widths[1:3]]
    pairs = [Moments(alpha, alpha) for alpha in alphas]
    unit = ActivationUnit(
        activation="dice",
        weights=tuple(weights),
        biases=tuple(biases),
        alphas=tuple(alphas),
        moments=tuple(pairs),
    )
    spread = din.choose_launch(behaviors, "dice")
    inputs = (query, behaviors, windows)
    output, terms = din.forward(*inputs, unit, "softmax", spread)
    din.backward(output, output, terms, *inputs, unit, "softmax", spread)
    for depth in (1, 2):
        layers = Layers(
            activation="dice",
            weights=tuple(weights[:depth]),
            biases=tuple(biases[:depth]),
            alphas=tuple(alphas[: depth - 1]),
            moments=tuple(pairs[: depth - 1]),
        )
        statistics = moments.forward_moments(*inputs, layers, spread)
        moments.backward_moments(statistics, statistics.mean, *inputs, layers, spread)


def run_target(count: int) -> None:
    """Runs the attention to windows and to selections."""
    query, values = torch.zeros(count, HEADS, DIM), torch.zeros(count * LENGTH, DIM)
    bias = torch.zeros(len(values), HEADS)
    index = torch.zeros(count, K, dtype=torch.int64)
    for where in ((make_windows(count), None), (None, index)):
        inputs = (query, None, values, bias, *where)
        tiles = target.choose_tiles(*inputs[:4])
        output, normalizer = target.forward(*inputs, tiles=tiles)
        target.backward(output, output, normalizer, *inputs, tiles=tiles)


def run_search(count: int) -> None:
    """Runs the search, by tiles and without."""
    query, keys = torch.zeros(count, HEADS, DIM), torch.zeros(count * LENGTH, DIM)
    for dim in (DIM, 512):
        query, keys = torch.zeros(count, HEADS, dim), torch.zeros(count * LENGTH, dim)
        spread = search.choose_launch(query, keys, None, K)
        search.search(query, keys, None, make_windows(count), K, spread)


def run_hamming(count: int) -> None:
    """Runs the search."""
    codes = torch.zeros(count * LENGTH, 1, dtype=torch.int64)
    hamming.search(codes[:count], codes, make_windows(count), K)


def run_segments(count: int) -> None:
    """Runs the sums and their gradient."""
    values = torch.zeros(count * LENGTH, DIM)
    output = segments.forward(values, make_windows(count))
    segments.backward(output, make_windows(count), len(values))


def run_signatures(count: int) -> None:
    """Runs the sums and their gradient."""
    behaviors, codes = torch.zeros(count * LENGTH, DIM), torch.ones(count * LENGTH, 3).byte()
    inputs = (behaviors, codes, codes[:count], make_windows(count))
    signatures.backward(signatures.forward(*inputs), *inputs)


def run_gate(count: int) -> None:
    """Runs the product and its gradient."""
    logits, hidden = torch.zeros(count, 3 * DIM)[:, DIM : 2 * DIM], torch.zeros(count, DIM)
    gate.backward(gate.forward(logits, hidden, 2.0), logits, hidden, 2.0)


if __name__ == "__main__":
    print(json.dumps(find_builds()))
