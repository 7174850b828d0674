"""On simulated impressions DIN learns what mean pooling cannot, and nothing beats the truth."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ranker.evaluate_run import EvaluationOptions, evaluate_run
from ranker.metrics.auc import auc
from ranker.report.compare import ComparisonContext, compare_predictions
from ranker.report.predictions import Predictions, read_predictions
from ranker_data.datasets.synthetic import SyntheticConverter
from ranker_data.simulator.world import WorldConfig

# few items with many events each, so that seconds of training are enough
WORLD = WorldConfig(num_users=600, num_items=100, num_categories=8, events_per_user=40)


def train_and_score(runner: Any, encoder: str) -> Predictions:
    overrides = [
        f"sequence=[{encoder}]",
        "dataset.exclude=[user_id]",
        "loader.batch_size=256",
        "loader.max_length=30",
        "trainer.epochs=3",
        "trainer.log_every_steps=100",
        "trainer.checkpoint_every_steps=1000",
    ]
    runner.alone(encoder, *overrides)
    folder = runner.run_root / encoder
    options = EvaluationOptions(run=str(folder), num_replicates=20)
    evaluate_run(runner.job(encoder, *overrides), options, {})
    return read_predictions(folder / "evaluations" / "test" / "predictions.parquet")


@pytest.mark.slow
def test_din_beats_mean_pooling_and_nothing_beats_the_truth(
    make_runner: Callable[[Path], Any], tmp_path: Path
) -> None:
    SyntheticConverter(world=WORLD, num_parts=4).prepare(None, tmp_path / "data")
    runner = make_runner(tmp_path / "data")
    runs = {encoder: train_and_score(runner, encoder) for encoder in ("din", "mean_pool")}
    context = ComparisonContext(split="test", baseline="mean_pool", num_replicates=400)
    comparison = compare_predictions(runs, context)
    metrics = {metric["name"]: metric["runs"] for metric in comparison["tasks"][0]["metrics"]}
    _, din = metrics["gauc"]
    assert din["difference"]["interval"]["low"] > 0
    truth = runs["din"].tasks["ctr"].truth
    label = runs["din"].tasks["ctr"].label
    assert truth is not None
    best = float(auc(truth, label))
    for run in metrics["auc"]:
        assert run["interval"]["low"] < best
