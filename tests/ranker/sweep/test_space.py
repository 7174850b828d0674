import pytest

from ranker.sweep.space import MAX_NAME, Parameter, Point, grid_points


def test_grid_is_the_product_in_order() -> None:
    points = grid_points(
        [Parameter(key="a.b", choices=["1", "2"]), Parameter(key="s", choices=["x", "y"])]
    )
    assert [point.overrides for point in points] == [
        ["a.b=1", "s=x"],
        ["a.b=1", "s=y"],
        ["a.b=2", "s=x"],
        ["a.b=2", "s=y"],
    ]
    assert grid_points([]) == [Point()]


def test_a_range_needs_a_search() -> None:
    with pytest.raises(ValueError, match=r"lr has a range; .* search with sweep=optuna"):
        grid_points([Parameter(key="lr", low=0, high=1)])


def test_names_are_readable_safe_and_distinct() -> None:
    point = Point(values={"optimizer.dense_lr": "1e-3", "sequence": "[din,mean_pool]"})
    assert point.name.startswith("dense_lr-1e-3__sequence-_din_mean_pool")
    assert point.name == Point(values=dict(point.values)).name
    # the same letters, another value
    assert point.name != Point(values={**point.values, "sequence": "[din mean_pool]"}).name
    hostile = Point(values={"x": "../../etc/passwd;rm -rf $HOME", "y": "a" * 500})
    assert "/" not in hostile.name
    assert len(hostile.name) <= MAX_NAME + 7


def test_points_of_one_group_share_everything_but_the_seed() -> None:
    one, other = (Point(values={"lr": "1", "seed": seed}) for seed in "01")
    assert one.without("seed") == other.without("seed")
    assert one.without("seed").describe() == "lr=1"
