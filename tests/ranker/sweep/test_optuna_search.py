from pathlib import Path
from typing import Any

import pytest

from ranker.sweep.optuna_search import OptunaSearch
from ranker.sweep.space import Parameter

pytest.importorskip("optuna", reason="the extra `sweep` (Optuna) is not installed")

PARAMETERS = [
    Parameter(key="lr", low=1e-4, high=1e-1, log=True),
    Parameter(key="units", low=4, high=8, integer=True),
    Parameter(key="sequence", choices=["din", "mean_pool"]),
]


def start(folder: Path, **options: Any) -> OptunaSearch:
    search = OptunaSearch(**{"num_points": 12, "num_startup": 4, **options})
    search.start(PARAMETERS, folder, more_is_better=True)
    return search


def test_points_stay_in_their_ranges_and_end(tmp_path: Path) -> None:
    search = start(tmp_path)
    names = set()
    while (point := search.ask()) is not None:
        assert 1e-4 <= float(point.values["lr"]) <= 1e-1
        assert point.values["units"] in "45678"
        assert point.values["sequence"] in ("din", "mean_pool")
        names.add(point.name)
        search.tell(point, float(point.values["units"]), pruned=False)
    assert search.total() == 12
    assert len(names) > 6


def test_an_unfinished_point_is_proposed_again(tmp_path: Path) -> None:
    search = start(tmp_path)
    first, lost = search.ask(), search.ask()
    assert first is not None
    search.tell(first, 1.0, pruned=False)
    assert lost is not None
    search.should_stop(lost, [(1, 0.5)])
    again = start(tmp_path)
    assert again.total() == 11
    assert again.ask() == lost
    # what was reported before the stop is read again from the run's records; that is no warning
    again.should_stop(lost, [(1, 0.5), (2, 0.6)])
    new = again.ask()
    assert new not in (first, lost)
    # the points of all launches count
    count = 3
    while again.ask() is not None:
        count += 1
    assert count == 12


def test_points_below_the_median_are_given_up(tmp_path: Path) -> None:
    search = start(tmp_path)
    for _ in range(4):
        point = search.ask()
        assert point is not None
        assert not search.should_stop(point, [(1, 0.7), (2, 0.8)])
        search.tell(point, 0.8, pruned=False)
    bad = search.ask()
    assert bad is not None
    assert not search.should_stop(bad, [])
    assert search.should_stop(bad, [(1, 0.5)])
    search.tell(bad, None, pruned=True)
    failed = search.ask()
    assert failed is not None
    search.tell(failed, None, pruned=False)
    states = [trial.state.name for trial in search._study.trials]
    assert states == ["COMPLETE"] * 4 + ["PRUNED", "FAIL"]


def test_nothing_is_given_up_without_pruning(tmp_path: Path) -> None:
    search = start(tmp_path, prune=False)
    for score in (0.8, 0.8, 0.8, 0.8, 0.8, 0.1):
        point = search.ask()
        assert point is not None
        assert not search.should_stop(point, [(1, score)])
        search.tell(point, score, pruned=False)


def test_bad_counts_are_named() -> None:
    with pytest.raises(ValueError, match="num_points is 0"):
        OptunaSearch(num_points=0)
