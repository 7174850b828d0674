from pathlib import Path

import numpy as np

from scripts.measured_runs import render_interval, train_and_predict, train_best


def test_a_run_is_scored_with_its_best_checkpoint(tiny_dataset: Path, tmp_path: Path) -> None:
    overrides = [
        "experiment=synthetic_din",
        f"dataset.path={tiny_dataset}",
        f"run_root={tmp_path}",
        "name=x",
        "trainer.device=cpu",
        "trainer.max_steps=6",
        "loader.batch_size=16",
    ]
    with train_best(overrides) as best:
        first = best.predict()
    # a run that was finished is taken as it is
    assert best.job.run_dir == tmp_path / "x"
    assert best.job.run_dir.is_dir()
    again = train_and_predict(overrides)
    task = next(iter(first.tasks))
    np.testing.assert_array_equal(again.tasks[task].logit, first.tasks[task].logit)
    assert len(first.sample_id) > 0
    assert not best.job.run_dir.exists()


def test_an_interval_is_students() -> None:
    # standard error 0.1, t with 2 degrees of freedom 4.3027
    values = np.array([0.0, 0.3, 0.3]) + 0.1
    assert render_interval(values) == "+0.3000 [-0.1303, +0.7303]"
    assert render_interval(values[:1]) == "+0.1000"
