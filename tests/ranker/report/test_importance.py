import pytest

from ranker.report.importance import as_numbers, explained_shares


def test_shares_are_eta_squared() -> None:
    points = [{"a": x, "b": y} for x in "01" for y in "01"]
    # a adds 2, b adds 1, nothing else
    shares = explained_shares(points, [0, 1, 2, 3])
    assert shares == pytest.approx({"a": 4 / 5, "b": 1 / 5})


def test_many_numbers_are_put_into_bins() -> None:
    points = [{"lr": str(index / 100)} for index in range(100)]
    assert explained_shares(points, [float(index >= 60) for index in range(100)])[
        "lr"
    ] == pytest.approx(1)
    # every value alone would explain everything
    assert explained_shares(points, [float(index % 2) for index in range(100)])["lr"] < 0.1


def test_nothing_to_explain() -> None:
    assert explained_shares([], []) == {}
    assert explained_shares([{"a": "1"}, {"a": "2"}], [3, 3]) == {}
    assert explained_shares([{"a": "1"}, {"a": "1"}], [3, 4]) == {}
    assert as_numbers(["1", "x"]) is None
