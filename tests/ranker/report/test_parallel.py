from ranker.report.parallel import PLOT_BOTTOM, PLOT_TOP, parallel_plot


def test_axes_and_strands() -> None:
    points = [{"lr": "1e-4", "sequence": "din"}, {"lr": "1e-2", "sequence": "pool"}]
    plot = parallel_plot(points, [0.7, 0.6], "ctr.auc", best=0)
    assert [axis.title for axis in plot.axes] == ["lr", "sequence", "ctr.auc"]
    assert [tick.label for tick in plot.axes[1].ticks] == ["din", "pool"]
    assert [strand.best for strand in plot.strands] == [False, True]
    assert plot.strands[1].name == "lr=1e-4, sequence=din"
    # the smallest rate is at the bottom, the best objective at the top
    assert f",{PLOT_BOTTOM}" in plot.strands[1].path.split("L")[0]
    assert plot.strands[1].path.endswith(f",{PLOT_TOP}")


def test_one_value_is_in_the_middle() -> None:
    plot = parallel_plot([{"a": "x", "b": "1"}] * 2, [0.5, 0.5], "m", best=0)
    middle = (PLOT_TOP + PLOT_BOTTOM) / 2
    assert all(tick.position == middle for axis in plot.axes for tick in axis.ticks)


def test_rates_far_apart_get_a_logarithmic_axis() -> None:
    points = [{"lr": rate} for rate in ("0.0001", "0.001", "0.01")]
    ticks = parallel_plot(points, [1, 2, 3], "m", best=2).axes[0].ticks
    middle = (PLOT_TOP + PLOT_BOTTOM) / 2
    assert abs(ticks[1].position - middle) < 1e-6
