import pytest
from hydra import compose, initialize_config_dir

from scripts.measured_runs import CONFIGS
from scripts.real_data import COMPARISONS, Comparison, render_table


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_method_composes(name: str) -> None:
    comparison = COMPARISONS[name]
    needed = ["dataset.path=x", "name=x"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        for overrides in comparison.methods.values():
            config = compose("train", [*comparison.common, *overrides, *needed])
            assert config.trainer.monitor in (*comparison.metrics, "ctr.gauc")


def test_a_metric_is_compared_with_the_first_method_that_has_it() -> None:
    comparison = Comparison(
        common=(), methods={"a": (), "b": (), "c": ()}, metrics=("ctr.auc", "cvr.auc")
    )
    ctr, cvr = {"a": [0.5, 0.6, 0.7], "c": [0.52, 0.62, 0.75]}, {"b": [0.8] * 3, "c": [0.9] * 3}
    results = {
        f"{method} {seed}": {
            name: values[method][seed]
            for name, values in (("ctr.auc", ctr), ("cvr.auc", cvr))
            if method in values
        }
        for method in "abc"
        for seed in range(3)
    }
    # t with 2 degrees of freedom: 4.3027; standard error of (.02, .02, .05) is .01
    assert render_table(results, comparison, [0, 1, 2]).splitlines()[2:] == [
        "| a | 0.6000 |  |",
        "| b |  | 0.8000 |",
        "| c | 0.6300 (+0.0300 [-0.0130, +0.0730]) | 0.9000 (+0.1000 [+0.1000, +0.1000]) |",
    ]
