from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from ranker.config import to_plain
from ranker.config_reader import ConfigError
from ranker.evaluation_config import build_comparison, build_report_job
from ranker.metrics.lift import Lift
from ranker.metrics.roc import McClishAuc
from ranker.metrics.top_k import HitRate, MeanReciprocalRank, Ndcg


def plain(project_root: Path, name: str, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(project_root / "configs"), version_base="1.3"):
        return to_plain(compose(name, list(overrides)))


def test_a_report_config_names_columns_and_metrics(project_root: Path) -> None:
    config = plain(
        project_root,
        "report",
        "predictions=x.parquet",
        "report=ranking",
        "columns.user=uid",
        "columns.slices=[land]",
        "+tasks.ctr={label: y, probability: p}",
        "+negative_sampling_rates.ctr=0.1",
    )
    options, columns, metrics = build_report_job(config)
    assert options.predictions == "x.parquet"
    assert options.negative_sampling_rates == {"ctr": 0.1}
    assert columns.user == "uid"
    assert columns.tasks["ctr"].probability == "p"
    kinds = [McClishAuc, Lift, Ndcg, HitRate, MeanReciprocalRank]
    assert [type(metric) for metric in metrics.values()] == kinds


def test_a_comparison_takes_runs_or_groups(project_root: Path) -> None:
    assert build_comparison(plain(project_root, "compare", "runs=[a,b]")).runs == ["a", "b"]
    grouped = plain(project_root, "compare", "runs={x: [a,b], y: [c]}", "baseline=y")
    assert build_comparison(grouped).runs == {"x": ["a", "b"], "y": ["c"]}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+tasks.ctr={label: y}"], r"tasks\.ctr: give the column of the probability"),
        (["+tasks.ctr={label: y, prob: p}"], r"unknown key tasks\.ctr\.prob"),
        (["+columns.usr=x"], r"unknown key columns\.usr"),
        (["+report.metrics.k={_target_: ranker.metrics.top_k.Ndcg, k: 0}"], r"metrics\.k: k is 0"),
        (["+report.metrics.k={_target_: os.system}"], r"only classes under ranker"),
        (["+report.metric=1"], r"unknown key report\.metric; did you mean 'metrics'"),
        (["time_unit=h"], "time_unit is 'h'"),
    ],
)
def test_each_problem_of_a_report_is_named(
    project_root: Path, overrides: list[str], message: str
) -> None:
    config = plain(project_root, "report", "predictions=x.parquet", *overrides)
    with pytest.raises(ConfigError, match=message):
        build_report_job(config)


def test_problems_of_a_comparison_are_named(project_root: Path) -> None:
    with pytest.raises(ConfigError, match=r"compare: runs has 1 entries"):
        build_comparison(plain(project_root, "compare", "runs=[a]"))
    with pytest.raises(ConfigError, match=r"unknown key compare\.run; did you mean 'runs'"):
        build_comparison(plain(project_root, "compare", "runs=[a,b]", "+run=c"))
