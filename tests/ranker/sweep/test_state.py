from pathlib import Path

import pytest

from ranker.sweep.space import Point
from ranker.sweep.state import PointState, SweepDir


def test_states_are_kept(tmp_path: Path) -> None:
    directory = SweepDir(tmp_path)
    point = Point(values={"seed": "1"})
    assert directory.read_state(point) is None
    state = PointState(values=point.values, state="failed", seconds=1.5, reason="no\nluck")
    directory.write_state(state)
    assert directory.read_state(point) == state
    assert directory.states() == [state]
    assert directory.states()[0].point == point


def test_a_folder_belongs_to_one_command(tmp_path: Path) -> None:
    directory = SweepDir(tmp_path)
    directory.begin(["b=2", "a=1"], ["seed", "lr"])
    directory.begin(["a=1", "b=2"], ["lr", "seed"])
    with pytest.raises(ValueError, match=r"whose fixed are a=1 b=2, not a=3; .* sweep\.name"):
        directory.begin(["a=3"], ["lr", "seed"])
    with pytest.raises(ValueError, match=r"whose keys are lr seed, not lr; .* sweep\.name"):
        directory.begin(["a=1", "b=2"], ["lr"])
