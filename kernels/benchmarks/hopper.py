"""Compiles a Triton kernel for a Hopper GPU on a machine without one, and reads what it needs."""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"


@dataclass(frozen=True, kw_only=True)
class Build:
    """A kernel as it is launched.

    Attributes:
        kernel: a jit function.
        note: what tells it from other builds of the same kernel.
        constants: its constexpr arguments; those that the kernel does not have are left out.
        types: Triton's type of its arguments by name; the others are float32 pointers.
        warps: of a program.
        stages: tiles that a loop has under way; by default as many as by Triton's.
    """

    kernel: Any
    note: str
    constants: Mapping[str, Any]
    types: Mapping[str, str]
    warps: int = 4
    stages: int = 3


def compile_for_hopper(build: Build) -> dict[str, Any]:
    """Compiles a kernel for sm_90a.

    Returns:
        Registers of a thread, bytes it spills, shared memory of a program in bytes, counts of
        tensor-core instructions, and the numbers of which a launch compiles other builds: if they
        are 1, or divisible by 16.
    """
    names = build.kernel.arg_names
    constants = {name: value for name, value in build.constants.items() if name in names}
    signature = {
        name: "constexpr" if name in constants else build.types.get(name, "*fp32") for name in names
    }
    pointers = [place for place, name in enumerate(names) if signature[name].startswith("*")]
    compiled = triton.compile(
        ASTSource(
            fn=build.kernel,
            signature=signature,
            constexprs={(names.index(name),): value for name, value in constants.items()},
            # tensors begin on 16 bytes, as a launch would find; without it loads are narrow
            attrs={(place,): [["tt.divisibility", 16]] for place in pointers},
        ),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": build.warps, "num_stages": build.stages},
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
    specialized = [
        parameter.name
        for parameter in build.kernel.params
        if signature[parameter.name] == "i32" and not parameter.do_not_specialize
    ]
    return {
        "kernel": build.kernel.fn.__name__,
        "note": build.note,
        "registers": _read(r"Used (\d+) registers", report),
        "spilled_bytes": _read(r"(\d+) bytes spill stores", report),
        "shared_bytes": compiled.metadata.shared,
        "wgmma": ptx.count("wgmma.mma_async"),
        "mma": ptx.count("mma.sync"),
        "specialized": specialized,
    }


def _read(pattern: str, report: str) -> int:
    found = re.search(pattern, report)
    assert found is not None, report
    return int(found.group(1))
