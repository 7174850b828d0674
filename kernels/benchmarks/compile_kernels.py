"""Compiles the Triton kernels for a Hopper GPU, on a machine without one.

    python kernels/benchmarks/compile_kernels.py [OP ...]

Prints a table; with --json one object a kernel. See `hopper.py`.
"""

import argparse
import json

from benchmarks.builds import BUILDS
from benchmarks.hopper import compile_for_hopper


def main() -> None:
    """Compiles the kernels of the ops on the command line, or of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("op", nargs="*", help=", ".join(BUILDS))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for op in arguments.op:
        if op not in BUILDS:
            parser.error(f"{op!r} is none of {', '.join(BUILDS)}")
    if not arguments.json:
        print("| kernel | build | registers | spilled bytes | shared bytes | wgmma, mma |")
        print("| --- | --- | --- | --- | --- | --- |")
    for op in arguments.op or BUILDS:
        for build in BUILDS[op]():
            found = {"op": op, **compile_for_hopper(build)}
            if arguments.json:
                print(json.dumps(found), flush=True)
                continue
            name = f"{op}: `{found['kernel']}`"
            note = found["note"].replace("torch.", "")
            numbers = [found[key] for key in ("registers", "spilled_bytes", "shared_bytes")]
            cells = [name, note, *map(str, numbers), f"{found['wgmma']}, {found['mma']}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
