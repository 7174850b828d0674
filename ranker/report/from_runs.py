"""The comparison of evaluated runs: one by one, or groups of runs that differ in their seed."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ranker.report.compare import ComparisonContext, compare_predictions, write_comparison
from ranker.report.groups import compare_groups, measure_run
from ranker.report.predictions import Predictions, read_predictions
from ranker.report.sweep import build_group_comparison, write_groups
from ranker.run_dir import RunDir


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What to compare.

    Attributes:
        runs: run directories or predictions files; or groups of them by name, each the same model
            with several seeds: {din: [runs/din_0, runs/din_1], pool: [runs/pool_0, runs/pool_1]}.
        baseline: the run or group that the others are compared with; null takes the first.
        split: which evaluation of the runs.
        out: folder to write comparison.json, .html and, for single runs, .md into.
        num_replicates: bootstrap replicates behind the intervals.
        level: confidence level of the intervals.
        seed: of the bootstrap.
    """

    runs: list[str] | dict[str, list[str]]
    baseline: str | None = None
    split: str = "test"
    out: str = "comparison"
    num_replicates: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.runs, dict):
            every = [run for group in self.runs.values() for run in group]
            empty = [name for name, group in self.runs.items() if not group]
            if empty:
                raise ValueError(f"runs.{empty[0]} is empty; give a run directory for every seed")
        else:
            every = self.runs
        twice = sorted({run for run in every if every.count(run) > 1})
        if twice:
            raise ValueError(f"runs names {twice[0]} twice; give each run once")
        names = list(self.runs)
        if len(names) < 2:
            raise ValueError(f"runs has {len(names)} entries; give at least two to compare")
        if self.baseline is not None and self.baseline not in names:
            raise ValueError(f"baseline is {self.baseline!r}; it must be one of {', '.join(names)}")


def compare_runs(options: CompareOptions) -> None:
    """Compares and writes; prints where the page is.

    Raises:
        ValueError: a run was not evaluated, or the runs were not evaluated on the same rows.
    """
    context = ComparisonContext(
        split=options.split,
        baseline=options.baseline or next(iter(options.runs)),
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        level=options.level,
        num_replicates=options.num_replicates,
        seed=options.seed,
    )
    out = Path(options.out)
    if isinstance(options.runs, dict):
        _, page = _compare_groups(options.runs, context, out)
    else:
        runs = {name: _read(name, options.split) for name in options.runs}
        _, page = write_comparison(out, compare_predictions(runs, context))
    print(f"comparison: {page}")


def _compare_groups(
    groups: Mapping[str, list[str]], context: ComparisonContext, out: Path
) -> tuple[Path, Path]:
    measured = {
        group: {
            run: measure_run(
                _read(run, context.split),
                num_replicates=context.num_replicates,
                seed=context.seed,
            )
            for run in runs
        }
        for group, runs in groups.items()
    }
    tasks = compare_groups(measured, context, reference=context.baseline)
    return write_groups(out, "comparison", build_group_comparison(measured, tasks, context))


def _read(run: str, split: str) -> Predictions:
    path = Path(run)
    if path.is_dir():
        path = RunDir(path).evaluation(split) / "predictions.parquet"
        if not path.is_file():
            raise ValueError(
                f"{run} has no predictions of split {split}; run scripts/evaluate.py run={run} "
                f"split={split} first"
            )
    return read_predictions(path)
