"""Compiles the Triton kernels of `din_attention` for a Hopper GPU, on a machine without one.

    python kernels/benchmarks/compile_din_attention.py

Prints one JSON object a kernel: registers of a thread, bytes it spills, shared memory of a program
in bytes, and tensor-core instructions. D = 64 and hidden layers of 80 and 40, as tiles 128 and 64.
"""

import json
from typing import Any

import torch

from benchmarks.hopper import compile_for_hopper
from ranker_kernels.din_attention import Activation, triton_kernels
from ranker_kernels.din_attention.launch import WARPS, choose_tiles

INT64 = {"windows", "order", "key_rows"}
ACTIVATIONS: dict[int, Activation] = {0: "sigmoid", 2: "dice"}
# the rest of the pointers is float32
SAME_AS_BEHAVIORS = {"query", "behaviors", "weight2", "key_gradient"}


def main() -> None:
    """Compiles forward and backward, sigmoid and Dice, in bfloat16; and sigmoid in float32."""
    for dtype, kind in ((torch.bfloat16, 0), (torch.bfloat16, 2), (torch.float32, 0)):
        tiles = choose_tiles(dtype, ACTIVATIONS[kind])
        for kernel, tile, warps in (
            (triton_kernels.forward, tiles.forward, tiles.forward_warps),
            (triton_kernels.backward_pairs, tiles.backward, WARPS),
            (triton_kernels.backward_first_layer, tiles.backward, WARPS),
        ):
            print(json.dumps(compile_kernel(kernel, dtype, kind, tile, warps)), flush=True)


def compile_kernel(
    kernel: Any, dtype: torch.dtype, kind: int, tile: int, warps: int
) -> dict[str, Any]:
    """Compiles one kernel for sm_90a and reads what it needs from the assembler's report."""
    sides = {"DIM": 64, "D": 64, "H1": 128, "H2": 64, "TILE": tile}
    options = {"KIND": kind, "SOFTMAX": True, "DOT": triton_kernels.DOT_TYPES[dtype]}
    element = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}[dtype]
    types = dict.fromkeys(INT64, "*i64") | dict.fromkeys(SAME_AS_BEHAVIORS, element)
    types |= {"num_candidates": "i32", "scale": "fp32"}
    found = compile_for_hopper(kernel, types=types, constants=sides | options, warps=warps)
    return {"kernel": found.pop("kernel"), "dtype": str(dtype), "kind": kind, **found}


if __name__ == "__main__":
    main()
