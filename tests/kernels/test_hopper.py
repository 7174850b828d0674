"""The Triton kernels compiled for a Hopper GPU that is not there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# forward kernels spill nothing; tensor cores take 16-bit operands only
BACKWARD_SPILL = 300
SHARED_MEMORY = 227 * 1024
# numbers that do not change from batch to batch
OF_THE_MODEL = {"k", "size", "gradient_stride", "logits_stride", "hidden_stride"}
WITHOUT_PRODUCTS = {
    *("group", "merge", "select", "closeness", "combine", "sum_segments", "pool", "add_sums"),
    *("group_windows", "locate_groups", "merge_moments"),
    *("count_selections", "order_selections", "merge_selections"),
    "differentiate_tables",
    *("gated_scale forward", "gated_scale backward"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "ops",
    [
        ["din_attention"],
        ["din_moments"],
        ["searches"],
        ["target_attention", "segment_sum", "gated_scale", "signature_sums"],
    ],
    ids=" ".join,
)
def test_kernels_compile_without_spilling_much(ops: list[str], project_root: Path) -> None:
    kernels = project_root / "kernels"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    printed = subprocess.run(
        [sys.executable, kernels / "benchmarks" / "compile_kernels.py", "--json", *ops],
        env=environment | {"PYTHONPATH": str(kernels)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = [json.loads(line) for line in printed.splitlines()]
    assert {kernel["op"] for kernel in found} == set(ops)
    for kernel in found:
        name = kernel["kernel"]
        # the rest are sizes of a batch: a build for each would stop a training to compile it
        assert set(kernel["specialized"]) <= OF_THE_MODEL, kernel
        backward = name.startswith(("backward", "differentiate"))
        assert kernel["spilled_bytes"] <= (BACKWARD_SPILL if backward else 0), kernel
        assert kernel["shared_bytes"] <= SHARED_MEMORY, kernel
        multiplies = not {name, f"{kernel['op']} {name}"} & WITHOUT_PRODUCTS
        on_tensor_cores = multiplies and "bfloat16" in kernel["note"]
        assert (kernel["wgmma"] + kernel["mma"] > 0) == on_tensor_cores, kernel
    # the tiles of the most frequent kernels are long enough for a whole warp group
    for name, note in (
        ("forward", "torch.bfloat16, sigmoid"),
        ("forward", "torch.bfloat16, windows"),
        ("search", "torch.bfloat16, 1 head(s), many"),
    ):
        for kernel in found:
            if (kernel["kernel"], kernel["note"]) == (name, note):
                assert kernel["wgmma"] > 0, kernel
