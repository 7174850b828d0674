"""Compiles the Triton kernels of `din_attention` for a Hopper GPU, on a machine without one.

    python kernels/benchmarks/compile_din_attention.py

Prints one JSON object a kernel: registers of a thread, bytes it spills, shared memory of a program
in bytes, and tensor-core instructions. D = 64 and hidden layers of 80 and 40, as tiles 128 and 64.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ranker_kernels.din_attention import triton_kernels
from ranker_kernels.din_attention.launch import WARPS, choose_tiles

PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
INT64 = {"windows", "order", "key_rows"}
# the rest of the pointers is float32
SAME_AS_BEHAVIORS = {"query", "behaviors", "weight2", "key_gradient"}


def main() -> None:
    """Compiles forward and backward, sigmoid and Dice, in bfloat16; and sigmoid in float32."""
    for dtype, kind in ((torch.bfloat16, 0), (torch.bfloat16, 2), (torch.float32, 0)):
        tiles = choose_tiles(dtype)
        for kernel, tile in (
            (triton_kernels.forward, tiles.forward),
            (triton_kernels.backward_pairs, tiles.backward),
            (triton_kernels.backward_first_layer, tiles.backward),
        ):
            print(json.dumps(compile_kernel(kernel, dtype, kind, tile)), flush=True)


def compile_kernel(kernel: Any, dtype: torch.dtype, kind: int, tile: int) -> dict[str, Any]:
    """Compiles one kernel for sm_90a and reads what it needs from the assembler's report."""
    sides = {"DIM": 64, "D": 64, "H1": 128, "H2": 64, "TILE": tile}
    options = {"KIND": kind, "SOFTMAX": True, "DOT": triton_kernels.DOT_TYPES[dtype]}
    constants = {**sides, **options}
    element = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}[dtype]
    signature = {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name in ("num_candidates", "scale"):
            signature[name] = "i32" if name == "num_candidates" else "fp32"
        elif name in INT64:
            signature[name] = "*i64"
        else:
            signature[name] = element if name in SAME_AS_BEHAVIORS else "*fp32"
    positions = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    compiled = triton.compile(
        ASTSource(fn=kernel, signature=signature, constexprs=positions),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": WARPS, "num_stages": 1},
    )
    ptx = compiled.asm["ptx"]
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        report = subprocess.run(
            [PTXAS, "-v", "--gpu-name=sm_90a", file.name, "-o", "/dev/null"],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
    return {
        "kernel": kernel.fn.__name__,
        "dtype": str(dtype),
        "kind": kind,
        "registers": _read(r"Used (\d+) registers", report),
        "spilled_bytes": _read(r"(\d+) bytes spill stores", report),
        "shared_bytes": compiled.metadata.shared,
        "wgmma": ptx.count("wgmma.mma_async"),
        "mma": ptx.count("mma.sync"),
    }


def _read(pattern: str, report: str) -> int:
    found = re.search(pattern, report)
    assert found is not None, report
    return int(found.group(1))


if __name__ == "__main__":
    main()
