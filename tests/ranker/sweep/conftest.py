import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ranker.report.context import ReportContext, TaskContext
from ranker.report.predictions import Predictions, TaskPredictions, write_predictions
from ranker.report.report import build_report
from ranker.sweep.options import SweepOptions
from ranker.sweep.space import Point
from ranker.sweep.state import SweepDir


def predict(noise: float, seed: int) -> Predictions:
    """Clicks and a model that knows them up to its noise."""
    size = 1200
    world = np.random.default_rng(99)
    utility = world.normal(size=size)
    click = world.random(size) < 1 / (1 + np.exp(-utility))
    drawn = np.random.default_rng(seed).normal(0, noise, size)
    logit = (utility + drawn).astype(np.float32)
    chance = (1 / (1 + np.exp(-logit.astype(np.float64)))).astype(np.float32)
    ids = np.arange(size)
    return Predictions(
        sample_id=ids,
        user=ids % 60,
        request=ids,
        group=ids % 60,
        time=ids,
        domain=ids * 0,
        weight=np.ones(size),
        tasks={
            "ctr": TaskPredictions(label=click.astype(np.float32), logit=logit, probability=chance)
        },
    )


class FakePoint:
    """Ends at once: finished with predictions of this noise, or failed."""

    def __init__(self, point: Point, options: SweepOptions) -> None:
        self.point, self.options = point, options
        self.seconds = 1.0
        self.stopped = False

    def poll(self) -> str | None:
        if self.point.values.get("noise") == "broken":
            return "exit code 2: broken noise"
        if self.point.values.get("noise") == "slow" and not self.stopped:
            return None
        noise = float(self.point.values.get("noise", 0))
        run = SweepDir(self.options.directory).run(self.point)
        folder = run / "evaluations" / self.options.split
        predictions = predict(noise, int(self.point.values.get("seed", 0)))
        write_predictions(folder / "predictions.parquet", predictions)
        context = ReportContext(
            run="r", split="test", tasks=[TaskContext(name="ctr")], num_replicates=2
        )
        report = build_report(predictions, context)
        (folder / "report.json").write_text(json.dumps(report))
        return ""

    def stop(self) -> None:
        self.stopped = True


class FakeLauncher:
    """Remembers what it launched."""

    def __init__(self, options: SweepOptions) -> None:
        self.options = options
        self.launched: list[Point] = []

    def launch(self, point: Point) -> FakePoint:
        self.launched.append(point)
        return FakePoint(point, self.options)


@pytest.fixture
def make_launcher() -> Callable[[SweepOptions], FakeLauncher]:
    return FakeLauncher


@pytest.fixture
def options(tmp_path: Path) -> SweepOptions:
    return SweepOptions(name="s", root=str(tmp_path), objective="ctr.auc", num_replicates=50)
