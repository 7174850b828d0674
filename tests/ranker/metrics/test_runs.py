import numpy as np

from ranker.metrics.runs import run_starts, score_runs


def test_collapses_equal_scores() -> None:
    runs = score_runs([0.5, 0.2, 0.5, 0.9], [1, 0, 0, 1], [1.0, 2.0, 3.0, 4.0])
    assert runs.scores.tolist() == [0.2, 0.5, 0.9]
    assert runs.positive.tolist() == [0.0, 1.0, 4.0]
    assert runs.negative.tolist() == [2.0, 3.0, 0.0]
    assert runs.counts.tolist() == [1, 2, 1]
    assert runs.below().tolist() == [0.0, 2.0, 5.0]
    assert runs.above().tolist() == [5.0, 4.0, 0.0]
    assert (runs.rows, runs.positives, runs.weighted) == (4, 2, True)


def test_no_rows_are_no_runs() -> None:
    runs = score_runs([], [])
    assert runs.rows == 0
    assert runs.below().tolist() == []


def test_run_starts() -> None:
    assert run_starts(np.array([3, 3, 5, 6, 6, 6])).tolist() == [0, 2, 3]
    assert run_starts(np.array([], dtype=float)).tolist() == []
