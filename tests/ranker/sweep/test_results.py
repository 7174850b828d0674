from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ranker.sweep.options import SweepOptions
from ranker.sweep.results import read_objective
from ranker.sweep.space import Point
from ranker.sweep.state import SweepDir


def test_the_objective_is_read_from_the_report(
    options: SweepOptions, make_launcher: Callable[[SweepOptions], Any]
) -> None:
    point = Point(values={"noise": "0.5"})
    make_launcher(options).launch(point).poll()
    directory = SweepDir(options.directory)
    value = read_objective(directory, point, options)
    assert value is not None
    assert 0.5 < value < 1
    with pytest.raises(ValueError, match=r"'cvr\.auc', but noise=0\.5 predicts ctr"):
        read_objective(directory, point, replace(options, objective="cvr.auc"))
