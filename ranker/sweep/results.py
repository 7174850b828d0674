"""From the evaluations of a sweep's points to its report."""

import datetime
import json
from pathlib import Path

from ranker.report.compare import ComparisonContext
from ranker.report.groups import measure_run
from ranker.report.predictions import read_predictions
from ranker.report.sweep import SweepContext, SweptPoint, build_sweep_report, write_groups
from ranker.run_dir import RunDir
from ranker.sweep.options import SweepOptions
from ranker.sweep.space import Point
from ranker.sweep.state import PointState, SweepDir

SEED_KEY = "seed"


def read_objective(directory: SweepDir, point: Point, options: SweepOptions) -> float | None:
    """The objective of a finished point; None where it is undefined.

    Raises:
        ValueError: the point does not predict the objective's task.
    """
    folder = RunDir(directory.run(point)).evaluation(options.split)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    task, _, metric = options.objective.partition(".")
    sections = {section["name"]: section for section in report["tasks"]}
    if task not in sections:
        raise ValueError(
            f"sweep.objective is {options.objective!r}, but {point.describe()} predicts "
            f"{', '.join(sections)}; name one of its tasks"
        )
    value: float | None = sections[task]["metrics"][metric]["value"]
    return value


def write_sweep_report(options: SweepOptions, directory: SweepDir) -> Path:
    """Measures every point that ended and writes sweep.json and sweep.html; returns the page."""
    comparison = ComparisonContext(
        split=options.split,
        baseline="",
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        level=options.level,
        num_replicates=options.num_replicates,
    )
    fixed = json.loads((directory.path / "command.json").read_text(encoding="utf-8"))["fixed"]
    context = SweepContext(
        name=options.name,
        objective=options.objective,
        pareto=options.pareto,
        comparison=comparison,
        fixed=fixed,
    )
    points = [_swept(state, directory, options) for state in directory.states()]
    return write_groups(directory.path, "sweep", build_sweep_report(points, context))[1]


def _swept(state: PointState, directory: SweepDir, options: SweepOptions) -> SweptPoint:
    measurement = None
    if state.state == "finished":
        folder = RunDir(directory.run(state.point)).evaluation(options.split)
        # one run in memory at a time
        measurement = measure_run(
            read_predictions(folder / "predictions.parquet"),
            num_replicates=options.num_replicates,
            seed=0,
        )
    return SweptPoint(
        name=state.point.name,
        group=state.point.without(SEED_KEY).describe(),
        values=state.values,
        state=state.state,
        reason=state.reason,
        seconds=state.seconds,
        measurement=measurement,
    )
