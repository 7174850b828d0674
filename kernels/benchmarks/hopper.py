"""Compiles a Triton kernel for a Hopper GPU on a machine without one, and reads what it needs."""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"


def compile_for_hopper(
    kernel: Any,
    *,
    types: Mapping[str, str],
    constants: Mapping[str, Any],
    warps: int,
    default: str = "*fp32",
) -> dict[str, Any]:
    """Compiles one kernel for sm_90a.

    Args:
        kernel: a jit function.
        types: Triton's type of its arguments by name.
        constants: its constexpr arguments.
        warps: of a program.
        default: type of the arguments that `types` does not name.

    Returns:
        Registers of a thread, bytes it spills, shared memory of a program in bytes, and counts of
        tensor-core instructions.
    """
    signature = {
        name: "constexpr" if name in constants else types.get(name, default)
        for name in kernel.arg_names
    }
    compiled = triton.compile(
        ASTSource(
            fn=kernel,
            signature=signature,
            constexprs={(kernel.arg_names.index(n),): value for n, value in constants.items()},
        ),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": warps, "num_stages": 1},
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
