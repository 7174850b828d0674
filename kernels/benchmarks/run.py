"""Times the ops of `ranker_kernels` against other ways to the same, after checking that they agree.

    python kernels/benchmarks/run.py --op din_attention
    python kernels/benchmarks/run.py --device cuda --op all
    python kernels/benchmarks/run.py --device cuda --goals

Every variant runs once in each round, so that a busy machine slows all of them alike: read the
ratios. Times are medians: CPU time of this process with one thread unless told otherwise, or time
on the GPU. The limit is what copying memory and multiplying matrices at the speed measured on the
same device would take.

A variant that fails, or is too far from the oracle, is left out and said so, and the exit code is
1. Results are written after each workload.
"""

import argparse
import csv
import dataclasses
import statistics
import sys
import traceback
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.ceilings import Ceilings, measure_ceilings
from benchmarks.registry import GOALS, OPS
from benchmarks.report import print_goals, print_table
from benchmarks.timing import time_call, time_host
from benchmarks.workload import Variant, Workload

RESULTS = Path(__file__).with_name("results.csv")
# largest relative error of the output, and of a gradient
MAX_ERRORS = {torch.float32: (2e-6, 1e-5), torch.bfloat16: (2e-2, 1e-1)}
# keys of a row, and what a CSV file is sorted by
KEYS = ("op", "device", "workload")


def main() -> None:
    """Runs workloads, prints tables, and writes the results beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--op", default="all", choices=["all", *OPS])
    parser.add_argument("--goals", action="store_true", help="the workloads with a goal on a GPU")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--match", default="", help="only workloads whose names contain this")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.goals and arguments.device != "cuda":
        parser.error("goals are for a GPU: add --device cuda")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    builds = GOALS if arguments.goals else OPS
    ceilings = {
        dtype: measure_ceilings(arguments.device, dtype)
        for dtype in ((torch.float32, torch.bfloat16) if arguments.goals else (torch.float32,))
    }
    failures: list[str] = []
    for op, build in builds.items():
        if arguments.op not in ("all", op):
            continue
        rows = []
        try:
            for workload in build(arguments.device):
                if arguments.match in workload.name:
                    found = measure_sound(workload, arguments, ceilings, failures)
                    first = {"op": op, "device": arguments.device, "workload": workload.name}
                    rows += [{**first, "threads": str(arguments.threads), **row} for row in found]
                    if rows:
                        write_results(rows)
        except Exception:  # an op whose kernels fail must not hide the others
            failures.append(f"{op}: {traceback.format_exc()}")
        if rows:
            print_table(rows)
    for failure in failures:
        print(failure, file=sys.stderr)
    sys.exit(bool(failures))


def measure_sound(
    workload: Workload,
    arguments: argparse.Namespace,
    ceilings: dict[torch.dtype, Ceilings],
    failures: list[str],
) -> list[dict[str, str]]:
    """Measures the variants that pass `check`; what is wrong with the others goes to `failures`.

    Ratios are to the first that passes.
    """
    sound, wrong = check(workload)
    failures += wrong
    if not sound:
        return []
    workload = dataclasses.replace(workload, variants=sound)
    dtype = workload.leaves[0].dtype if workload.leaves else torch.float32
    rows = measure(workload, arguments.rounds, arguments.device, ceilings[dtype])
    goal = workload.goal
    if goal is not None and goal.variant in sound:
        host = measure_host(workload, sound[goal.variant], arguments.rounds)
        print_goals(goal, [{"workload": workload.name, **row} for row in rows], host)
    return rows


def run(variant: Variant, leaves: tuple[Tensor, ...], upstream: Tensor) -> list[Tensor]:
    """Returns the output and the gradient of every leaf."""
    leaves = tuple(leaf.detach().requires_grad_() for leaf in leaves)
    output = variant(leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, upstream.to(output.dtype))]


def check(workload: Workload) -> tuple[dict[str, Variant], list[str]]:
    """Returns the variants that agree with the oracle, and what is wrong with the others."""
    exact = tuple(leaf.double() for leaf in workload.leaves)
    with torch.no_grad():
        output = workload.oracle(exact)
    # the same whatever was drawn before: with some draws sums nearly cancel
    draw = np.random.default_rng(0).standard_normal(output.shape if workload.both else ())
    upstream = torch.from_numpy(draw).to(output)
    expected = _compute(workload, workload.oracle, exact, upstream)
    sizes = [wanted.norm().item() for wanted in expected]
    # what is zero in exact arithmetic has no relative error: compare it with the largest
    sizes = [size if size > 1e-9 * max(sizes) else max(sizes) for size in sizes]
    dtype = workload.leaves[0].dtype if workload.leaves else torch.float32
    limits = [MAX_ERRORS[dtype][0], *[MAX_ERRORS[dtype][1]] * (len(sizes) - 1)]
    sound, wrong = {}, []
    for name, variant in workload.variants.items():
        try:
            found = _compute(workload, variant, workload.leaves, upstream)
        except Exception:  # of any kind: a kernel that does not compile, memory that is too small
            wrong.append(f"{workload.name}, {name}: {traceback.format_exc()}")
            continue
        errors = [
            (actual.double() - wanted).norm().item() / size
            for actual, wanted, size in zip(found, expected, sizes, strict=True)
        ]
        # NaN is no number below a limit
        if all(error <= limit for error, limit in zip(errors, limits, strict=True)):
            sound[name] = variant
        else:
            wrong.append(
                f"{workload.name}, {name}: relative errors {errors} of the output and the "
                f"gradients exceed {limits}"
            )
    return sound, wrong


def _compute(
    workload: Workload, variant: Variant, leaves: tuple[Tensor, ...], upstream: Tensor
) -> list[Tensor]:
    if workload.both is not None:
        return run(variant, leaves, upstream)
    with torch.no_grad():
        return [workload.judge(leaves, variant(leaves))]


def measure_host(workload: Workload, variant: Variant, rounds: int) -> dict[str, float]:
    """Returns the median seconds that launching a variant keeps the host busy, by kind."""
    with torch.no_grad():
        upstream = variant(workload.leaves)
        forward = [time_host(lambda: variant(workload.leaves)) for _ in range(rounds)]
    found = {"forward": statistics.median(forward)}
    if workload.both is not None:
        both = [time_host(lambda: run(variant, workload.leaves, upstream)) for _ in range(rounds)]
        found["forward_backward"] = statistics.median(both)
    return found


def measure(
    workload: Workload, rounds: int, device: str, ceilings: Ceilings
) -> list[dict[str, str]]:
    """Returns one row for each variant, with medians over the rounds."""
    forward: dict[str, list[float]] = {name: [] for name in workload.variants}
    both: dict[str, list[float]] = {name: [] for name in workload.variants}
    with torch.no_grad():
        upstream = next(iter(workload.variants.values()))(workload.leaves)
    for _ in range(rounds):
        for name, variant in workload.variants.items():
            with torch.no_grad():
                forward[name].append(time_call(lambda: variant(workload.leaves), device))  # noqa: B023
            if workload.both is not None:
                both[name].append(
                    time_call(lambda: run(variant, workload.leaves, upstream), device)  # noqa: B023
                )
    rows = []
    baseline = next(iter(workload.variants))
    for name in workload.variants:
        row = {"variant": name}
        for kind, times, cost in (
            ("forward", forward, workload.forward),
            ("forward_backward", both, workload.both),
        ):
            if cost is None:
                row |= {f"{kind}_ms": "", f"{kind}_ratio": "", f"{kind}_of_limit": ""}
                continue
            median = statistics.median(times[name])
            ratio = statistics.median(times[baseline]) / median
            row |= {
                f"{kind}_ms": f"{1e3 * median:.3g}",
                f"{kind}_ratio": f"{ratio:.1f}",
                f"{kind}_of_limit": f"{ceilings.fastest(cost) / median:.2f}",
            }
        rows.append(row)
    return rows


def write_results(rows: list[dict[str, str]]) -> None:
    """Replaces the rows of the same op, device and workloads in `results.csv`."""
    kept: list[dict[str, str]] = []
    measured = {_key(row) for row in rows}
    if RESULTS.exists():
        with RESULTS.open(newline="") as file:
            kept = [row for row in csv.DictReader(file) if _key(row) not in measured]
    ordered: list[dict[str, str]] = sorted([*kept, *rows], key=_key)
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(ordered)


def _key(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in KEYS)


if __name__ == "__main__":
    main()
