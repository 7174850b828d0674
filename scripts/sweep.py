"""Trains and evaluates every point of a grid or a search, each in its own processes, and reports.

python scripts/sweep.py -m experiment=synthetic_din dataset.path=datasets/synthetic
    optimizer.dense_lr=1e-3,3e-4 sequence=din,mean_pool seed=0,1,2 sweep.name=first sweep.workers=2
python scripts/sweep.py -m sweep=optuna sweep.name=rates sweep.search.num_points=30
    experiment=synthetic_din dataset.path=datasets/synthetic
    'optimizer.dense_lr=tag(log,interval(1e-4,1e-2))'
python scripts/sweep.py -m sweep/launcher=slurm sweep.launcher.partition=gpu sweep.launcher.gpus=1
    sweep.name=second sweep.workers=20 experiment=... seed=0,1,2

Values are swept in Hydra's multirun grammar; the keys of the training command are those of
scripts/train.py, and sweep.* says how the sweep runs (configs/sweep/). Launch the same command
again to go on after a stop: finished points are skipped, stopped ones go on at the next row.
Without -m the points are listed and nothing runs.
"""

import argparse
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def sweep(arguments: list[str], *, multirun: bool) -> None:
    """Runs, or only lists, the sweep that the arguments name."""
    from ranker.sweep.run import run_sweep
    from ranker.sweep.space import grid_points
    from ranker.sweep_config import build_sweep

    job = build_sweep(arguments, PROJECT / "configs")
    if multirun:
        run_sweep(
            job,
            job.launcher(scripts=PROJECT / "scripts", fixed=job.fixed, options=job.options),
        )
        return
    if any(parameter.is_range for parameter in job.parameters):
        print(
            "\n".join(
                f"{p.key}: {', '.join(p.choices) or f'{p.low:g} to {p.high:g}'}"
                for p in job.parameters
            )
        )
    else:
        points = grid_points(job.parameters)
        print("\n".join(point.describe() for point in points))
        print(f"{len(points)} points; add -m to run them")


def main() -> None:
    """Parses the flags; everything else is Hydra's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", "--multirun", action="store_true", help="run the points")
    parser.add_argument("overrides", nargs="*", metavar="key=value[,value]")
    options = parser.parse_args()
    # imported late, because torchrec takes seconds and --help should not wait for it
    from ranker.command import run_command

    sys.exit(run_command(lambda: sweep(options.overrides, multirun=options.multirun)))


if __name__ == "__main__":
    main()
