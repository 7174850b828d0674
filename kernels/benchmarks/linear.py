"""Workloads of `linear` against PyTorch's own: layers of towers and experts, on CPUs."""

from collections.abc import Iterator

import torch
from torch import nn

from benchmarks.workload import Cost, Workload
from ranker_kernels.linear import linear

LAYERS = ((80, 200), (200, 80), (400, 256), (256, 128), (128, 64), (1024, 512))


def build_workloads(device: str) -> Iterator[Workload]:
    """Yields each layer for batches of two sizes; nothing on a GPU, where the op is PyTorch's."""
    if device != "cpu":
        return
    for rows in (1024, 4096):
        for inputs, outputs in LAYERS:
            yield _build(rows, inputs, outputs)


def _build(rows: int, inputs: int, outputs: int) -> Workload:
    generator = torch.Generator().manual_seed(7)
    shapes = ((rows, inputs), (outputs, inputs), (outputs,))
    leaves = tuple(torch.randn(shape, generator=generator) for shape in shapes)
    read = sum(leaf.nbytes for leaf in leaves)
    written, flops = 4 * rows * outputs, 2 * rows * inputs * outputs
    return Workload(
        name=f"{rows:,} rows, {inputs} to {outputs}",
        leaves=leaves,
        oracle=lambda leaves: nn.functional.linear(*leaves),
        variants={
            "PyTorch": lambda leaves: nn.functional.linear(*leaves),
            "linear": lambda leaves: linear(*leaves),
        },
        forward=Cost(read + written, flops),
        both=Cost(3 * read + 2 * written, 3 * flops),
    )
