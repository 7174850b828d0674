"""Trains the same run under every sharding type on 1, 2 and 4 ranks and compares the numbers.

python scripts/sharding_matrix.py --data datasets/synthetic --work-dir runs/sharding_matrix
prints a Markdown table: the largest difference of any loss, and of any validation metric, to
row_wise on one rank.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

PLACEMENTS = {
    "row_wise": ["sharding=row_wise"],
    "table_wise": ["sharding=table_wise"],
    "column_wise": ["sharding=column_wise"],
    "data_parallel": ["sharding=data_parallel"],
    "auto, small tables data_parallel, pipeline": [
        "sharding=auto",
        "sharding.data_parallel_rows=100",
        "trainer.pipeline=true",
    ],
}
TIMING = ("samples_per_second", "data_wait_fraction", "memory_gb")
Record = dict[str, float]


def train(data: Path, work_dir: Path, placement: str, ranks: int, steps: int) -> list[Record] | str:
    """Trains one run and returns its records, or the error that ended it."""
    name = f"{placement.replace(', ', '_').replace(' ', '_')}_{ranks}"
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        f"--nproc-per-node={ranks}",
        str(Path(__file__).parent / "train.py"),
        "experiment=synthetic_din",
        f"dataset.path={data}",
        f"run_root={work_dir}",
        f"name={name}",
        # Adagrad's first steps divide a gradient by itself, which magnifies rounding
        "optimizer.sparse=sgd",
        "optimizer.sparse_lr=1.0",
        "trainer.epochs=1",
        f"trainer.max_steps={steps}",
        "trainer.log_every_steps=1",
        *PLACEMENTS[placement],
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        return errors[0] if errors else f"exit code {done.returncode}"
    lines = (work_dir / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def compare(found: list[Record], expected: list[Record]) -> tuple[float, float]:
    """Returns the largest difference of a loss, and of a metric of an evaluation."""
    largest = {"train": 0.0, "valid": 0.0}
    for one, other in zip(found, expected, strict=True):
        kind = str(one["kind"])
        for name in other.keys() - {"kind", "step", *TIMING}:
            largest[kind] = max(largest[kind], abs(one[name] - other[name]))
    return largest["train"], largest["valid"]


def main() -> None:
    """Runs the matrix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a prepared synthetic data set")
    parser.add_argument("--work-dir", type=Path, required=True, help="for the runs")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    reference: list[Record] | None = None
    print("| placement | " + " | ".join(f"{n} rank(s)" for n in options.ranks) + " |")
    print("|---|" + "---|" * len(options.ranks))
    for placement in PLACEMENTS:
        cells = []
        for ranks in options.ranks:
            records = train(options.data, options.work_dir, placement, ranks, options.steps)
            if isinstance(records, str):
                cells.append(records)
                continue
            reference = reference or records
            loss, metric = compare(records, reference)
            cells.append(f"{loss:.1e}, {metric:.1e}")
        print(f"| {placement} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
