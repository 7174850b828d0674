"""Times the ops of `ranker_kernels` against a baseline, after checking that they agree.

    python kernels/benchmarks/run.py --op din_attention

Every variant runs once in each round, so that a busy machine slows all of them alike: read the
ratios. Times are CPU time of this process, with one thread unless told otherwise.
"""

import argparse
import csv
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.registry import OPS
from benchmarks.workload import Variant, Workload

RESULTS = Path(__file__).with_name("results.csv")
MAX_OUTPUT_ERROR, MAX_GRADIENT_ERROR = 2e-6, 1e-5


def main() -> None:
    """Runs the workloads of one op, prints a table, and writes the results beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--op", required=True, choices=sorted(OPS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    rows = []
    for workload in OPS[arguments.op]():
        check(workload)
        rows += [
            {"op": arguments.op, "workload": workload.name, "threads": arguments.threads, **row}
            for row in measure(workload, arguments.rounds)
        ]
    print_table(rows)
    write_results(arguments.op, rows)


def run(variant: Variant, leaves: tuple[Tensor, ...]) -> list[Tensor]:
    """Returns the output and the gradient of every leaf, for a fixed upstream gradient."""
    leaves = tuple(leaf.detach().requires_grad_() for leaf in leaves)
    output = variant(leaves)
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
    return [output.detach(), *torch.autograd.grad(output, leaves, upstream.to(output.dtype))]


def check(workload: Workload) -> None:
    """Refuses to time what is wrong.

    Raises:
        RuntimeError: a variant is too far from the oracle.
    """
    expected = run(workload.oracle, tuple(leaf.double() for leaf in workload.leaves))
    sizes = [wanted.norm().item() for wanted in expected]
    # what is zero in exact arithmetic has no relative error: compare it with the largest
    sizes = [size if size > 1e-9 * max(sizes) else max(sizes) for size in sizes]
    for name, variant in workload.variants.items():
        errors = [
            (actual.double() - wanted).norm().item() / size
            for actual, wanted, size in zip(
                run(variant, workload.leaves), expected, sizes, strict=True
            )
        ]
        if errors[0] > MAX_OUTPUT_ERROR or max(errors[1:]) > MAX_GRADIENT_ERROR:
            raise RuntimeError(
                f"{workload.name}, {name}: relative errors {errors} of the output and the "
                f"gradients exceed {MAX_OUTPUT_ERROR} and {MAX_GRADIENT_ERROR}"
            )


def measure(workload: Workload, rounds: int) -> list[dict[str, str]]:
    """Returns one row for each variant, with medians over the rounds."""
    forward: dict[str, list[float]] = {name: [] for name in workload.variants}
    both: dict[str, list[float]] = {name: [] for name in workload.variants}
    for _ in range(rounds):
        for name, variant in workload.variants.items():
            start = time.process_time()
            with torch.no_grad():
                variant(workload.leaves)
            middle = time.process_time()
            run(variant, workload.leaves)
            forward[name].append(middle - start)
            both[name].append(time.process_time() - middle)
    baseline = next(iter(workload.variants))
    return [
        {
            "variant": name,
            "forward_ms": f"{1e3 * statistics.median(forward[name]):.1f}",
            "forward_backward_ms": f"{1e3 * statistics.median(both[name]):.1f}",
            "forward_ratio": _ratio(forward[baseline], forward[name]),
            "forward_backward_ratio": _ratio(both[baseline], both[name]),
        }
        for name in workload.variants
    ]


def _ratio(baseline: list[float], variant: list[float]) -> str:
    return f"{statistics.median(baseline) / statistics.median(variant):.1f}"


def print_table(rows: list[dict[str, str]]) -> None:
    """Prints the rows as a Markdown table."""
    columns = [column for column in rows[0] if column not in ("op", "threads")]
    print(f"torch {torch.__version__}, {platform.machine()}, {rows[0]['threads']} thread(s)\n")
    for line in (columns, ["---"] * len(columns), *([row[c] for c in columns] for row in rows)):
        print(f"| {' | '.join(line)} |")


def write_results(op: str, rows: list[dict[str, str]]) -> None:
    """Replaces the rows of one op in `results.csv`."""
    kept = []
    if RESULTS.exists():
        with RESULTS.open(newline="") as file:
            kept = [row for row in csv.DictReader(file) if row["op"] != op]
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted([*kept, *rows], key=lambda row: row["op"]))


if __name__ == "__main__":
    main()
